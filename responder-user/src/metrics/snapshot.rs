//! What the agent and the kernel's maps say, for everybody who asks over HTTP.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::timeout,
};

use crate::{
    control::{AgentStatus, StatusRequest},
    datapath::pins::Pins,
    status::{self, Status},
};

/// How long the agent's loop may take for an answer. The longest work of one turn is writing a full map.
const PATIENCE: Duration = Duration::from_secs(3);
/// What is so fresh is given to the next client, too: the load on the agent does not grow with the clients.
const FRESH: Duration = Duration::from_millis(250);

/// Everything at one moment.
pub(super) type Snapshot = Arc<Status>;

/// Where snapshots come from.
pub(crate) struct Snapshots {
    pins: Pins,
    requests: mpsc::Sender<StatusRequest>,
    agent: Mutex<Option<(Instant, Option<Arc<AgentStatus>>)>>,
    all: Mutex<Option<(Instant, Snapshot)>>,
}

impl Snapshots {
    /// The agent is asked by `requests`; its maps are in `pins`.
    pub(crate) fn new(pins: Pins, requests: mpsc::Sender<StatusRequest>) -> Self {
        Self { pins, requests, agent: Mutex::default(), all: Mutex::default() }
    }

    /// What the agent says. `None`: its loop does not answer.
    pub(super) async fn agent(&self) -> Option<Arc<AgentStatus>> {
        let mut last = self.agent.lock().await;
        if let Some((_, status)) = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return status.clone();
        }
        let asked = async {
            let (reply, answer) = oneshot::channel();
            self.requests.send(reply).await.ok()?;
            answer.await.ok()
        };
        let status = timeout(PATIENCE, asked).await.ok().flatten().map(Arc::new);
        *last = Some((Instant::now(), status.clone()));
        status
    }

    /// That, and what the kernel's maps say. Those are read in a thread: they may be large.
    pub(super) async fn take(&self) -> Result<Snapshot> {
        let mut last = self.all.lock().await;
        if let Some((_, snapshot)) = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Ok(Arc::clone(snapshot));
        }
        let agent = self.agent().await.map(|agent| AgentStatus::clone(&agent));
        let pins = self.pins.clone();
        let read = tokio::task::spawn_blocking(move || status::collect(&pins, agent));
        let snapshot = Arc::new(read.await.context("reading the maps ended early")??);
        *last = Some((Instant::now(), Arc::clone(&snapshot)));
        Ok(snapshot)
    }
}
