//! What is asked, and what is answered.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The `spec.loadBalancerClass` that is always ours unless another one is asked for.
pub const OWN_CLASS: &str = "l2-responder.io/responder";

/// Names a Service.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ServiceKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name there.
    pub name: String,
}

impl ServiceKey {
    /// Comes before all others.
    pub(super) const FIRST: Self = Self { namespace: String::new(), name: String::new() };
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Names an EndpointSlice.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct SliceKey {
    /// Its namespace, which is its Service's.
    pub namespace: String,
    /// Its name there.
    pub name: String,
}

impl SliceKey {
    /// Comes before all others.
    pub(super) const FIRST: Self = Self { namespace: String::new(), name: String::new() };
}

/// Which addresses may be announced.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rules {
    /// `None`: LoadBalancer Services without a class and those of [`OWN_CLASS`]. Otherwise those of exactly this
    /// class: then neither a Service without a class nor one of [`OWN_CLASS`].
    pub class: Option<String>,
    /// Whether `spec.externalIPs` are announced. They may be written by whoever may write a Service.
    pub external_ips: bool,
    /// What may be announced; empty: everything that is not refused for another reason.
    pub ranges: Vec<IpNet>,
}

/// Whose addresses are given to [`super::Services::protect`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Protected {
    /// Where this agent reaches the API server. What the Service `default/kubernetes` and its EndpointSlices name
    /// is protected without being given here.
    ApiServer,
    /// Default gateways of this node. They stay protected as long as the machine lives: a default route that is
    /// gone for a moment must not open the way for a Service that waits for it.
    Gateway,
}

/// The nodes that may announce an address, as far as Services are concerned.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Eligible {
    /// Every node.
    Any,
    /// These, by name; none: nobody announces it.
    Only(BTreeSet<String>),
}

impl Eligible {
    /// Whether no node may.
    #[must_use]
    pub fn is_nobody(&self) -> bool {
        matches!(self, Self::Only(nodes) if nodes.is_empty())
    }

    /// Whether `node` may.
    #[must_use]
    pub fn allows(&self, node: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(nodes) => nodes.contains(node),
        }
    }
}

/// An address that somebody must announce.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Demand {
    /// The Services that have it, each once, by name.
    pub services: Box<[ServiceKey]>,
    /// Who may.
    pub nodes: Eligible,
}

/// An address of a Service that is not announced.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Refused {
    /// The Service.
    pub service: ServiceKey,
    /// The address, normalised; as the Service has it if it is none.
    pub address: String,
}

/// What is different since it was last asked for. What went and came back is not.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Changes {
    /// Addresses whose [`Demand`] came, went or changed.
    pub demands: BTreeSet<IpAddr>,
    /// Refusals that came, went or have another reason.
    pub refusals: BTreeSet<Refused>,
}

impl Changes {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.demands.is_empty() && self.refusals.is_empty()
    }
}
