//! What the Leases say.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    time::Duration,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::id::{NodeName, SessionId};

/// Whether a session may hold anything.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// Its agent renews it.
    Live,
    /// Released by its agent, or revoked by another node's. What it held is free.
    Ended {
        /// The node that wrote this.
        by: NodeName,
    },
}

/// Whether a node should hold anything.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fitness {
    /// Yes.
    Fit,
    /// Only while no fit node lives; with the reason.
    LastResort(String),
    /// No; with the reason.
    Unfit(String),
}

/// Which addresses a node can announce on its links.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// All.
    Any,
    /// Those that one of these prefixes covers.
    Prefixes(BTreeSet<IpNet>),
}

impl Reach {
    /// Whether `address` can be announced. Neither the network nor the broadcast address of an IPv4 prefix can.
    #[must_use]
    pub fn covers(&self, address: &IpAddr) -> bool {
        let prefixes = match self {
            Self::Any => return true,
            Self::Prefixes(prefixes) => prefixes.iter(),
        };
        let longest = prefixes.filter(|net| net.contains(address)).max_by_key(|net| net.prefix_len());
        longest.is_some_and(|net| match net {
            // RFC 3021: a prefix of 31 bits has neither.
            IpNet::V4(net) if net.prefix_len() < 31 => {
                *address != IpAddr::V4(net.network()) && *address != IpAddr::V4(net.broadcast())
            }
            IpNet::V4(_) | IpNet::V6(_) => true,
        })
    }

    /// Whether nothing can be announced.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Prefixes(prefixes) if prefixes.is_empty())
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("every address"),
            Self::Prefixes(prefixes) if prefixes.is_empty() => f.write_str("nothing"),
            Self::Prefixes(prefixes) => {
                let list: Vec<_> = prefixes.iter().map(ToString::to_string).collect();
                f.write_str(&list.join(", "))
            }
        }
    }
}

/// A node's heartbeat.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Session {
    /// Whose.
    pub id: SessionId,
    /// Live or ended.
    pub state: SessionState,
    /// How long an observer must have seen no change before it may revoke this.
    pub duration: Duration,
    /// Grows with every write of this incarnation, so that its agent knows its own writes again.
    pub renewal: u64,
    /// Which datapath answers for it: the identity of the pinned maps.
    pub datapath: String,
    /// Whether the node should hold anything.
    pub fitness: Fitness,
    /// What the node can announce.
    pub reach: Reach,
}

/// Who holds a group of VIPs.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Claim {
    /// The group's holder; `None`: free.
    pub holder: Option<SessionId>,
    /// VIPs of the group that someone else holds.
    pub exceptions: BTreeMap<IpAddr, SessionId>,
    /// Who wrote this, and a number that grows with each of its writes.
    ///
    /// The API server does not store an update that changes nothing, and a version that stays does not stop a
    /// late write. So every write must differ from the one before.
    pub written: (SessionId, u64),
}

/// What a [`crate::event::Effect::Write`] writes.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// A session.
    Session(Session),
    /// A claim.
    Claim(Claim),
}

/// What was found where a Lease should be.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen<T> {
    /// Nothing.
    Absent,
    /// Something that cannot be understood, and why.
    Bad(String),
    /// This.
    Good(T),
}

impl<T> Seen<T> {
    /// The content, if it could be understood.
    #[must_use]
    pub const fn good(&self) -> Option<&T> {
        match self {
            Self::Good(content) => Some(content),
            Self::Absent | Self::Bad(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_for_an_address() {
        let prefixes = ["192.0.0.0/16", "192.0.2.0/24", "198.51.100.0/31", "2001:db8::/64"];
        let some = Reach::Prefixes(prefixes.iter().map(|net| net.parse().unwrap()).collect());
        for (ip, covered) in [
            ("192.0.2.1", true),
            ("192.0.2.0", false),
            ("192.0.2.255", false),
            ("192.0.3.255", true),
            ("192.0.255.255", false),
            ("198.51.100.0", true),
            ("198.51.100.2", false),
            ("2001:db8::", true),
            ("2001:db8:0:1::", false),
        ] {
            assert_eq!(some.covers(&ip.parse().unwrap()), covered, "{ip}");
        }
        assert!(Reach::Any.covers(&[8, 8, 8, 8].into()) && !Reach::Any.is_nothing());
    }

    #[test]
    fn as_it_is_published() {
        let some = Reach::Prefixes(["192.0.2.0/24".parse().unwrap()].into());
        for (value, text) in [(Reach::Any, r#""any""#), (some, r#"{"prefixes":["192.0.2.0/24"]}"#)] {
            assert_eq!(serde_json::to_string(&value).unwrap(), text);
            assert_eq!(serde_json::from_str::<Reach>(text).unwrap(), value);
        }
    }
}
