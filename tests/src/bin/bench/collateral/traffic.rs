//! Traffic of others between two namespaces: TCP, small datagrams, and datagrams that come back.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use responder_lab::NetNs;

/// A receiver that has heard nothing for so long is done.
const SILENCE: Duration = Duration::from_millis(50);
/// A connection over which nothing gets in this time hangs.
const HANGS: Duration = Duration::from_secs(10);
/// The payload of a frame of 64 bytes.
const SMALL: [u8; 18] = [0; 18];

/// Bytes a second that a client sends to a server over TCP.
pub(crate) fn tcp(host: &NetNs, client: &NetNs, server: Ipv4Addr, turn: Duration) -> Result<f64> {
    let listener = host.run(|| Ok(TcpListener::bind((server, 0))?))?;
    let to = listener.local_addr()?;
    let mut sender = client.run(|| Ok(TcpStream::connect_timeout(&to, HANGS)?))?;
    let (mut receiver, _) = listener.accept()?;
    sender.set_write_timeout(Some(HANGS))?;
    receiver.set_read_timeout(Some(HANGS))?;
    let start = Instant::now();
    thread::scope(|scope| {
        let reader = scope.spawn(move || -> Result<usize> {
            let (mut buffer, mut total) = (vec![0; 256 * 1024], 0);
            loop {
                match receiver.read(&mut buffer)? {
                    0 => return Ok(total),
                    more => total += more,
                }
            }
        });
        let block = vec![0; 128 * 1024];
        while start.elapsed() < turn {
            sender.write_all(&block).context("TCP to the host")?;
        }
        drop(sender);
        let total = reader.join().map_err(|_panic| anyhow!("the reader has panicked"))??;
        Ok(total as f64 / start.elapsed().as_secs_f64())
    })
}

/// Two UDP sockets, the second of which sends to the first.
fn datagrams(host: &NetNs, client: &NetNs, server: Ipv4Addr) -> Result<(UdpSocket, UdpSocket)> {
    let receiver = host.run(|| Ok(UdpSocket::bind((server, 0))?))?;
    let to = receiver.local_addr()?;
    let sender = client.run(|| {
        let sender = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        sender.connect(to)?;
        Ok(sender)
    })?;
    receiver.set_read_timeout(Some(SILENCE))?;
    sender.set_read_timeout(Some(SILENCE))?;
    Ok((receiver, sender))
}

fn is_silence(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Frames of 64 bytes a second that arrive at a server.
pub(crate) fn packets(host: &NetNs, client: &NetNs, server: Ipv4Addr, turn: Duration) -> Result<f64> {
    let (receiver, sender) = datagrams(host, client, server)?;
    let (start, done) = (Instant::now(), AtomicBool::new(false));
    thread::scope(|scope| {
        let reader = scope.spawn(|| -> Result<(u32, Duration)> {
            let (mut count, mut last) = (0_u32, start);
            loop {
                match receiver.recv(&mut [0; 64]) {
                    Ok(_) => (count, last) = (count + 1, Instant::now()),
                    Err(error) if is_silence(&error) && done.load(Ordering::Relaxed) => {
                        return Ok((count, last - start));
                    }
                    Err(error) if is_silence(&error) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        });
        let mut sent = Ok(0);
        while start.elapsed() < turn && sent.is_ok() {
            sent = (0..64).try_fold(0, |_, _| sender.send(&SMALL));
        }
        done.store(true, Ordering::Relaxed);
        sent.context("small packets to the host")?;
        let (count, took) = reader.join().map_err(|_panic| anyhow!("the reader has panicked"))??;
        Ok(f64::from(count) / took.max(turn).as_secs_f64())
    })
}

/// Times in µs until a datagram has come back, one after the other.
pub(crate) fn round_trips(
    host: &NetNs,
    client: &NetNs,
    server: Ipv4Addr,
    turn: Duration,
) -> Result<Vec<f64>> {
    let (echo, sender) = datagrams(host, client, server)?;
    let (start, done) = (Instant::now(), AtomicBool::new(false));
    thread::scope(|scope| {
        let reader = scope.spawn(|| -> Result<()> {
            let mut buffer = [0; 64];
            loop {
                match echo.recv_from(&mut buffer) {
                    Ok((length, from)) => {
                        echo.send_to(&buffer[..length], from)?;
                    }
                    Err(error) if is_silence(&error) && done.load(Ordering::Relaxed) => return Ok(()),
                    Err(error) if is_silence(&error) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        });
        let (mut trips, mut failed) = (vec![], None);
        while start.elapsed() < turn && failed.is_none() {
            let asked = Instant::now();
            match sender.send(&SMALL).and_then(|_| sender.recv(&mut [0; 64])) {
                Ok(_) => trips.push(asked.elapsed().as_secs_f64() * 1e6),
                Err(error) if is_silence(&error) => {}
                Err(error) => failed = Some(error),
            }
        }
        done.store(true, Ordering::Relaxed);
        if let Some(error) = failed {
            return Err(error).context("round trips to the host");
        }
        reader.join().map_err(|_panic| anyhow!("the echo has panicked"))??;
        Ok(trips)
    })
}
