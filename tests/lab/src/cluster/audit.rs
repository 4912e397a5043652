//! Who asked the API server for what: its audit log.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::time::wait_until;

/// A request as the API server has noted it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// The user, such as `system:serviceaccount:l2-responder:responder`.
    pub user: String,
    /// The node that the user's token is bound to: which agent it was.
    pub node: Option<String>,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, …
    pub verb: String,
    /// Such as `leases`, with the subresource if there is one: `services/status`.
    pub resource: String,
    /// Empty if it has none.
    pub namespace: String,
    /// The object's; empty for lists and mostly for what is created.
    pub name: String,
    /// Path and query.
    pub uri: String,
    /// The answer's status code; 0 if there was none.
    pub code: u16,
}

impl Request {
    /// Whether it changes something.
    #[must_use]
    pub fn is_write(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
    }

    /// Whether the API server has done it.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        (200..300).contains(&self.code)
    }

    fn parse(event: &Value) -> Self {
        let text = |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut resource = text("/objectRef/resource");
        let subresource = text("/objectRef/subresource");
        if !subresource.is_empty() {
            resource = format!("{resource}/{subresource}");
        }
        let node = event["user"]["extra"]["authentication.kubernetes.io/node-name"][0].as_str();
        let code = event["responseStatus"]["code"].as_u64().unwrap_or_default();
        Self {
            user: text("/user/username"),
            node: node.map(str::to_owned),
            verb: text("/verb"),
            resource,
            namespace: text("/objectRef/namespace"),
            name: text("/objectRef/name"),
            uri: text("/requestURI"),
            code: u16::try_from(code).unwrap_or_default(),
        }
    }
}

/// A place in the audit log: everything before it was asked earlier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark(u64);

/// The audit log. A request is in it shortly after it was answered; a watch, when it has begun.
#[derive(Clone, Debug)]
pub struct Audit {
    path: PathBuf,
}

impl Audit {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The end of the log as it is now.
    ///
    /// # Errors
    ///
    /// If there is no log.
    pub fn mark(&self) -> Result<Mark> {
        let metadata =
            self.path.metadata().with_context(|| format!("no audit log {}", self.path.display()))?;
        Ok(Mark(metadata.len()))
    }

    /// Every request since then, each once.
    ///
    /// # Errors
    ///
    /// If the log cannot be read, or holds what is no JSON.
    pub fn since(&self, mark: Mark) -> Result<Vec<Request>> {
        let mut file = File::open(&self.path).with_context(|| format!("no {}", self.path.display()))?;
        file.seek(SeekFrom::Start(mark.0))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let mut seen = BTreeSet::new();
        let mut requests = Vec::new();
        // What follows the last line's end is being written.
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in complete.lines() {
            let event: Value =
                serde_json::from_str(line).with_context(|| format!("the audit log says {line:?}"))?;
            // A watch is noted again when it ends.
            if seen.insert(event["auditID"].to_string()) {
                requests.push(Request::parse(&event));
            }
        }
        Ok(requests)
    }

    /// How many requests since then are of this kind.
    ///
    /// # Errors
    ///
    /// As [`Audit::since`].
    pub fn count(&self, mark: Mark, wanted: impl Fn(&Request) -> bool) -> Result<usize> {
        Ok(self.since(mark)?.iter().filter(|request| wanted(request)).count())
    }

    /// Waits for a request of this kind since then.
    ///
    /// # Errors
    ///
    /// If there is none in time, or the log cannot be read.
    pub fn wait_for(
        &self,
        mark: Mark,
        deadline: Duration,
        wanted: impl Fn(&Request) -> bool,
    ) -> Result<Request> {
        wait_until("a request in the audit log", deadline, || match self.since(mark) {
            Ok(requests) => requests.into_iter().find(|request| wanted(request)).map(Ok),
            Err(error) => Some(Err(error)),
        })?
    }
}
