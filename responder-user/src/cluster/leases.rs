//! The Leases of all agents as events for the machine.

use std::{collections::BTreeSet, num::NonZeroU16, sync::Arc};

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use responder_leadership::{
    event::{Event, Via},
    id::Version,
    lease::Seen,
};
use tokio::sync::{Notify, mpsc::UnboundedSender};

use super::{
    client::Line,
    codec::{self, Record},
    follow::{Followed, Gone, Sink, Step},
    known::Known,
    names::{BadVersion, KIND, Named, parse_version},
};

/// What comes from the API server.
#[derive(Clone, PartialEq, Debug)]
pub enum Arrival {
    /// For the machine.
    Event(Event),
    /// The cluster's record as the watch shows it.
    Record {
        /// Its version.
        version: Version,
        /// What it says.
        seen: Seen<Record>,
    },
    /// This API server cannot be used.
    Unusable(BadVersion),
}

/// The watch of the Leases.
#[derive(Clone, Debug)]
pub struct Leases {
    restart: Arc<Notify>,
}

impl Leases {
    /// Follows the Leases of `namespace` until the receiver is gone. `known` is kept current before anything is told.
    #[must_use]
    pub fn follow(
        line: Arc<Line>,
        namespace: &str,
        claims: NonZeroU16,
        known: Known,
        tell: UnboundedSender<Arrival>,
    ) -> Self {
        let restart = Arc::new(Notify::new());
        let namespace = namespace.to_owned();
        let followed = Followed {
            what: "Leases",
            line,
            api: move |client| Api::<Lease>::namespaced(client, &namespace),
            labels: Some(KIND),
            page: None,
            restart: Arc::clone(&restart),
        };
        let sink = LeaseSink { claims, known, tell, listed: BTreeSet::new() };
        tokio::spawn(followed.run(sink));
        Self { restart }
    }

    /// Begins anew, on a new connection and with a list: the watch may be dead without anybody having noticed.
    pub fn restart(&self) {
        self.restart.notify_one();
    }
}

/// Tells what the Leases say.
struct LeaseSink {
    claims: NonZeroU16,
    known: Known,
    tell: UnboundedSender<Arrival>,
    /// What the list that is under way has brought.
    listed: BTreeSet<String>,
}

impl Sink<Lease> for LeaseSink {
    async fn step(&mut self, step: Step<Lease>) -> Result<(), Gone> {
        self.take(step)
    }
}

impl LeaseSink {
    fn take(&mut self, step: Step<Lease>) -> Result<(), Gone> {
        match step {
            Step::Listing => {
                self.listed.clear();
                Ok(())
            }
            Step::Listed(lease) => {
                self.listed.extend(lease.metadata.name.clone());
                self.found(lease)
            }
            Step::Applied(lease) => self.found(lease),
            Step::Deleted(lease) => self.deleted(&lease),
            Step::Synced { began, version } => {
                let Some(version) = parse_version(&version) else {
                    return self.send(Arrival::Unusable(BadVersion::of("the list of the Leases", &version)));
                };
                for (named, version) in self.known.retain(&self.listed, version) {
                    self.absent(&named, version)?;
                }
                self.listed.clear();
                self.send(Arrival::Event(Event::Synced { listed_at: began }))
            }
        }
    }

    fn found(&self, lease: Lease) -> Result<(), Gone> {
        let version = match self.known.learn(lease.clone()) {
            Ok(version) => version,
            Err(error) => return self.send(Arrival::Unusable(error)),
        };
        let Some(named) = lease.metadata.name.as_deref().and_then(Named::parse) else {
            return Ok(());
        };
        if named == Named::Cluster {
            return self.send(Arrival::Record { version, seen: codec::decode_record(&lease) });
        }
        match codec::event(&lease, &named, version, self.claims, Via::Watch) {
            Some(event) => self.send(Arrival::Event(event)),
            None => Ok(()),
        }
    }

    fn deleted(&self, lease: &Lease) -> Result<(), Gone> {
        let version = match super::names::version(&lease.metadata) {
            Ok(version) => version,
            Err(error) => return self.send(Arrival::Unusable(error)),
        };
        let name = lease.metadata.name.as_deref().unwrap_or_default();
        self.known.forget(name, version);
        Named::parse(name).map_or(Ok(()), |named| self.absent(&named, version))
    }

    fn absent(&self, named: &Named, version: Version) -> Result<(), Gone> {
        if *named == Named::Cluster {
            return self.send(Arrival::Record { version, seen: Seen::Absent });
        }
        match codec::absence(named, version, self.claims, Via::Watch) {
            Some(event) => self.send(Arrival::Event(event)),
            None => Ok(()),
        }
    }

    fn send(&self, arrival: Arrival) -> Result<(), Gone> {
        self.tell.send(arrival).map_err(|_| Gone)
    }
}
