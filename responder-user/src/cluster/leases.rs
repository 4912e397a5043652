//! The Leases of all agents as events for the machine.

use std::{collections::BTreeSet, num::NonZeroU16, sync::Arc, time::Duration};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, api::ListParams};
use responder_leadership::{
    event::{Event, Via},
    id::Version,
    lease::Seen,
};
use tokio::sync::{Notify, mpsc::UnboundedSender};

use super::{
    client::{Line, text},
    codec::{self, Record},
    follow::{Followed, Gone, Sink, Step},
    known::Known,
    names::{BadVersion, KIND, Named, parse_version},
};

/// A list that is asked for once must have come by then.
const ANSWER: Duration = Duration::from_secs(10);

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

/// All our Leases in `namespace`, as they are now; or why they cannot be had.
///
/// # Errors
///
/// If the API server does not answer within 10 s, or refuses.
pub async fn list(line: &Line, namespace: &str) -> Result<Vec<Lease>, String> {
    let (client, number) = line.client();
    let api = Api::<Lease>::namespaced(client, namespace);
    let result = match tokio::time::timeout(ANSWER, api.list(&ListParams::default().labels(KIND))).await {
        Ok(Ok(list)) => return Ok(list.items),
        Ok(Err(error)) => Err(text(&error)),
        Err(_) => Err(format!("no answer within {ANSWER:?}")),
    };
    // Whatever was in the way, the next call takes another connection, and credentials as they are then.
    line.replace(number);
    result
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
                self.found(lease, Via::List)
            }
            Step::Applied(lease) => self.found(lease, Via::Watch),
            Step::Deleted(lease) => self.deleted(&lease),
            Step::Synced { began, version } => {
                let Some(version) = parse_version(&version) else {
                    return self.send(Arrival::Unusable(BadVersion::of("the list of the Leases", &version)));
                };
                for (named, version) in self.known.retain(&self.listed, version) {
                    self.absent(&named, version, Via::List)?;
                }
                self.listed.clear();
                self.send(Arrival::Event(Event::Synced { listed_at: began }))
            }
        }
    }

    fn found(&self, lease: Lease, via: Via) -> Result<(), Gone> {
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
        match codec::event(&lease, &named, version, self.claims, via) {
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
        Named::parse(name).map_or(Ok(()), |named| self.absent(&named, version, Via::Watch))
    }

    fn absent(&self, named: &Named, version: Version, via: Via) -> Result<(), Gone> {
        if *named == Named::Cluster {
            return self.send(Arrival::Record { version, seen: Seen::Absent });
        }
        match codec::absence(named, version, self.claims, via) {
            Some(event) => self.send(Arrival::Event(event)),
            None => Ok(()),
        }
    }

    fn send(&self, arrival: Arrival) -> Result<(), Gone> {
        self.tell.send(arrival).map_err(|_closed| Gone)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;

    fn sink() -> (LeaseSink, UnboundedReceiver<Arrival>) {
        let (tell, told) = unbounded_channel();
        let claims = NonZeroU16::new(16).unwrap();
        (LeaseSink { claims, known: Known::default(), tell, listed: BTreeSet::new() }, told)
    }

    fn lease(name: &str, version: &str) -> Lease {
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            resource_version: Some(version.to_owned()),
            ..ObjectMeta::default()
        };
        Lease { metadata, spec: None }
    }

    fn synced(version: &str) -> Step<Lease> {
        Step::Synced { began: Duration::from_secs(1), version: version.to_owned() }
    }

    /// What was told, short: names, versions, and whether it is there.
    fn told(receiver: &mut UnboundedReceiver<Arrival>) -> Vec<String> {
        let there = |there: bool| if there { "" } else { " gone" };
        let by = |via| if via == Via::List { " listed" } else { "" };
        std::iter::from_fn(|| receiver.try_recv().ok())
            .map(|arrival| match arrival {
                Arrival::Event(Event::Session { node, version, seen, via }) => {
                    format!("{node} {}{}{}", version.0, there(seen != Seen::Absent), by(via))
                }
                Arrival::Event(Event::Claim { group, version, seen, via }) => {
                    format!("{group} {}{}{}", version.0, there(seen != Seen::Absent), by(via))
                }
                Arrival::Event(Event::Synced { listed_at }) => format!("synced {listed_at:?}"),
                Arrival::Record { version, seen } => {
                    format!("record {}{}", version.0, there(seen != Seen::Absent))
                }
                other @ (Arrival::Event(_) | Arrival::Unusable(_)) => format!("{other:?}"),
            })
            .collect()
    }

    fn take(sink: &mut LeaseSink, steps: impl IntoIterator<Item = Step<Lease>>) {
        for step in steps {
            sink.take(step).unwrap();
        }
    }

    #[test]
    fn what_a_list_lacks_is_absent_unless_it_is_newer() {
        let (mut sink, mut receiver) = sink();
        let first = ["session-n1", "session-n2", "claim-16-03", "claim-8-1", "cluster", "other"];
        take(&mut sink, first.map(|name| Step::Applied(lease(name, "5"))));
        assert_eq!(told(&mut receiver), ["n1 5", "n2 5", "3 5", "record 5"]);
        // Our own write was answered after the list was made.
        sink.known.learn(lease("session-n3", "9")).unwrap();
        sink.known.learn(lease("session-n2", "7")).unwrap();
        take(&mut sink, [Step::Listing, Step::Listed(lease("session-n1", "5")), synced("8")]);
        assert_eq!(
            told(&mut receiver),
            ["n1 5 listed", "3 5 gone listed", "record 5 gone", "n2 7 gone listed", "synced 1s"]
        );
        let known: Vec<_> = sink.known.all().into_iter().filter_map(|lease| lease.metadata.name).collect();
        assert_eq!(known, ["session-n1", "session-n3"]);
    }

    #[test]
    fn an_interrupted_list_makes_nothing_absent() {
        let (mut sink, mut receiver) = sink();
        take(&mut sink, [Step::Applied(lease("session-n1", "5")), Step::Listing]);
        take(&mut sink, [Step::Listed(lease("session-n2", "6")), Step::Listing]);
        take(&mut sink, [Step::Listed(lease("session-n1", "5")), synced("8")]);
        assert_eq!(
            told(&mut receiver),
            ["n1 5", "n2 6 listed", "n1 5 listed", "n2 6 gone listed", "synced 1s"]
        );
    }

    /// Late events are told as they come: the machine puts them in order, and they show that the watch lives.
    #[test]
    fn late_events_change_nothing_that_is_known() {
        let (mut sink, mut receiver) = sink();
        sink.known.learn(lease("session-n1", "9")).unwrap();
        take(&mut sink, [Step::Applied(lease("session-n1", "7")), Step::Deleted(lease("session-n1", "8"))]);
        assert_eq!(told(&mut receiver), ["n1 7", "n1 8 gone"]);
        assert_eq!(sink.known.get("session-n1"), Some(lease("session-n1", "9")));
        take(&mut sink, [Step::Deleted(lease("session-n1", "10"))]);
        assert_eq!(told(&mut receiver), ["n1 10 gone"]);
        assert_eq!(sink.known.get("session-n1"), None);
    }

    #[test]
    fn versions_that_are_no_numbers_are_reported() {
        let (mut sink, mut receiver) = sink();
        take(&mut sink, [Step::Applied(lease("session-n1", "abc")), synced("x")]);
        let told = told(&mut receiver).join(" ");
        assert!(told.contains("Unusable") && told.contains("abc") && told.contains("list"), "{told}");
    }

    #[test]
    fn it_ends_when_nobody_listens() {
        let (mut sink, receiver) = sink();
        drop(receiver);
        assert_eq!(sink.take(Step::Applied(lease("session-n1", "5"))), Err(Gone));
    }
}
