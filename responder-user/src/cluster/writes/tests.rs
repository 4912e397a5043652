use responder_leadership::lease::{Claim, Seen};
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
};

use super::*;
use crate::cluster::scripted::{Reply, Scripted};

const GROUP: Object = Object::Claim(3);

struct Writing {
    server: Scripted,
    writer: Writer,
    known: Known,
    arrivals: UnboundedReceiver<Arrival>,
}

async fn writing(script: impl IntoIterator<Item = Reply>) -> Writing {
    // So long that a busy host is in time.
    writing_within(Duration::from_secs(60), script).await
}

async fn writing_within(lease_duration: Duration, script: impl IntoIterator<Item = Reply>) -> Writing {
    let server = Scripted::start(script).await;
    let line = || Arc::clone(&server.line);
    let lines = Lines { renewals: line(), writes: line(), leases: line(), objects: line() };
    let (tell, arrivals) = unbounded_channel();
    let known = Known::default();
    let claims = NonZeroU16::new(16).unwrap();
    let times = Times::of(lease_duration);
    let writer = Writer::new(lines, "ns", claims, &times, known.clone(), tell);
    Writing { server, writer, known, arrivals }
}

fn content() -> Content {
    let written = ("n1/1".parse().unwrap(), 1);
    Content::Claim(Claim { holder: None, exceptions: std::collections::BTreeMap::new(), written })
}

/// A Lease as the API server has it.
fn stored(version: u64) -> Lease {
    let named = Named::of(&GROUP, NonZeroU16::new(16).unwrap());
    let mut lease = codec::encode(&named, &content(), None, Timestamp::UNIX_EPOCH).unwrap();
    lease.metadata.uid = Some("the-uid".to_owned());
    lease.metadata.resource_version = Some(version.to_string());
    lease
}

fn json(version: u64) -> String {
    serde_json::to_string(&stored(version)).unwrap()
}

impl Writing {
    async fn write(&mut self, base: Option<u64>) -> Outcome {
        let base = base.map(Version);
        let effect = Effect::Write { id: 7, object: GROUP, base, content: content(), renewal: false };
        assert_eq!(self.writer.start(effect), None);
        match self.arrivals.recv().await {
            Some(Arrival::Event(Event::Written { write: 7, outcome })) => outcome,
            other => panic!("{other:?}"),
        }
    }

    async fn read(&mut self) -> Event {
        assert_eq!(self.writer.start(Effect::Read { object: GROUP, known: Version(5) }), None);
        match self.arrivals.recv().await {
            Some(Arrival::Event(event)) => event,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_created_must_not_exist_and_what_is_updated_must_be_the_same_object() {
    let mut w = writing([Reply::Whole(201, json(5)), Reply::Whole(200, json(6))]).await;
    assert_eq!(w.write(None).await, Outcome::Done(Version(5)));
    let (_, first, body) = w.server.request().await;
    assert_eq!(first, "POST /apis/coordination.k8s.io/v1/namespaces/ns/leases?");
    assert!(!body.contains("resourceVersion") && !body.contains("uid"), "{body}");
    assert_eq!(w.write(Some(5)).await, Outcome::Done(Version(6)));
    let (_, first, body) = w.server.request().await;
    assert_eq!(first, "PUT /apis/coordination.k8s.io/v1/namespaces/ns/leases/claim-16-03?");
    // The API server would create it if it were gone, did the uid not say that it must be there.
    assert!(body.contains(r#""resourceVersion":"5""#) && body.contains(r#""uid":"the-uid""#), "{body}");
    assert_eq!(w.known.get("claim-16-03").unwrap().metadata.resource_version.as_deref(), Some("6"));
}

#[tokio::test]
async fn what_was_never_seen_cannot_be_updated() {
    let mut w = writing([]).await;
    assert_eq!(w.write(Some(5)).await, Outcome::Conflict);
}

#[tokio::test]
async fn without_an_answer_it_may_be_done_and_the_next_request_takes_another_connection() {
    let script = [Reply::Silence, Reply::Whole(201, json(5)), Reply::Close];
    let mut w = writing_within(Duration::from_secs(6), script).await;
    assert!(
        matches!(w.write(None).await, Outcome::Unknown(reason) if reason.contains("no answer within 1s"))
    );
    let silent = w.server.request().await.0;
    assert_eq!(w.write(None).await, Outcome::Done(Version(5)));
    assert_ne!(w.server.request().await.0, silent);
    assert!(matches!(w.write(Some(5)).await, Outcome::Unknown(_)));
}

#[tokio::test]
async fn requests_are_sent_once() {
    for code in [429, 500, 503, 504] {
        let mut w = writing([Reply::Whole(code, String::new()), Reply::Whole(201, json(5))]).await;
        let certain = matches!(w.write(None).await, Outcome::Refused(_));
        assert_eq!(certain, code == 429);
        w.server.request().await;
        assert_eq!(w.write(None).await, Outcome::Done(Version(5)), "the second reply was not taken before");
    }
}

#[tokio::test]
async fn reads_tell_what_is_there() {
    let script =
        [Reply::Whole(200, json(9)), Reply::Whole(404, String::new()), Reply::Whole(500, String::new())];
    let mut w = writing(script).await;
    let via = Via::Read;
    let Content::Claim(claim) = content() else { panic!("it is a claim") };
    let there = Event::Claim { group: 3, version: Version(9), seen: Seen::Good(claim), via };
    assert_eq!(w.read().await, there);
    // That it is gone is for the watch to say.
    assert_eq!(w.read().await, Event::Unread { object: GROUP });
    assert_eq!(w.read().await, Event::Unread { object: GROUP });
}

impl Writing {
    /// Begins a write and a read in tasks of `runtime`.
    fn begun(runtime: &Runtime) -> Self {
        let w = runtime.block_on(writing([Reply::Silence]));
        let write = Effect::Write { id: 7, object: GROUP, base: None, content: content(), renewal: false };
        let _entered = runtime.enter();
        assert_eq!(w.writer.start(write), None);
        assert_eq!(w.writer.start(Effect::Read { object: GROUP, known: Version(5) }), None);
        w
    }

    /// Both were told, and once.
    fn assert_unknown_and_unread(&mut self) {
        let told: Vec<_> = std::iter::from_fn(|| self.arrivals.try_recv().ok()).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told.contains(&Arrival::Event(Event::Unread { object: GROUP })), "{told:?}");
        let unknown = |arrival: &Arrival| {
            matches!(arrival, Arrival::Event(Event::Written { write: 7, outcome: Outcome::Unknown(_) }))
        };
        assert!(told.iter().any(unknown), "{told:?}");
    }
}

#[test]
fn tasks_that_are_dropped_tell_that_the_outcome_is_unknown() {
    for under_way in [false, true] {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let mut w = Writing::begun(&runtime);
        if under_way {
            runtime.block_on(w.server.request());
        }
        drop(runtime);
        w.assert_unknown_and_unread();
    }
}

#[test]
fn tasks_that_panic_tell_that_the_outcome_is_unknown() {
    // Without a clock a timeout panics.
    let runtime = Builder::new_current_thread().enable_io().build().unwrap();
    let mut w = Writing::begun(&runtime);
    runtime.block_on(tokio::task::yield_now());
    w.assert_unknown_and_unread();
}

#[tokio::test]
async fn what_is_for_others_is_given_back() {
    let w = writing([]).await;
    assert_eq!(w.writer.start(Effect::Finished), Some(Effect::Finished));
}
