//! `responder status`: what is answered, by whom, until when.
//!
//! The maps are read from their pins, so it works without an agent; what only the agent knows is asked of it. What is
//! beyond this host is read from the API server; see [`crate::overview`].

mod collect;
mod leadership;
mod render;

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    net::IpAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;
use responder_common::layout::VIPS4;
use serde::{Deserialize, Serialize};

pub(crate) use self::collect::collect;
pub use self::render::Paint;
use crate::{
    control::{self, AgentStatus},
    datapath::{chain, pins::Pins},
    operator::{self, Operator, Prefer, Where},
    overview::{self, ClusterView, Shown},
    program, why,
};

/// A problem of the cluster's view where no agent could be asked.
const UNTOLD: &str = "no agent could be asked what it refuses (--metrics-port): OWNER is whom the Leases name, and an \
                      address that agents refuse, such as a default gateway's, is answered by nobody all the same";

/// What to show.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only this host.
    pub local: bool,
    /// Only the cluster.
    pub cluster: bool,
    /// As JSON.
    pub json: bool,
    /// Which addresses of the cluster.
    pub shown: Shown,
    /// Where agents serve their state; `None`: they are not asked what they refuse.
    pub metrics_port: Option<u16>,
    /// Which cluster.
    pub place: Where,
}

/// Both parts. As JSON, the host's are at the top.
#[derive(Clone, Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    host: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<ClusterView>,
    /// Why the cluster is not shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_error: Option<String>,
}

/// Everything there is to say.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The pin directory.
    pub bpffs: PathBuf,
    /// What the agent says; `None` if none answers.
    pub agent: Option<AgentStatus>,
    /// Deadline and suppression.
    pub fence: FenceStatus,
    /// Links as the maps have them.
    pub links: Vec<PinnedLinkStatus>,
    /// Addresses as the maps have them.
    pub vips: Vec<VipStatus>,
    /// Frames received, by outcome; those that never occurred are left out.
    pub received: BTreeMap<&'static str, u64>,
    /// Frames sent in the name of VIPs, by outcome; those that never occurred are left out.
    pub sent: BTreeMap<&'static str, u64>,
    /// Conflict events left out because there were too many.
    pub events_limited: u64,
    /// Conflict events lost because nobody read them.
    pub events_lost: u64,
}

/// The fence, relative to now.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct FenceStatus {
    /// Until nothing is answered any more, in ms; negative: since when.
    pub deadline_left_ms: i64,
    /// Until nothing is suppressed any more, in ms; negative: since when.
    pub suppress_left_ms: i64,
    /// Since the agent last wrote it, in ms.
    pub heartbeat_age_ms: i64,
}

/// A link in the maps.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PinnedLinkStatus {
    /// Its index.
    pub ifindex: u32,
    /// Its name; "if3" for index 3 if it is gone.
    pub name: String,
    /// The hardware address that answers carry.
    pub mac: String,
    /// "native", "generic", …; `None` if no XDP program is attached.
    pub mode: Option<String>,
    /// Kernel id of the attached program.
    pub prog_id: Option<u32>,
    /// Whether a TCX link of the egress program is pinned.
    pub tcx: bool,
    /// Where its questions are judged.
    #[serde(default)]
    pub ports: Vec<PinnedPortStatus>,
}

/// A place in the maps.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PinnedPortStatus {
    /// The device's index.
    pub ifindex: u32,
    /// Its name; "if3" for index 3 if it is gone.
    pub name: String,
    /// VLAN id in the frames, 0 for none.
    pub vlan: u32,
    /// "answers"; "forwards": what is not answered is passed on to a bridge; "backup": a bond's slave that is not in
    /// use.
    pub role: String,
    /// "native", "generic", …; `None` if no XDP program is attached.
    pub mode: Option<String>,
    /// Kernel id of the attached program.
    pub prog_id: Option<u32>,
}

/// What becomes of questions for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VipState {
    /// Answered.
    Answering,
    /// Not owned here: dropped.
    Standby,
    /// Owned, but the deadline has passed: dropped.
    Expired,
    /// Passed to the host, because no agent has been heard for so long.
    Abandoned,
    /// The program is not attached to this link: nothing is answered and nothing dropped.
    Detached,
}

/// An address in the maps.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VipStatus {
    /// The address.
    pub vip: IpAddr,
    /// Its link.
    pub link: String,
    /// VLAN id, 0 for none.
    pub vlan: u32,
    /// What becomes of questions for it.
    pub state: VipState,
    /// Its slot.
    pub slot: u32,
    /// Since when the slot is as it is, in ms.
    pub slot_age_ms: u64,
    /// Questions answered.
    pub answered: u64,
    /// Questions dropped because it was not owned, or not any more.
    pub suppressed: u64,
    /// Claims by other stations.
    pub conflicts: u64,
    /// Since the last announcement, in ms; only an agent knows.
    pub announced_age_ms: Option<u64>,
}

/// Prints the status.
///
/// # Errors
///
/// If the pins hold another layout or cannot be read, or nothing but the cluster was to be shown and no API server is
/// known.
pub async fn run(bpffs: &Path, run_dir: &Path, options: Options) -> Result<ExitCode> {
    let Options { local, cluster: only_cluster, json, shown, metrics_port, place } = options;
    let asked = control::ask_status(run_dir).await;
    let mut host = None;
    let mut leadership = None;
    if only_cluster {
        leadership = asked.ok().flatten().and_then(|agent| agent.leadership);
    } else if let Some(pins) = Pins::existing(bpffs)?.filter(|pins| pins.map(VIPS4).exists()) {
        let status = collect(&pins, asked?)?;
        leadership = status.agent.as_ref().and_then(|agent| agent.leadership.clone());
        host = Some(status);
    }
    let elsewhere = match &host {
        // A static file's agent has nothing to do with a cluster.
        Some(Status { agent: Some(_), .. }) => leadership.is_some(),
        Some(Status { agent: None, .. }) => operator::names_own(&place.access),
        None => operator::is_known(&place.access),
    };
    let with_cluster = only_cluster || (elsewhere && !local);
    if host.is_none() && !with_cluster {
        writeln!(
            io::stderr(),
            "responder: nothing is pinned at {}: no agent has run here, or it was detached; start one with \
             `responder run`, name its --bpffs, or look at a cluster by --kubeconfig",
            bpffs.display()
        )?;
        return Ok(ExitCode::from(5));
    }
    let mut report = Report { host, cluster: None, cluster_error: None };
    let mut nothing_read = false;
    if with_cluster {
        match Operator::connect(&place, leadership.as_ref(), Prefer::Agents).await {
            Ok(mut operator) => {
                let told_here = leadership.map(|leadership| leadership.node);
                why::rules(&mut operator, &place, metrics_port, told_here).await;
                let (facts, mut view) = operator.look_closely().await;
                nothing_read = facts.leases.is_none() && facts.services.is_none();
                if !operator.knows_gateways() && view.vips.iter().any(|vip| vip.owner.is_some()) {
                    view.problems.push(UNTOLD.to_owned());
                }
                report.cluster = Some(view);
            }
            Err(error) if report.host.is_none() => return Err(error.into()),
            Err(error) => report.cluster_error = Some(chain(&error)),
        }
    }
    if let (Some(cluster), true, Shown::Matching(_)) = (&mut report.cluster, json, &shown) {
        cluster.vips.retain(|vip| shown.includes(vip));
    }
    let mut out = io::stdout().lock();
    let printed = if json {
        serde_json::to_writer_pretty(&mut out, &report).map_err(io::Error::from).and_then(|()| writeln!(out))
    } else {
        text(&mut out, &report, &shown)
    };
    until_closed(printed)?;
    // What could not be read has been said.
    Ok(if nothing_read && report.host.is_none() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn text(out: &mut impl io::Write, report: &Report, shown: &Shown) -> io::Result<()> {
    let paint = Paint::of_stdout();
    if let Some(host) = &report.host {
        render::text(out, host, paint)?;
        if report.cluster.is_some() {
            writeln!(out)?;
        }
    }
    if let Some(cluster) = &report.cluster {
        overview::text(out, cluster, shown, paint)?;
    }
    match &report.cluster_error {
        Some(error) => writeln!(out, "\nCluster   {} {error}", paint.bad("not shown:")),
        None => Ok(()),
    }
}

/// A line for the operator.
pub(crate) fn say(line: impl std::fmt::Display) -> io::Result<()> {
    until_closed(writeln!(io::stdout(), "{}", program::called().speak(&line.to_string())))
}

/// Whoever read the output has had enough.
pub(crate) fn until_closed(printed: io::Result<()>) -> io::Result<()> {
    match printed {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
