//! The leadership protocol played: what comes from the API server is told to the machine, and what it wants is done, in
//! order.
//!
//! * this file: what is held, and the plan that follows from it.
//! * `connect`: the connections to the API server, and what comes from them.
//! * `inputs`: what the machine is told.
//! * `effects`: what the machine wants.
//! * `leaving`: giving everything up, to end or to begin anew.
//! * `causes`: why addresses come and go.
//! * `slots`: which slot an address is in.
//! * `voice`: Events on Services, and the status.

mod causes;
mod connect;
mod effects;
mod inputs;
mod leaving;
mod slots;
mod voice;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs::File,
    net::IpAddr,
    num::NonZeroU16,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Node;
use responder_common::layout::{FIRST_GROUP_SLOT, Owner};
use responder_leadership::{
    event::{Event, Holdings},
    group::group_of,
    id::{Group, Incarnation, NodeName},
    machine::{Adopted, Machine},
    settings::Times,
};
use tokio::task::JoinHandle;

pub(super) use self::connect::{Connected, Input, Inputs, connect};
use self::{
    causes::Causes,
    leaving::Leaving,
    slots::{moved, owned, slot},
};
use super::Agent;
use crate::{
    cluster::{client::Access, events::Publisher, leases::Leases, record::Agreed, writes::Writer},
    decision::{
        change::Actual,
        plan::Plan,
        services::{Rules, ServiceKey, Services},
        subnets::{LinkChoice, Subnets},
    },
    net::link::NetState,
};

/// How to take part in a cluster.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Where the API server is.
    pub access: Access,
    /// Namespace of the Leases.
    pub namespace: String,
    /// This node.
    pub node: NodeName,
    /// Times of its session.
    pub times: Times,
    /// Number of groups, if this agent is the cluster's first.
    pub claims: NonZeroU16,
    /// What is announced.
    pub rules: Rules,
    /// Where.
    pub links: LinkChoice,
    /// Where events and decisions are written to.
    pub record: Option<PathBuf>,
}

/// This node's part in the cluster.
pub(super) struct Cluster {
    options: ClusterOptions,
    connected: Connected,
    /// Whose the maps are.
    owner: Owner,
    /// What the maps answer for since an earlier agent, until it is known whether it still holds.
    adopted: Option<Adopted>,
    /// There once the cluster's record is known.
    player: Option<Player>,
    services: Services,
    uids: BTreeMap<ServiceKey, String>,
    nodes: BTreeMap<String, Arc<Node>>,
    /// Kinds of objects whose first list is complete.
    listed: BTreeSet<&'static str>,
    /// What the machine was last told of this node, and of those that should have an agent.
    surroundings: Option<[Event; 2]>,
    /// VIPs whose Events have been sent.
    voiced: BTreeSet<IpAddr>,
    /// What the plan was last made of.
    basis: Option<Basis>,
    /// What is held, as the machine says. `None`: it has not said anything yet.
    holdings: Option<Arc<Holdings>>,
    /// The deadline, as the machine says.
    deadline: Option<Duration>,
    /// Whether anything was answered when the deadline was last extended.
    answered: bool,
    /// What the machine told last, and when.
    notes: VecDeque<(Duration, String)>,
    /// Why what is answered changes.
    causes: Causes,
    /// There while everything is being handed over.
    leaving: Option<Leaving>,
    /// How often a machine has begun.
    begun: u32,
}

/// The machine and its hands.
struct Player {
    machine: Machine,
    writer: Writer,
    leases: Leases,
    claims: NonZeroU16,
    /// The longest lease of the cluster's agents.
    longest: Duration,
    /// Makes the cluster's record anew, which was deleted.
    restoring: Option<JoinHandle<Agreed>>,
    publisher: Publisher,
    /// A first list of all Leases that the machine has not been told of, because Services and Nodes are not known.
    held_back: Option<Duration>,
    synced: bool,
    /// The last request for a move, so that it is told once.
    request: Option<String>,
    recorder: Option<File>,
}

impl Cluster {
    pub(super) fn new(options: ClusterOptions, connected: Connected) -> Self {
        Self {
            services: Services::new(options.rules.clone()),
            options,
            connected,
            owner: Owner::default(),
            adopted: None,
            player: None,
            uids: BTreeMap::new(),
            nodes: BTreeMap::new(),
            listed: BTreeSet::new(),
            surroundings: None,
            voiced: BTreeSet::new(),
            basis: None,
            holdings: None,
            deadline: None,
            answered: false,
            notes: VecDeque::new(),
            causes: Causes::default(),
            leaving: None,
            begun: 0,
        }
    }

    /// The deadline; `None`: the predecessor's still holds.
    pub(super) const fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// Why an address is announced here from now on.
    pub(super) fn why_gained(&mut self, vip: IpAddr) -> String {
        let (Some(player), Some(holdings)) = (&self.player, &self.holdings) else {
            return "the agent before answered for it".to_owned();
        };
        self.causes.of_gain(vip, group_of(vip, player.claims), holdings.exceptions.contains(&vip))
    }

    /// Why an address is not announced here any more, of which the plan knows (`planned`) or not.
    pub(super) fn why_lost(&self, vip: IpAddr, planned: bool) -> String {
        let Some(player) = &self.player else {
            return "the session that it was answered by does not go on".to_owned();
        };
        if planned {
            return self.causes.of_loss(vip, group_of(vip, player.claims));
        }
        if self.services.demands().contains_key(&vip) {
            return "no link of this node covers it any more".to_owned();
        }
        let refused = self.services.refusals().iter().find(|(refused, _)| refused.address.parse() == Ok(vip));
        refused.map_or_else(|| "no Service has it any more".to_owned(), |(_, reason)| format!("it {reason}"))
    }

    /// When the machine wants to be told the time.
    pub(super) fn next_turn(&self) -> Option<Duration> {
        let wake = self.player.as_ref().and_then(|player| player.machine.next_wake());
        [wake, self.leaving.as_ref().map(|leaving| leaving.by)].into_iter().flatten().min()
    }

    /// What the maps should hold. Before the machine has said anything: what they hold, on the links as they are.
    pub(super) fn plan(
        &mut self,
        net: &Arc<NetState>,
        actual: &Actual,
        router: impl Fn(&str) -> bool,
    ) -> Plan {
        let subnets = Subnets::new(&self.options.links, net);
        let (Some(player), Some(holdings)) = (&self.player, &self.holdings) else {
            self.basis = None;
            let mut plan = Plan::for_cluster(&subnets, net, [], BTreeSet::new(), &router);
            // Interfaces' own places; those of their ports follow.
            for (at, slot) in actual.vips.iter().filter(|(at, _)| at.vlan == 0) {
                if let Some(link) = net.links.get(&at.ifindex).filter(|link| net.refusal(link).is_none()) {
                    plan.keep(at.ip, *slot, link, net);
                }
            }
            plan.set_routers(router);
            if self.adopted.is_some() {
                plan.owned.clone_from(&actual.owned);
            }
            return plan;
        };
        let (revision, holdings) = (self.services.revision(), Arc::clone(holdings));
        let vips = self.services.demands().keys().map(|vip| (*vip, slot(&holdings, *vip, player.claims)));
        let plan = Plan::for_cluster(&subnets, net, vips, owned(&holdings), router);
        self.basis = Some(Basis { net: Arc::clone(net), revision, holdings });
        plan
    }

    /// Changes a plan that this has made to what is held now. False: something else has changed, too, or it made none.
    ///
    /// A node that takes over takes group after group, and planning anew for ten thousand addresses each time would
    /// keep the last of them waiting.
    pub(super) fn reassign(&mut self, plan: &mut Plan, net: &Arc<NetState>) -> bool {
        let (Some(player), Some(holdings), Some(basis)) = (&self.player, &self.holdings, &mut self.basis)
        else {
            return false;
        };
        if !Arc::ptr_eq(&basis.net, net) || basis.revision != self.services.revision() {
            return false;
        }
        plan.reassign(owned(holdings), moved(&basis.holdings, holdings, player.claims));
        basis.holdings = Arc::clone(holdings);
        true
    }
}

/// What a plan was made of.
struct Basis {
    net: Arc<NetState>,
    /// Of the Services.
    revision: u64,
    holdings: Arc<Holdings>,
}

impl Agent {
    /// Takes over what an earlier agent left, as long as it may still hold.
    pub(super) fn begin_cluster(&mut self) {
        let mut owner = self.maps.owner();
        if owner.datapath == 0 {
            owner = Owner { datapath: random(), ..Owner::default() };
            self.maps.set_owner(owner);
        }
        let groups = self.actual.owned.iter().filter_map(|slot| slot.checked_sub(FIRST_GROUP_SLOT));
        let groups: BTreeSet<Group> = groups.filter_map(|group| group.try_into().ok()).collect();
        let answered = self.actual.vips.iter().filter(|(_, slot)| self.actual.owned.contains(slot));
        let vips = answered.map(|(at, _)| at.ip).collect();
        let incarnation = Incarnation(owner.incarnation);
        let adopted = (owner.incarnation != 0).then_some(Adopted { incarnation, groups, vips });
        if let Some(cluster) = self.cluster_mut() {
            // What no session stands behind, such as a static file's, is not answered any more.
            cluster.deadline = adopted.is_none().then_some(Duration::ZERO);
            cluster.answered = adopted.is_some();
            cluster.adopted = adopted;
            cluster.owner = owner;
        }
        self.plan_and_write();
        self.beat(super::now());
    }

    fn cluster_mut(&mut self) -> Option<&mut Cluster> {
        match &mut self.source {
            super::Source::Cluster(cluster) => Some(cluster),
            super::Source::File(_) => None,
        }
    }

    fn cluster(&self) -> Option<&Cluster> {
        match &self.source {
            super::Source::Cluster(cluster) => Some(cluster),
            super::Source::File(_) => None,
        }
    }
}

/// An identity for a set of maps.
fn random() -> u64 {
    let seed = std::hash::RandomState::new();
    std::hash::BuildHasher::hash_one(&seed, crate::net::boot::now_ns()).max(1)
}
