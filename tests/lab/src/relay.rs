//! A way into a namespace for those outside of it.

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    thread,
};

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns};

/// Listens at 127.0.0.1 in the network namespace `outside` (a file), says `port N`, and passes connections on to a
/// `server` in this process's own, for ever.
///
/// # Errors
///
/// If that namespace cannot be entered, or there are no more connections.
pub fn relay(outside: &Path, server: SocketAddr) -> Result<()> {
    let outside = File::open(outside).with_context(|| format!("opening {}", outside.display()))?;
    let listener = thread::spawn(move || {
        setns(outside, CloneFlags::CLONE_NEWNET).context("entering the namespace outside")?;
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening there")
    });
    let listener = listener.join().map_err(|_panic| anyhow::anyhow!("a thread panicked"))??;
    println!("port {}", listener.local_addr()?.port());
    loop {
        let (client, _) = listener.accept()?;
        // One connection's failure is its own.
        thread::spawn(move || pass_on(client, server).ok());
    }
}

fn pass_on(client: TcpStream, server: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    let (from, to) = (server.try_clone()?, client.try_clone()?);
    let back = thread::spawn(move || pump(from, to));
    pump(client, server);
    back.join().ok();
    Ok(())
}

/// Passes on what comes until it ends, and the end.
fn pump(mut from: TcpStream, mut to: TcpStream) {
    let passed = io::copy(&mut from, &mut to);
    let ended = if passed.is_ok() { Shutdown::Write } else { Shutdown::Both };
    // If it has ended already, all the better.
    to.shutdown(ended).ok();
}
