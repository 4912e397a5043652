//! Raw Ethernet sockets with the kernel's receive timestamps.

use std::{
    io::IoSliceMut,
    os::fd::{AsRawFd as _, OwnedFd, RawFd},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    errno::Errno,
    net::if_::if_nametoindex,
    sys::{
        socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt},
        time::{TimeVal, TimeValLike as _},
    },
};

use crate::{
    ns::NetNs,
    time::{BootTime, RealTime},
};

/// EtherType of ARP.
pub(crate) const ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub(crate) const IPV6: u16 = 0x86dd;
/// All EtherTypes, tagged frames included.
pub(crate) const ALL: u16 = 0x0003;

/// A packet socket on one interface of the current namespace. It does not hear what itself or this host sends.
pub(crate) struct PacketSocket {
    fd: OwnedFd,
    clock: RealTime,
}

impl PacketSocket {
    /// Hears frames of `ethertype`; each wait for one ends after `timeout`.
    pub(crate) fn open(interface: &str, ethertype: u16, timeout: Duration) -> Result<Self> {
        let index = if_nametoindex(interface).with_context(|| format!("no interface {interface}"))?;
        let fd = open_bound(index, ethertype).with_context(|| format!("a packet socket on {interface}"))?;
        setsockopt(&fd, sockopt::ReceiveTimestampns, &true)?;
        // For floods on a busy machine; the memory is used only when needed.
        setsockopt(&fd, sockopt::RcvBufForce, &(64 << 20))?;
        let micros = i64::try_from(timeout.as_micros())?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::microseconds(micros))?;
        Ok(Self { fd, clock: RealTime::new() })
    }

    pub(crate) fn send(&self, frame: &[u8]) -> Result<(), Errno> {
        nix::sys::socket::send(self.fd.as_raw_fd(), frame, MsgFlags::empty()).map(|_| ())
    }

    /// The next frame: its length in `buffer` and when it came. `None` after the timeout.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> Result<Option<(usize, BootTime)>> {
        let mut control = nix::cmsg_space!(libc::timespec);
        let mut parts = [IoSliceMut::new(buffer)];
        let fd = self.fd.as_raw_fd();
        let message = match recvmsg::<()>(fd, &mut parts, Some(&mut control), MsgFlags::empty()) {
            Ok(message) => message,
            // ENETDOWN: the interface went down, which tests do; it may come back.
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => return Ok(None),
            Err(e) => return Err(e).context("receiving on a packet socket"),
        };
        let at = message.cmsgs()?.find_map(|c| {
            if let ControlMessageOwned::ScmTimestampns(at) = c { Some(Duration::from(at)) } else { None }
        });
        let at = u64::try_from(at.context("a frame without a timestamp")?.as_nanos())?;
        Ok(Some((message.bytes, self.clock.to_boot(at))))
    }

    /// Frames that this socket had no room for since the last call.
    pub(crate) fn lost(&self) -> Result<u32> {
        lost(self.fd.as_raw_fd())
    }
}

/// Sends one Ethernet frame, as it is, from an interface of `ns`. Returns when that began.
///
/// # Errors
///
/// If there is no such interface, it is down, or there is no right to open packet sockets.
pub fn send(ns: &NetNs, interface: &str, frame: &[u8]) -> Result<BootTime> {
    ns.run(|| {
        let socket = PacketSocket::open(interface, ALL, Duration::from_millis(1))?;
        let start = BootTime::now();
        socket.send(frame).with_context(|| format!("sending from {interface}"))?;
        Ok(start)
    })
}

/// Sends Ethernet frames one after the other, as they are, from an interface of `ns`.
///
/// # Errors
///
/// Like [`send`]; those after the one that failed are not sent.
pub fn send_all(ns: &NetNs, interface: &str, frames: &[Vec<u8>]) -> Result<()> {
    ns.run(|| {
        let socket = PacketSocket::open(interface, ALL, Duration::from_millis(1))?;
        frames
            .iter()
            .try_for_each(|frame| socket.send(frame).with_context(|| format!("sending from {interface}")))
    })
}

#[expect(unsafe_code, reason = "no safe binding of AF_PACKET addresses takes an interface index")]
fn open_bound(index: u32, ethertype: u16) -> Result<OwnedFd> {
    use std::os::fd::FromRawFd as _;

    // With protocol 0 nothing is received before the bind.
    // SAFETY: plain system call without pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    Errno::result(fd)?;
    // SAFETY: the kernel has just returned this descriptor, and nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let ignore: libc::c_int = 1;
    // SAFETY: the pointer and length are those of `ignore`, which outlives the call.
    Errno::result(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_IGNORE_OUTGOING,
            (&raw const ignore).cast(),
            length::<libc::c_int>(),
        )
    })?;
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET)?,
        sll_protocol: ethertype.to_be(),
        sll_ifindex: i32::try_from(index)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the pointer and length are those of `address`, which outlives the call.
    Errno::result(unsafe {
        libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length::<libc::sockaddr_ll>())
    })?;
    Ok(fd)
}

fn lost(fd: RawFd) -> Result<u32> {
    let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut len = length::<libc::tpacket_stats>();
    #[expect(unsafe_code, reason = "no safe binding of PACKET_STATISTICS")]
    // SAFETY: both pointers are to locals that outlive the call, and `len` is the size of `stats`.
    Errno::result(unsafe {
        libc::getsockopt(fd, libc::SOL_PACKET, libc::PACKET_STATISTICS, (&raw mut stats).cast(), &raw mut len)
    })?;
    ensure!(len == length::<libc::tpacket_stats>(), "the kernel's packet statistics have {len} bytes");
    Ok(stats.tp_drops)
}

const fn length<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}
