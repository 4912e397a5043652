//! Receives frames of one kind on one link, for a while.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socket};
use socket2::{SockFilter, SockRef};
use tokio::io::{Interest, unix::AsyncFd};

/// IP protocol of VRRP, and of CARP.
pub const VRRP: u8 = 112;
const ICMPV6: u8 = 58;
/// ICMPv6 type of a Neighbor Advertisement.
const ADVERTISEMENT: u8 = 136;
/// The longest frame that is received whole.
const LONGEST: usize = 2048;

const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// What to receive. The kernel leaves out the rest, so that a busy link costs nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// ARP, and Neighbor Advertisements without extension headers.
    Neighbours,
    /// VRRP over IPv4 or IPv6, without options or extension headers.
    Vrrp,
}

impl Kind {
    fn filter(self) -> Vec<SockFilter> {
        let load = |code, offset| SockFilter::new(code, 0, 0, offset);
        let equal = |value, yes, no| SockFilter::new(EQUAL, yes, no, value);
        let (accept, drop) = (SockFilter::new(RETURN, 0, 0, u32::MAX), SockFilter::new(RETURN, 0, 0, 0));
        match self {
            Self::Neighbours => vec![
                load(LOAD_HALF, 12),
                equal(0x0806, 5, 0),
                equal(0x86dd, 0, 5),
                load(LOAD_HALF, 14 + 6), // next header and hop limit
                equal(u32::from(ICMPV6) << 8 | 255, 0, 3),
                load(LOAD_BYTE, 14 + 40),
                equal(ADVERTISEMENT.into(), 0, 1),
                accept,
                drop,
            ],
            Self::Vrrp => vec![
                load(LOAD_HALF, 12),
                equal(0x0800, 0, 2),
                load(LOAD_BYTE, 14 + 9),
                equal(VRRP.into(), 3, 4),
                equal(0x86dd, 0, 3),
                load(LOAD_BYTE, 14 + 6),
                equal(VRRP.into(), 0, 1),
                accept,
                drop,
            ],
        }
    }
}

/// A socket that hears frames of a link, those that this host sends included.
#[derive(Debug)]
pub struct Listener(AsyncFd<OwnedFd>);

impl Listener {
    /// Begins to hear, in the network namespace of this thread.
    ///
    /// # Errors
    ///
    /// `PermissionDenied` without `CAP_NET_RAW`; `ENODEV` if there is no such link.
    pub fn new(ifindex: u32, kind: Kind) -> io::Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        // Protocol 0 (`None`): nothing is received before the filter is there.
        let fd = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        SockRef::from(&fd).attach_filter(&kind.filter())?;
        bind(&fd, ifindex)?;
        #[expect(unsafe_code, reason = "tokio cannot know what keeps a file descriptor open")]
        // SAFETY: the descriptor is owned by what is registered here, and closed with it and not before.
        let fd =
            unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(io::Error::from)?;
        Ok(Self(fd))
    }

    /// The next frame, from its Ethernet header.
    ///
    /// # Errors
    ///
    /// `ENETDOWN` when the link goes down.
    pub async fn next(&self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; LONGEST];
        loop {
            let mut ready = self.0.readable().await?;
            let received = ready.try_io(|fd| Ok(recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?));
            match received {
                Ok(length) => {
                    buffer.truncate(length?);
                    return Ok(buffer);
                }
                Err(_would_block) => {}
            }
        }
    }
}

fn bind(fd: &OwnedFd, ifindex: u32) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: i32::try_from(ifindex).map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    #[expect(unsafe_code, reason = "no crate offers this address of packet(7) for binding")]
    // SAFETY: the pointer is to a live value and is given with its own size; the kernel only reads.
    let bound = unsafe {
        libc::bind(
            fd.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
