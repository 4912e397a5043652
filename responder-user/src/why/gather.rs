//! Where the facts come from: this host's maps and agent, the API server, other agents.

use std::path::Path;

use anyhow::Result;
use responder_common::layout::VIPS4;

use super::{
    Options, ask,
    facts::{ClusterFacts, Facts, HostState, Look},
    rules::rules,
};
use crate::{
    control::{self, AgentStatus},
    datapath::pins::Pins,
    operator::{self, Operator, Prefer},
    overview::{self, ClusterView},
    status,
};

/// Looks. `None`: there is nothing to look at.
pub(super) async fn facts(bpffs: &Path, run_dir: &Path, options: &Options) -> Result<Option<Facts>> {
    let agent = control::ask_status(run_dir).await.ok().flatten();
    let here = this_host(bpffs, agent.clone())?;
    let leadership = agent.as_ref().and_then(|agent| agent.leadership.as_ref());
    let in_cluster = match &agent {
        // A static file's agent has nothing to do with a cluster, unless one is asked for.
        Some(_) => leadership.is_some() || options.place.access.kubeconfig.is_some(),
        None if here.is_some() => operator::names_own(&options.place.access),
        None => operator::is_known(&options.place.access),
    };
    let mut facts = Facts { address: options.address, cluster: None, here, holder: None };
    if in_cluster {
        let mut operator = Operator::connect(&options.place, leadership, Prefer::Agents).await?;
        let told_here = leadership.map(|leadership| leadership.node.clone());
        let rules = rules(&mut operator, &options.place, options.metrics_port, told_here).await;
        let (objects, view) = operator.look_closely().await;
        facts.holder = holder(&operator, options, &objects, &view, facts.here.as_ref()).await;
        facts.cluster = Some(ClusterFacts { objects, view, rules });
    }
    Ok((facts.cluster.is_some() || facts.here.is_some()).then_some(facts))
}

/// This host's maps, as far as this user may read them, and its agent.
fn this_host(bpffs: &Path, agent: Option<AgentStatus>) -> Result<Option<HostState>> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    let Some(pins) = Pins::existing(bpffs)?.filter(|pins| pins.map(VIPS4).exists()) else {
        return Ok(None);
    };
    Ok(Some(status::collect(&pins, agent)?.into()))
}

/// The node that should answer, if it is not this one.
async fn holder(
    operator: &Operator,
    options: &Options,
    objects: &overview::Facts,
    view: &ClusterView,
    here: Option<&HostState>,
) -> Option<Look> {
    let port = options.metrics_port?;
    let node = view.vips.iter().find(|vip| vip.vip == options.address)?.owner.clone()?;
    if here.is_some_and(|here| here.node().unwrap_or(&operator.this_node) == &node) {
        return None;
    }
    let nodes = objects.nodes.as_deref().unwrap_or_default();
    Some(Look { state: ask::state(operator, nodes, &node, port).await, node })
}
