//! Names, labels and annotations of the Leases.

use std::num::NonZeroU16;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use responder_leadership::id::{Group, NodeName, Object, Version};

/// Where the Leases are unless another namespace is asked for.
pub const NAMESPACE: &str = "l2-responder";
/// Label: `session`, `claim` or `cluster`.
pub const KIND: &str = "l2-responder.io/kind";
/// Label that says whose objects these are.
pub const APP: &str = "app.kubernetes.io/name";
/// Value of [`APP`].
pub const APP_NAME: &str = "l2-responder";
/// Annotation: what the Lease says, as JSON.
pub const RECORD: &str = "l2-responder.io/record";
/// Annotation: how long a session is valid, exactly (`500ms`).
pub const LEASE_DURATION: &str = "l2-responder.io/lease-duration";

/// The longest name that an object may have.
const LONGEST_NAME: usize = 253;
const SESSION_PREFIX: &str = "session-";

/// A Lease of ours, by its name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Named {
    /// A node's session.
    Session(NodeName),
    /// The claim of a group.
    Claim {
        /// The number of groups.
        claims: NonZeroU16,
        /// Which.
        group: Group,
    },
    /// The cluster's record.
    Cluster,
}

/// A node's name that cannot be part of a session's.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadNodeName {
    /// Too long.
    #[error(
        "node name {name:?} has {} characters: its session would be the Lease {SESSION_PREFIX}{name}, and names of \
         objects have at most {LONGEST_NAME}; the node's may have {} (--node-name)",
        name.len(),
        LONGEST_NAME - SESSION_PREFIX.len()
    )]
    TooLong {
        /// The node's name.
        name: String,
    },
    /// No name that Kubernetes gives.
    #[error(
        "node name {0:?} is none: it must be the name of the Node object, which has small letters, digits, \"-\" \
         and \".\", and begins and ends with a letter or digit (--node-name)"
    )]
    Malformed(String),
}

/// Checks that a node of this name can have a session.
///
/// # Errors
///
/// With what is wrong with the name.
pub fn check_node(name: &NodeName) -> Result<(), BadNodeName> {
    let text = name.as_str();
    let label = |label: &str| {
        let ends = [label.bytes().next(), label.bytes().last()];
        let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        ends.iter().all(|end| end.is_some_and(alnum)) && label.bytes().all(|b| alnum(b) || b == b'-')
    };
    if !text.split('.').all(label) {
        return Err(BadNodeName::Malformed(text.to_owned()));
    }
    if SESSION_PREFIX.len() + text.len() > LONGEST_NAME {
        return Err(BadNodeName::TooLong { name: text.to_owned() });
    }
    Ok(())
}

impl Named {
    /// The Lease of an object, in a cluster with so many claims.
    #[must_use]
    pub fn of(object: &Object, claims: NonZeroU16) -> Self {
        match object {
            Object::Session(node) => Self::Session(node.clone()),
            Object::Claim(group) => Self::Claim { claims, group: *group },
        }
    }

    /// What a Lease of this name is; `None`: not one of ours.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        if name == Self::Cluster.name() {
            return Some(Self::Cluster);
        }
        if let Some(node) = name.strip_prefix(SESSION_PREFIX) {
            return (!node.is_empty()).then(|| Self::Session(node.into()));
        }
        let (claims, group) = name.strip_prefix("claim-")?.split_once('-')?;
        let named = Self::Claim { claims: claims.parse().ok()?, group: group.parse().ok()? };
        // `parse` takes signs and zeros, too, and an object must not be known by two names.
        (named.name() == name).then_some(named)
    }

    /// The Lease's name.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Session(node) => format!("{SESSION_PREFIX}{node}"),
            Self::Claim { claims, group } => {
                let width = (claims.get() - 1).to_string().len();
                format!("claim-{claims}-{group:0width$}")
            }
            Self::Cluster => "cluster".to_owned(),
        }
    }

    /// The value of its label [`KIND`].
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Session(_) => "session",
            Self::Claim { .. } => "claim",
            Self::Cluster => "cluster",
        }
    }

    /// The machine's object, if this is one in a cluster with so many claims.
    #[must_use]
    pub fn object(&self, claims: NonZeroU16) -> Option<Object> {
        match self {
            Self::Session(node) => Some(Object::Session(node.clone())),
            Self::Claim { claims: of, group } if *of == claims && *group < claims.get() => {
                Some(Object::Claim(*group))
            }
            Self::Claim { .. } | Self::Cluster => None,
        }
    }
}

/// A version that cannot be compared.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{name} has the resourceVersion {found:?}, which is no number: this API server cannot be used, because \
     the order of changes cannot be told (Kubernetes promises numbers since 1.35, and etcd gives them)"
)]
pub struct BadVersion {
    name: String,
    found: String,
}

impl BadVersion {
    pub(super) fn of(name: &str, found: &str) -> Self {
        Self { name: name.to_owned(), found: found.to_owned() }
    }
}

/// The version of an object.
///
/// # Errors
///
/// If it is no number.
pub fn version(metadata: &ObjectMeta) -> Result<Version, BadVersion> {
    let found = metadata.resource_version.as_deref().unwrap_or_default();
    parse_version(found).ok_or_else(|| BadVersion::of(metadata.name.as_deref().unwrap_or_default(), found))
}

/// A version in text; `None`: no number, or 0, which is no version.
#[must_use]
pub fn parse_version(text: &str) -> Option<Version> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse().ok().filter(|number| digits && *number != 0);
    number.map(Version)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claim(claims: u16, group: Group) -> Named {
        Named::Claim { claims: NonZeroU16::new(claims).unwrap(), group }
    }

    /// Their order by name is their order by number.
    #[test]
    fn names_of_claims_are_padded() {
        let name = |claims, group| claim(claims, group).name();
        assert_eq!(name(16, 3), "claim-16-03");
        assert_eq!(name(10, 9), "claim-10-9");
        assert_eq!(name(11, 10), "claim-11-10");
        assert_eq!(name(1, 0), "claim-1-0");
        assert_eq!(name(65535, 7), "claim-65535-00007");
    }

    #[test]
    fn names_of_others_are_not_ours() {
        for other in
            ["", "session-", "claim-16-3", "claim-016-03", "claim-16", "claim-0-0", "claim-16-+3", "x"]
        {
            assert_eq!(Named::parse(other), None, "{other}");
        }
    }

    #[test]
    fn claims_of_another_count_are_no_objects() {
        let sixteen = NonZeroU16::new(16).unwrap();
        assert_eq!(claim(16, 3).object(sixteen), Some(Object::Claim(3)));
        assert_eq!(claim(8, 3).object(sixteen), None);
        assert_eq!(claim(16, 16).object(sixteen), None);
    }

    #[test]
    fn node_names_that_cannot_have_a_session_are_refused() {
        let check = |name: &str| check_node(&name.into());
        assert_eq!(check("n1"), Ok(()));
        assert_eq!(check("ip-10-0-0-1.eu.example"), Ok(()));
        let label = "a".repeat(61);
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(59));
        assert_eq!((longest.len(), check(&longest)), (245, Ok(())));
        let error = check(&format!("{longest}a")).unwrap_err().to_string();
        assert!(error.contains("246") && error.contains("may have 245"), "{error}");
        for bad in ["", "N1", "n1/", "-n", "n-", "a..b", ".", "n_1", "ü"] {
            assert!(check(bad).unwrap_err().to_string().contains("--node-name"), "{bad}");
        }
    }

    #[test]
    fn versions_are_numbers() {
        assert_eq!(parse_version("17"), Some(Version(17)));
        for bad in ["", "0", "+1", "-1", " 1", "1a", "99999999999999999999"] {
            assert_eq!(parse_version(bad), None, "{bad:?}");
        }
        let error = version(&ObjectMeta { name: Some("session-n1".to_owned()), ..Default::default() });
        assert!(error.unwrap_err().to_string().contains("session-n1"));
    }

    proptest! {
        #[test]
        fn what_is_ours_has_one_name(text in "(session|claim|cluster)?-?[0-9a-z+.-]{0,12}") {
            if let Some(named) = Named::parse(&text) {
                prop_assert_eq!(named.name(), text);
            }
        }

        #[test]
        fn names_are_read_as_they_are_written(claims: NonZeroU16, group: u16, node in "[a-z0-9.-]{1,20}") {
            for named in [Named::Claim { claims, group: group % claims }, Named::Session(node.as_str().into())] {
                prop_assert_eq!(Named::parse(&named.name()), Some(named));
            }
        }
    }
}
