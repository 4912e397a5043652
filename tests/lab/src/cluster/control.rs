//! The control plane: etcd, API server and controller manager, in the management network's own namespace.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{self, Command},
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{
    api::Api,
    elsewhere::Way,
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

/// Where programs of a control plane listen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    /// The API server's address.
    pub(super) address: &'static str,
    pub(super) api: u16,
    pub(super) etcd: [u16; 2],
}

impl Ports {
    /// In the management network.
    pub(super) const MANAGEMENT: Self = Self { address: ADDRESS, api: PORT, etcd: [2379, 2380] };
}

/// Cluster IPs of Services.
const SERVICE_RANGES: &str = "10.96.0.0/16,fd00:96::/112";
/// Addresses of pods.
pub(super) const POD_RANGES: &str = "10.244.0.0/16,fd00:244::/48";
/// How long `kubectl` may take.
const KUBECTL_DEADLINE: Duration = Duration::from_secs(60);

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
    pub(super) etcd: Option<Server>,
    pub(super) api: Option<Server>,
    pub(super) manager: Option<Server>,
    scheduler: Option<Server>,
    _proxy: Option<Server>,
    /// There if all of it runs outside of this machine.
    pub(super) way: Option<Way>,
    pub(super) ns: NetNs,
    dir: PathBuf,
    pub(super) bin: PathBuf,
    /// Certificate of the authority that clients trust.
    ca: PathBuf,
    /// The administrator's.
    token: String,
    /// Those of the nodes' kubelets.
    kubelets: BTreeMap<String, String>,
}

impl Control {
    /// One that runs elsewhere, as agents see it.
    pub(super) fn elsewhere(ns: NetNs, dir: &Path, way: Way) -> Result<Self> {
        secret::directory(dir)?;
        let ca = way.authority(dir)?;
        Ok(Self {
            etcd: None,
            api: None,
            manager: None,
            scheduler: None,
            _proxy: None,
            way: Some(way),
            ns,
            dir: dir.to_owned(),
            bin: PathBuf::new(),
            ca,
            token: String::new(),
            kubelets: BTreeMap::new(),
        })
    }

    /// Starts all of it, without waiting. `ns` has the address of `ports`.
    pub(super) fn spawn(ns: NetNs, ports: Ports, dir: &Path, bin: PathBuf, parts: Parts<'_>) -> Result<Self> {
        let [clients, peers] = ports.etcd.map(|port| format!("http://127.0.0.1:{port}"));
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
                format!("--listen-client-urls={clients}"),
                format!("--advertise-client-urls={clients}"),
                format!("--listen-peer-urls={peers}"),
                format!("--initial-advertise-peer-urls={peers}"),
                format!("--initial-cluster=default={peers}"),
                "--log-level=error".to_owned(),
            ],
            Probe::Tcp(ports.etcd[0], "/health"),
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
                format!("--etcd-servers={clients}"),
                format!("--bind-address={}", ports.address),
                // Where agents find it, and nowhere else.
                format!("--advertise-address={ADDRESS}"),
                format!("--secure-port={}", ports.api),
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
            _proxy: Some(Server::new(
                "kubectl proxy",
                &ns,
                vec![
                    program("kubectl"),
                    format!("--kubeconfig={}", admin.display()),
                    "proxy".to_owned(),
                    format!("--unix-socket={}", socket.display()),
                ],
                Probe::None,
            )),
            etcd: Some(etcd),
            api: Some(api),
            way: None,
            ns,
            dir: dir.to_owned(),
            bin,
            ca: pki.ca,
            token,
            kubelets,
        };
        let server = format!("{}:{}", ports.address, ports.api);
        write(&control.admin(), &control.ca, &server, &json!({ "token": control.token }))?;
        write(&control.proxy_user(), &control.ca, &server, &json!({ "token": proxy }))?;
        control._proxy.iter().try_for_each(Server::spawn)?;
        Ok(control)
    }

    /// Waits until the API server answers, and starts what needs it.
    pub(super) fn wait_ready(&self) -> Result<()> {
        if let Some(api) = &self.api {
            api.wait_ready()?;
        }
        [&self.manager, &self.scheduler].into_iter().flatten().try_for_each(Server::spawn)
    }

    /// Requests by the administrator.
    pub(super) fn requests(&self) -> Api {
        self.way.as_ref().map_or_else(|| Api::new(&self.socket()), Way::requests)
    }

    /// The certificate that clients trust.
    pub(super) fn authority(&self) -> Result<String> {
        fs::read_to_string(&self.ca).with_context(|| format!("reading {}", self.ca.display()))
    }

    /// Where requests by the administrator are taken.
    pub(super) fn socket(&self) -> PathBuf {
        self.dir.join("api.sock")
    }

    /// Runs `kubectl` as administrator. Returns stdout.
    pub(super) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(self.bin.join("kubectl"));
        command.arg("--kubeconfig").arg(self.admin()).args(arguments);
        // A cache of its own: what it has learnt of another cluster is of no use here.
        command.env("KUBECACHEDIR", self.dir.join("kubectl"));
        Ok(self.ns.spawn(command)?.finish(KUBECTL_DEADLINE)?.ok()?.stdout)
    }

    /// Applies a directory with a `kustomization.yaml`, as a user does.
    pub(super) fn deploy(&self, directory: &Path) -> Result<()> {
        let directory = directory.to_str().context("a path that is not UTF-8")?;
        self.kubectl(&["apply", "-k", directory]).map(|_| ())
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
        fs::copy(&self.ca, &ca).with_context(|| format!("writing {}", ca.display()))?;
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
        write(&path, &self.ca, &format!("{ADDRESS}:{port}"), user)?;
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
