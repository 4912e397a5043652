//! The kernel's neighbour table as a client, and its changes as they happen.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    os::fd::AsRawFd as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt,
            socket, sockopt,
        },
        time::{TimeVal, TimeValLike as _},
    },
};
use serde_json::Value;

use crate::{
    mac::Mac,
    ns::NetNs,
    time::{BootTime, wait_until},
};

/// One entry of a neighbour table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Neighbour {
    /// Whose.
    pub ip: IpAddr,
    /// On which interface.
    pub interface: String,
    /// The address, if it is known.
    pub mac: Option<Mac>,
    /// States such as `REACHABLE`, `STALE`, `FAILED`.
    pub states: Vec<String>,
}

/// The neighbour table of `ns`.
///
/// # Errors
///
/// If `ip` fails.
pub fn neighbours(ns: &NetNs) -> Result<Vec<Neighbour>> {
    let table = ns.ip_json("neigh show nud all")?;
    let text = |entry: &Value, key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
    let mut found = Vec::new();
    for entry in table.as_array().into_iter().flatten() {
        let ip = text(entry, "dst").with_context(|| format!("no dst in {entry}"))?;
        found.push(Neighbour {
            ip: ip.parse().with_context(|| format!("{ip:?} in a neighbour table"))?,
            interface: text(entry, "dev").unwrap_or_default(),
            mac: text(entry, "lladdr").map(|mac| mac.parse()).transpose()?,
            states: entry
                .get("state")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(|s| s.as_str().map(str::to_owned))
                .collect(),
        });
    }
    Ok(found)
}

/// The hardware address that `ns` would send frames for `ip` to.
///
/// # Errors
///
/// If `ip` fails.
pub fn neighbour(ns: &NetNs, ip: IpAddr) -> Result<Option<Mac>> {
    Ok(neighbours(ns)?.into_iter().find(|n| n.ip == ip).and_then(|n| n.mac))
}

/// Forgets what `ns` knows of `ip`, sends a datagram to it, and so lets the kernel resolve it, as any program's first
/// packet does. Returns the hardware address.
///
/// # Errors
///
/// If it is not resolved within `deadline`.
pub fn resolve(ns: &NetNs, ip: IpAddr, deadline: Duration) -> Result<Mac> {
    for entry in neighbours(ns)?.iter().filter(|n| n.ip == ip) {
        ns.ip(&format!("neigh del {ip} dev {}", entry.interface))?;
    }
    let any: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let knock = || {
        ns.run(|| {
            let socket = UdpSocket::bind((any, 0))?;
            // Port 9 is "discard". Errors come from earlier attempts and change nothing.
            socket.send_to(b"", (ip, 9)).ok();
            Ok(())
        })
    };
    wait_until(&format!("a neighbour entry for {ip}"), deadline, || {
        match knock().and_then(|()| neighbour(ns, ip)) {
            Ok(mac) => mac.map(Ok),
            Err(e) => Some(Err(e)),
        }
    })?
}

/// A change of a neighbour table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// When it was heard of.
    pub at: BootTime,
    /// Whose entry.
    pub ip: IpAddr,
    /// Its address now.
    pub mac: Option<Mac>,
    /// True if the entry was deleted.
    pub deleted: bool,
}

/// A thread that records changes of a namespace's neighbour table until it is dropped.
pub struct NeighbourWatch {
    changes: Arc<Mutex<Vec<Change>>>,
    run: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl NeighbourWatch {
    /// Begins to watch.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the netlink socket.
    pub fn start(ns: &NetNs) -> Result<Self> {
        let socket = ns.run(|| {
            let kind = SockType::Raw;
            let fd =
                socket(AddressFamily::Netlink, kind, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
            bind(fd.as_raw_fd(), &NetlinkAddr::new(0, libc::RTMGRP_NEIGH.cast_unsigned()))?;
            setsockopt(&fd, sockopt::RcvBufForce, &(16 << 20))?;
            setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::milliseconds(20))?;
            Ok(fd)
        })?;
        let changes = Arc::new(Mutex::new(Vec::new()));
        let run = Arc::new(AtomicBool::new(true));
        let (sink, running) = (Arc::clone(&changes), Arc::clone(&run));
        let thread = thread::spawn(move || {
            let mut buffer = [0; 16384];
            while running.load(Ordering::Relaxed) {
                match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                    Ok(len) => {
                        let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
                        parse(BootTime::now(), &buffer[..len], &mut sink);
                    }
                    // ENOBUFS: changes were lost; a wait for one then ends at its deadline.
                    Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS) => {}
                    Err(_) => return,
                }
            }
        });
        Ok(Self { changes, run, thread: Some(thread) })
    }

    /// All changes so far.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the entry of `ip` gets the address `mac`, and returns that change (the first, if there were
    /// several since the watch began).
    ///
    /// # Errors
    ///
    /// If that does not happen within `deadline`.
    pub fn wait_for(&self, ip: IpAddr, mac: Mac, deadline: Duration) -> Result<Change> {
        wait_until(&format!("neighbour entry {ip} = {mac}"), deadline, || {
            self.changes().into_iter().find(|c| c.ip == ip && c.mac == Some(mac) && !c.deleted)
        })
    }
}

impl Drop for NeighbourWatch {
    fn drop(&mut self) {
        self.run.store(false, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Reads RTM_NEWNEIGH and RTM_DELNEIGH messages: nlmsghdr (16 bytes), ndmsg (12), attributes.
fn parse(at: BootTime, mut messages: &[u8], changes: &mut Vec<Change>) {
    while let Some(len) = u32_at(messages, 0) {
        let len = len as usize;
        let Some(message) = messages.get(..len).filter(|m| m.len() >= 28) else {
            return;
        };
        let deleted = match u16_at(message, 4) {
            Some(libc::RTM_NEWNEIGH) => Some(false),
            Some(libc::RTM_DELNEIGH) => Some(true),
            Some(_) | None => None,
        };
        let (mut ip, mut mac) = (None, None);
        let mut rest = &message[28..];
        while let (Some(size), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
            let Some(value) = rest.get(4..usize::from(size)) else {
                break;
            };
            match kind {
                libc::NDA_DST => ip = address(value),
                libc::NDA_LLADDR => mac = value.try_into().ok().map(Mac),
                _ => {}
            }
            rest = rest.get(usize::from(size).next_multiple_of(4)..).unwrap_or_default();
        }
        if let (Some(deleted), Some(ip)) = (deleted, ip) {
            changes.push(Change { at, ip, mac, deleted });
        }
        messages = messages.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
}

fn address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(value).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(value).ok()?)),
        _ => None,
    }
}

fn u16_at(b: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(b.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(b.get(at..at + 4)?.try_into().ok()?))
}
