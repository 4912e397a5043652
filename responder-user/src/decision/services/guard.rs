//! Addresses that belong to somebody, and to whom.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use super::{Protected, ServiceKey, SliceKey};

/// Whether this is the Service by which pods reach the API server.
pub(super) fn is_api_server(service: &ServiceKey) -> bool {
    service.namespace == "default" && service.name == "kubernetes"
}

/// What has an address that no Service may take. In the order in which it is named as the reason.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Guard {
    Node(String),
    Given(Protected),
    ApiServerSlice(SliceKey),
    ClusterIp(ServiceKey),
}

impl Guard {
    /// Comes before all others.
    const FIRST: Self = Self::Node(String::new());
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => write!(f, "is an address of node {name}"),
            Self::Given(Protected::Gateway) => {
                f.write_str("is, or was since the agent started, the address of a default gateway")
            }
            Self::Given(Protected::ApiServer) | Self::ApiServerSlice(_) => {
                f.write_str("is an address of the API server")
            }
            Self::ClusterIp(service) => write!(f, "is the cluster IP of Service {service}"),
        }
    }
}

/// All of them.
#[derive(Default, Debug)]
pub(super) struct Guards {
    addresses: BTreeMap<Guard, BTreeSet<IpAddr>>,
    by_address: BTreeSet<(IpAddr, Guard)>,
}

impl Guards {
    /// Replaces a guard's addresses. Returns those that it has no longer or had not before.
    pub(super) fn set(&mut self, guard: Guard, new: BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
        let old = self.addresses.remove(&guard).unwrap_or_default();
        for ip in old.difference(&new) {
            self.by_address.remove(&(*ip, guard.clone()));
        }
        for ip in new.difference(&old) {
            self.by_address.insert((*ip, guard.clone()));
        }
        let changed = &old ^ &new;
        if !new.is_empty() {
            self.addresses.insert(guard, new);
        }
        changed
    }

    /// What a guard has.
    pub(super) fn of(&self, guard: &Guard) -> impl Iterator<Item = IpAddr> {
        self.addresses.get(guard).into_iter().flatten().copied()
    }

    /// Why `ip` must not be announced.
    pub(super) fn reason(&self, ip: IpAddr) -> Option<String> {
        let (of, first) = self.by_address.range((ip, Guard::FIRST)..).next()?;
        (*of == ip).then(|| first.to_string())
    }
}
