//! Servers that say whose they are, and clients that ask them: does a VIP's data flow, and to whom?

mod web;

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};

pub use self::web::{Conversation, Conversed, Exchange, serve_web};
use crate::ns::NetNs;

/// Answers every TCP connection to any address of this namespace at `port`, both families, with `name`, for ever.
///
/// # Errors
///
/// If the port is taken.
pub fn serve(name: &str, port: u16) -> Result<()> {
    let listener = listen(port)?;
    loop {
        // One client's failure is its own; the next connection shows whether the server still works.
        greet(listener.accept().map(|(stream, _)| stream), name).ok();
    }
}

fn listen(port: u16) -> Result<TcpListener> {
    // `::` takes IPv4 connections, too.
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).with_context(|| format!("listening at TCP port {port}"))
}

fn greet(stream: std::io::Result<TcpStream>, name: &str) -> std::io::Result<()> {
    let mut stream = stream?;
    stream.set_nonblocking(false)?;
    stream.write_all(name.as_bytes())
}

/// Asks a server who it is. Returns what it says.
///
/// # Errors
///
/// If it cannot be reached or does not answer within `timeout`.
pub fn ask(ns: &NetNs, server: SocketAddr, timeout: Duration) -> Result<String> {
    ns.run(|| {
        let mut stream = TcpStream::connect_timeout(&server, timeout)
            .with_context(|| format!("connecting to {server}"))?;
        stream.set_read_timeout(Some(timeout))?;
        let mut name = String::new();
        stream.read_to_string(&mut name).with_context(|| format!("reading from {server}"))?;
        Ok(name)
    })
}

/// Sends one datagram to a server and returns the answer. See [`Server::udp`].
///
/// # Errors
///
/// If there is none within `timeout`.
pub fn ask_udp(ns: &NetNs, server: SocketAddr, timeout: Duration) -> Result<String> {
    ns.run(|| {
        let any: SocketAddr = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse()?;
        let socket = UdpSocket::bind(any)?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(timeout))?;
        socket.send(b"who")?;
        let mut buffer = [0; 256];
        let len = socket.recv(&mut buffer).with_context(|| format!("an answer from {server}"))?;
        Ok(String::from_utf8_lossy(&buffer[..len]).into_owned())
    })
}

/// A server on a thread in a namespace, until it is dropped.
pub struct Server {
    run: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Answers TCP connections to any address at `port` with `name`.
    ///
    /// # Errors
    ///
    /// If the port is taken.
    pub fn tcp(ns: &NetNs, name: &str, port: u16) -> Result<Self> {
        let listener = ns.run(|| listen(port))?;
        listener.set_nonblocking(true)?;
        let name = name.to_owned();
        Ok(Self::start(move || match listener.accept() {
            Ok((stream, _)) => greet(Ok(stream), &name),
            Err(e) => Err(e),
        }))
    }

    /// Answers datagrams to `address` with `name`, from that same address.
    ///
    /// # Errors
    ///
    /// If it cannot be bound.
    pub fn udp(ns: &NetNs, name: &str, address: SocketAddr) -> Result<Self> {
        let socket = ns.run(|| UdpSocket::bind(address).with_context(|| format!("binding to {address}")))?;
        socket.set_nonblocking(true)?;
        let name = name.to_owned();
        Ok(Self::start(move || {
            let (_, from) = socket.recv_from(&mut [0; 256])?;
            socket.send_to(name.as_bytes(), from).map(|_| ())
        }))
    }

    /// Calls `serve_one` until dropped; it does not block.
    fn start(mut serve_one: impl FnMut() -> std::io::Result<()> + Send + 'static) -> Self {
        let run = Arc::new(AtomicBool::new(true));
        let running = Arc::clone(&run);
        let thread = thread::spawn(move || {
            while running.load(Ordering::Relaxed) {
                match serve_one() {
                    Err(e) if e.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(1)),
                    // One client's failure is its own.
                    Ok(()) | Err(_) => {}
                }
            }
        });
        Self { run, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.run.store(false, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
