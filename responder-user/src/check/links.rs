//! Interfaces: whether the program could run in the driver, and what obstructs it.

use std::path::Path;

use anyhow::Result;

use super::{
    Finding,
    Verdict::{Bad, Limited, Ok as Fine},
};
use crate::{
    datapath::{foreign::Foreign, object::is_ours, pins::Pins, xdp},
    net::{
        ethtool,
        link::{Link, NetState},
        watch::watch,
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
    match xdp::query(link.index)? {
        Some(current) if pins.is_some_and(|pins| is_ours(pins, "xdp", current.prog_id)) => {
            findings.push(Finding::new(
                name,
                Fine,
                format!("our program id {} runs, {}", current.prog_id, current.mode),
            ));
        }
        Some(current) => {
            let foreign = Foreign::inspect(current.prog_id);
            findings.push(Finding::new(name, Bad, format!("{foreign} is attached and not ours: in the way")));
        }
        None => findings.push(native(link, driver)),
    }
    if let Some(reason) = link.native_tx_obstacle() {
        findings.push(Finding::new(name, Limited, reason));
    }
    if features.lro == Some(true) {
        findings.push(Finding::new(
            name,
            Limited,
            format!("large receive offload is on, and most drivers refuse native XDP then: ethtool -K {name} lro off"),
        ));
    }
    if features.gro_hw == Some(true) {
        findings.push(Finding::new(
            name,
            Limited,
            format!(
                "hardware GRO is on, and some drivers refuse native XDP then: ethtool -K {name} rx-gro-hw off"
            ),
        ));
    }
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
fn native(link: &Link, driver: &str) -> Finding {
    let name = link.name.as_str();
    if let Some(kind @ ("vlan" | "bridge" | "macvlan" | "ipvlan" | "team" | "vxlan" | "netkit")) =
        link.kind.as_deref()
    {
        return Finding::new(name, Limited, format!("{kind} devices have no native XDP: generic mode"));
    }
    if link.mtu > 3500 {
        return Finding::new(
            name,
            Limited,
            format!(
                "MTU {} needs multi-buffer XDP in {driver}; if the driver refuses, generic mode is used (the \
                 agent's log has its words)",
                link.mtu
            ),
        );
    }
    Finding::new(name, Fine, "no XDP program is attached; native mode is tried first, then generic mode")
}
