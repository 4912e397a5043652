//! Events on Services: who announces their addresses, and why an address is not announced.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, api::PostParams};
use responder_leadership::id::NodeName;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::{
    client::{Line, text},
    limit::Limit,
};
use crate::net::boot;

/// Who says it.
const CONTROLLER: &str = "l2-responder.io/responder";
/// Kubernetes takes so many bytes of text.
const LONGEST_NOTE: usize = 1024;
/// So many Events may wait to be sent; more are dropped.
const WAITING: usize = 256;
/// An Event that has not been taken by then is dropped.
const ANSWER: Duration = Duration::from_secs(5);
/// So many reasons of failures are remembered, so as not to log them again.
const REASONS: usize = 100;

/// A Service, as an Event names it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct About {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `metadata.uid`; without it `kubectl describe` does not find the Event.
    pub uid: Option<String>,
}

/// What is said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// This node announces one of its addresses.
    Announcing {
        /// Which.
        vip: IpAddr,
    },
    /// Nobody announces one of its addresses.
    NotAnnounced {
        /// Which, as the Service has it.
        address: String,
        /// Why; a sentence whose subject is the address.
        reason: String,
    },
}

/// Sends Events, in a task of its own; whoever says something never waits.
#[derive(Clone, Debug)]
pub struct Publisher {
    queue: Sender<(About, Said)>,
}

impl Publisher {
    /// For the agent of `node`.
    #[must_use]
    pub fn start(line: Arc<Line>, node: NodeName) -> Self {
        let (queue, said) = channel(WAITING);
        tokio::spawn(send(line, node, said));
        Self { queue }
    }

    /// Says something, unless there is too much to say.
    pub fn say(&self, about: About, said: Said) {
        self.queue.try_send((about, said)).ok(); // Events are a courtesy
    }
}

async fn send(line: Arc<Line>, node: NodeName, mut queue: Receiver<(About, Said)>) {
    let mut limit = Limit::default();
    let mut reasons = BTreeSet::new();
    while let Some((about, said)) = queue.recv().await {
        let event = event(&about, &said, &node, Timestamp::now());
        let now = Duration::from_nanos(boot::now_ns());
        let note = event.note.clone().unwrap_or_default();
        if !limit.allow(&format!("{}/{}", about.namespace, about.name), &note, now) {
            continue;
        }
        let (client, number) = line.client();
        let api = Api::<Event>::namespaced(client, &about.namespace);
        let reason = match tokio::time::timeout(ANSWER, api.create(&PostParams::default(), &event)).await {
            Ok(Ok(_)) => continue,
            Ok(Err(error)) => text(&error),
            Err(_) => {
                line.replace(number);
                format!("no answer within {ANSWER:?}")
            }
        };
        if reasons.len() < REASONS && reasons.insert(reason.clone()) {
            tracing::warn!(namespace = %about.namespace, service = %about.name, %reason, "an Event cannot be sent");
        }
    }
}

fn event(about: &About, said: &Said, node: &NodeName, now: Timestamp) -> Event {
    let (type_, reason, action, note) = match said {
        Said::Announcing { vip } => {
            ("Normal", "Announcing", "Announce", format!("node {node} announces {vip}"))
        }
        Said::NotAnnounced { address, reason } => {
            ("Warning", "NotAnnounced", "Refuse", format!("{address} {reason}"))
        }
    };
    // Names of Events are only to differ; this is how Kubernetes' own components make them.
    let nanos = now.as_nanosecond();
    let stem = cut(&about.name, 200).trim_end_matches(['-', '.']);
    let instance = cut(node.as_str(), 128).to_owned();
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{stem}.{nanos:x}")),
            namespace: Some(about.namespace.clone()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        type_: Some(type_.to_owned()),
        reason: Some(reason.to_owned()),
        action: Some(action.to_owned()),
        note: Some(cut(&note, LONGEST_NOTE).to_owned()),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(instance),
        regarding: Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Service".to_owned()),
            namespace: Some(about.namespace.clone()),
            name: Some(about.name.clone()),
            uid: about.uid.clone(),
            ..ObjectReference::default()
        }),
        ..Event::default()
    }
}

/// The first bytes of a text, at most so many.
fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}
