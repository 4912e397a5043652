//! A cluster read for an operator's command.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::Client;
use responder_leadership::id::NodeName;
use tokio::time::{Instant, sleep};

use crate::{
    cluster::{
        client::{Access, AccessError, Line, config},
        names::{self, Named},
        read::{self, ReadError},
    },
    control::LeadershipStatus,
    decision::services::{Protected, Rules},
    overview::{ClusterView, Facts, late, view},
};

/// Between two looks at something that should change.
pub(crate) const LOOK: Duration = Duration::from_millis(100);
/// How long a session that looks expired is watched at most.
const SECOND_LOOK: Duration = Duration::from_secs(10);

/// How to read a cluster, as the arguments say.
#[derive(Clone, Debug, Default)]
pub struct Where {
    /// Where the API server is.
    pub access: Access,
    /// Namespace of the Leases; else that of the local agent, else the usual one.
    pub namespace: Option<String>,
    /// This node's name; else the local agent's, else the host's.
    pub node: Option<String>,
    /// What the agents announce; else what the local agent does.
    pub rules: Option<Rules>,
}

/// Whose credentials come first where none are named.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Prefer {
    /// The local agent's, which read.
    Agents,
    /// The operator's own.
    Own,
}

/// Sessions as they are followed: version, and when it was last seen to change.
pub type Followed = BTreeMap<NodeName, (Option<String>, Option<Instant>)>;

/// A connection for an operator.
pub struct Operator {
    /// For single reads and writes.
    pub client: Client,
    /// For the cluster's record.
    pub line: Arc<Line>,
    /// Namespace of the Leases.
    pub namespace: String,
    /// The node that this runs on, if it is one.
    pub this_node: NodeName,
    rules: Rules,
    protected: BTreeMap<Protected, BTreeSet<IpAddr>>,
}

/// Whether something says where an API server is.
#[must_use]
pub fn is_known(access: &Access) -> bool {
    names_own(access) || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() || own_kubeconfig().exists()
}

/// Whether the operator names a kubeconfig: by `--kubeconfig`, or by the variable that kubectl reads.
#[must_use]
pub fn names_own(access: &Access) -> bool {
    access.kubeconfig.is_some() || std::env::var_os("KUBECONFIG").is_some_and(|files| !files.is_empty())
}

/// Where kubectl looks.
fn own_kubeconfig() -> PathBuf {
    std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default().join(".kube/config")
}

impl Operator {
    /// Finds the API server; nothing is sent.
    ///
    /// # Errors
    ///
    /// If none is known, or the credentials cannot be used.
    pub async fn connect(
        place: &Where,
        local: Option<&LeadershipStatus>,
        prefer: Prefer,
    ) -> Result<Self, AccessError> {
        let mut access = place.access.clone();
        let own = names_own(&access) || (prefer == Prefer::Own && is_known(&access));
        if let Some(agent) = local.filter(|_| !own) {
            access.kubeconfig.clone_from(&agent.kubeconfig);
            access.context = access.context.or_else(|| agent.context.clone());
        }
        let config = config(&access).await?;
        let api_server =
            config.cluster_url.host().and_then(|host| host.trim_matches(['[', ']']).parse().ok());
        let mut protected = BTreeMap::new();
        protected.insert(Protected::ApiServer, api_server.into_iter().collect());
        if let Some(agent) = local {
            protected.insert(Protected::Gateway, agent.gateways.clone());
        }
        let line = Arc::new(Line::new("operator", config)?);
        let host = || nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).ok();
        let node = place.node.clone().or_else(|| local.map(|agent| agent.node.to_string())).or_else(host);
        let namespace = place.namespace.clone().or_else(|| local.map(|agent| agent.namespace.clone()));
        Ok(Self {
            client: line.client().0,
            line,
            namespace: namespace.unwrap_or_else(|| names::NAMESPACE.to_owned()),
            this_node: node.unwrap_or_default().as_str().into(),
            rules: place.rules.clone().or_else(|| local.map(|agent| agent.rules.clone())).unwrap_or_default(),
            protected,
        })
    }

    /// Reads everything; what cannot be read is a problem of the view and nothing else. Sessions that look expired are
    /// looked at again, in case this machine's clock is wrong.
    pub async fn look(&self) -> ClusterView {
        self.look_closely().await.1
    }

    /// The same, with what was read.
    pub async fn look_closely(&self) -> (Facts, ClusterView) {
        let mut problems = Vec::new();
        let (leases, services, slices, nodes) = tokio::join!(
            read::leases(&self.client, &self.namespace),
            read::services(&self.client),
            read::slices(&self.client),
            read::nodes(&self.client),
        );
        let mut facts = self.facts(kept(leases, "sessions, claims and owners are not known", &mut problems));
        facts.services = kept(services, "only exceptions are shown as addresses", &mut problems);
        let without = "endpoints are not known, and thus not whether addresses of externalTrafficPolicy Local are \
                       answered";
        facts.slices = kept(slices, without, &mut problems);
        let without = "nodes without an agent are not shown, and addresses of nodes not known to be refused";
        facts.nodes = kept(nodes, without, &mut problems);
        facts.problems = problems;
        self.look_again(&mut facts).await;
        let view = view(&facts);
        (facts, view)
    }

    /// From now on, what an agent refuses; with its rules, what it announces, too.
    pub fn follow(&mut self, agent: &LeadershipStatus, with_rules: bool) {
        if with_rules {
            self.rules = agent.rules.clone();
        }
        self.protected.insert(Protected::Gateway, agent.gateways.clone());
    }

    /// Whether an agent has told what only nodes know: their default gateways.
    #[must_use]
    pub fn knows_gateways(&self) -> bool {
        self.protected.contains_key(&Protected::Gateway)
    }

    /// Reads the Leases alone.
    ///
    /// # Errors
    ///
    /// See [`ReadError`].
    pub async fn glance(&self) -> Result<ClusterView, ReadError> {
        let leases = read::leases(&self.client, &self.namespace).await?;
        Ok(view(&self.facts(Some(leases))))
    }

    /// Reads the Leases alone, again and again: a session that is renewed meanwhile lives, whatever the clocks say.
    ///
    /// # Errors
    ///
    /// See [`ReadError`].
    pub async fn glance_again(&self, followed: &mut Followed) -> Result<ClusterView, ReadError> {
        let leases = read::leases(&self.client, &self.namespace).await?;
        let now = Instant::now();
        for (node, version) in versions(&leases) {
            let (known, changed) = followed.entry(node).or_insert_with(|| (version.clone(), None));
            if *known != version {
                (*known, *changed) = (version, Some(now));
            }
        }
        let mut facts = self.facts(Some(leases));
        for (node, lease) in late(&facts) {
            let changed = followed.get(&node).and_then(|(_, changed)| *changed);
            if changed.is_some_and(|changed| now.duration_since(changed) <= lease) {
                facts.seen_alive.insert(node);
            }
        }
        Ok(view(&facts))
    }

    fn facts(&self, leases: Option<Vec<Lease>>) -> Facts {
        Facts {
            namespace: self.namespace.clone(),
            this_node: Some(self.this_node.clone()),
            leases,
            services: None,
            slices: None,
            nodes: None,
            rules: self.rules.clone(),
            protected: self.protected.clone(),
            seen_alive: BTreeSet::new(),
            problems: Vec::new(),
            now: Timestamp::now(),
        }
    }

    /// Waits for sessions that look expired to be renewed, as long as a live one would take.
    async fn look_again(&self, facts: &mut Facts) {
        let late = late(facts);
        let versions = versions(facts.leases.as_deref().unwrap_or_default());
        let longest = late.values().max().copied().unwrap_or_default().min(SECOND_LOOK);
        let until = Instant::now() + longest;
        while facts.seen_alive.len() < late.len() && Instant::now() < until {
            sleep(LOOK).await;
            let Ok(leases) = read::leases(&self.client, &self.namespace).await else {
                return;
            };
            let newer = self::versions(&leases);
            let renewed = late.keys().filter(|node| versions.get(*node) != newer.get(*node));
            facts.seen_alive.extend(renewed.cloned());
            (facts.leases, facts.now) = (Some(leases), Timestamp::now());
        }
    }
}

fn kept<T>(read: Result<Vec<T>, ReadError>, without: &str, problems: &mut Vec<String>) -> Option<Vec<T>> {
    read.map_err(|error| problems.push(format!("{error}; {without}"))).ok()
}

/// The versions of the sessions.
fn versions(leases: &[Lease]) -> BTreeMap<NodeName, Option<String>> {
    let version = |lease: &Lease| match lease.metadata.name.as_deref().and_then(Named::parse)? {
        Named::Session(node) => Some((node, lease.metadata.resource_version.clone())),
        Named::Claim { .. } | Named::Cluster => None,
    };
    leases.iter().filter_map(version).collect()
}
