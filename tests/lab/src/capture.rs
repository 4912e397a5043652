//! Recording the ARP and Neighbor Discovery frames that arrive at an interface.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Result, anyhow, ensure};

use crate::{
    frames::Frame,
    ns::NetNs,
    packet::{ALL, PacketSocket},
    time::wait_until,
};

/// A thread that records until it is dropped.
pub struct Capture {
    frames: Arc<Mutex<Vec<Frame>>>,
    run: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Capture {
    /// Begins to record what `interface` receives, not what it sends.
    ///
    /// # Errors
    ///
    /// If there is no such interface, or no right to open packet sockets.
    pub fn start(ns: &NetNs, interface: &str) -> Result<Self> {
        let socket = ns.run(|| PacketSocket::open(interface, ALL, Duration::from_millis(20)))?;
        let frames = Arc::new(Mutex::new(Vec::new()));
        let run = Arc::new(AtomicBool::new(true));
        let (sink, running) = (Arc::clone(&frames), Arc::clone(&run));
        let thread = thread::spawn(move || {
            let mut buffer = [0; 2048];
            while running.load(Ordering::Relaxed) {
                let Some((len, at)) = socket.receive(&mut buffer)? else {
                    continue;
                };
                if let Some(frame) = Frame::parse(at, &buffer[..len.min(2048)]) {
                    sink.lock().unwrap_or_else(PoisonError::into_inner).push(frame);
                }
            }
            let lost = socket.lost()?;
            ensure!(lost == 0, "the capture lost {lost} frames");
            Ok(())
        });
        Ok(Self { frames, run, thread: Some(thread) })
    }

    /// What has been recorded so far.
    #[must_use]
    pub fn frames(&self) -> Vec<Frame> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets what has been recorded so far.
    pub fn clear(&self) {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Waits for a frame that `matches`, among those already recorded or to come.
    ///
    /// # Errors
    ///
    /// If there is none within `deadline`.
    pub fn wait_for(
        &self,
        what: &str,
        deadline: Duration,
        matches: impl Fn(&Frame) -> bool,
    ) -> Result<Frame> {
        Ok(self.wait_for_many(what, 1, deadline, matches)?.remove(0))
    }

    /// Waits until `count` frames that `matches` are recorded, and returns all such.
    ///
    /// # Errors
    ///
    /// If there are fewer after `deadline`.
    pub fn wait_for_many(
        &self,
        what: &str,
        count: usize,
        deadline: Duration,
        matches: impl Fn(&Frame) -> bool,
    ) -> Result<Vec<Frame>> {
        wait_until(&format!("{count} × {what}"), deadline, || {
            let frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
            let found = || frames.iter().filter(|f| matches(f));
            (found().count() >= count).then(|| found().cloned().collect())
        })
    }

    /// Stops recording and returns all frames.
    ///
    /// # Errors
    ///
    /// If the socket failed or lost frames.
    pub fn stop(mut self) -> Result<Vec<Frame>> {
        self.join()?;
        Ok(self.frames())
    }

    fn join(&mut self) -> Result<()> {
        self.run.store(false, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_panic)) => Err(anyhow!("the capture panicked")),
            None => Ok(()),
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.join().ok();
    }
}
