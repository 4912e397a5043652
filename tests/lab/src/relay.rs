//! A way into a namespace for those outside of it.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::{fd::AsFd as _, unix::net::UnixStream},
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

/// Connects to a TCP port (`127.0.0.1:6443`) or a socket (its path), and passes on what comes on standard input there, and
/// what comes from there to standard output, until that ends.
///
/// # Errors
///
/// If nobody listens there.
pub fn connect(server: &str) -> Result<()> {
    // Not through the standard library's buffers.
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    match server.parse::<SocketAddr>() {
        Ok(address) => {
            let stream = TcpStream::connect(address).with_context(|| format!("nobody is at {address}"))?;
            stream.set_nodelay(true)?;
            let (to, end) = (stream.try_clone()?, stream.try_clone()?);
            exchange((input, output), (stream, to), move || end.shutdown(Shutdown::Write))
        }
        Err(_) => {
            let stream = UnixStream::connect(server).with_context(|| format!("nobody is at {server}"))?;
            let (to, end) = (stream.try_clone()?, stream.try_clone()?);
            exchange((input, output), (stream, to), move || end.shutdown(Shutdown::Write))
        }
    }
}

/// Until the server ends it.
fn exchange<S: Read + Write + Send + 'static>(
    (mut input, mut output): (File, File),
    (mut from, mut to): (S, S),
    end: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Result<()> {
    thread::spawn(move || io::copy(&mut input, &mut to).and_then(|_| end()));
    io::copy(&mut from, &mut output)?;
    Ok(())
}
