//! Interfaces: whether the program could run in the driver, and what obstructs it.

use std::{collections::BTreeSet, path::Path};

use anyhow::Result;

use super::{
    Finding,
    Verdict::{Bad, Limited, Ok as Fine},
};
use crate::{
    datapath::{
        foreign::Foreign,
        object::is_ours,
        obstacles::{self, Nic},
        pins::Pins,
        xdp,
    },
    net::{
        ethtool,
        link::{Link, NetState},
        topology::{Port, Ports, Role},
        watch::watch,
        xdp_features::{XdpFeatures, xdp_features},
    },
};

pub(super) async fn check(bpffs: &Path, interfaces: &[String]) -> Result<Vec<Finding>> {
    let (net, _follower) = watch().await?;
    let net = net.borrow().clone();
    let pins = Pins::existing(bpffs).ok().flatten();
    let mut findings = Vec::new();
    for name in interfaces {
        if net.by_name(name).is_none() {
            findings.push(Finding::new(name, Bad, "there is no such interface; `ip link` lists them"));
        }
    }
    let mut chosen: BTreeSet<u32> = net
        .links
        .values()
        .filter(|link| match interfaces {
            [] => link.ethernet && !link.loopback,
            named => named.contains(&link.name),
        })
        .map(|link| link.index)
        .collect();
    // What is said of a bond says nothing of its slaves' drivers.
    let below = |index: &u32| net.links.get(index).map_or_else(Vec::new, |link| net.ports(link).ports);
    chosen.extend(chosen.clone().iter().flat_map(below).map(|port| port.ifindex));
    for link in chosen.iter().filter_map(|index| net.links.get(index)) {
        findings.extend(one(&net, link, interfaces.contains(&link.name), pins.as_ref())?);
    }
    Ok(findings)
}

fn one(net: &NetState, link: &Link, named: bool, pins: Option<&Pins>) -> Result<Vec<Finding>> {
    let name = link.name.as_str();
    let refusal = net.refusal(link);
    if let Some(reason) = refusal.as_ref().filter(|_| link.loopback || !link.ethernet) {
        return Ok(vec![Finding::new(name, Bad, reason)]);
    }
    let features = ethtool::features(name);
    let driver = features.driver.as_deref().unwrap_or("unknown driver");
    let state = match (link.admin_up, link.carrier) {
        (false, _) => "down",
        (true, false) => "without carrier",
        (true, true) => "up",
    };
    let mut findings =
        vec![Finding::new(name, Fine, format!("{driver}, {state}, {}, MTU {}", link.mac, link.mtu))];
    let runs_here = match refusal {
        // Others of the interfaces may be what it is a port of.
        Some(reason) => {
            findings.push(Finding::new(name, if named { Bad } else { Fine }, reason));
            link.master.is_some()
        }
        None => place(net, link, named, &mut findings),
    };
    let features_of_xdp = xdp_features(link.index).ok();
    match xdp::query(link.index)? {
        Some(current) if pins.is_some_and(|pins| is_ours(pins, "xdp", current.prog_id)) => {
            findings.push(Finding::new(
                name,
                Fine,
                format!("our program id {} runs, {}", current.prog_id, current.mode),
            ));
        }
        Some(current) => {
            let foreign = Foreign::inspect_thoroughly(current.prog_id);
            let text = format!(
                "{foreign} is attached and not ours: in the way, as the kernel runs one program on an interface, in \
                 whatever mode"
            );
            findings.push(Finding::new(name, Bad, text));
        }
        None if runs_here => findings.push(native(link, features_of_xdp)),
        None => {}
    }
    if let Some(reason) = link.native_tx_obstacle() {
        findings.push(Finding::new(name, Limited, reason));
    }
    let nic = Nic { name, mtu: link.mtu, features: &features, xdp: features_of_xdp };
    findings.extend(obstacles::known(&nic).into_iter().map(|text| {
        let text = format!("{text}. As it is, generic mode is used where native mode is refused");
        Finding::new(name, Limited, text)
    }));
    findings.extend(obstacles::reset_on_attach(driver).map(|text| Finding::new(name, Fine, text)));
    Ok(findings)
}

/// Where the program runs for what is announced on `link`. Whether that is on `link` itself, too.
fn place(net: &NetState, link: &Link, named: bool, findings: &mut Vec<Finding>) -> bool {
    let name = link.name.as_str();
    let Ports { ports, obstacle, notes, .. } = net.ports(link);
    let itself = ports.iter().any(|port| port.ifindex == link.index);
    if ports.iter().any(|port| port.ifindex != link.index || port.generic.is_some()) {
        let list: Vec<_> = ports.iter().map(|port| described(net, port)).collect();
        findings.push(Finding::new(name, Fine, format!("the program runs on {}", list.join(", "))));
    }
    findings.extend(notes.into_iter().map(|note| Finding::new(name, Limited, note)));
    // A NIC that only carries VLANs is refused itself, and that may be as it should.
    let wanted = named || net.default_route_links.contains(&link.index);
    findings.extend(obstacle.map(|reason| Finding::new(name, if wanted { Bad } else { Limited }, reason)));
    itself
}

fn described(net: &NetState, port: &Port) -> String {
    let mut text = net.links.get(&port.ifindex).map_or_else(String::new, |link| link.name.clone());
    if port.vlan != 0 {
        text = format!("{text} for VLAN {}", port.vlan);
    }
    if port.role == Role::Backup {
        text = format!("{text} (silent: not in use)");
    }
    match port.generic {
        Some(why) => format!("{text} in generic mode ({why})"),
        None => text,
    }
}

/// Without attaching there is no certainty; what is known is said.
fn native(link: &Link, xdp: Option<XdpFeatures>) -> Finding {
    let name = link.name.as_str();
    let kind = link.kind.as_deref().unwrap_or("");
    let has_none = match xdp {
        Some(xdp) => !xdp.native,
        None => ["vlan", "bridge", "macvlan", "ipvlan", "team", "vxlan", "netkit"].contains(&kind),
    };
    if has_none {
        let text =
            "no XDP program is attached; the driver runs none (no native XDP), so generic mode is used";
        return Finding::new(name, Limited, text);
    }
    let text = match xdp {
        Some(XdpFeatures { multi_buffer: true, .. }) => "the driver runs programs, multi-buffer ones too",
        Some(_) => "the driver runs programs",
        None => "whether the driver runs programs is seen when one is attached",
    };
    let text = format!("no XDP program is attached; {text}: native mode is tried first, then generic mode");
    Finding::new(name, Fine, text)
}
