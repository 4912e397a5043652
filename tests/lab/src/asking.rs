//! Two threads on one link: one asks at a steady pace, the other listens.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::{
    frames::Frame,
    mac::Mac,
    ns::NetNs,
    packet::PacketSocket,
    time::{BootTime, patience},
};

/// How often to ask.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) interval: Duration,
    /// So many intervals are made up for after a pause; after a longer one, none: a burst could overflow a queue that
    /// steady asking does not.
    pub(crate) catch_up: u32,
}

/// What the threads share.
pub(crate) struct Shared<L> {
    log: Mutex<L>,
    asking: AtomicBool,
    listening: AtomicBool,
}

impl<L> Shared<L> {
    pub(crate) fn log(&self) -> MutexGuard<'_, L> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The two threads, until it is dropped, and their log.
pub(crate) struct Asking<L> {
    /// Who asks, for errors.
    who: &'static str,
    shared: Arc<Shared<L>>,
    sender: Option<JoinHandle<()>>,
    receiver: Option<JoinHandle<Result<()>>>,
}

impl<L: Send + 'static> Asking<L> {
    /// Calls `ask` once per interval, with the socket to send with and its hardware address, and `hear` with each
    /// frame of `ethertype` that comes.
    ///
    /// # Errors
    ///
    /// If there is no such interface, or no right to open packet sockets.
    pub(crate) fn start(
        who: &'static str,
        (ns, interface, ethertype): (&NetNs, &str, u16),
        pace: Pace,
        log: L,
        ask: impl Fn(&Shared<L>, &PacketSocket, Mac) + Send + 'static,
        hear: impl Fn(&Shared<L>, &Frame) + Send + 'static,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            log: Mutex::new(log),
            asking: AtomicBool::new(true),
            listening: AtomicBool::new(true),
        });
        let mac = ns.mac(interface)?;
        let open = || PacketSocket::open(interface, ethertype, Duration::from_millis(20));
        let (input, output) = ns.run(|| Ok((open()?, open()?)))?;
        let s = Arc::clone(&shared);
        let receiver = thread::spawn(move || listen(who, &input, &s, hear));
        let s = Arc::clone(&shared);
        // Emulated processors are as much slower.
        let pace = Pace { interval: pace.interval * patience(), ..pace };
        let sender = thread::spawn(move || keep_pace(pace, &s.asking, || ask(&s, &output, mac)));
        Ok(Self { who, shared, sender: Some(sender), receiver: Some(receiver) })
    }
}

impl<L> Asking<L> {
    pub(crate) fn log(&self) -> MutexGuard<'_, L> {
        self.shared.log()
    }

    /// Ends asking; answers are still heard. Says when that was.
    pub(crate) fn stop_asking(&mut self) -> Result<BootTime> {
        self.shared.asking.store(false, Ordering::Relaxed);
        if let Some(sender) = self.sender.take() {
            sender.join().map_err(|_panic| anyhow!("the {}'s sender panicked", self.who))?;
        }
        Ok(BootTime::now())
    }

    /// Ends both.
    ///
    /// # Errors
    ///
    /// If the socket failed or lost frames: then there may have been answers that were not heard.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.stop_asking()?;
        self.shared.listening.store(false, Ordering::Relaxed);
        match self.receiver.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_panic)) => Err(anyhow!("the {}'s receiver panicked", self.who)),
            None => Ok(()),
        }
    }
}

impl<L> Drop for Asking<L> {
    fn drop(&mut self) {
        self.stop().ok();
    }
}

fn keep_pace(pace: Pace, run: &AtomicBool, ask: impl Fn()) {
    let mut next = Instant::now();
    while run.load(Ordering::Relaxed) {
        let now = Instant::now();
        if now < next {
            thread::sleep(next - now); // the pace
        } else if now - next > pace.interval * pace.catch_up {
            next = now;
        }
        next += pace.interval;
        ask();
    }
}

fn listen<L>(
    who: &str,
    socket: &PacketSocket,
    shared: &Shared<L>,
    hear: impl Fn(&Shared<L>, &Frame),
) -> Result<()> {
    let mut buffer = [0; 2048];
    while shared.listening.load(Ordering::Relaxed) {
        let Some((len, at)) = socket.receive(&mut buffer)? else {
            continue;
        };
        if let Some(frame) = buffer.get(..len).and_then(|bytes| Frame::parse(at, bytes)) {
            hear(shared, &frame);
        }
    }
    let lost = socket.lost().with_context(|| format!("asking what the {who}'s socket lost"))?;
    ensure!(lost == 0, "the {who}'s socket lost {lost} frames; the machine is too busy for this rate");
    Ok(())
}
