//! A control plane outside of the virtual machine that the nodes are in: `cargo xtask vm-test` starts it, without root
//! and namespaces, and gives the machine ports of one address that lead to it.

use std::{
    env, fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process, thread,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{
    agent::NAMESPACE,
    api::Api,
    binaries,
    control::{ADDRESS, Control, PORT, Parts, Ports},
    delay::Relay,
};
use crate::{
    cleanup::{self, PREFIX, lab_dir},
    node::Dir,
    ns::NetNs,
    paths,
    skip::{root_or_skip, skip, tools_or_skip},
};

/// The environment variable that names the address of what is outside.
const VARIABLE: &str = "RESPONDER_ELSEWHERE";

/// The API server's port at that address.
const API: u16 = 6443;
/// The port of the administrator's `kubectl proxy`.
const REQUESTS: u16 = 8001;
/// The port of whoever stops the machine.
const HYPERVISOR: u16 = 9000;

/// Where machines find the certificate of the authority.
const AUTHORITY: &str = "/api/v1/namespaces/default/configmaps/lab";

/// Where a control plane is that runs outside of this machine.
#[derive(Clone, Copy, Debug)]
pub struct Elsewhere(Ipv4Addr);

/// Where it is, if there is one and a [`crate::Cluster`] can be built here. Otherwise skips `test`.
#[must_use]
pub fn elsewhere_or_skip(test: &str) -> Option<Elsewhere> {
    if !root_or_skip(test) || !tools_or_skip(test, &["ip", "nft"]) {
        return None;
    }
    match env::var(VARIABLE).ok().and_then(|address| address.parse().ok()) {
        Some(address) => Some(Elsewhere(address)),
        None => {
            skip(test, "needs an API server outside of the virtual machine (cargo xtask vm-test)");
            None
        }
    }
}

impl Elsewhere {
    fn at(self, port: u16) -> SocketAddr {
        SocketAddr::from((self.0, port))
    }

    /// Who stops this machine.
    pub(crate) fn hypervisor(self) -> SocketAddr {
        self.at(HYPERVISOR)
    }

    /// Has it found at [`ADDRESS`] in the management network, as if it were there.
    pub(super) fn way(self, management: &NetNs) -> Result<Way> {
        let listen = SocketAddr::from((ADDRESS.parse::<IpAddr>()?, PORT));
        let relay = Relay::out_of(management, listen, self.at(API))?;
        Ok(Way { requests: Api::at(self.at(REQUESTS)), _relay: relay })
    }
}

/// How it is reached.
#[derive(Debug)]
pub(super) struct Way {
    requests: Api,
    _relay: Relay,
}

impl Way {
    /// Requests by the administrator.
    pub(super) fn requests(&self) -> Api {
        self.requests.clone()
    }

    /// The certificate of the authority, in a file in `dir`.
    pub(super) fn authority(&self, dir: &Path) -> Result<PathBuf> {
        let object = self.requests.get(AUTHORITY)?;
        let text = object["data"]["ca"].as_str().context("it tells no authority")?;
        let path = dir.join("ca.crt");
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// Removes what an earlier cluster has left.
    pub(super) fn clear(&self) -> Result<()> {
        let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases");
        let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
        for collection in [&leases, slices, "/api/v1/nodes"] {
            self.requests.delete(collection)?;
        }
        let services = "/api/v1/namespaces/default/services";
        let list = self.requests.get(services)?;
        for service in list["items"].as_array().into_iter().flatten() {
            // The API server's own comes back by itself.
            match service["metadata"]["name"].as_str() {
                None | Some("kubernetes") => {}
                Some(name) => drop(self.requests.delete(&format!("{services}/{name}"))?),
            }
        }
        Ok(())
    }
}

/// Starts etcd and an API server at free ports of 127.0.0.1, with `deploy/base` in it, and says `ready PORT SOCKET`: the
/// API server's port, and the socket of a `kubectl proxy`. They end with this process.
///
/// # Errors
///
/// If something does not come up.
pub fn serve_control_plane() -> Result<()> {
    cleanup::install();
    let bin = binaries::directory(None, false)?;
    let dir = Dir::create(lab_dir(&format!("{PREFIX}{}-0", process::id())))?;
    let [api, clients, peers] = free_ports()?;
    let ports = Ports { address: "127.0.0.1", api, etcd: [clients, peers] };
    let parts = Parts { controllers: false, kubelets: &[] };
    let place = dir.path().join("control");
    let control = Control::spawn(NetNs::here(dir.path()), ports, &place, bin, parts)?;
    control.wait_ready()?;
    control.deploy(&paths::workspace().join("deploy/base"))?;
    let authority: Value = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "lab", "namespace": "default" },
        "data": { "ca": control.authority()? },
    });
    control.requests().apply(AUTHORITY, &authority)?;
    println!("ready {api} {}", control.socket().display());
    loop {
        thread::park();
    }
}

/// Nobody listens at them now.
fn free_ports() -> Result<[u16; 3]> {
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let [one, two, three] = [listen()?, listen()?, listen()?];
    Ok([one.local_addr()?.port(), two.local_addr()?.port(), three.local_addr()?.port()])
}
