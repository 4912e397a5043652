//! What the kernel reports: claims of our VIPs by others, and log lines for debugging.

use std::{collections::BTreeMap, io, net::Ipv6Addr, os::fd::AsRawFd};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use bytes::Buf as _;
use responder_common::{
    layout::{Event, EventKind, LinkKey},
    outcome::Outcome,
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::{
    datapath::{maps::open_events, object::Object, pins::Pins},
    decision::plan::VipAt,
    journal::Happening,
};

/// Where reports come from.
pub(super) struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
    log: Option<AsyncFd<EbpfLogger<FrameLog>>>,
}

/// For each place the interface that it belongs to: its index and name.
pub(super) type Names = BTreeMap<LinkKey, (u32, String)>;

/// Which of the two has something.
pub(super) enum Ready {
    Ring,
    Log,
}

impl Events {
    pub(super) fn open(pins: &Pins, object: &mut Object, log: bool) -> Result<Self> {
        let ring = register(open_events(pins)?)?;
        let log = if log {
            let logger = EbpfLogger::init_with_logger(object.ebpf(), FrameLog)
                .context("cannot read the kernel side's log")?;
            Some(register(logger)?)
        } else {
            None
        };
        Ok(Self { ring, log })
    }

    /// Waits until there is something.
    pub(super) async fn ready(&mut self) -> io::Result<Ready> {
        match &mut self.log {
            None => {
                self.ring.readable().await?.clear_ready();
                Ok(Ready::Ring)
            }
            Some(log) => tokio::select! {
                guard = self.ring.readable() => {
                    guard?.clear_ready();
                    Ok(Ready::Ring)
                }
                guard = log.readable() => {
                    guard?.clear_ready();
                    Ok(Ready::Log)
                }
            },
        }
    }

    /// Takes what is there. `names` are those of the interfaces that places belong to, with their indexes.
    pub(super) fn take(&mut self, ready: Ready, names: &Names) -> Vec<(VipAt, Happening)> {
        match ready {
            Ready::Log => {
                if let Some(log) = &mut self.log {
                    log.get_mut().flush();
                }
                Vec::new()
            }
            Ready::Ring => {
                let mut happenings = Vec::new();
                while let Some(item) = self.ring.get_mut().next() {
                    happenings.extend(parse(&item, names));
                }
                happenings
            }
        }
    }
}

#[expect(unsafe_code, reason = "tokio cannot know what keeps a file descriptor open")]
fn register<T: AsRawFd>(source: T) -> Result<AsyncFd<T>> {
    // SAFETY: both kinds of sources own their descriptor, never exchange it, and close it when dropped, which
    // only the `AsyncFd` that takes them here does.
    Ok(unsafe { AsyncFd::register_with_interest(source, Interest::READABLE) }.map_err(io::Error::from)?)
}

/// Receives the kernel side's lines, "ifindex N outcome N", and puts the outcome's name there.
struct FrameLog;

impl log::Log for FrameLog {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = record.args().to_string();
        let mut numbers = line.split(' ').filter_map(|word| word.parse::<usize>().ok());
        match (numbers.next(), numbers.next().and_then(|n| Outcome::ALL.get(n))) {
            (Some(ifindex), Some(outcome)) => tracing::debug!(ifindex, outcome = outcome.name(), "frame"),
            _ => tracing::debug!(line, "kernel side"),
        }
    }

    fn flush(&self) {}
}

/// Reads one [`Event`] of the ring. `None` if it is of a kind that this program does not know.
fn parse(bytes: &[u8], names: &Names) -> Option<(VipAt, Happening)> {
    let event = read(bytes)?;
    let by = match event.kind {
        kind if kind == EventKind::ArpConflict as u32 => "arp",
        kind if kind == EventKind::NsConflict as u32 => "ns",
        kind if kind == EventKind::NaConflict as u32 => "na",
        kind => {
            tracing::debug!(kind, "unknown event");
            return None;
        }
    };
    let vip = Ipv6Addr::from(event.vip).to_canonical();
    let place = LinkKey { ifindex: event.ifindex, vlan: event.vlan };
    let unknown = || (event.ifindex, format!("if{}", event.ifindex));
    let (interface, link) = names.get(&place).cloned().unwrap_or_else(unknown);
    let at = VipAt::on(interface, vip);
    let claimer = responder_common::wire::Mac::new(event.claimer).to_string();
    Some((at, Happening::Conflict { vip, link, claimer, by: by.to_owned(), claims: event.conflicts }))
}

/// The fields in the order of [`Event`], in the host's byte order.
fn read(mut bytes: &[u8]) -> Option<Event> {
    if bytes.len() != size_of::<Event>() {
        tracing::debug!(len = bytes.len(), "event of another size");
        return None;
    }
    let mut event = Event {
        boot_ns: bytes.get_u64_ne(),
        kind: bytes.get_u32_ne(),
        ifindex: bytes.get_u32_ne(),
        vlan: bytes.get_u32_ne(),
        conflicts: bytes.get_u32_ne(),
        vip: [0; 16],
        claimer: [0; 6],
        reserved: 0,
    };
    bytes.copy_to_slice(&mut event.vip);
    bytes.copy_to_slice(&mut event.claimer);
    Some(event)
}
