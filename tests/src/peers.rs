//! What else answers for addresses, to compare with: a responder in user space over packet sockets.
//!
//! As good as such a one is without threads: the kernel filters questions out for it, and frames come and go in batches.

use std::{
    collections::HashSet,
    io,
    net::IpAddr,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::thread::JoinHandleExt as _,
    },
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::time::{ClockId, clock_gettime};

use crate::build::{Mac, checksum};

/// Frames that come and go in one system call.
const BATCH: usize = 64;
/// Longest question that is answered.
const LONGEST: usize = 128;

/// A responder over a packet socket, in a thread of this process.
pub struct PacketResponder {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl PacketResponder {
    /// Answers for `vips` with `mac` on an interface of this thread's namespace.
    ///
    /// # Errors
    ///
    /// If there is no such interface, or no right to packet sockets.
    pub fn start(ifindex: u32, mac: Mac, vips: &[IpAddr]) -> Result<Self> {
        let socket = socket(ifindex)?;
        let stop = Arc::new(AtomicBool::new(false));
        let vips: HashSet<IpAddr> = vips.iter().copied().collect();
        let told = Arc::clone(&stop);
        let thread = thread::Builder::new().name("packet responder".into()).spawn(move || {
            let mut frames = vec![vec![0; LONGEST]; BATCH];
            while !told.load(Ordering::Relaxed) {
                turn(socket.as_raw_fd(), &mut frames, mac, &vips)?;
            }
            Ok(())
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// What its thread has had of a CPU.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn cpu_time(&self) -> Result<Duration> {
        let thread = self.thread.as_ref().filter(|thread| !thread.is_finished());
        let thread = thread.context("the packet responder has ended")?.as_pthread_t();
        let mut clock = 0;
        #[expect(unsafe_code, reason = "nix has the clocks of processes only")]
        // SAFETY: the thread has been started and not been joined, and `clock` is where the answer goes.
        let failed = unsafe { libc::pthread_getcpuclockid(thread, &raw mut clock) };
        ensure!(failed == 0, "no clock of the packet responder: {}", io::Error::from_raw_os_error(failed));
        Ok(clock_gettime(ClockId::from_raw(clock))?.into())
    }
}

impl Drop for PacketResponder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Ok(Err(error))) = self.thread.take().map(JoinHandle::join) {
            eprintln!("packet responder: {error:#}");
        }
    }
}

/// Classic BPF: ARP requests and Neighbor Solicitations.
const QUESTIONS: [libc::sock_filter; 11] = {
    const fn step(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
        libc::sock_filter { code: code as u16, jt, jf, k }
    }
    const HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
    const BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    const IS: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    [
        step(HALF, 0, 0, 12),
        step(IS, 0, 2, 0x0806),
        step(HALF, 0, 0, 20),
        step(IS, 6, 5, 1),
        step(IS, 0, 4, 0x86dd),
        step(BYTE, 0, 0, 20),
        step(IS, 0, 2, 58),
        step(BYTE, 0, 0, 54),
        step(IS, 1, 0, 135),
        step(RETURN, 0, 0, 0),
        step(RETURN, 0, 0, LONGEST as u32),
    ]
};

#[expect(unsafe_code, reason = "packet sockets and their options")]
fn option<T>(fd: RawFd, level: i32, name: i32, value: &T) -> Result<()> {
    // SAFETY: the value is one of the option's type, and outlives the call.
    let done =
        unsafe { libc::setsockopt(fd, level, name, std::ptr::from_ref(value).cast(), size_of::<T>() as u32) };
    ensure!(done == 0, "packet socket: option {name}: {}", io::Error::last_os_error());
    Ok(())
}

#[expect(unsafe_code, reason = "packet sockets")]
fn socket(ifindex: u32) -> Result<OwnedFd> {
    let all = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: a system call without pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    ensure!(fd >= 0, "packet socket: {}", io::Error::last_os_error());
    // SAFETY: just opened, and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut filter = QUESTIONS;
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    option(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
    option(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &(32 * 1024 * 1024))?;
    // So that it looks now and then whether it is to stop.
    let timeout = libc::timeval { tv_sec: 0, tv_usec: 100_000 };
    option(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &timeout)?;
    option(fd, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, &1)?;
    option(fd, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1)?;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: all,
        sll_ifindex: ifindex.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the address is one of this family, and outlives the call.
    let bound = unsafe { libc::bind(fd, (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as u32) };
    ensure!(bound == 0, "packet socket on interface {ifindex}: {}", io::Error::last_os_error());
    Ok(socket)
}

/// Lets `call` fill or send frames; how many.
#[expect(unsafe_code, reason = "system calls over many frames")]
fn many(frames: &mut [Vec<u8>], call: impl FnOnce(*mut libc::mmsghdr, u32) -> i32) -> io::Result<Vec<usize>> {
    let mut parts: Vec<libc::iovec> = frames
        .iter_mut()
        .map(|frame| libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() })
        .collect();
    let mut messages: Vec<libc::mmsghdr> = parts
        .iter_mut()
        .map(|part| {
            // SAFETY: a message header is plain numbers and pointers, of which none is a valid value.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    let done = call(messages.as_mut_ptr(), messages.len() as u32);
    let done = usize::try_from(done).map_err(|_negative| io::Error::last_os_error())?;
    Ok(messages[..done].iter().map(|message| message.msg_len as usize).collect())
}

/// Receives what there is, at most a batch, and answers.
#[expect(unsafe_code, reason = "system calls over many frames")]
fn turn(fd: RawFd, frames: &mut [Vec<u8>], mac: Mac, vips: &HashSet<IpAddr>) -> Result<()> {
    let received = many(frames, |messages, count| {
        // SAFETY: so many messages, each with a buffer, that outlive the call.
        unsafe { libc::recvmmsg(fd, messages, count, libc::MSG_WAITFORONE, std::ptr::null_mut()) }
    });
    let lengths = match received {
        Ok(lengths) => lengths,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
        Err(error) => bail!("packet socket: {error}"),
    };
    let questions = frames.iter().zip(&lengths).map(|(frame, length)| &frame[..*length]);
    let mut answers: Vec<_> = questions.filter_map(|question| answer(question, mac, vips)).collect();
    if !answers.is_empty() {
        many(&mut answers, |messages, count| {
            // SAFETY: as above.
            unsafe { libc::sendmmsg(fd, messages, count, 0) }
        })
        .context("packet socket: sending")?;
    }
    Ok(())
}

fn bytes<const N: usize>(frame: &[u8], at: usize) -> Option<[u8; N]> {
    frame.get(at..at + N)?.try_into().ok()
}

/// The answer to a question that the filter has let through, if it is for one of these: the question, rewritten.
fn answer(question: &[u8], mac: Mac, vips: &HashSet<IpAddr>) -> Option<Vec<u8>> {
    let mut a = question.to_vec();
    if bytes(question, 12)? == [8, 6] {
        let (sha, spa, tpa) =
            (bytes::<6>(question, 22)?, bytes::<4>(question, 28)?, bytes::<4>(question, 38)?);
        if !vips.contains(&IpAddr::from(tpa)) {
            return None;
        }
        a[..6].copy_from_slice(&sha);
        a[6..12].copy_from_slice(&mac);
        a[21] = 2;
        a[22..28].copy_from_slice(&mac);
        a[28..32].copy_from_slice(&tpa);
        a[32..38].copy_from_slice(&sha);
        a[38..42].copy_from_slice(&spa);
        return Some(a);
    }
    let (source, target) = (bytes::<16>(question, 22)?, bytes::<16>(question, 62)?);
    if !vips.contains(&IpAddr::from(target)) {
        return None;
    }
    let is_option = bytes(question, 78) == Some([1, 1]);
    let asker = if is_option { bytes::<6>(question, 80)? } else { bytes::<6>(question, 6)? };
    a.resize(86, 0);
    a[..6].copy_from_slice(&asker);
    a[6..12].copy_from_slice(&mac);
    a[19] = 32;
    a[22..38].copy_from_slice(&target);
    a[38..54].copy_from_slice(&source);
    // S and O; no checksum yet.
    a[54..62].copy_from_slice(&[136, 0, 0, 0, 0x60, 0, 0, 0]);
    a[78..80].copy_from_slice(&[2, 1]);
    a[80..86].copy_from_slice(&mac);
    let sum = checksum(target.into(), source.into(), &a[54..]);
    a[56..58].copy_from_slice(&sum.to_be_bytes());
    Some(a)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;
    use crate::build::{Arp, Nd};
    use crate::frames::{self, CLIENT, CLIENT4, CLIENT6, OWN, VIP4, VIP6};

    #[test]
    fn answers() {
        let vips = HashSet::from([IpAddr::from(VIP4), IpAddr::from(VIP6)]);
        let arp = answer(&frames::get("A01").frame, OWN, &vips).unwrap();
        assert_eq!(arp, Arp::reply(OWN, VIP4, CLIENT, CLIENT4).bytes());
        let na = answer(&frames::get("N01").frame, OWN, &vips).unwrap();
        assert_eq!(na, Nd::advertisement(OWN, VIP6, CLIENT, CLIENT6, 6).bytes());
        let other = HashSet::from([IpAddr::from(Ipv6Addr::LOCALHOST)]);
        assert_eq!(answer(&frames::get("A01").frame, OWN, &other), None);
        assert_eq!(answer(&frames::get("N01").frame, OWN, &other), None);
    }
}
