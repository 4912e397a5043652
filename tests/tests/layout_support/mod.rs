//! What the tests of link layouts share: kinds of links, real NICs, and where answers are heard.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]
// Each test program uses a part of this.
#![expect(dead_code, reason = "shared by several test programs")]

use std::{collections::BTreeSet, net::IpAddr, process::Command, time::Duration};

use responder_lab::{
    Capture, Commands, Lab, Mac, NetNs, Nic, Node, Status,
    frames::{arp_request, solicitation},
    send_all, skip, wait_until,
};
use serde_json::Value;

use crate::agent_support::{SOON, answer_for};

/// The deadline's length in these tests: a virtual machine may stand still for a while.
pub(crate) const PATIENT: [&str; 2] = ["--fence", "60s"];

/// Whether this kernel can make links of a kind. Otherwise skips `test`.
pub(crate) fn kind_or_skip(test: &str, lab: &Lab, kind: &str) -> bool {
    let ns = lab.switch();
    ns.ip("link add probe0 type veth peer name probe1").unwrap();
    let more = if kind == "vlan" { "id 5" } else { "" };
    let below = if matches!(kind, "vlan" | "macvlan" | "ipvlan") { "link probe0" } else { "" };
    let made = ns.ip(&format!("link add {below} name probe2 type {kind} {more}\nlink del probe2"));
    ns.ip("link del probe0").unwrap();
    if let Err(error) = &made {
        skip(test, &format!("needs links of kind {kind}: {error}").replace('\n', " "));
    }
    made.is_ok()
}

/// Two NICs that are wired to each other, one in each of two namespaces as `nic0`. They go back when this is dropped.
pub(crate) struct Cable<'a> {
    ends: [(&'a Node, Mac); 2],
}

impl<'a> Cable<'a> {
    /// Takes the NICs with these addresses out of the first namespace. Otherwise skips `test`.
    pub(crate) fn plug_or_skip(test: &str, ends: [(&'a Node, &str); 2]) -> Option<Self> {
        let ends = ends.map(|(node, mac)| (node, mac.parse::<Mac>().unwrap()));
        let names = ends.map(|(_, mac)| name_of(mac));
        let [Some(one), Some(other)] = names else {
            skip(test, &format!("needs two NICs wired to each other, {} and {}", ends[0].1, ends[1].1));
            return None;
        };
        for ((node, mac), name) in ends.iter().zip([one, other]) {
            let ns = node.ns();
            root(&["link", "set", "dev", &name, "down"]);
            root(&["link", "set", "dev", &name, "netns", ns.name(), "name", "nic0"]);
            ns.ip(&format!("link set nic0 address {mac}\nlink set nic0 up")).unwrap();
        }
        for (node, _) in ends {
            wait_until("a carrier", SOON, || {
                let shown = node.ns().ip_json("link show dev nic0").ok()?;
                (shown.pointer("/0/operstate")?.as_str()? == "UP").then_some(())
            })
            .unwrap();
        }
        Some(Self { ends })
    }
}

impl Drop for Cable<'_> {
    fn drop(&mut self) {
        for (node, mac) in self.ends {
            let back = format!("nic{}{}", mac.0[4], mac.0[5]);
            node.ns()
                .ip(&format!("link set nic0 nomaster\nlink set nic0 down\nlink set nic0 netns 1 name {back}"))
                .ok();
        }
    }
}

fn root(args: &[&str]) -> Value {
    let output = Command::new("ip").arg("-j").args(args).output().unwrap();
    assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

fn name_of(mac: Mac) -> Option<String> {
    let links = root(&["link", "show"]);
    let has = |link: &&Value, key: &str| link[key] == mac.to_string().as_str();
    let link = links.as_array()?.iter().find(|link| has(link, "address") || has(link, "permaddr"))?;
    Some(link["ifname"].as_str()?.to_owned())
}

/// A further interface of `node` on the first segment, without addresses.
pub(crate) fn add_nic(lab: &Lab, node: &Node, name: &str, last: u8) {
    let nic = Nic { name: name.to_owned(), mac: Mac([2, 0, 0, 0, 9, last]), ..node.nics()[0].clone() };
    lab.connect(node, &nic).unwrap();
    node.ns().ip(&format!("addr flush dev {name}")).unwrap();
}

/// A question for `vip` of the client at `dev`.
pub(crate) fn question(client: &Node, dev: &str, vip: IpAddr) -> Vec<u8> {
    let (mac, nic) = (client.ns().mac(dev).unwrap(), &client.nics()[0]);
    match vip {
        IpAddr::V4(vip) => arp_request(mac, nic.v4, vip),
        IpAddr::V6(vip) => solicitation(mac, nic.v6, vip),
    }
}

/// The frame with these tags: EtherType and tag control information.
pub(crate) fn with_tags(tags: &[(u16, u16)], frame: &[u8]) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12);
    let tags = tags.iter().flat_map(|(kind, tci)| [kind.to_be_bytes(), tci.to_be_bytes()].concat());
    addresses.iter().copied().chain(tags).chain(rest.iter().copied()).collect()
}

/// Captures on some devices of a namespace. On a device itself everything is heard that comes by it; on a VLAN of
/// it, only that VLAN.
pub(crate) struct Ears<'a> {
    ns: &'a NetNs,
    captures: Vec<(&'a str, Capture)>,
}

impl<'a> Ears<'a> {
    pub(crate) fn new(ns: &'a NetNs, devs: &[&'a str]) -> Self {
        Self { ns, captures: devs.iter().map(|dev| (*dev, Capture::start(ns, dev).unwrap())).collect() }
    }

    /// Where answers for `vip` were heard, and the address that they gave.
    pub(crate) fn heard(&self, vip: IpAddr) -> BTreeSet<(&'a str, Mac)> {
        let of = |(dev, capture): &(&'a str, Capture)| {
            let frames = capture.frames();
            frames.iter().filter_map(|f| answer_for(f, vip)).map(|mac| (*dev, mac)).collect::<Vec<_>>()
        };
        self.captures.iter().flat_map(of).collect()
    }

    /// How many answers for `vip` there were at a device.
    pub(crate) fn count(&self, dev: &str, vip: IpAddr) -> usize {
        let captures = self.captures.iter().filter(|(name, _)| *name == dev);
        captures.flat_map(|(_, c)| c.frames()).filter(|f| answer_for(f, vip).is_some()).count()
    }

    /// Frames of bursts about `vip` that were heard at a device.
    pub(crate) fn bursts(&self, dev: &str, vip: IpAddr) -> usize {
        let captures = self.captures.iter().filter(|(name, _)| *name == dev);
        captures.flat_map(|(_, c)| c.frames()).filter(|f| f.is_gratuitous(vip)).count()
    }

    /// Sends `frame` from `dev` until an answer for `vip` is heard; all are from `mac`, and heard just there.
    pub(crate) fn assert_answer(&self, dev: &str, frame: &[u8], vip: IpAddr, at: &[&str], mac: Mac) {
        let wanted: BTreeSet<_> = at.iter().map(|dev| (*dev, mac)).collect();
        let asked = wait_until(&format!("an answer for {vip} by {mac} at {at:?}"), 3 * SOON, || {
            self.clear(); // what came before the state that is waited for does not count
            send_all(self.ns, dev, &[frame.to_vec()]).unwrap();
            wait_until("it", Duration::from_millis(500), || (self.heard(vip) == wanted).then_some(())).ok()
        });
        assert!(asked.is_ok(), "{asked:?}; heard {:?}", self.heard(vip));
    }

    /// Sends `frame` from `dev` with one that is answered: nothing is heard for `vip`.
    pub(crate) fn assert_silence(&self, dev: &str, frame: &[u8], vip: IpAddr, control: (&[u8], IpAddr)) {
        self.clear();
        for round in 0..3 {
            wait_until("an answer to the control", 3 * SOON, || {
                send_all(self.ns, dev, &[frame.to_vec(), control.0.to_vec()]).unwrap();
                let heard = || (!self.heard(control.1).is_empty()).then_some(());
                wait_until("it", Duration::from_millis(500), heard).ok()
            })
            .unwrap();
            assert!(self.heard(vip).is_empty(), "round {round}: {vip} was answered: {:?}", self.heard(vip));
        }
    }

    pub(crate) fn clear(&self) {
        self.captures.iter().for_each(|(_, capture)| capture.clear());
    }
}

/// The link `name` as the maps and the kernel have it, once `wanted` holds.
pub(crate) fn wait_link(commands: &Commands, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let what = format!("the wanted state of {name}");
    let status = Status::wait(commands, &what, 3 * SOON, |status| wanted(status.link(name))).unwrap();
    status.link(name).clone()
}

/// The ports of a link in short: "eth1 vlan 100 native answers".
pub(crate) fn ports(link: &Value) -> Vec<String> {
    let text = |port: &Value| {
        let vlan = port["vlan"].as_u64().unwrap();
        let vlan = if vlan == 0 { String::new() } else { format!(" vlan {vlan}") };
        let word = |key: &str| port[key].as_str().unwrap_or("none").to_owned();
        format!("{}{vlan} {} {}", word("name"), word("mode"), word("role"))
    };
    link["ports"].as_array().map_or_else(Vec::new, |ports| ports.iter().map(text).collect())
}

/// Traffic for `vip` reaches the host at the address that it answers with.
pub(crate) fn assert_delivered(client: &Node, vip: IpAddr) {
    let vip = vip.to_string();
    let pinged = wait_until("a ping to be answered", 3 * SOON, || {
        let ping = client.ns().output(&["ping", "-c", "1", "-W", "1", &vip], SOON).ok()?;
        (ping.code() == Some(0)).then_some(())
    });
    assert!(pinged.is_ok(), "{vip}: {pinged:?}");
}
