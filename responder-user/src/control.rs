//! The agent's control socket: a line in, lines of JSON out.
//!
//! `status` is answered with one [`AgentStatus`]; `watch` with one [`Happening`] a line until the client hangs
//! up; `log` and `log LEVEL` with the level, or why it is none. The socket is for root alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::IpAddr,
    num::NonZeroU16,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use responder_leadership::{id::NodeName, machine::Overview, settings::Times};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
    sync::{Semaphore, broadcast, mpsc, oneshot},
    time::{sleep, timeout},
};

use crate::{
    datapath::xdp::{Attempt, WantedMode},
    decision::services::{Refused, Rules},
    journal::Happening,
    telemetry,
};

/// How long a client or the agent may take for a line.
const PATIENCE: Duration = Duration::from_secs(2);
/// Clients at a time; more wait. Whoever opens thousands of connections must not take the agent's descriptors.
const CLIENTS: usize = 16;
/// What a client may send, in bytes: all requests are one short line.
const REQUEST: u64 = 1024;
/// Before clients are accepted again after the system had no room for one.
const PAUSE: Duration = Duration::from_millis(200);

/// What only the running agent knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Its process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Since when it runs, CLOCK_BOOTTIME in ms.
    pub started_ms: u64,
    /// The static file, if there is one.
    pub file: Option<PathBuf>,
    /// Its pin directory, as it sees it.
    pub bpffs: PathBuf,
    /// The kernel's id of its map `FENCE`; `None`: it is of a version that does not tell.
    #[serde(default)]
    pub fence_map: Option<u32>,
    /// Where the program should run.
    #[serde(default)]
    pub wanted_mode: Option<WantedMode>,
    /// Why the file as it is now is not in effect.
    pub file_error: Option<String>,
    /// Links by name.
    pub links: BTreeMap<String, LinkStatus>,
    /// Addresses that are not announced: address, link (may be empty) and reason.
    pub refused: Vec<(IpAddr, String, String)>,
    /// Interfaces that are waited for or cannot be used, and why.
    pub waiting: BTreeMap<String, String>,
    /// Last announcement of each VIP: address, link and age in ms.
    pub announced: Vec<(IpAddr, String, u64)>,
    /// Frames of bursts sent.
    pub burst_frames: u64,
    /// Frames of bursts that could not be sent (each was tried again).
    pub burst_errors: u64,
    /// Announcements that wait for their turn.
    pub burst_queued: usize,
    /// Multicast groups joined for IPv6 VIPs.
    pub groups: usize,
    /// How often netlink events were lost and all was read anew.
    pub netlink_overruns: u64,
    /// Its part in a cluster, if it runs in one.
    #[serde(default)]
    pub leadership: Option<LeadershipStatus>,
}

impl AgentStatus {
    /// Whether it writes the map `FENCE` with this id, which is pinned below `root`. In a pod that directory may have
    /// another name than on the host, so that the name counts only for an agent that tells nothing better.
    #[must_use]
    pub fn writes(&self, fence_map: u32, root: &Path) -> bool {
        self.fence_map.map_or_else(|| self.bpffs == root, |own| own == fence_map)
    }
}

/// An agent's part in a cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeadershipStatus {
    /// Its node.
    pub node: NodeName,
    /// Namespace of the Leases.
    pub namespace: String,
    /// The kubeconfig that it uses, if it uses one.
    pub kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context, if not its current one.
    pub context: Option<String>,
    /// What it announces.
    pub rules: Rules,
    /// Default gateways, now and since it started, whose addresses it does not announce.
    pub gateways: BTreeSet<IpAddr>,
    /// Number of groups; `None`: the cluster's record is not known yet.
    pub claims: Option<NonZeroU16>,
    /// What it holds and waits for; `None`: as above.
    pub machine: Option<Overview>,
    /// Until the deadline, in ms; negative: since it has passed.
    pub deadline_left_ms: Option<i64>,
    /// What was told last, oldest first: age in ms, and the sentence.
    pub notes: Vec<(u64, String)>,
    /// Times of its session.
    #[serde(default)]
    pub times: Option<Times>,
    /// How many nodes should have an agent: those that are Ready and not excluded.
    #[serde(default)]
    pub expected_nodes: usize,
    /// How many addresses somebody should announce.
    #[serde(default)]
    pub wanted: usize,
    /// Those that no node may announce: none has a ready endpoint.
    #[serde(default)]
    pub without_node: Vec<IpAddr>,
    /// Addresses of Services that nobody may announce, and why.
    #[serde(default)]
    pub refused: Vec<(Refused, String)>,
}

/// A link as the agent sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// Its index.
    pub ifindex: u32,
    /// Its hardware address.
    pub mac: String,
    /// Up and with carrier.
    pub running: bool,
    /// "native by link" and so on; `None` if the program does not run there.
    pub xdp: Option<String>,
    /// Kernel id of the XDP program.
    pub prog_id: Option<u32>,
    /// "tcx" or "clsact"; `None` if the egress program does not run there.
    pub egress: Option<String>,
    /// Why a program does not run there.
    pub error: Option<String>,
    /// What was tried without success.
    pub tried: Vec<Attempt>,
    /// Why the link receives all multicast frames.
    pub all_multicast: Option<String>,
    /// Where the XDP program is to run for it: the link itself, or its slaves, the NIC below a VLAN, a bridge's uplinks.
    #[serde(default)]
    pub ports: Vec<PortStatus>,
    /// What is not as good as it could be.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// A port of a link as the agent sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PortStatus {
    /// The device's index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// VLAN id in the frames, 0 for none.
    pub vlan: u32,
    /// "answers"; "forwards": what is not answered is passed on to a bridge; "backup": a bond's slave that is not in
    /// use.
    pub role: String,
    /// "native by link" and so on; `None` if the program does not run there.
    pub xdp: Option<String>,
    /// Kernel id of the XDP program.
    pub prog_id: Option<u32>,
    /// Why it does not run there.
    pub error: Option<String>,
}

/// A request from a client, with the way back.
pub type StatusRequest = oneshot::Sender<AgentStatus>;

/// Where the socket is.
#[must_use]
pub fn socket_path(run_dir: &Path) -> PathBuf {
    run_dir.join("control.sock")
}

/// The agent's end.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

impl Server {
    /// Listens in `run_dir`, which is created if it is missing. A socket left by an agent that was killed is
    /// replaced.
    ///
    /// # Errors
    ///
    /// If the directory or the socket cannot be made, or another agent answers there.
    pub fn bind(run_dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(run_dir)?;
        let path = socket_path(run_dir);
        // Not one with the same pins, whose lock the caller has, but one with others.
        if std::os::unix::net::UnixStream::connect(&path).is_ok() {
            let reason = "another agent listens there; give each agent its own --run-dir";
            return Err(io::Error::new(io::ErrorKind::AddrInUse, reason));
        }
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path })
    }

    /// Serves clients for ever, each in a task of its own. Nothing that goes wrong here ends the agent.
    pub async fn serve(
        &self,
        status: mpsc::Sender<StatusRequest>,
        journal: broadcast::Sender<Happening>,
    ) -> ! {
        let room = Arc::new(Semaphore::new(CLIENTS));
        loop {
            // Never closed.
            let place = Arc::clone(&room).acquire_owned().await;
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let (status, journal) = (status.clone(), journal.subscribe());
                    tokio::spawn(async move {
                        client(stream, status, journal).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, path = %self.path.display(), "cannot accept a client now");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "cannot remove the control socket");
        }
    }
}

async fn client(
    stream: UnixStream,
    status: mpsc::Sender<StatusRequest>,
    mut journal: broadcast::Receiver<Happening>,
) {
    let (read, mut stream) = stream.into_split();
    let mut requests = BufReader::new(read.take(REQUEST));
    let mut line = String::new();
    let Ok(Ok(_)) = timeout(PATIENCE, requests.read_line(&mut line)).await else {
        return;
    };
    match line.trim() {
        "status" => {
            let (reply, answer) = oneshot::channel();
            if status.send(reply).await.is_err() {
                return;
            }
            if let Ok(answer) = answer.await {
                reply_line(&mut stream, &answer).await.ok();
            }
        }
        "watch" => loop {
            let mut closed = String::new();
            tokio::select! {
                happening = journal.recv() => {
                    let happening = match happening {
                        Ok(happening) => happening,
                        Err(broadcast::error::RecvError::Lagged(events)) => {
                            let missed = Happening::Missed { events };
                            missed.log();
                            missed
                        }
                        Err(broadcast::error::RecvError::Closed) => return,
                    };
                    if reply_line(&mut stream, &happening).await.is_err() {
                        return;
                    }
                }
                // The client hung up, or says what nobody asked for.
                _ = requests.read_line(&mut closed) => return,
            }
        },
        request if request == "log" || request.starts_with("log ") => {
            reply_line(&mut stream, &log_level(request.strip_prefix("log "))).await.ok();
        }
        other => tracing::debug!(request = other, "unknown request on the control socket"),
    }
}

/// The level of the log, as it is after this.
fn log_level(wanted: Option<&str>) -> Result<String, String> {
    match wanted.map_or(Ok(()), |wanted| telemetry::set_level(wanted.trim())) {
        Ok(()) => Ok(telemetry::level().unwrap_or_default()),
        Err(error) => Err(error.to_string()),
    }
}

async fn reply_line<T: Serialize>(stream: &mut OwnedWriteHalf, value: &T) -> io::Result<()> {
    let mut line = serde_json::to_string(value)?;
    line.push('\n');
    timeout(PATIENCE, stream.write_all(line.as_bytes())).await?
}

/// Asks the agent for its status. `None`: no agent answers in `run_dir`.
///
/// # Errors
///
/// If it answers with something else.
pub async fn ask_status(run_dir: &Path) -> io::Result<Option<AgentStatus>> {
    ask(run_dir, "status").await
}

/// Asks the agent for the level of its log, or to change it; the inner error: why it does not. `None`: no agent
/// answers in `run_dir`.
///
/// # Errors
///
/// If it answers with something else.
pub async fn ask_log(run_dir: &Path, level: Option<&str>) -> io::Result<Option<Result<String, String>>> {
    // One line, whatever is in it.
    let level: String = level.unwrap_or_default().split_whitespace().collect();
    ask(run_dir, format!("log {level}").trim_end()).await
}

async fn ask<T: DeserializeOwned>(run_dir: &Path, request: &str) -> io::Result<Option<T>> {
    let Ok(stream) = UnixStream::connect(socket_path(run_dir)).await else {
        return Ok(None);
    };
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    let asked = async {
        stream.write_all(format!("{request}\n").as_bytes()).await?;
        stream.read_line(&mut line).await
    };
    match timeout(PATIENCE, asked).await {
        Ok(Ok(n)) if n > 0 => Ok(Some(serde_json::from_str(&line)?)),
        // A stopped agent accepts and is silent.
        _ => Ok(None),
    }
}

/// Follows what happens until the agent ends, giving each line to `each`.
///
/// # Errors
///
/// If no agent answers, or the connection breaks.
pub async fn watch(
    run_dir: &Path,
    mut each: impl FnMut(&str, Happening) -> io::Result<()>,
) -> io::Result<()> {
    let mut stream = BufReader::new(UnixStream::connect(socket_path(run_dir)).await?);
    stream.write_all(b"watch\n").await?;
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 {
        each(line.trim_end(), serde_json::from_str(&line)?)?;
        line.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_agent_is_known_by_its_directory() {
        let mut told =
            serde_json::to_value(AgentStatus { bpffs: "/bpf".into(), ..AgentStatus::default() }).unwrap();
        told.as_object_mut().unwrap().remove("fence_map").unwrap();
        let mut agent: AgentStatus = serde_json::from_value(told).unwrap();
        assert!(agent.writes(7, Path::new("/bpf")) && !agent.writes(7, Path::new("/sys/fs/bpf")));
        agent.fence_map = Some(7);
        assert!(agent.writes(7, Path::new("/sys/fs/bpf")) && !agent.writes(8, Path::new("/bpf")));
    }
}
