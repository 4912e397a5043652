//! A Prometheus server, and what it says.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use responder_lab::{NetNs, Process, skip, wait_until};
use serde_json::Value;

/// The environment variable that names the program; `cargo xtask test` sets it.
const VARIABLE: &str = "RESPONDER_PROMETHEUS";
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);
/// How long the server may take for anything, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(40);
/// Between two questions: nothing in it changes more often than every second.
const PACE: Duration = Duration::from_millis(100);

pub(crate) type Labels = BTreeMap<String, String>;

/// True if there is a server to be started. Otherwise skips `test`.
pub(crate) fn prometheus_or_skip(test: &str) -> bool {
    let program = program();
    if program.is_none() {
        skip(test, &format!("needs Prometheus in {VARIABLE} (`cargo xtask alerts --server` builds it)"));
    }
    program.is_some()
}

fn program() -> Option<PathBuf> {
    std::env::var_os(VARIABLE).map(PathBuf::from).filter(|path| path.is_file())
}

/// Now, in seconds since 1970.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// A server in a namespace, which ends with this.
pub(crate) struct Prometheus {
    ns: NetNs,
    _process: Process,
}

impl Prometheus {
    /// Starts it with these files in a new directory, and waits until it is ready.
    pub(crate) fn start(ns: &NetNs, dir: &Path, files: &[(&str, &str)]) -> Self {
        fs::create_dir_all(dir).unwrap();
        for (name, text) in files {
            fs::write(dir.join(name), text).unwrap();
        }
        let mut command = Command::new(program().unwrap());
        command.current_dir(dir).arg("--config.file=prometheus.yml").arg("--storage.tsdb.path=data");
        command.arg(format!("--web.listen-address={ADDRESS}"));
        let mut process = ns.spawn(command).unwrap();
        process.wait_line(SOON, |line| line.contains("Server is ready to receive web requests")).unwrap();
        Self { ns: ns.clone(), _process: process }
    }

    /// What the API answers to `GET /api/v1/PATH?PARAMETERS`.
    pub(crate) fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let query: Vec<_> =
            parameters.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
        // By this version, it does not answer in chunks.
        let request = format!("GET /api/v1/{path}?{} HTTP/1.0\r\n\r\n", query.join("&"));
        let answer = self.ns.run(|| {
            let mut stream = TcpStream::connect(ADDRESS)?;
            stream.set_read_timeout(Some(SOON))?;
            stream.write_all(request.as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        });
        let answer = answer.unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{request}: {answer}"));
        let body: Value = serde_json::from_str(body).unwrap_or_else(|e| panic!("{request}: {e}: {answer}"));
        assert_eq!(body["status"], "success", "{parameters:?}: {body}");
        let warnings = ["warnings", "infos"].map(|kind| body[kind].as_array().map_or(0, Vec::len));
        assert_eq!(warnings, [0, 0], "{parameters:?}: {body}");
        body["data"].clone()
    }

    /// The series that an expression has now.
    pub(crate) fn query(&self, expression: &str) -> Vec<(Labels, f64)> {
        let answer = self.get("query", &[("query", expression)]);
        let series = answer["result"].as_array().unwrap().iter();
        series.map(|one| (labels(&one["metric"]), number(&one["value"][1]))).collect()
    }

    /// Waits until an expression has a value.
    pub(crate) fn wait(&self, expression: &str) -> Vec<(Labels, f64)> {
        let found = wait_until(expression, SOON, || {
            thread::sleep(PACE);
            Some(self.query(expression)).filter(|found| !found.is_empty())
        });
        found.unwrap_or_else(|e| panic!("{e}; firing: {:#?}", self.firing()))
    }

    /// Alerts that fire, with their annotations.
    pub(crate) fn firing(&self) -> Vec<(Labels, Labels)> {
        let answer = self.get("alerts", &[]);
        let alerts = answer["alerts"].as_array().unwrap().iter().filter(|alert| alert["state"] == "firing");
        alerts.map(|alert| (labels(&alert["labels"]), labels(&alert["annotations"]))).collect()
    }

    /// Waits until an alert fires with these labels, and returns its annotations.
    pub(crate) fn wait_firing(&self, alert: &str, with: &[(&str, &str)]) -> Labels {
        let wanted = |labels: &Labels| {
            labels["alertname"] == alert
                && with.iter().all(|(name, value)| labels.get(*name).is_some_and(|l| l == value))
        };
        let found = wait_until(&format!("{alert} with {with:?}"), SOON, || {
            thread::sleep(PACE);
            self.firing().into_iter().find(|(labels, _)| wanted(labels))
        });
        found.unwrap_or_else(|e| panic!("{e}; what fires: {:#?}", self.firing())).1
    }

    /// Waits until none of these alerts fires.
    pub(crate) fn wait_over(&self, alerts: &[&str]) {
        let over = wait_until(&format!("the end of {alerts:?}"), SOON, || {
            thread::sleep(PACE);
            let fire = |(labels, _): &(Labels, Labels)| alerts.contains(&&*labels["alertname"]);
            (!self.firing().iter().any(fire)).then_some(())
        });
        over.unwrap_or_else(|e| panic!("{e}; what fires: {:#?}", self.firing()));
    }
}

pub(crate) fn labels(object: &Value) -> Labels {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    object.as_object().unwrap().iter().map(|(name, value)| (name.clone(), text(value))).collect()
}

pub(crate) fn number(value: &Value) -> f64 {
    value.as_str().unwrap().parse().unwrap()
}

fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() {
            text.push(byte.into());
        } else {
            write!(text, "%{byte:02X}").unwrap();
        }
        text
    })
}
