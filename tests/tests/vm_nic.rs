//! NICs of a virtual machine, two on one wire: in a driver that no namespace has, every mode and way answers.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use responder_lab::{
    Agent, Capture, Lab, Mac, NetNs, Node, StaticFile, Status, frames, kernel, root_or_skip, send_all, skip,
    wait_until, xdp_on,
};

const SOON: Duration = Duration::from_secs(20);
const V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
const CLIENT4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 200);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x200);

/// What the NICs are called in their namespaces.
const NIC: &str = "wire0";

/// A pair of NICs: `cargo xtask vm-test` gives machines these, by their addresses.
struct Pair {
    driver: &'static str,
    host: Mac,
    client: Mac,
}

const VIRTIO: Pair =
    Pair { driver: "virtio_net", host: Mac([2, 0, 0, 0, 0x0f, 1]), client: Mac([2, 0, 0, 0, 0x0f, 2]) };
const VMXNET3: Pair =
    Pair { driver: "vmxnet3", host: Mac([2, 0, 0, 0, 0x0e, 1]), client: Mac([2, 0, 0, 0, 0x0e, 2]) };

impl Pair {
    /// Moves them into the namespaces of the host and the client. They return by themselves when those go.
    fn plug(&self, host: &Node, client: &Node) -> Result<()> {
        for (node, mac, v4, v6) in [
            (host, self.host, "192.0.2.91/24", "2001:db8::91/64"),
            (client, self.client, "192.0.2.200/24", "2001:db8::200/64"),
        ] {
            // A namespace of the test before may not be gone yet.
            let name = wait_until(&format!("a NIC with {mac}"), SOON, || named(mac).unwrap())
                .context("is this a VM?")?;
            to_namespace(&name, node.ns())?;
            let script = format!("addr add {v4} dev {NIC}\naddr add {v6} dev {NIC} nodad\nlink set {NIC} up");
            // Not beside the switch, which has the same addresses.
            node.ns().ip(&format!("link set eth0 down\naddr flush dev eth0\n{script}"))?;
        }
        for node in [host, client] {
            wait_until("carrier", SOON, || {
                let shown = node.ns().ip_json(&format!("link show dev {NIC}")).ok()?;
                let state = shown.pointer("/0/flags")?.to_string();
                state.contains("LOWER_UP").then_some(())
            })?;
        }
        Ok(())
    }

    /// Whether this machine has them; otherwise skips `test`.
    fn or_skip(&self, test: &str) -> bool {
        if !root_or_skip(test) {
            return false;
        }
        let is_there = wait_until("a NIC", Duration::from_secs(5), || named(self.host).unwrap()).is_ok();
        if !is_there {
            skip(test, &format!("needs two {} NICs on one wire (cargo xtask vm-test)", self.driver));
        }
        is_there
    }
}

/// The interface with this address in the namespace of this process.
fn named(mac: Mac) -> Result<Option<String>> {
    for entry in fs::read_dir("/sys/class/net")? {
        let path = entry?.path();
        let is_it = fs::read_to_string(path.join("address")).is_ok_and(|a| a.trim() == mac.to_string());
        if is_it && path.join("device").exists() {
            return Ok(path.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    Ok(None)
}

fn to_namespace(nic: &str, ns: &NetNs) -> Result<()> {
    let args = ["link", "set", nic, "down", "name", NIC, "netns", ns.name()];
    let output = std::process::Command::new("ip").args(args).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Asks until both VIPs are answered by `mac`.
fn ensure_answered(client: &Node, pair: &Pair) -> Result<()> {
    let capture = Capture::start(client.ns(), NIC)?;
    let questions =
        [frames::arp_request(pair.client, CLIENT4, V4), frames::solicitation(pair.client, CLIENT6, V6)];
    for vip in [IpAddr::V4(V4), IpAddr::V6(V6)] {
        wait_until(&format!("an answer for {vip}"), SOON, || {
            send_all(client.ns(), NIC, &questions).unwrap();
            let heard = Duration::from_millis(200);
            capture.wait_for("it", heard, |frame| frame.claim() == Some((vip, pair.host))).ok()
        })
        .with_context(|| format!("heard {:?}", capture.frames()))?;
    }
    Ok(())
}

fn answers(test: &str, pair: &Pair, mode: &str, via: &str) {
    if !pair.or_skip(test) {
        return;
    }
    let lab = Lab::builder().hosts(&["a"]).build().unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    pair.plug(a, c).unwrap();
    let file = StaticFile::on(&[NIC]).own(&[V4.into(), V6.into()]);
    let agent = Agent::start(a, &file, &["--xdp-mode", mode, "--attach", via]).unwrap();
    let status = Status::read(agent.commands()).unwrap();
    let link = status.agent_link(NIC);
    assert_eq!(link["xdp"], format!("{mode} by {via}"), "{link}");
    assert_eq!(xdp_on(a.ns(), NIC).unwrap().unwrap().mode, mode);
    ensure_answered(c, pair).unwrap();

    // A successor's burst is heard on the wire, and its program takes the place of the one before.
    agent.kill().unwrap();
    let capture = Capture::start(c.ns(), NIC).unwrap();
    let successor = Agent::start(a, &file, &["--xdp-mode", mode, "--attach", via]).unwrap();
    capture.wait_for("a burst", SOON, |frame| frame.claim() == Some((V4.into(), pair.host))).unwrap();
    ensure_answered(c, pair).unwrap();
    assert_eq!(xdp_on(a.ns(), NIC).unwrap().unwrap().mode, mode);
    let commands = successor.commands().clone();
    assert!(successor.terminate().unwrap().success());
    commands.output("detach", &[]).unwrap().ok().unwrap();
    wait_until("no program", SOON, || xdp_on(a.ns(), NIC).unwrap().is_none().then_some(())).unwrap();
}

#[test]
fn virtio_native_by_link() {
    answers("virtio_native_by_link", &VIRTIO, "native", "link");
}

#[test]
fn virtio_native_by_netlink() {
    answers("virtio_native_by_netlink", &VIRTIO, "native", "netlink");
}

#[test]
fn virtio_generic_by_link() {
    answers("virtio_generic_by_link", &VIRTIO, "generic", "link");
}

#[test]
fn vmxnet3_generic_by_netlink() {
    answers("vmxnet3_generic_by_netlink", &VMXNET3, "generic", "netlink");
}

/// The driver has known XDP since 6.6; before, the automatic mode takes the generic one.
#[test]
fn vmxnet3_by_itself() {
    let test = "vmxnet3_by_itself";
    if !VMXNET3.or_skip(test) {
        return;
    }
    let lab = Lab::builder().hosts(&["a"]).build().unwrap();
    let (a, c) = (lab.node("a"), lab.node("c"));
    VMXNET3.plug(a, c).unwrap();
    let file = StaticFile::on(&[NIC]).own(&[V4.into(), V6.into()]);
    let agent = Agent::start(a, &file, &[]).unwrap();
    let mode = if kernel() >= (6, 6) { "native" } else { "generic" };
    let status = Status::read(agent.commands()).unwrap();
    let link = status.agent_link(NIC);
    assert_eq!(link["xdp"], format!("{mode} by link"), "{link}");
    ensure_answered(c, &VMXNET3).unwrap();
}
