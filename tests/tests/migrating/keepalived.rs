//! docs/migrating.md, *From keepalived*, with keepalived itself on two nodes: there and back.

use std::{collections::BTreeMap, fs, net::IpAddr, path::PathBuf, process::Command};

use nix::sys::signal::Signal;
use responder_lab::{Cluster, Process, cluster_or_skip, tools_or_skip, wait_until};
use serde_json::{Value, json};

use super::support::{Neighbour, SOON, check, detach, finding, quiet_agents, restart, service};

/// Heard by all on the segment.
const V4: &str = "192.0.2.230";
/// In an instance of its own, as VRRP version 3 wants it.
const V6: &str = "2001:db8::e6";
/// Of an instance that tells the other node alone.
const UNICAST: &str = "192.0.2.231";
/// Of an instance that does not tell it (`virtual_ipaddress_excluded`).
const UNTOLD: &str = "192.0.2.232";
const EXTERNAL: [&str; 3] = ["--external-ips", "--ip-ranges", "192.0.2.224/27,2001:db8::/64"];

/// keepalived on the nodes n1, which is to be the master, and n2.
struct Keepalived<'a> {
    cluster: &'a Cluster,
    running: BTreeMap<&'static str, Process>,
}

impl<'a> Keepalived<'a> {
    fn start(cluster: &'a Cluster) -> Self {
        let mut keepalived = Self { cluster, running: BTreeMap::new() };
        for node in ["n1", "n2"] {
            keepalived.write(node, true);
            let config = keepalived.config(node);
            let mut command = Command::new("keepalived");
            command
                .args(["--dont-fork", "--log-console", "--log-detail", "--vrrp", "--use-file"])
                .arg(&config);
            command.arg("--pid").arg(config.with_extension("pid"));
            command.arg("--vrrp_pid").arg(config.with_extension("vrrp.pid"));
            keepalived.running.insert(node, cluster.node(node).spawn(command).unwrap());
            // Before the other one begins to listen, or both are master for a moment if this one's first words are late.
            keepalived.wait_addresses(true);
        }
        keepalived
    }

    fn config(&self, node: &str) -> PathBuf {
        self.cluster.host(node).dir().join("keepalived.conf")
    }

    fn write(&self, node: &str, with_addresses: bool) {
        let (state, priority, peer) =
            if node == "n1" { ("MASTER", 150, "n2") } else { ("BACKUP", 100, "n1") };
        let peer = self.cluster.host(peer).nics()[0].v4;
        let block = |name: &str, address: &str| match with_addresses {
            true => format!("{name} {{\n {address}\n }}"),
            false => String::new(),
        };
        let instance = |id: u8, more: &str| {
            format!(
                "vrrp_instance router{id} {{\n state {state}\n interface eth0\n virtual_router_id {id}\n priority \
                 {priority}\n advert_int 1\n {more}\n}}\n"
            )
        };
        let addresses = "virtual_ipaddress";
        let text = [
            instance(51, &block(addresses, &format!("{V4}/24"))),
            instance(52, &block(addresses, &format!("{V6}/64"))),
            instance(
                53,
                &format!("unicast_peer {{\n {peer}\n }}\n{}", block(addresses, &format!("{UNICAST}/24"))),
            ),
            instance(54, &block("virtual_ipaddress_excluded", &format!("{UNTOLD}/24"))),
        ];
        fs::write(self.config(node), text.concat()).unwrap();
    }

    /// As `systemctl reload keepalived` does.
    fn reload(&self, with_addresses: bool) {
        for (node, process) in &self.running {
            self.write(node, with_addresses);
            process.signal(Signal::SIGHUP).unwrap();
        }
    }

    /// Waits until `ip -brief address show` on n1 has all of these addresses, or none.
    fn wait_addresses(&self, all: bool) {
        let addresses = [V4, V6, UNICAST, UNTOLD];
        let shown = || self.cluster.node("n1").check(&["ip", "-brief", "address", "show"]).unwrap();
        wait_until("addresses on n1's interface", SOON, || {
            let shown = shown();
            let count = addresses.iter().filter(|one| shown.contains(&format!(" {one}/"))).count();
            (count == if all { addresses.len() } else { 0 }).then_some(())
        })
        .unwrap_or_else(|error| panic!("{error:#}: {}\n{}", shown(), self.running["n1"].last_words()));
    }
}

#[test]
fn from_keepalived_and_back() {
    let name = "from_keepalived_and_back";
    if !cluster_or_skip(name) || !tools_or_skip(name, &["keepalived"]) {
        return;
    }
    let cluster = Cluster::builder().nodes(3).kube_proxy(true).build().unwrap();
    let cluster = &cluster;
    let _endpoints = ["n1", "n2", "n3"].map(|node| cluster.endpoint(node).unwrap());
    let external = json!({ "externalIPs": [V4, V6, UNICAST, UNTOLD] });
    service(cluster, "web", &json!({}), &external, &["n1", "n2", "n3"]);
    let keepalived = Keepalived::start(cluster);
    let [v4, v6, unicast, untold] = [V4, V6, UNICAST, UNTOLD].map(|one| one.parse::<IpAddr>().unwrap());
    let neighbour = Neighbour::start(cluster, &[v4, unicast, untold], v4);
    assert_eq!(neighbour.owners(), ["n1"; 3]);
    assert_eq!(neighbour.resolved(v6, SOON).as_deref(), Some("n1"));
    neighbour.wait_talk();
    heard(cluster);

    let mut agents = quiet_agents(cluster);
    assert_eq!(neighbour.owners(), ["n1"; 3]);
    let since = neighbour.observer.round();
    keepalived.reload(false);
    keepalived.wait_addresses(false);
    let silent = neighbour.wait_silence();
    restart(cluster, &mut agents, &EXTERNAL);
    println!("agents answer: {:?}", neighbour.owners());
    assert!(neighbour.resolved(v6, SOON).is_some());
    neighbour.wait_talk();
    neighbour.assert_single(silent, "agents instead of keepalived");
    neighbour.report(since, "from keepalived");
    // It goes on advertising, with nothing.
    let (output, findings) = check(cluster, "n3", &["--listen", "3s"]);
    assert_eq!(output.code(), Some(0), "{findings:#?}");

    // Back.
    let since = neighbour.observer.round();
    for agent in &mut agents {
        agent.terminate(SOON).unwrap();
    }
    detach(cluster);
    let silent = neighbour.wait_silence();
    keepalived.reload(true);
    keepalived.wait_addresses(true);
    assert_eq!(neighbour.owners(), ["n1"; 3]);
    assert_eq!(neighbour.resolved(v6, SOON).as_deref(), Some("n1"));
    neighbour.wait_talk();
    neighbour.assert_single(silent, "keepalived instead of agents");
    neighbour.report(since, "back to keepalived");
}

/// What `responder check --cluster` hears of it: on the segment, as the peer, and on the master itself.
fn heard(cluster: &Cluster) {
    let router = |id: u8, address: &str| {
        [format!("VRRP router {id} at "), format!("has {address}, and {address} is a Service's")]
    };
    let unicast =
        |findings: &[Value]| findings.iter().any(|f| f["text"].as_str().unwrap().contains("router 53"));
    let mac = cluster.host("n1").mac().to_string();
    for node in ["n3", "n2", "n1"] {
        let (output, findings) = check(cluster, node, &[&EXTERNAL[..], &["--listen", "3s"]].concat());
        assert_eq!(output.code(), Some(4), "{node}: {findings:#?}");
        for told in [router(51, V4), router(52, V6)] {
            finding(&findings, "bad", &told.each_ref().map(String::as_str));
        }
        finding(&findings, "ok", &["VRRP router 54 at 192.0.2.1", "tells no address"]);
        // By unicast it is heard where it is sent from and to alone. Who answers is found by asking, but not by itself.
        assert_eq!(unicast(&findings), node != "n3", "{node}: {findings:#?}");
        for address in [V4, V6, UNICAST, UNTOLD].into_iter().filter(|_| node != "n1") {
            finding(&findings, "bad", &[&format!("no node should answer for {address} now"), &mac]);
        }
    }
}
