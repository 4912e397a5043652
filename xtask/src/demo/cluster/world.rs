//! The demo's cluster: its Services, their endpoints, and the agents.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream},
    process::Command,
};

use anyhow::{Context as _, Result};
use responder_lab::{Cluster, ClusterAgent, Lab, Mac, NAMESPACE, Process, ProxyMode, Service, wait_until};
use serde_json::Value;

use super::watch::SOON;
use crate::demo::show::Show;

/// The nodes.
pub(super) const NODES: [&str; 3] = ["n1", "n2", "n3"];
/// The port of Services.
pub(super) const PORT: u16 = 80;
/// The Service whose endpoints are on [`LOCAL_NODES`] alone, with `externalTrafficPolicy: Local`.
pub(super) const LOCAL: &str = "ingress";
/// See there.
pub(super) const LOCAL_NODES: [&str; 2] = ["n2", "n3"];
/// The Services, in the order of their addresses.
const SERVICES: [&str; 5] = ["web", "shop", "mail", "git", LOCAL];

/// Everything that runs. Gone when dropped.
pub(in crate::demo) struct World {
    // Before the cluster that they run in.
    pub(super) agents: BTreeMap<&'static str, ClusterAgent>,
    endpoints: BTreeMap<&'static str, Process>,
    pub(super) cluster: Cluster,
    /// Why there is no kube-proxy.
    pub(super) no_proxy: Option<String>,
}

/// 192.0.2.201 and 2001:db8::201 for the first Service.
fn vips_of(index: usize) -> [IpAddr; 2] {
    let low = u8::try_from(index).unwrap_or_default() + 1;
    [
        IpAddr::from([192, 0, 2, 200 + low]),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x200 + u16::from(low))),
    ]
}

/// The addresses of the Service `web`.
pub(super) fn web() -> [IpAddr; 2] {
    vips_of(0)
}

/// The addresses of the Service [`LOCAL`].
pub(super) fn local() -> [IpAddr; 2] {
    vips_of(SERVICES.len() - 1)
}

/// All addresses that are to be announced.
pub(super) fn vips() -> impl Iterator<Item = IpAddr> {
    (0..SERVICES.len()).flat_map(vips_of)
}

impl World {
    /// The cluster with endpoints and Services, without agents.
    pub(super) fn build(keep: bool, no_kube_proxy: bool) -> Result<Self> {
        let no_proxy = if no_kube_proxy { Some("--no-kube-proxy".to_owned()) } else { proxy_obstacle()? };
        let cluster = Cluster::builder().nodes(3).kube_proxy(no_proxy.is_none()).keepable(keep).build()?;
        let mut world = Self { agents: BTreeMap::new(), endpoints: BTreeMap::new(), cluster, no_proxy };
        for node in NODES {
            if world.no_proxy.is_some() {
                let host = world.cluster.host(node);
                // As kube-proxy's strictARP, or the kernels would answer before the agents run.
                host.ns().set_sysctl("ipv4/conf/all/arp_ignore", "1")?;
                host.add_to_lo(&vips().collect::<Vec<_>>())?;
            }
            world.start_endpoint(node)?;
        }
        world.services(&NODES)?;
        Ok(world)
    }

    /// Starts the web server on a node that is every Service's endpoint there.
    pub(super) fn start_endpoint(&mut self, node: &'static str) -> Result<()> {
        let process = if self.no_proxy.is_some() {
            let exe = env::current_exe().context("this program's path")?;
            let mut command = Command::new(exe.with_file_name("responder-lab"));
            command.args(["serve", node, &PORT.to_string()]);
            self.cluster.node(node).spawn(command)?
        } else {
            self.cluster.endpoint(node)?
        };
        self.endpoints.insert(node, process);
        Ok(())
    }

    /// Waits until the kube-proxy of a node that has been switched on has written its rules.
    pub(super) fn wait_kube_proxy(&self, node: &str) -> Result<()> {
        if self.no_proxy.is_some() {
            return Ok(());
        }
        let healthy = || {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, 10256))?;
            stream.set_read_timeout(Some(SOON))?;
            stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer.lines().next().is_some_and(|status| status.contains(" 200 ")))
        };
        let ns = self.cluster.host(node).ns();
        wait_until(&format!("kube-proxy of {node}"), SOON, || ns.run(healthy).ok()?.then_some(()))
    }

    /// Makes the Services, with ready endpoints on these nodes.
    pub(super) fn services(&self, on: &[&str]) -> Result<()> {
        let services: Vec<Service> = SERVICES
            .iter()
            .enumerate()
            .map(|(index, name)| {
                let service = Service::new(name).vips(&vips_of(index));
                match *name == LOCAL {
                    false => service.on(on),
                    true => {
                        let on: Vec<&str> = on.iter().copied().filter(|n| LOCAL_NODES.contains(n)).collect();
                        service.local().on(&on)
                    }
                }
            })
            .collect();
        self.cluster.services(&services)
    }

    /// Starts the agents, all at once, and waits until they are ready.
    pub(super) fn start_agents(&mut self) -> Result<()> {
        for node in NODES {
            self.agents.insert(node, self.cluster.agent(node, &[])?);
        }
        self.agents.values_mut().try_for_each(ClusterAgent::wait_ready)
    }

    /// The agent on a node.
    pub(super) fn agent(&mut self, node: &str) -> Result<&mut ClusterAgent> {
        self.agents.get_mut(node).with_context(|| format!("no agent on {node}"))
    }

    /// The end of what the agents have logged.
    pub(super) fn show_logs(&self, show: &Show) {
        for (node, agent) in &self.agents {
            let log = agent.log();
            let lines: Vec<&str> = log.lines().collect();
            show.command(node, "tail agent.log", &lines[lines.len().saturating_sub(15)..].join("\n"));
        }
    }

    /// The node with this hardware address; the address itself if it is nobody's.
    pub(super) fn node_of(&self, mac: Mac) -> String {
        let node = NODES.into_iter().find(|node| self.cluster.host(node).mac() == mac);
        node.map_or_else(|| mac.to_string(), str::to_owned)
    }

    /// The agents' Leases of a kind: `session` or `claim`.
    pub(super) fn leases(&self, kind: &str) -> Result<BTreeMap<String, Value>> {
        let selector = format!("labelSelector=l2-responder.io%2Fkind%3D{kind}");
        let path = format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases?{selector}");
        let list = self.cluster.requests().get(&path)?;
        let items = list["items"].as_array().context("the API server sent no list")?;
        let name = |lease: &Value| lease["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        Ok(items.iter().map(|lease| (name(lease), lease.clone())).collect())
    }

    /// Which nodes hold something: groups, or single addresses of others' groups.
    pub(super) fn holders(&self) -> Result<BTreeSet<String>> {
        let mut holders = BTreeSet::new();
        for (name, lease) in self.leases("claim")? {
            let record = lease["metadata"]["annotations"]["l2-responder.io/record"].as_str();
            let record: Value =
                serde_json::from_str(record.with_context(|| format!("{name} has no record"))?)?;
            let named = format!("{} {}", record["holder"], record["exceptions"]);
            holders.extend(
                NODES.into_iter().filter(|node| named.contains(&format!("\"{node}"))).map(str::to_owned),
            );
        }
        Ok(holders)
    }

    /// In whose hands each session and claim is, since when, and how often that has changed.
    pub(super) fn hands(&self) -> Result<BTreeMap<String, [Value; 3]>> {
        let mut leases = self.leases("session")?;
        leases.append(&mut self.leases("claim")?);
        let hands = |lease: &Value| {
            ["holderIdentity", "acquireTime", "leaseTransitions"].map(|field| lease["spec"][field].clone())
        };
        Ok(leases.iter().map(|(name, lease)| (name.clone(), hands(lease))).collect())
    }

    /// How many claims each node holds, as a sentence.
    pub(super) fn balance(&self) -> Result<String> {
        let mut count = BTreeMap::<String, usize>::new();
        for lease in self.leases("claim")?.values() {
            let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
            *count.entry(if holder.is_empty() { "nobody" } else { holder }.to_owned()).or_default() += 1;
        }
        let parts: Vec<String> = count.iter().map(|(holder, count)| format!("{holder} {count}")).collect();
        Ok(parts.join(", "))
    }
}

/// Why a kube-proxy cannot work on this kernel.
fn proxy_obstacle() -> Result<Option<String>> {
    let trial = Lab::builder().hosts(&["n"]).clients(&[]).build()?;
    Ok(ProxyMode::choose(trial.node("n").ns()).err().map(|error| format!("{error:#}")))
}
