//! Sends whole frames.

use std::{
    io, mem,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// A socket that sends frames on any link, through its queueing discipline and egress programs, and receives
/// nothing. Needs `CAP_NET_RAW`.
#[derive(Debug)]
pub struct PacketSender {
    socket: OwnedFd,
}

impl PacketSender {
    /// Opens the socket in the network namespace of this thread.
    ///
    /// # Errors
    ///
    /// `PermissionDenied` without `CAP_NET_RAW`; `EMFILE`, …
    pub fn new() -> io::Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        // Protocol 0 (`None`): no frame is ever queued on it.
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        Ok(Self { socket })
    }

    /// Hands `frame`, which begins with its Ethernet header, to the link.
    ///
    /// # Errors
    ///
    /// `ENETDOWN` while the link is down, `ENOBUFS` or `EAGAIN` where a queue is full, `ENXIO` if there is no such
    /// link, `EINVAL` for less than a header, `EMSGSIZE` beyond the MTU.
    pub fn send(&mut self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
        let [kind_high, kind_low] = *frame
            .get(12..14)
            .and_then(|kind| kind.first_chunk())
            .ok_or_else(|| invalid("a frame must have an Ethernet header of 14 bytes"))?;
        #[expect(unsafe_code, reason = "no crate offers this address of packet(7) for sending")]
        // SAFETY: `sockaddr_ll` is made of integers only, for which zero is a value.
        let mut to: libc::sockaddr_ll = unsafe { mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = i32::try_from(ifindex).map_err(io::Error::other)?;
        // Left out, old kernels would show the frame to egress programs as one of protocol 0.
        to.sll_protocol = u16::from_ne_bytes([kind_high, kind_low]);
        #[expect(unsafe_code, reason = "see above")]
        // SAFETY: both pointers are to live values and are given with their own sizes; the kernel only reads.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const to).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
