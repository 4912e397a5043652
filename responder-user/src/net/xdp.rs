//! XDP programs on links by netlink: what kernels without an XDP `bpf_link` (before 5.9) offer, and what tells
//! why a driver refuses.

use std::{
    fs,
    os::fd::{AsRawFd as _, BorrowedFd, RawFd},
};

use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkExtentMask, LinkMessage, LinkXdp},
};
use nix::errno::Errno;

use super::{
    decode,
    link::{Link, XdpOnLink},
    netlink::{Connection, NetlinkError},
};

// linux/if_link.h
const XDP_FLAGS_UPDATE_IF_NOEXIST: u32 = 1 << 0;
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
const XDP_FLAGS_REPLACE: u32 = 1 << 4;
/// What stands for "no program".
const NONE: RawFd = -1;

/// Where a program is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the network stack, on any link.
    Generic,
}

impl Mode {
    fn flag(self) -> u32 {
        match self {
            Self::Native => XDP_FLAGS_DRV_MODE,
            Self::Generic => XDP_FLAGS_SKB_MODE,
        }
    }
}

/// Attaches `prog` to a link: in place of `expected`, atomically, or, without that, only if nothing is attached.
///
/// The program stays when this process ends.
///
/// Before Linux 5.7 the kernel cannot compare, and [`overwrite`] is used.
///
/// # Errors
///
/// `EBUSY` or `EEXIST` if another program is attached, `ENODEV`, `EPERM`, and whatever the driver says, with
/// its reason in [`NetlinkError::extack`].
pub fn attach(
    ifindex: u32,
    prog: BorrowedFd<'_>,
    mode: Mode,
    expected: Option<BorrowedFd<'_>>,
) -> Result<(), NetlinkError> {
    match expected {
        None => set(ifindex, prog.as_raw_fd(), mode.flag() | XDP_FLAGS_UPDATE_IF_NOEXIST, None),
        Some(expected) => replace(ifindex, Some(prog), mode, expected),
    }
}

/// Detaches the program of a link, whichever it is or, if that is given, only `expected`.
///
/// # Errors
///
/// `EEXIST` if the program is not the expected one, `EBUSY` if a `bpf_link` holds it, `ENODEV`, `EPERM`. None if
/// nothing was attached in this mode and nothing expected.
pub fn detach(ifindex: u32, mode: Mode, expected: Option<BorrowedFd<'_>>) -> Result<(), NetlinkError> {
    match expected {
        None => set(ifindex, NONE, mode.flag(), None),
        Some(expected) => replace(ifindex, None, mode, expected),
    }
}

fn replace(
    ifindex: u32,
    prog: Option<BorrowedFd<'_>>,
    mode: Mode,
    expected: BorrowedFd<'_>,
) -> Result<(), NetlinkError> {
    let fd = prog.map_or(NONE, |prog| prog.as_raw_fd());
    match set(ifindex, fd, mode.flag() | XDP_FLAGS_REPLACE, Some(expected)) {
        // How a kernel that does not know the flag refuses it. (If it was the driver that refused, it will
        // do so again.)
        Err(NetlinkError { errno: Errno::EINVAL, extack: None }) => overwrite(ifindex, prog, mode, expected),
        other => other,
    }
}

/// Puts `prog`, or nothing, in the place of `expected`, as well as it can be done before Linux 5.7: the switch
/// itself is atomic, but a program that another process attaches between the comparison and the switch is lost.
///
/// # Errors
///
/// Like [`attach`] and [`detach`].
pub fn overwrite(
    ifindex: u32,
    prog: Option<BorrowedFd<'_>>,
    mode: Mode,
    expected: BorrowedFd<'_>,
) -> Result<(), NetlinkError> {
    let expected = program_id(expected)?;
    let attached = query(ifindex)?.map(|xdp| xdp.prog_id);
    if attached != Some(expected) {
        let found = attached.map_or_else(|| "no program".to_owned(), |id| format!("program {id}"));
        let text = format!("{found} is attached, not the expected program {expected}");
        return Err(NetlinkError { errno: Errno::EEXIST, extack: Some(text) });
    }
    set(ifindex, prog.map_or(NONE, |prog| prog.as_raw_fd()), mode.flag(), None)
}

/// The kernel's id of a loaded program; `bpf(2)` tells it only to the privileged before Linux 5.8.
fn program_id(prog: BorrowedFd<'_>) -> Result<u32, NetlinkError> {
    fs::read_to_string(format!("/proc/self/fdinfo/{}", prog.as_raw_fd()))?
        .lines()
        .find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok())
        .ok_or(NetlinkError { errno: Errno::EBADF, extack: None })
}

/// The XDP program of a link, whoever attached it and however.
///
/// # Errors
///
/// `ENODEV` if there is no such link.
pub fn query(ifindex: u32) -> Result<Option<XdpOnLink>, NetlinkError> {
    Ok(link(ifindex)?.xdp)
}

/// A link as it is now, without its addresses.
///
/// # Errors
///
/// `ENODEV` if there is no such link.
pub fn link(ifindex: u32) -> Result<Link, NetlinkError> {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    message.attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
    let mut link = None;
    Connection::open()?.request(RouteNetlinkMessage::GetLink(message), |_, body| {
        link = decode::link(body);
    })?;
    link.ok_or(NetlinkError { errno: Errno::ENODEV, extack: None })
}

fn set(ifindex: u32, fd: RawFd, flags: u32, expected: Option<BorrowedFd<'_>>) -> Result<(), NetlinkError> {
    let mut xdp = vec![LinkXdp::Fd(fd), LinkXdp::Flags(flags)];
    // A file descriptor is never negative.
    xdp.extend(expected.map(|fd| LinkXdp::ExpectedFd(fd.as_raw_fd().unsigned_abs())));
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    message.attributes = vec![LinkAttribute::Xdp(xdp)];
    Connection::open()?.request(RouteNetlinkMessage::SetLink(message), |_, _| ())
}
