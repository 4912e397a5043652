//! What the agent says of itself and of its links.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{families::Families, reasons};
use crate::{control::AgentStatus, datapath::xdp::WantedMode, status::Status};

pub(super) fn encode(families: &mut Families<'_>, status: &Status) -> fmt::Result {
    let Some(agent) = &status.agent else {
        return families.gauge("agent_up", AGENT_UP, false);
    };
    families.gauge("agent_up", AGENT_UP, true)?;
    families.gauges("build_info", "The agent.", [(vec![("version", agent.version.as_str())], true)])?;
    links(families, agent)?;
    let file_ok = agent.file.is_some().then_some(agent.file_error.is_none());
    if let Some(ok) = file_ok {
        families.gauge("static_file_valid", "Whether the static file as it is now is in effect.", ok)?;
    }
    refusals(families, agent)?;
    families.gauge(
        "waiting_interfaces",
        "Interfaces that are named but not there, or cannot be used.",
        agent.waiting.len(),
    )?;
    families.counter(
        "burst_frames",
        "Gratuitous ARP and unsolicited advertisements sent.",
        agent.burst_frames,
    )?;
    families.counter(
        "burst_errors",
        "Gratuitous ARP and unsolicited advertisements that could not be sent; each was tried again.",
        agent.burst_errors,
    )?;
    families.gauge("burst_queue_length", "Announcements that wait for their turn.", agent.burst_queued)?;
    families.gauge("multicast_groups", "Groups joined for IPv6 addresses.", agent.groups)?;
    families.counter(
        "netlink_overruns",
        "How often reports of links were lost and all was read anew.",
        agent.netlink_overruns,
    )
}

const AGENT_UP: &str =
    "Whether the agent's loop has answered; if not, there is only what the kernel's maps say.";

fn links(families: &mut Families<'_>, agent: &AgentStatus) -> fmt::Result {
    let wanted = match agent.wanted_mode {
        Some(WantedMode::Auto) | None => "auto",
        Some(WantedMode::Native) => "native",
        Some(WantedMode::Generic) => "generic",
    };
    let attached = agent.links.iter().filter_map(|(name, link)| {
        let (mode, via) = link.xdp.as_deref()?.split_once(" by ")?;
        let egress = link.egress.as_deref().unwrap_or("none");
        let labels = [("link", name.as_str()), ("mode", mode), ("via", via), ("egress", egress)];
        Some(([labels.as_slice(), &[("wanted", wanted)]].concat(), true))
    });
    families.gauges(
        "link_info",
        "Links that the program runs on: in the driver (native) or in the network stack (generic), how it is \
         attached, how the egress program is, and where --xdp-mode wants the program (auto: in the driver if it can).",
        attached,
    )?;
    let ports: Vec<_> = agent
        .links
        .iter()
        .flat_map(|(name, link)| link.ports.iter().map(move |port| (name, port, port.vlan.to_string())))
        .collect();
    families.gauges(
        "port_info",
        "Where the program is to run for a link: itself, the NIC below a VLAN, a bond's slaves, a bridge's uplinks; \
         mode none: it does not run there.",
        ports.iter().map(|(name, port, vlan)| {
            let mode = port.xdp.as_deref().and_then(|xdp| xdp.split_once(" by ")).map_or("none", |(mode, _)| mode);
            let labels = [
                ("link", name.as_str()),
                ("port", port.name.as_str()),
                ("vlan", vlan.as_str()),
                ("role", port.role.as_str()),
                ("mode", mode),
            ];
            (labels.to_vec(), true)
        }),
    )?;
    let links = || agent.links.iter();
    families.gauges(
        "link_attached",
        "Whether the program runs on a link that announces.",
        links().map(|(name, link)| (vec![("link", name.as_str())], link.xdp.is_some())),
    )?;
    families.gauges(
        "link_running",
        "Whether a link that announces is up and has carrier.",
        links().map(|(name, link)| (vec![("link", name.as_str())], link.running)),
    )
}

fn refusals(families: &mut Families<'_>, agent: &AgentStatus) -> fmt::Result {
    let mut refused: BTreeMap<&str, BTreeSet<String>> =
        reasons::all().map(|reason| (reason, BTreeSet::new())).collect();
    for (ip, _, reason) in &agent.refused {
        refused.entry(reasons::of(reason)).or_default().insert(ip.to_string());
    }
    for (of, reason) in agent.leadership.iter().flat_map(|leadership| &leadership.refused) {
        refused.entry(reasons::of(reason)).or_default().insert(of.address.clone());
    }
    families.gauges(
        "refused_vips",
        "Addresses that are not announced by this agent, by reason.",
        refused.into_iter().map(|(reason, vips)| (vec![("reason", reason)], vips.len())),
    )
}
