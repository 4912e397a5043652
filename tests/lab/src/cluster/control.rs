//! The control plane: etcd, API server and controller manager, in the management network's own namespace.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{self, Command},
};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{
    api::Api,
    pki::Pki,
    secret,
    server::{Probe, Server},
};
use crate::{
    ns::{COMMAND_DEADLINE, NetNs},
    paths,
    process::Process,
};

/// The API server's address in the management network.
pub(super) const ADDRESS: &str = "10.77.0.1";
/// Its port.
pub(super) const PORT: u16 = 6443;
/// Cluster IPs of Services.
const SERVICE_RANGES: &str = "10.96.0.0/16,fd00:96::/112";
/// Addresses of pods.
pub(super) const POD_RANGES: &str = "10.244.0.0/16,fd00:244::/48";
/// What there is besides etcd and the API server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts<'a> {
    /// kube-controller-manager, without what looks after nodes: tests set those's conditions.
    pub(super) controllers: bool,
    /// Nodes with kubelets, if they have any; then also all controllers and the scheduler.
    pub(super) kubelets: &'a [String],
}

/// Its programs and files.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) etcd: Server,
    pub(super) api: Server,
    pub(super) manager: Option<Server>,
    scheduler: Option<Server>,
    _proxy: Server,
    pub(super) ns: NetNs,
    dir: PathBuf,
    pub(super) bin: PathBuf,
    pki: Pki,
    /// The administrator's.
    token: String,
    /// Those of the nodes' kubelets.
    kubelets: BTreeMap<String, String>,
}

impl Control {
    /// Starts all of it, without waiting. `ns` has the address [`ADDRESS`].
    pub(super) fn spawn(ns: NetNs, dir: &Path, bin: PathBuf, parts: Parts<'_>) -> Result<Self> {
        secret::directory(dir)?;
        let program = |name: &str| bin.join(name).display().to_string();
        let path = |name: &str| dir.join(name).display().to_string();
        let etcd = Server::new(
            "etcd",
            &ns,
            vec![
                program("etcd"),
                format!("--data-dir={}", path("etcd")),
                // A crash of this machine loses the cluster anyway.
                "--unsafe-no-fsync".to_owned(),
                "--listen-client-urls=http://127.0.0.1:2379".to_owned(),
                "--advertise-client-urls=http://127.0.0.1:2379".to_owned(),
                "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
                "--initial-advertise-peer-urls=http://127.0.0.1:2380".to_owned(),
                "--initial-cluster=default=http://127.0.0.1:2380".to_owned(),
                "--log-level=error".to_owned(),
            ],
            Probe::Tcp(2379, "/health"),
        );
        etcd.spawn()?;
        let pki = Pki::create(dir, &[ADDRESS, "10.96.0.1", "127.0.0.1"])?;
        let with_nodes = !parts.kubelets.is_empty();
        let (token, proxy) = (secret::token()?, secret::token()?);
        let mut tokens = format!("{token},admin,1,system:masters\n{proxy},system:kube-proxy,2,\n");
        let mut kubelets = BTreeMap::new();
        for name in parts.kubelets {
            let token = secret::token()?;
            writeln!(tokens, "{token},system:node:{name},{name},system:nodes")?;
            kubelets.insert(name.clone(), token);
        }
        secret::write(&dir.join("tokens.csv"), &tokens)?;
        fs::write(dir.join("audit.yaml"), audit_policy().to_string())?;
        let admin = dir.join("admin.kubeconfig");
        let socket = dir.join("api.sock");
        let api = Server::new(
            "kube-apiserver",
            &ns,
            vec![
                program("kube-apiserver"),
                "--etcd-servers=http://127.0.0.1:2379".to_owned(),
                format!("--bind-address={ADDRESS}"),
                format!("--advertise-address={ADDRESS}"),
                format!("--secure-port={PORT}"),
                format!("--tls-cert-file={}", pki.certificate.display()),
                format!("--tls-private-key-file={}", pki.key.display()),
                format!("--service-account-key-file={}", pki.accounts_public.display()),
                format!("--service-account-signing-key-file={}", pki.accounts.display()),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                format!("--token-auth-file={}", path("tokens.csv")),
                "--authorization-mode=Node,RBAC".to_owned(),
                match with_nodes {
                    true => "--enable-admission-plugins=NodeRestriction",
                    // Without them, pods are of no use, and nobody takes the second's taints away.
                    false => "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition",
                }
                .to_owned(),
                "--allow-privileged=true".to_owned(),
                "--kubelet-preferred-address-types=InternalIP".to_owned(),
                format!("--service-cluster-ip-range={SERVICE_RANGES}"),
                format!("--audit-policy-file={}", path("audit.yaml")),
                format!("--audit-log-path={}", path("audit.log")),
                "--audit-log-maxsize=10000".to_owned(),
            ],
            Probe::Unix(socket.clone(), "/readyz"),
        );
        api.spawn()?;
        let control = Self {
            manager: (parts.controllers || with_nodes).then(|| manager(&ns, &bin, &admin, &pki, with_nodes)),
            scheduler: with_nodes.then(|| scheduler(&ns, &bin, &admin)),
            _proxy: Server::new(
                "kubectl proxy",
                &ns,
                vec![
                    program("kubectl"),
                    format!("--kubeconfig={}", admin.display()),
                    "proxy".to_owned(),
                    format!("--unix-socket={}", socket.display()),
                ],
                Probe::None,
            ),
            etcd,
            api,
            ns,
            dir: dir.to_owned(),
            bin,
            pki,
            token,
            kubelets,
        };
        control.kubeconfig("admin.kubeconfig", PORT, &json!({ "token": control.token }))?;
        control.kubeconfig("proxy.kubeconfig", PORT, &json!({ "token": proxy }))?;
        control._proxy.spawn()?;
        Ok(control)
    }

    /// Waits until the API server answers, and starts what needs it.
    pub(super) fn wait_ready(&self) -> Result<()> {
        self.api.wait_ready()?;
        [&self.manager, &self.scheduler].into_iter().flatten().try_for_each(Server::spawn)
    }

    /// Requests by the administrator.
    pub(super) fn requests(&self) -> Api {
        Api::new(&self.dir.join("api.sock"))
    }

    pub(super) fn audit_log(&self) -> PathBuf {
        self.dir.join("audit.log")
    }

    /// The administrator's kubeconfig.
    pub(super) fn admin(&self) -> PathBuf {
        self.dir.join("admin.kubeconfig")
    }

    /// kube-proxy's kubeconfig.
    pub(super) fn proxy_user(&self) -> PathBuf {
        self.dir.join("proxy.kubeconfig")
    }

    /// Starts what passes connections on that are made outside of all namespaces, and writes an administrator's
    /// kubeconfig for that way into `dir`, which is made and belongs to root or to this person.
    pub(super) fn open_outside(&self, dir: &Path, person: Option<(u32, u32)>) -> Result<(Process, PathBuf)> {
        let mut command = Command::new(paths::lab()?);
        let outside = format!("/proc/{}/ns/net", process::id());
        command.args(["relay", &outside, &format!("{ADDRESS}:{PORT}")]);
        let mut relay = self.ns.spawn(command)?;
        let said = relay.wait_line(COMMAND_DEADLINE, |line| line.starts_with("port "))?;
        let port = said.trim_start_matches("port ");
        secret::directory(dir)?;
        let (ca, path) = (dir.join("ca.crt"), dir.join("kubeconfig"));
        fs::copy(&self.pki.ca, &ca).with_context(|| format!("writing {}", ca.display()))?;
        write(&path, &ca, &format!("127.0.0.1:{port}"), &json!({ "token": self.token }))?;
        if let Some(person) = person {
            secret::give(dir, person)?;
        }
        Ok((relay, path))
    }

    /// The token of a node's kubelet; empty for a node without one.
    pub(super) fn kubelet_token(&self, node: &str) -> &str {
        self.kubelets.get(node).map_or("", String::as_str)
    }

    /// Writes a kubeconfig for a user with these credentials, who finds the API server at `port`.
    pub(super) fn kubeconfig(&self, name: &str, port: u16, user: &serde_json::Value) -> Result<PathBuf> {
        let path = self.dir.join(name);
        write(&path, &self.pki.ca, &format!("{ADDRESS}:{port}"), user)?;
        Ok(path)
    }
}

fn write(path: &Path, ca: &Path, server: &str, user: &serde_json::Value) -> Result<()> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "lab", "cluster": {
            "server": format!("https://{server}"),
            "certificate-authority": ca,
        }}],
        "users": [{ "name": "user", "user": user }],
        "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": "user" } }],
        "current-context": "lab",
    });
    // JSON is YAML.
    secret::write(path, &config.to_string())
}

fn scheduler(ns: &NetNs, bin: &Path, admin: &Path) -> Server {
    let argv = vec![
        bin.join("kube-scheduler").display().to_string(),
        format!("--kubeconfig={}", admin.display()),
        "--leader-elect=false".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
    ];
    Server::new("kube-scheduler", ns, argv, Probe::None)
}

fn manager(ns: &NetNs, bin: &Path, admin: &Path, pki: &Pki, with_nodes: bool) -> Server {
    let mut argv = vec![
        bin.join("kube-controller-manager").display().to_string(),
        format!("--kubeconfig={}", admin.display()),
        format!("--service-account-private-key-file={}", pki.accounts.display()),
        format!("--root-ca-file={}", pki.ca.display()),
        "--leader-elect=false".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
    ];
    if with_nodes {
        // Each node's pods have the network that is written in its own files.
        argv.push("--controllers=*,-node-ipam-controller".to_owned());
        argv.extend(["--node-monitor-period=1s", "--node-monitor-grace-period=8s"].map(str::to_owned));
    } else {
        // There are no kubelets whose heartbeats it could see: tests set the nodes' conditions.
        argv.push("--controllers=*,-node-lifecycle-controller,-node-ipam-controller".to_owned());
    }
    Server::new("kube-controller-manager", ns, argv, Probe::None)
}

/// Every request, once: when its answer is complete, a watch when it begins.
fn audit_policy() -> serde_json::Value {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{ "level": "Metadata" }],
    })
}
