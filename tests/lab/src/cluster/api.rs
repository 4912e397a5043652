//! Requests to the API server without a program for each.

use std::{
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::http::{Response, exchange};

/// How long one request may take, unless told otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Before a request from inside of a virtual machine, each of which is a process outside: whoever waits for something by
/// asking for it must not keep it from happening.
const BREATH: Duration = Duration::from_millis(100);

/// The API server as somebody sees it, through a `kubectl proxy` that keeps its connection: no program is started for
/// a request, and nothing limits their rate.
#[derive(Clone, Debug)]
pub struct Api {
    server: At,
    timeout: Duration,
}

/// Where requests are taken.
#[derive(Clone, Debug)]
enum At {
    Socket(PathBuf),
    Port(SocketAddr),
}

impl Api {
    pub(crate) fn new(socket: &Path) -> Self {
        Self { server: At::Socket(socket.to_owned()), timeout: TIMEOUT }
    }

    /// At a port that this process's own namespace reaches.
    pub(super) fn at(address: SocketAddr) -> Self {
        Self { server: At::Port(address), timeout: TIMEOUT }
    }

    /// With another limit (default: half a minute) for how long one request may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// A request; `kind` is the media type of `body`. Returns the status code and the JSON of the answer (null if it
    /// is none).
    ///
    /// # Errors
    ///
    /// If there is no answer in time; not if the answer is a refusal.
    pub fn request(&self, method: &str, path: &str, kind: &str, body: &str) -> Result<(u16, Value)> {
        let response = self.exchange((method, path), (kind, body))?;
        Ok((response.status, serde_json::from_str(&response.body).unwrap_or_default()))
    }

    fn exchange(&self, what: (&str, &str), body: (&str, &str)) -> Result<Response> {
        match &self.server {
            At::Socket(socket) => {
                let stream = UnixStream::connect(socket).context("no `kubectl proxy`")?;
                stream.set_read_timeout(Some(self.timeout))?;
                exchange(stream, what, body)
            }
            At::Port(address) => {
                thread::sleep(BREATH);
                let stream = TcpStream::connect_timeout(address, self.timeout)
                    .with_context(|| format!("no way to the API server at {address}"))?;
                stream.set_read_timeout(Some(self.timeout))?;
                exchange(stream, what, body)
            }
        }
    }

    /// What the API server counts: of all its metrics of this name, with labels that contain `labels`, the sum.
    ///
    /// # Errors
    ///
    /// If there is no answer, or it is no list of metrics.
    pub fn metric(&self, name: &str, labels: &str) -> Result<f64> {
        let response = self.exchange(("GET", "/metrics"), ("text/plain", ""))?;
        ensure!(response.status == 200, "GET /metrics: {}", response.status);
        let of_name = response.body.lines().filter_map(|line| line.strip_prefix(name));
        of_name
            .filter_map(|rest| rest.strip_prefix('{')?.rsplit_once("} "))
            .filter(|(found, _)| found.contains(labels))
            .map(|(_, value)| value.parse::<f64>().with_context(|| format!("{name} is {value:?}")))
            .sum()
    }

    fn success(&self, method: &str, path: &str, kind: &str, body: &str) -> Result<Value> {
        let (status, answer) = self.request(method, path, kind, body)?;
        if !(200..300).contains(&status) {
            bail!("{method} {path}: {status}: {}", answer["message"].as_str().unwrap_or_default());
        }
        Ok(answer)
    }

    /// Reads an object or list.
    ///
    /// # Errors
    ///
    /// If there is none, or no answer.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.success("GET", path, "application/json", "")
    }

    /// Creates an object in a collection.
    ///
    /// # Errors
    ///
    /// If the API server refuses, or does not answer.
    pub fn create(&self, path: &str, object: &Value) -> Result<Value> {
        self.success("POST", path, "application/json", &object.to_string())
    }

    /// Replaces an object.
    ///
    /// # Errors
    ///
    /// If the API server refuses (another version is there), or does not answer.
    pub fn replace(&self, path: &str, object: &Value) -> Result<Value> {
        self.success("PUT", path, "application/json", &object.to_string())
    }

    /// Makes an object as it is given, whether it exists or not (server-side apply).
    ///
    /// # Errors
    ///
    /// If the API server refuses, or does not answer.
    pub fn apply(&self, path: &str, object: &Value) -> Result<Value> {
        let path = format!("{path}?fieldManager=lab&force=true");
        self.success("PATCH", &path, "application/apply-patch+yaml", &object.to_string())
    }

    /// Changes some of an object's fields (JSON merge patch).
    ///
    /// # Errors
    ///
    /// If the API server refuses, or does not answer.
    pub fn merge(&self, path: &str, patch: &Value) -> Result<Value> {
        self.success("PATCH", path, "application/merge-patch+json", &patch.to_string())
    }

    /// Deletes an object or all objects of a collection.
    ///
    /// # Errors
    ///
    /// If there is none, or no answer.
    pub fn delete(&self, path: &str) -> Result<Value> {
        self.success("DELETE", path, "application/json", "")
    }
}
