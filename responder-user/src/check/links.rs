//! Interfaces: whether the program could run in the driver, and what obstructs it.

use std::path::Path;

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
    let chosen = net.links.values().filter(|link| {
        if interfaces.is_empty() { link.ethernet && !link.loopback } else { interfaces.contains(&link.name) }
    });
    for link in chosen {
        findings.extend(one(&net, link, pins.as_ref())?);
    }
    Ok(findings)
}

fn one(net: &NetState, link: &Link, pins: Option<&Pins>) -> Result<Vec<Finding>> {
    let name = link.name.as_str();
    if link.loopback || !link.ethernet {
        return Ok(vec![Finding::new(name, Bad, "is no Ethernet interface: there is neither ARP nor NDP")]);
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
        None => findings.push(native(link, features_of_xdp)),
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
    if let Some(reason) = net.vlan_obstacle(link, features.rx_vlan_offload) {
        findings.push(Finding::new(name, Bad, reason));
    }
    if let Some(master) = link.master.and_then(|index| net.links.get(&index)) {
        findings.push(Finding::new(
            name,
            Limited,
            format!("belongs to {}; answers carry the address of {name} itself", master.name),
        ));
    }
    Ok(findings)
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
