//! What the machine is told.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::Node;
use responder_leadership::{
    event::{Eligible, Event, Via},
    group::group_of,
    id::NodeName,
    lease::{Fitness, Reach, Seen},
    machine::Machine,
    record::Begin,
    settings::Settings,
};
use tokio::task::JoinHandle;

use super::{Cluster, Input, Player, connect::Terms, effects::start_record};
use crate::{
    agent::{Agent, now},
    cluster::{
        codec::Record,
        events::Publisher,
        leases::Arrival,
        objects::{Change, ObjectChange},
        record::{Agreed, agree_at_last},
        writes::Writer,
    },
    decision::{
        fitness::{EXCLUDE_LABEL, Fit, Host, fitness},
        services::{self, Protected, ServiceKey, SliceKey},
        subnets::Subnets,
    },
    net::boot,
};

/// Kinds of objects that must be known before anything is decided.
const KINDS: usize = 3;

impl Agent {
    /// Takes what the API server has told.
    pub(in crate::agent) fn take_inputs(&mut self, inputs: Vec<Input>) -> Result<()> {
        let mut objects = Vec::new();
        for input in inputs {
            match input {
                Input::Agreed(terms) => self.agree(*terms)?,
                Input::Arrival(Arrival::Event(event)) => {
                    self.time(&event);
                    self.take_event(event);
                }
                Input::Arrival(Arrival::Record { version: _, seen }) => self.take_record(seen),
                Input::Arrival(Arrival::Unusable(error)) => bail!(error),
                // After the Leases, and told at once: no plan is made with what the machine does not know.
                Input::Object(change) => objects.push(change),
            }
        }
        if !objects.is_empty() {
            if let Some(cluster) = self.cluster_mut() {
                objects.into_iter().for_each(|change| cluster.take_object(change));
            }
            self.tell_machine_of_objects();
        }
        Ok(())
    }

    /// How far the watch is behind is measured by what is known of both ends: this node's own renewals.
    fn time(&self, event: &Event) {
        if let Event::Session { node, version, via: Via::Watch, .. } = event
            && self.cluster().is_some_and(|cluster| cluster.options.node == *node)
        {
            self.counts.session_seen(*version);
        }
    }

    /// The cluster's record is known: the machine begins.
    fn agree(&mut self, terms: Terms) -> Result<()> {
        let renewals = self.counts.renewals();
        let Some(cluster) = self.cluster_mut() else {
            return Ok(());
        };
        let Terms { agreed: Agreed { record, .. }, leases, known, tell } = terms;
        let Record { claims, longest, request } = record;
        let same_groups = cluster.owner.claims == u64::from(claims.get());
        let adopted = cluster.adopted.take().filter(|_| same_groups);
        if adopted.is_none() {
            cluster.deadline = Some(Duration::ZERO);
        }
        let options = &cluster.options;
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let settings = Settings {
            node: options.node.clone(),
            datapath: format!("{:016x}", cluster.owner.datapath),
            claims,
            longest,
            times: options.times,
            seed: cluster.owner.datapath ^ boot::now_ns(),
            wall: (wall.as_millis().try_into().unwrap_or(u64::MAX), now()),
        };
        let begin = Begin { settings: settings.clone(), adopted: adopted.clone() };
        cluster.begun += 1;
        let number = cluster.begun;
        let recorder = options.record.as_deref().map(|file| start_record(file, number, &begin));
        let lines = cluster.connected.lines.clone();
        let publisher = Publisher::start(Arc::clone(&lines.writes), options.node.clone());
        let writer =
            Writer::new(lines, &options.namespace, claims, &options.times, known, tell).timing(renewals);
        cluster.adopted.clone_from(&adopted);
        cluster.player = Some(Player {
            machine: Machine::new(settings, adopted),
            writer,
            leases,
            claims,
            longest,
            restoring: None,
            publisher,
            held_back: None,
            synced: false,
            request: request.map(|request| request.id),
            recorder: recorder.transpose()?,
        });
        // What is not adopted is not answered any more.
        self.plan_and_write();
        self.beat(now());
        Ok(())
    }

    fn take_record(&mut self, seen: Seen<Record>) {
        let Some(player) = self.cluster_mut().and_then(|cluster| cluster.player.as_mut()) else {
            return;
        };
        let record = match seen {
            Seen::Good(record) => record,
            Seen::Absent => {
                self.restore_record();
                return;
            }
            Seen::Bad(reason) => {
                self.counts.bad_record();
                tracing::error!(%reason, "the cluster's record cannot be understood; what it said before goes on");
                return;
            }
        };
        if record.claims != player.claims {
            let followed = player.claims;
            self.recount(record.claims, followed);
            return;
        }
        let request = record.request.filter(|request| player.request.as_ref() != Some(&request.id));
        player.request = request.as_ref().map(|request| request.id.clone()).or(player.request.take());
        player.longest = record.longest;
        self.take_event(Event::Longest(record.longest));
        if let Some(request) = request {
            self.take_event(Event::Move { group: request.group, to: request.to });
        }
    }

    /// The record was deleted: what it said goes on, and is written again.
    fn restore_record(&mut self) {
        let Some(cluster) = self.cluster_mut() else {
            return;
        };
        let (line, namespace) =
            (Arc::clone(&cluster.connected.lines.writes), cluster.options.namespace.clone());
        let Some(player) = &mut cluster.player else {
            return;
        };
        if player.restoring.as_ref().is_none_or(JoinHandle::is_finished) {
            tracing::warn!("the cluster's record was deleted; it is made anew");
            let (claims, longest) = (player.claims, player.longest);
            let restore = async move { agree_at_last(&line, &namespace, claims, longest).await };
            player.restoring = Some(tokio::spawn(restore));
        }
    }

    /// Tells the machine an event, when its time has come.
    pub(in crate::agent) fn take_event(&mut self, event: Event) {
        let Some(cluster) = self.cluster_mut() else {
            return;
        };
        let all_listed = cluster.listed.len() == KINDS;
        let Some(player) = &mut cluster.player else {
            return;
        };
        if let Event::Synced { listed_at } = event
            && !player.synced
        {
            // Without the Services nothing can be answered, and what an earlier agent answered would be lost.
            player.held_back = Some(listed_at);
            if all_listed {
                self.tell_machine_of_objects();
            }
            return;
        }
        self.play(event);
    }

    /// Services, Nodes or links have changed.
    pub(in crate::agent) fn tell_machine_of_objects(&mut self) {
        let net = Arc::clone(&self.net);
        let attached = self.attached();
        let unhealthy = attached.is_empty().then_some("cannot attach its program to any link");
        let failing: BTreeSet<_> =
            self.plan.interfaces.keys().copied().filter(|i| !attached.contains(i)).collect();
        let Some(cluster) = self.cluster_mut() else {
            return;
        };
        if cluster.listed.len() < KINDS || cluster.player.is_none() {
            return;
        }
        cluster.services.protect(Protected::Gateway, net.default_gateways.clone());
        let api_server = cluster.connected.api_server.into_iter().collect();
        cluster.services.protect(Protected::ApiServer, api_server);
        let changes = cluster.services.take_changes();
        cluster.note_additions(&changes.demands);
        let demands = cluster.services.demands();
        // A machine that begins knows nothing of what was before.
        let is_new = cluster.player.as_ref().is_some_and(|player| !player.synced);
        let vips = if is_new { demands.keys().copied().collect() } else { changes.demands.clone() };
        let demand: Vec<_> =
            vips.iter().map(|vip| (*vip, demands.get(vip).map(|demand| eligible(&demand.nodes)))).collect();
        let subnets = Subnets::new(&cluster.options.links, &net);
        let local = cluster.local(subnets.reach(|index| failing.contains(&index)), unhealthy);
        let expected = cluster.expected();
        let first = cluster.player.as_mut().filter(|player| !player.synced).and_then(|player| {
            let listed_at = player.held_back.take()?;
            player.synced = true;
            Some(listed_at)
        });
        let changed = !demand.is_empty();
        if changed {
            self.play(Event::Demand(demand));
        }
        self.play_surroundings(local, expected);
        if let Some(listed_at) = first {
            self.play(Event::Synced { listed_at });
        }
        if changed {
            self.replan();
        }
        self.say_refusals(&changes);
    }
}

impl Cluster {
    fn take_object(&mut self, change: ObjectChange) {
        match change {
            ObjectChange::Service(Change::Is(key, service)) => {
                let key = ServiceKey { namespace: key.namespace, name: key.name };
                if let Some(uid) = &service.metadata.uid {
                    self.uids.insert(key.clone(), uid.clone());
                }
                self.services.service(&key, Some(&service));
            }
            ObjectChange::Service(Change::Gone(key)) => {
                let key = ServiceKey { namespace: key.namespace, name: key.name };
                self.uids.remove(&key);
                self.services.service(&key, None);
            }
            ObjectChange::Slice(Change::Is(key, slice)) => {
                self.services.slice(&SliceKey { namespace: key.namespace, name: key.name }, Some(&slice));
            }
            ObjectChange::Slice(Change::Gone(key)) => {
                self.services.slice(&SliceKey { namespace: key.namespace, name: key.name }, None);
            }
            ObjectChange::Node(Change::Is(key, node)) => {
                self.services.node(&key.name, Some(&node));
                self.nodes.insert(key.name, Arc::new(*node));
            }
            ObjectChange::Node(Change::Gone(key)) => {
                self.services.node(&key.name, None);
                self.nodes.remove(&key.name);
            }
            ObjectChange::Service(Change::Synced) => drop(self.listed.insert("Services")),
            ObjectChange::Slice(Change::Synced) => drop(self.listed.insert("EndpointSlices")),
            ObjectChange::Node(Change::Synced) => drop(self.listed.insert("Nodes")),
        }
    }

    /// Takes note of addresses that are new while their group is held.
    fn note_additions(&mut self, changed: &BTreeSet<IpAddr>) {
        let (Some(player), Some(holdings)) = (&self.player, &self.holdings) else {
            return;
        };
        let wanted = self.services.demands();
        let of_held = |vip: &&IpAddr| holdings.groups.contains(&group_of(**vip, player.claims));
        let new = changed.iter().filter(|vip| wanted.contains_key(vip)).filter(of_held);
        new.filter(|vip| !self.voiced.contains(vip)).for_each(|vip| self.causes.add(*vip));
    }

    /// What can be said of this node.
    fn local(&self, reach: Reach, unhealthy: Option<&str>) -> Event {
        let node = self.nodes.get(self.options.node.as_str());
        let host = Host { usable_link: !reach.is_nothing(), unhealthy };
        let fitness = match fitness(node.map(AsRef::as_ref), &host) {
            Fit::Yes => Fitness::Fit,
            Fit::LastResort(reason) => Fitness::LastResort(reason),
            Fit::No(reason) => Fitness::Unfit(reason),
        };
        Event::Local { fitness, reach }
    }

    /// The nodes that may yet have an agent, Ready or not: when a cluster starts, the first node to be Ready must not take
    /// everything.
    fn expected(&self) -> Event {
        let expected = self.nodes.iter().filter(|(_, node)| !is_excluded(node));
        let expected: BTreeSet<_> = expected.map(|(name, _)| NodeName::from(name.as_str())).collect();
        Event::Expected(expected)
    }
}

fn is_excluded(node: &Node) -> bool {
    node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(EXCLUDE_LABEL))
}

/// Whether a node should have an agent now.
pub(super) fn is_expected(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    ready && !is_excluded(node)
}

fn eligible(nodes: &services::Eligible) -> Eligible {
    match nodes {
        services::Eligible::Any => Eligible::Any,
        services::Eligible::Only(nodes) => {
            Eligible::Only(Arc::new(nodes.iter().map(|node| NodeName::from(node.as_str())).collect()))
        }
    }
}
