use k8s_openapi::api::coordination::v1::Lease;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::*;
use crate::cluster::scripted::{Reply, Scripted};

struct Tell(UnboundedSender<String>);

impl Sink<Lease> for Tell {
    async fn step(&mut self, step: Step<Lease>) -> Result<(), Gone> {
        let of = |lease: Lease| lease.metadata.name.unwrap_or_default();
        let text = match step {
            Step::Listing => "listing".to_owned(),
            Step::Listed(lease) => format!("listed {}", of(lease)),
            Step::Synced { version, .. } => format!("synced {version}"),
            Step::Applied(lease) => format!("applied {}", of(lease)),
            Step::Deleted(lease) => format!("deleted {}", of(lease)),
        };
        self.0.send(text).map_err(|_closed| Gone)
    }
}

fn object(name: &str, version: u64) -> String {
    format!(r#"{{"metadata":{{"name":"{name}","resourceVersion":"{version}"}}}}"#)
}

fn list(names: &[&str], version: u64, more: &str) -> Reply {
    let items: Vec<_> = names.iter().map(|name| object(name, version)).collect();
    let metadata = format!(r#"{{"resourceVersion":"{version}","continue":"{more}"}}"#);
    Reply::Whole(200, format!(r#"{{"metadata":{metadata},"items":[{}]}}"#, items.join(",")))
}

fn event(kind: &str, object: &str) -> String {
    format!(r#"{{"type":"{kind}","object":{object}}}"#)
}

fn bookmark(version: u64) -> String {
    let object = format!(
        r#"{{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{{"resourceVersion":"{version}"}}}}"#
    );
    event("BOOKMARK", &object)
}

fn watch(lines: &[String]) -> Reply {
    Reply::Watch { lines: lines.to_vec(), ends: true }
}

fn expired() -> String {
    r#"{"kind":"Status","status":"Failure","code":410,"reason":"Expired","message":"too old"}"#.to_owned()
}

struct Following {
    server: Scripted,
    restart: Arc<Notify>,
    steps: UnboundedReceiver<String>,
}

async fn follow(script: impl IntoIterator<Item = Reply>) -> Following {
    let server = Scripted::start(script).await;
    let restart = Arc::new(Notify::new());
    let followed = Followed {
        what: "Leases",
        line: Arc::clone(&server.line),
        api: |client| Api::<Lease>::namespaced(client, "ns"),
        labels: Some("a/b"),
        page: Some(2),
        restart: Arc::clone(&restart),
    };
    let (tell, steps) = unbounded_channel();
    tokio::spawn(followed.run(Tell(tell)));
    Following { server, restart, steps }
}

impl Following {
    async fn steps(&mut self, expected: &[&str]) {
        for expected in expected {
            assert_eq!(self.steps.recv().await.as_deref(), Some(*expected));
        }
    }

    /// The next request's path and query must contain these.
    async fn request(&mut self, parts: &[&str]) -> usize {
        let (connection, first, _) = self.server.request().await;
        for part in parts {
            assert!(first.contains(part), "{first} lacks {part}");
        }
        connection
    }

    async fn is_list(&mut self) -> usize {
        let (connection, first, _) = self.server.request().await;
        assert!(!first.contains("watch=true") && !first.contains("resourceVersion="), "{first}");
        connection
    }
}

#[tokio::test]
async fn pages_are_one_list_and_the_watch_begins_where_it_ends() {
    let mut f = follow([
        list(&["a", "b"], 5, "more"),
        list(&["c"], 5, ""),
        watch(&[event("ADDED", &object("d", 6))]),
    ])
    .await;
    f.steps(&["listing", "listed a", "listed b", "listed c", "synced 5", "applied d"]).await;
    f.request(&["limit=2", "labelSelector=a%2Fb"]).await;
    f.request(&["limit=2", "continue=more"]).await;
    f.request(&["watch=true", "resourceVersion=5", "allowWatchBookmarks=true", "labelSelector=a%2Fb"]).await;
}

#[tokio::test]
async fn a_watch_that_ends_goes_on_where_it_was() {
    let first = watch(&[event("MODIFIED", &object("a", 7)), event("DELETED", &object("a", 8)), bookmark(11)]);
    let mut f =
        follow([list(&[], 5, ""), first, watch(&[event("ADDED", &object("b", 12))]), Reply::Close]).await;
    f.steps(&["listing", "synced 5", "applied a", "deleted a", "applied b"]).await;
    f.is_list().await;
    for version in ["resourceVersion=5", "resourceVersion=11", "resourceVersion=12", "resourceVersion=12"] {
        f.request(&["watch=true", version]).await;
    }
}

#[tokio::test]
async fn a_version_that_is_too_old_or_too_new_is_listed_anew() {
    let too_new = r#"{"kind":"Status","status":"Failure","code":504,"message":"Too large resource version","details":{"causes":[{"reason":"ResourceVersionTooLarge","message":""}]}}"#;
    let mut f = follow([
        list(&["a"], 5, ""),
        watch(&[event("ERROR", &expired())]),
        list(&["b"], 6, ""),
        Reply::Whole(410, expired()),
        list(&["c"], 7, ""),
        Reply::Whole(504, too_new.to_owned()),
        list(&["d"], 3, "more"),
        // The rest of a list can be too old, too.
        Reply::Whole(410, expired()),
        list(&["e"], 4, ""),
    ])
    .await;
    f.steps(&["listing", "listed a", "synced 5", "listing", "listed b", "synced 6"]).await;
    f.steps(&["listing", "listed c", "synced 7", "listing", "listed d", "listing", "listed e", "synced 4"])
        .await;
}

#[tokio::test]
async fn a_failure_is_tried_again() {
    let script = [
        Reply::Close,
        Reply::Whole(500, "oops".to_owned()),
        Reply::Whole(200, "<html>".to_owned()),
        list(&["a"], 5, ""),
        Reply::Whole(503, "busy".to_owned()),
        Reply::Watch { lines: vec![event("ADDED", &object("b", 6)), "nonsense".to_owned()], ends: true },
        watch(&[event("ADDED", &object("c", 7))]),
    ];
    let mut f = follow(script).await;
    f.steps(&["listing", "listing", "listing", "listing", "listed a", "synced 5", "applied b", "applied c"])
        .await;
}

#[tokio::test]
async fn a_restart_lists_on_a_new_connection() {
    let silent = Reply::Watch { lines: Vec::new(), ends: false };
    let mut f = follow([list(&["a"], 5, ""), silent]).await;
    f.steps(&["listing", "listed a", "synced 5"]).await;
    let first = f.is_list().await;
    f.request(&["watch=true"]).await;
    f.restart.notify_one();
    f.server.reply(list(&["b"], 6, ""));
    f.steps(&["listing", "listed b", "synced 6"]).await;
    assert_ne!(f.is_list().await, first);
}

#[tokio::test]
async fn it_ends_when_nobody_listens() {
    let server = Scripted::start([list(&["a"], 5, "")]).await;
    let followed = Followed {
        what: "Leases",
        line: Arc::clone(&server.line),
        api: |client| Api::<Lease>::namespaced(client, "ns"),
        labels: None,
        page: None,
        restart: Arc::default(),
    };
    let (tell, steps) = unbounded_channel();
    drop(steps);
    followed.run(Tell(tell)).await;
}
