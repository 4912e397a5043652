//! A slow way to the API server: a relay for each node, whose delay can be changed while it runs. (A kernel need not
//! have netem; this one works on all.)

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::sys::socket::{setsockopt, sockopt};

use crate::ns::NetNs;

/// Port of the first node's relay.
pub(super) const FIRST_PORT: u16 = 7001;
/// Ports up to this one may be relays.
pub(super) const LAST_PORT: u16 = 7099;
/// There may be so many.
pub(super) const MOST: u8 = (LAST_PORT + 1 - FIRST_PORT) as u8;

/// How long what is on its way takes, in ms each.
#[derive(Debug, Default)]
struct Delays {
    requests: AtomicU64,
    responses: AtomicU64,
}

/// A relay between one node and the API server.
#[derive(Debug)]
pub(super) struct Relay {
    delays: Arc<Delays>,
    run: Arc<AtomicBool>,
    address: SocketAddr,
    ns: NetNs,
}

impl Relay {
    /// Listens at `listen` in `ns` and passes everything on to `server`, at first without delay.
    pub(super) fn start(ns: &NetNs, listen: SocketAddr, server: SocketAddr) -> Result<Self> {
        let delays = Arc::new(Delays::default());
        let run = Arc::new(AtomicBool::new(true));
        let (running, current) = (Arc::clone(&run), Arc::clone(&delays));
        ns.run(|| {
            let listener = TcpListener::bind(listen).with_context(|| format!("listening at {listen}"))?;
            // Stays in this namespace.
            thread::spawn(move || {
                while let Ok((client, _)) = listener.accept() {
                    if !running.load(Ordering::Relaxed) {
                        return;
                    }
                    let delays = Arc::clone(&current);
                    // A server that does not listen is one that hangs up.
                    thread::spawn(move || relay(client, server, &delays).ok());
                }
            });
            Ok(())
        })?;
        Ok(Self { delays, run, address: listen, ns: ns.clone() })
    }

    /// From now on, what the node sends takes this long, and what it is sent that long.
    pub(super) fn set(&self, requests: Duration, responses: Duration) {
        let millis = |delay: Duration| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.delays.requests.store(millis(requests), Ordering::Relaxed);
        self.delays.responses.store(millis(responses), Ordering::Relaxed);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.run.store(false, Ordering::Relaxed);
        // Wakes the listener; connections end with those who made them.
        self.ns.run(|| Ok(TcpStream::connect_timeout(&self.address, Duration::from_secs(1))?)).ok();
    }
}

fn relay(client: TcpStream, server: SocketAddr, delays: &Arc<Delays>) -> Result<()> {
    let server = match TcpStream::connect(server) {
        Ok(server) => server,
        Err(error) => {
            abort(&client);
            return Err(error.into());
        }
    };
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    let (there, back) = (Arc::clone(delays), Arc::clone(delays));
    pump(client.try_clone()?, server.try_clone()?, move || there.requests.load(Ordering::Relaxed));
    pump(server, client, move || back.responses.load(Ordering::Relaxed));
    Ok(())
}

/// Passes on what comes, in order, each piece as late as `delay` (ms) says when it comes; an end as well.
fn pump(mut from: TcpStream, mut to: TcpStream, delay: impl Fn() -> u64 + Send + 'static) {
    let (sender, pieces) = mpsc::channel::<(Instant, Option<Vec<u8>>)>();
    let (Ok(origin), Ok(target)) = (from.try_clone(), to.try_clone()) else {
        return;
    };
    thread::spawn(move || {
        for (due, piece) in pieces {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let passed = match piece {
                Some(bytes) => to.write_all(&bytes).is_ok(),
                None => to.shutdown(Shutdown::Write).is_ok(),
            };
            if !passed {
                abort(&origin);
            }
        }
    });
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = from.read(&mut buffer);
            let due = Instant::now() + Duration::from_millis(delay());
            let piece = match read {
                Ok(0) => None,
                Ok(len) => Some(buffer[..len].to_vec()),
                Err(_) => {
                    abort(&target);
                    return;
                }
            };
            let ended = piece.is_none();
            if sender.send((due, piece)).is_err() || ended {
                return;
            }
        }
    });
}

/// Ends a connection as a reset does.
fn abort(stream: &TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // If it has ended already, all the better.
    setsockopt(stream, sockopt::Linger, &linger).ok();
    stream.shutdown(Shutdown::Both).ok();
}
