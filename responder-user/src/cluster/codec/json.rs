//! The records' JSON. Every agent of a cluster must understand it, older ones too: a change raises [`V`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    num::NonZeroU16,
};

use k8s_openapi::api::coordination::v1::Lease;
use responder_leadership::{
    id::SessionId,
    lease::{Claim, Fitness, Reach, Session, SessionState},
    settings::{LONGEST, LONGEST_IDLE},
};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, Error as _, MapAccess, Visitor},
    ser::SerializeMap as _,
};

use super::{
    EncodeError, KIND, LONGEST_RECORD, Named, RECORD, Record, Request, annotation, parse_duration, text,
};

/// The version of what follows.
const V: u64 = 1;

/// Whatever has a version.
#[derive(Deserialize)]
struct Versioned {
    v: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionJson {
    v: u64,
    session: SessionId,
    state: SessionState,
    duration: String,
    renewal: u64,
    datapath: String,
    fitness: Fitness,
    reach: Reach,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClaimJson {
    v: u64,
    pub(super) holder: Option<SessionId>,
    #[serde(default, skip_serializing_if = "Exceptions::is_empty")]
    exceptions: Exceptions,
    written: (SessionId, u64),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClusterJson {
    v: u64,
    claims: NonZeroU16,
    longest: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request: Option<Request>,
}

impl From<&Session> for SessionJson {
    fn from(session: &Session) -> Self {
        let Session { id, state, duration, renewal, datapath, fitness, reach } = session.clone();
        Self { v: V, session: id, state, duration: text(duration), renewal, datapath, fitness, reach }
    }
}

impl TryFrom<SessionJson> for Session {
    type Error = String;

    fn try_from(json: SessionJson) -> Result<Self, String> {
        let SessionJson { v: _, session: id, state, duration, renewal, datapath, fitness, reach } = json;
        Ok(Self {
            id,
            state,
            duration: parse_duration(&duration, LONGEST_IDLE)?,
            renewal,
            datapath,
            fitness,
            reach,
        })
    }
}

impl From<&Claim> for ClaimJson {
    fn from(claim: &Claim) -> Self {
        let Claim { holder, exceptions, written } = claim.clone();
        Self { v: V, holder, exceptions: Exceptions(exceptions), written }
    }
}

impl From<ClaimJson> for Claim {
    fn from(json: ClaimJson) -> Self {
        let ClaimJson { v: _, holder, exceptions: Exceptions(exceptions), written } = json;
        Self { holder, exceptions, written }
    }
}

impl From<&Record> for ClusterJson {
    fn from(record: &Record) -> Self {
        let Record { claims, longest, request } = record.clone();
        Self { v: V, claims, longest: text(longest), request }
    }
}

impl TryFrom<ClusterJson> for Record {
    type Error = String;

    fn try_from(json: ClusterJson) -> Result<Self, String> {
        let ClusterJson { v: _, claims, longest, request } = json;
        if let Some(request) = request.as_ref().filter(|request| request.group >= claims.get()) {
            return Err(format!("{RECORD} asks for a move of group {}, of {claims} groups", request.group));
        }
        Ok(Self { claims, longest: parse_duration(&longest, LONGEST)?, request })
    }
}

/// Holders of VIPs, written by holder: `{"n2/1763733600000":["192.0.2.1"]}` takes a third of the space.
#[derive(Default)]
struct Exceptions(BTreeMap<IpAddr, SessionId>);

impl Exceptions {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Exceptions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut holders: BTreeMap<&SessionId, BTreeSet<&IpAddr>> = BTreeMap::new();
        for (vip, holder) in &self.0 {
            holders.entry(holder).or_default().insert(vip);
        }
        let mut map = serializer.serialize_map(Some(holders.len()))?;
        for (holder, vips) in &holders {
            map.serialize_entry(holder, vips)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Exceptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ByHolder;
        impl<'de> Visitor<'de> for ByHolder {
            type Value = Exceptions;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("VIPs by holder")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Exceptions, A::Error> {
                let mut exceptions = BTreeMap::new();
                while let Some((holder, vips)) = map.next_entry::<SessionId, Vec<IpAddr>>()? {
                    for vip in vips {
                        if exceptions.insert(vip, holder.clone()).is_some() {
                            return Err(A::Error::custom(format_args!("{vip} is in it twice")));
                        }
                    }
                }
                Ok(Exceptions(exceptions))
            }
        }
        deserializer.deserialize_map(ByHolder)
    }
}

/// Reads the record of a Lease that is of this kind.
pub(super) fn from_json<T: DeserializeOwned>(lease: &Lease, kind: &str) -> Result<T, String> {
    let label = lease.metadata.labels.as_ref().and_then(|labels| labels.get(KIND)).map(String::as_str);
    if label != Some(kind) {
        return Err(format!("the label {KIND} is {:?}, not {kind:?}", label.unwrap_or_default()));
    }
    let json = annotation(lease, RECORD).ok_or_else(|| format!("the annotation {RECORD} is missing"))?;
    let parse = |error: serde_json::Error| format!("the annotation {RECORD} cannot be read: {error}");
    let Versioned { v } = serde_json::from_str(json).map_err(parse)?;
    if v != V {
        return Err(format!("the annotation {RECORD} has version {v}; this agent reads version {V} only"));
    }
    serde_json::from_str(json).map_err(parse)
}

/// Writes a record, if it is not too large.
pub(super) fn to_json<T: Serialize>(named: &Named, record: &T) -> Result<String, EncodeError> {
    let other = |reason: String| EncodeError::Other { name: named.name(), reason };
    let json = serde_json::to_string(record).map_err(|error| other(error.to_string()))?;
    if json.len() <= LONGEST_RECORD {
        return Ok(json);
    }
    match named {
        Named::Claim { claims, group } => {
            Err(EncodeError::TooLarge { group: *group, claims: *claims, bytes: json.len() })
        }
        Named::Session(_) | Named::Cluster => {
            Err(other(format!("it needs {} bytes, and there is room for {LONGEST_RECORD}", json.len())))
        }
    }
}
