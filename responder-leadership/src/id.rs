//! Names of nodes, sessions and objects.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// A node's name, as Kubernetes knows it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for NodeName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Which life of a node's agent: a number that only grows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// One session: a node in one incarnation. Written `n1/1763733600000`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SessionId {
    /// The node.
    pub node: NodeName,
    /// Its incarnation.
    pub incarnation: Incarnation,
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.incarnation)
    }
}

/// Text that is no [`SessionId`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is not of the form NODE/INCARNATION")]
pub struct BadSessionId(String);

impl FromStr for SessionId {
    type Err = BadSessionId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadSessionId(text.to_owned());
        let (node, number) = text.rsplit_once('/').ok_or_else(bad)?;
        // `parse` takes a sign, too.
        let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        if node.is_empty() || !digits {
            return Err(bad());
        }
        // What can never be outgrown is nonsense.
        let number = number.parse().ok().filter(|number| *number < 1 << 62);
        let incarnation = number.map(Incarnation).ok_or_else(bad)?;
        Ok(Self { node: node.into(), incarnation })
    }
}

impl From<SessionId> for String {
    fn from(id: SessionId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for SessionId {
    type Error = BadSessionId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// The API server's number of an object's version: it grows with every change of any object.
///
/// Kubernetes promises that these can be compared as numbers (KEP-5504), and etcd has always made them so.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u64);

/// Number of a group of VIPs, from 0.
pub type Group = u16;

/// A Lease that the machine reads and writes. In records `session n1` and `claim 3`: it is a key there, too.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Object {
    /// A node's session.
    Session(NodeName),
    /// The claim of a group.
    Claim(Group),
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(node) => write!(f, "the session of {node}"),
            Self::Claim(group) => write!(f, "claim {group}"),
        }
    }
}

impl From<Object> for String {
    fn from(object: Object) -> Self {
        match object {
            Object::Session(node) => format!("session {node}"),
            Object::Claim(group) => format!("claim {group}"),
        }
    }
}

/// Text that is no [`Object`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is neither \"session NODE\" nor \"claim NUMBER\"")]
pub struct BadObject(String);

impl TryFrom<String> for Object {
    type Error = BadObject;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let object = match text.split_once(' ') {
            Some(("session", node)) if !node.is_empty() => Some(Self::Session(node.into())),
            Some(("claim", group)) => group.parse().ok().map(Self::Claim),
            Some(_) | None => None,
        };
        object.ok_or(BadObject(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_read_as_they_are_written() {
        for object in [Object::Session("n1.example".into()), Object::Claim(17)] {
            assert_eq!(Object::try_from(String::from(object.clone())), Ok(object));
        }
        for bad in ["", "session", "session ", "claim", "claim x", "claim 65536", "node n1"] {
            assert!(Object::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn session_ids_are_read_as_they_are_written() {
        let id = SessionId { node: "n1.example".into(), incarnation: Incarnation(17) };
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in [
            "",
            "n1",
            "n1/",
            "/1",
            "n1/-1",
            "n1/+1",
            "n1/x",
            "n1/1 ",
            "n1/18446744073709551615",
            "n1/99999999999999999999",
        ] {
            assert!(bad.parse::<SessionId>().is_err(), "{bad:?}");
        }
    }
}
