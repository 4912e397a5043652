//! Asking for a VIP at a steady rate, and what became of each question.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::{
    frames::{Body, Frame, arp_request, solicitation},
    mac::Mac,
    ns::NetNs,
    packet::{ARP, IPV6, PacketSocket},
    report::{Answer, Report},
    time::{BootTime, wait_until},
};

/// How late an answer may come before its question counts as unanswered.
pub const GRACE: Duration = Duration::from_millis(500);

/// What to ask, from where, and how often.
#[derive(Clone, Debug)]
pub struct Probing {
    /// Interface of the client's namespace.
    pub interface: String,
    /// Who is asked for.
    pub vip: IpAddr,
    /// Time between two questions; 50 µs is about the least.
    pub interval: Duration,
    /// How many sender addresses take turns, so that an answer tells its question. Below 500 where a Linux kernel
    /// answers: it makes a neighbour entry of each, and stops answering when its table is full.
    pub senders: u32,
}

impl Probing {
    /// Probing as fast as `interval` for `vip` from `eth0`, a program answering.
    #[must_use]
    pub fn new(vip: IpAddr, interval: Duration) -> Self {
        Self { interface: "eth0".to_owned(), vip, interval, senders: 1 << 20 }
    }

    /// Sender address of question `n`: in 10.0.0.0/12, or in the VIP's /64.
    fn sender(&self, n: usize) -> IpAddr {
        let turn = u32::try_from(n % self.senders as usize).unwrap_or_default() + 1;
        match self.vip {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | turn)),
            IpAddr::V6(vip) => {
                let prefix = vip.to_bits() & !u128::from(u64::MAX);
                IpAddr::V6(Ipv6Addr::from_bits(prefix | 0x5eed << 48 | u128::from(turn)))
            }
        }
    }

    /// The latest of `sent` questions that `sender` asked.
    fn question(&self, sender: IpAddr, sent: usize) -> Option<usize> {
        let turn = match sender {
            IpAddr::V4(a) if a.to_bits() >> 24 == 10 => a.to_bits() & 0x00ff_ffff,
            IpAddr::V6(a) if a.to_bits() >> 48 & 0xffff == 0x5eed => (a.to_bits() & 0xffff_ffff) as u32,
            IpAddr::V4(_) | IpAddr::V6(_) => return None,
        };
        let first = turn.checked_sub(1)? as usize;
        let rounds = sent.checked_sub(first + 1)? / self.senders as usize;
        Some(first + rounds * self.senders as usize)
    }
}

#[derive(Default)]
struct Log {
    sent: Vec<BootTime>,
    not_sent: usize,
    answers: Vec<Answer>,
}

struct Shared {
    log: Mutex<Log>,
    sending: AtomicBool,
    receiving: AtomicBool,
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Two threads that ask and listen until they are stopped.
pub struct Prober {
    shared: Arc<Shared>,
    sender: Option<JoinHandle<()>>,
    receiver: Option<JoinHandle<Result<()>>>,
}

impl Prober {
    /// Begins to ask.
    ///
    /// # Errors
    ///
    /// If there is no such interface, or no right to open packet sockets.
    pub fn start(ns: &NetNs, probing: Probing) -> Result<Self> {
        ensure!(
            probing.senders > 0 && probing.senders <= 1 << 20,
            "1 to 2^20 senders, not {}",
            probing.senders
        );
        let shared = Arc::new(Shared {
            log: Mutex::default(),
            sending: AtomicBool::new(true),
            receiving: AtomicBool::new(true),
        });
        let mac = ns.mac(&probing.interface)?;
        let ethertype = if probing.vip.is_ipv4() { ARP } else { IPV6 };
        let tick = Duration::from_millis(20);
        let open = || PacketSocket::open(&probing.interface, ethertype, tick);
        let (input, output) = ns.run(|| Ok((open()?, open()?)))?;
        let (s, p) = (Arc::clone(&shared), probing.clone());
        let receiver = thread::spawn(move || listen(&input, &p, &s));
        let s = Arc::clone(&shared);
        let sender = thread::spawn(move || ask(&output, &probing, mac, &s));
        Ok(Self { shared, sender: Some(sender), receiver: Some(receiver) })
    }

    /// Waits for an answer to a question asked from now on; returns it.
    ///
    /// # Errors
    ///
    /// If none comes within `deadline`.
    pub fn wait_answer(&self, deadline: Duration) -> Result<Answer> {
        self.wait("an answer", deadline, |_| true)
    }

    /// Waits for an answer that gives `mac`, to a question asked from now on.
    ///
    /// # Errors
    ///
    /// If none comes within `deadline`.
    pub fn wait_answer_by(&self, mac: Mac, deadline: Duration) -> Result<Answer> {
        self.wait(&format!("an answer by {mac}"), deadline, |a| a.mac == mac)
    }

    /// Waits until `count` more questions have been answered.
    ///
    /// # Errors
    ///
    /// If there are fewer within `deadline`.
    pub fn wait_answers(&self, count: usize, deadline: Duration) -> Result<()> {
        let start = self.shared.log().answers.len();
        wait_until(&format!("{count} answers"), deadline, || {
            (self.shared.log().answers.len() >= start + count).then_some(())
        })
    }

    /// Waits until `count` more questions have been asked and nothing has been heard since before the first of them.
    ///
    /// # Errors
    ///
    /// If that does not come to be within `deadline`.
    pub fn wait_silence(&self, count: usize, deadline: Duration) -> Result<()> {
        wait_until(&format!("{count} questions without an answer"), deadline, || {
            let log = self.shared.log();
            let first = log.sent.len().checked_sub(count)?;
            let heard = log.answers.last().map_or(BootTime::default(), |a| a.at);
            (heard < log.sent[first]).then_some(())
        })
    }

    fn wait(&self, what: &str, deadline: Duration, matches: impl Fn(&Answer) -> bool) -> Result<Answer> {
        let (asked, mut seen) = {
            let log = self.shared.log();
            (log.sent.len(), log.answers.len())
        };
        wait_until(what, deadline, || {
            let log = self.shared.log();
            let news = &log.answers[seen..];
            seen = log.answers.len();
            news.iter().find(|a| a.question >= asked && matches(a)).copied()
        })
    }

    /// Stops asking, waits for late answers ([`GRACE`]) and reports.
    ///
    /// # Errors
    ///
    /// If the socket failed or lost frames: then what looks unanswered may have been answered.
    pub fn stop(mut self) -> Result<Report> {
        let end = self.join_sender()?;
        let grace = Instant::now();
        let all_answered = || {
            let log = self.shared.log();
            let answered: BTreeSet<usize> = log.answers.iter().map(|a| a.question).collect();
            answered.len() == log.sent.len()
        };
        while grace.elapsed() < GRACE && !all_answered() {
            thread::sleep(Duration::from_millis(20));
        }
        self.join_receiver()?;
        let log = std::mem::take(&mut *self.shared.log());
        Ok(Report::new(log.sent, log.not_sent, log.answers, end))
    }

    fn join_sender(&mut self) -> Result<BootTime> {
        self.shared.sending.store(false, Ordering::Relaxed);
        if let Some(sender) = self.sender.take() {
            sender.join().map_err(|_panic| anyhow!("the prober's sender panicked"))?;
        }
        Ok(BootTime::now())
    }

    fn join_receiver(&mut self) -> Result<()> {
        self.shared.receiving.store(false, Ordering::Relaxed);
        match self.receiver.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_panic)) => Err(anyhow!("the prober's receiver panicked")),
            None => Ok(()),
        }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.join_sender().ok();
        self.join_receiver().ok();
    }
}

fn ask(socket: &PacketSocket, probing: &Probing, mac: Mac, shared: &Shared) {
    let mut next = Instant::now();
    while shared.sending.load(Ordering::Relaxed) {
        let now = Instant::now();
        if now < next {
            thread::sleep(next - now);
        } else if now - next > probing.interval * 32 {
            // Not to catch up after a pause: a burst could overflow a queue that steady probing does not.
            next = now;
        }
        next += probing.interval;
        let n = shared.log().sent.len();
        let frame = match (probing.sender(n), probing.vip) {
            (IpAddr::V4(src), IpAddr::V4(vip)) => arp_request(mac, src, vip),
            (IpAddr::V6(src), IpAddr::V6(vip)) => solicitation(mac, src, vip),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return,
        };
        // Recorded before it is sent, because the answer may be faster than this thread.
        shared.log().sent.push(BootTime::now());
        if socket.send(&frame).is_err() {
            let mut log = shared.log();
            log.sent.pop();
            log.not_sent += 1;
        }
    }
}

fn listen(socket: &PacketSocket, probing: &Probing, shared: &Shared) -> Result<()> {
    let mut buffer = [0; 2048];
    while shared.receiving.load(Ordering::Relaxed) {
        let Some((len, at)) = socket.receive(&mut buffer)? else {
            continue;
        };
        let Some(frame) = Frame::parse(at, &buffer[..len]) else {
            continue;
        };
        let (from, to, mac) = match frame.body {
            Body::Arp(arp) if arp.op == 2 => (IpAddr::V4(arp.spa), IpAddr::V4(arp.tpa), arp.sha),
            Body::Advertisement(na) if na.checksum_ok && na.flags & 0x40 != 0 => {
                (IpAddr::V6(na.target), IpAddr::V6(na.dst), na.lladdr.unwrap_or(frame.src))
            }
            Body::Arp(_) | Body::Advertisement(_) | Body::Solicitation(_) => continue,
        };
        if from != probing.vip {
            continue;
        }
        let mut log = shared.log();
        if let Some(question) = probing.question(to, log.sent.len()) {
            log.answers.push(Answer { question, at, mac });
        }
    }
    let lost = socket.lost().context("asking what the prober's socket lost")?;
    ensure!(lost == 0, "the prober's socket lost {lost} frames; the machine is too busy for this rate");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_tell_their_latest_question() {
        for vip in ["192.0.2.10", "2001:db8::10"] {
            let mut probing = Probing::new(vip.parse().unwrap(), Duration::from_millis(1));
            probing.senders = 10;
            for (sent, n) in [(1, 0), (10, 9), (11, 10), (25, 24), (25, 15)] {
                assert_eq!(probing.question(probing.sender(n), sent), Some(n), "{vip} {n} of {sent}");
            }
            assert_eq!(probing.question(probing.sender(3), 14), Some(13));
            assert_eq!(probing.question(probing.sender(3), 3), None, "not asked yet");
        }
    }
}
