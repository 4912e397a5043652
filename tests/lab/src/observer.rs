//! Asking for many VIPs at a steady rate and noting who says that they are his, answered or announced.

use std::{
    collections::{BTreeMap, BTreeSet},
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
    packet::{ALL, PacketSocket},
    sightings::{Account, Sighting},
    time::{BootTime, wait_until},
};

/// Rounds until a sender address is used again.
const TURNS: usize = 1 << 20;

#[derive(Default)]
struct Log {
    vips: Vec<IpAddr>,
    /// When each round began, in which each VIP is asked for once.
    rounds: Vec<BootTime>,
    seen: BTreeMap<IpAddr, Vec<Sighting>>,
}

struct Shared {
    log: Mutex<Log>,
    run: AtomicBool,
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Two threads, one that asks and one that listens, until it is dropped.
pub struct Observer {
    shared: Arc<Shared>,
    sender: Option<JoinHandle<()>>,
    receiver: Option<JoinHandle<Result<()>>>,
}

impl Observer {
    /// Begins to ask for `vips` from `interface`, for each once per `interval`.
    ///
    /// # Errors
    ///
    /// If there is no such interface, or no right to open packet sockets.
    pub fn start(ns: &NetNs, interface: &str, vips: &[IpAddr], interval: Duration) -> Result<Self> {
        let log = Log { vips: vips.to_vec(), ..Log::default() };
        let shared = Arc::new(Shared { log: Mutex::new(log), run: AtomicBool::new(true) });
        let mac = ns.mac(interface)?;
        let open = || PacketSocket::open(interface, ALL, Duration::from_millis(20));
        let (input, output) = ns.run(|| Ok((open()?, open()?)))?;
        let s = Arc::clone(&shared);
        let receiver = thread::spawn(move || listen(&input, &s));
        let s = Arc::clone(&shared);
        let sender = thread::spawn(move || ask(&output, interval, mac, &s));
        Ok(Self { shared, sender: Some(sender), receiver: Some(receiver) })
    }

    /// From now on, asks for these VIPs.
    pub fn ask_for(&self, vips: &[IpAddr]) {
        self.shared.log().vips = vips.to_vec();
    }

    /// The number of the next round.
    #[must_use]
    pub fn round(&self) -> usize {
        self.shared.log().rounds.len()
    }

    /// Who answers a question for `vip` that is asked from now on.
    ///
    /// # Errors
    ///
    /// If nobody does within `deadline`.
    pub fn wait_answer(&self, vip: IpAddr, deadline: Duration) -> Result<Sighting> {
        self.wait(&format!("an answer for {vip}"), vip, deadline, |_| true)
    }

    /// Waits for an answer that gives another hardware address than `mac`.
    ///
    /// # Errors
    ///
    /// If there is none within `deadline`.
    pub fn wait_other(&self, vip: IpAddr, mac: Mac, deadline: Duration) -> Result<Sighting> {
        self.wait(&format!("an answer for {vip} not by {mac}"), vip, deadline, |seen| seen.mac != mac)
    }

    /// Waits for an answer that gives `mac`.
    ///
    /// # Errors
    ///
    /// If there is none within `deadline`.
    pub fn wait_by(&self, vip: IpAddr, mac: Mac, deadline: Duration) -> Result<Sighting> {
        self.wait(&format!("an answer for {vip} by {mac}"), vip, deadline, |seen| seen.mac == mac)
    }

    fn wait(
        &self,
        what: &str,
        vip: IpAddr,
        deadline: Duration,
        wanted: impl Fn(&Sighting) -> bool,
    ) -> Result<Sighting> {
        let since = self.round();
        wait_until(what, deadline, || {
            let log = self.shared.log();
            let news = log.seen.get(&vip)?.iter().rev();
            news.take_while(|seen| seen.round.is_none_or(|round| round >= since))
                .filter(|seen| seen.round.is_some() && wanted(seen))
                .last()
                .copied()
        })
    }

    /// Waits until `count` rounds in a row have gone by in which nobody answered for `vip`.
    ///
    /// # Errors
    ///
    /// If that does not come to be within `deadline`.
    pub fn wait_silence(&self, vip: IpAddr, count: usize, deadline: Duration) -> Result<()> {
        wait_until(&format!("{count} questions for {vip} without an answer"), deadline, || {
            let log = self.shared.log();
            let first = log.rounds.len().checked_sub(count)?;
            let last = log.seen.get(&vip).and_then(|seen| seen.iter().rev().find_map(|seen| seen.round));
            last.is_none_or(|last| last < first).then_some(())
        })
    }

    /// What was seen of `vip` since a round began. Answers need a moment: this waits for it.
    #[must_use]
    pub fn account(&self, vip: IpAddr, since: usize) -> Account {
        let end = self.round();
        // Answers to what was asked before are in the queue at most.
        wait_until("further rounds", Duration::from_secs(1), || (self.round() >= end + 4).then_some(())).ok();
        let log = self.shared.log();
        let begin = log.rounds.get(since).copied().unwrap_or_default();
        let seen = log.seen.get(&vip).map(Vec::as_slice).unwrap_or_default();
        let first = seen.partition_point(|seen| seen.at < begin);
        let rounds = log.rounds.get(since..end).unwrap_or_default().to_vec();
        Account { vip, first: since, rounds, seen: seen.get(first..).unwrap_or_default().to_vec() }
    }

    /// All VIPs that anybody has claimed, asked for or not.
    #[must_use]
    pub fn claimed(&self) -> BTreeSet<IpAddr> {
        self.shared.log().seen.keys().copied().collect()
    }

    /// Of each VIP, asked for or not, when the first sighting since then arrived that is as wanted.
    #[must_use]
    pub fn firsts(&self, since: BootTime, wanted: impl Fn(&Sighting) -> bool) -> BTreeMap<IpAddr, BootTime> {
        let log = self.shared.log();
        let first = |seen: &[Sighting]| {
            seen.iter()
                .skip(seen.partition_point(|seen| seen.at < since))
                .find(|seen| wanted(seen))
                .map(|seen| seen.at)
        };
        log.seen.iter().filter_map(|(vip, seen)| Some((*vip, first(seen)?))).collect()
    }

    /// Forgets what was seen so far. The next round counts on.
    pub fn forget(&self) {
        for seen in self.shared.log().seen.values_mut() {
            seen.clear();
        }
    }

    /// Ends.
    ///
    /// # Errors
    ///
    /// If the socket failed or lost frames: then a second answerer may not have been seen.
    pub fn stop(mut self) -> Result<()> {
        self.join()
    }

    fn join(&mut self) -> Result<()> {
        self.shared.run.store(false, Ordering::Relaxed);
        if let Some(sender) = self.sender.take() {
            sender.join().map_err(|_panic| anyhow!("the observer's sender panicked"))?;
        }
        match self.receiver.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_panic)) => Err(anyhow!("the observer's receiver panicked")),
            None => Ok(()),
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.join().ok();
    }
}

fn ask(socket: &PacketSocket, interval: Duration, mac: Mac, shared: &Shared) {
    let mut next = Instant::now();
    while shared.run.load(Ordering::Relaxed) {
        let now = Instant::now();
        if now < next {
            thread::sleep(next - now);
        } else if now - next > interval * 8 {
            next = now; // not to catch up after a pause
        }
        next += interval;
        let (round, vips) = {
            let mut log = shared.log();
            // Noted before it is sent: the answer may be faster than this thread.
            log.rounds.push(BootTime::now());
            (log.rounds.len() - 1, log.vips.clone())
        };
        for vip in vips {
            let frame = match (sender(vip, round), vip) {
                (IpAddr::V4(src), IpAddr::V4(vip)) => arp_request(mac, src, vip),
                (IpAddr::V6(src), IpAddr::V6(vip)) => solicitation(mac, src, vip),
                (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => continue,
            };
            // What is not sent is not answered, and shows as a silence.
            socket.send(&frame).ok();
        }
    }
}

/// Sender address of a round's question: in 10.0.0.0/12, or in the VIP's /64.
fn sender(vip: IpAddr, round: usize) -> IpAddr {
    let turn = u32::try_from(round % TURNS).unwrap_or_default() + 1;
    match vip {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | turn)),
        IpAddr::V6(vip) => {
            let prefix = vip.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(prefix | 0x5eed << 48 | u128::from(turn)))
        }
    }
}

/// The latest of `rounds` rounds whose question came from this address.
fn round_of(sender: IpAddr, rounds: usize) -> Option<usize> {
    let turn = match sender {
        IpAddr::V4(a) if a.to_bits() >> 24 == 10 => a.to_bits() & 0x00ff_ffff,
        IpAddr::V6(a) if a.to_bits() >> 48 & 0xffff == 0x5eed => (a.to_bits() & 0xffff_ffff) as u32,
        IpAddr::V4(_) | IpAddr::V6(_) => return None,
    };
    let first = turn.checked_sub(1)? as usize;
    let again = rounds.checked_sub(first + 1)? / TURNS;
    Some(first + again * TURNS)
}

fn listen(socket: &PacketSocket, shared: &Shared) -> Result<()> {
    let mut buffer = [0; 2048];
    while shared.run.load(Ordering::Relaxed) {
        let Some((len, at)) = socket.receive(&mut buffer)? else {
            continue;
        };
        let Some(frame) = buffer.get(..len).and_then(|bytes| Frame::parse(at, bytes)) else {
            continue;
        };
        let Some((vip, mac)) = frame.claim() else {
            continue;
        };
        let asked_by = match frame.body {
            Body::Arp(arp) if arp.op == 2 => Some(IpAddr::V4(arp.tpa)),
            Body::Advertisement(na) if na.flags & 0x40 != 0 => Some(IpAddr::V6(na.dst)),
            Body::Arp(_) | Body::Advertisement(_) | Body::Solicitation(_) => None,
        };
        let announced = frame.is_gratuitous(vip);
        let mut log = shared.log();
        let round = asked_by.and_then(|sender| round_of(sender, log.rounds.len()));
        if announced || round.is_some() {
            log.seen.entry(vip).or_default().push(Sighting { at, mac, round: round.filter(|_| !announced) });
        }
    }
    let lost = socket.lost().context("asking what the observer's socket lost")?;
    ensure!(lost == 0, "the observer's socket lost {lost} frames; the machine is too busy for this rate");
    Ok(())
}
