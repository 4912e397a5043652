//! What the maps say, from their pins.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::Result;
use responder_common::{
    egress::EgressOutcome,
    layout::{LINK_BACKUP, LINK_FORWARDS, Link, LinkKey, STANDBY_SLOT},
    outcome::Outcome,
};

use super::{FenceStatus, PinnedLinkStatus, PinnedPortStatus, Status, VipState, VipStatus};
use crate::{
    control::AgentStatus,
    datapath::{
        DatapathError,
        maps::{Maps, VipEntry},
        pins::Pins,
        xdp,
    },
    net::boot,
};

/// The status of this host: what the maps say, and what `agent` does, if they are its own.
///
/// # Errors
///
/// If the maps cannot be read.
pub(crate) fn collect(pins: &Pins, agent: Option<AgentStatus>) -> Result<Status> {
    let maps = Maps::open(pins)?;
    // One with other pins may be the one that listens in the directory.
    let agent = agent.filter(|agent| agent.writes(maps.fence_id(), pins.root()));
    let now = boot::now_ns();
    let fence = maps.fence();
    let until = |at: u64| ms(at) - ms(now);
    let places: BTreeMap<LinkKey, Link> = maps.links().collect();
    let links = links(pins, &places)?;
    let announced: BTreeMap<(IpAddr, &str), u64> = agent
        .iter()
        .flat_map(|a| a.announced.iter().map(|(ip, link, age)| ((*ip, link.as_str()), *age)))
        .collect();
    let mut vips = BTreeMap::new();
    for entry in maps.vips() {
        let place = places.get(&entry.at.place());
        // What belongs to no interface (any more) is shown where it is.
        let (link, vlan) = place.map_or((entry.at.ifindex, entry.at.vlan), |place| (place.interface, 0));
        add(&mut vips, (entry.at.ip, link, vlan), &entry);
    }
    let mut vips: Vec<_> = vips
        .into_iter()
        .map(|((ip, link, vlan), entry)| {
            let (owned, since) = maps.slot(entry.slot).unwrap_or_default();
            let owned = owned && entry.slot != STANDBY_SLOT;
            let link = links.iter().find(|l| l.ifindex == link).ok_or(link);
            let attached = link.is_ok_and(|l| l.mode.is_some());
            let name = link.map_or_else(interface_name, |l| l.name.clone());
            let state = match (attached, owned) {
                (false, _) => VipState::Detached,
                _ if now >= fence.suppress_until_ns => VipState::Abandoned,
                (true, false) => VipState::Standby,
                (true, true) if now < fence.deadline_ns => VipState::Answering,
                (true, true) => VipState::Expired,
            };
            VipStatus {
                vip: ip,
                vlan,
                state,
                slot: entry.slot,
                slot_age_ms: (now.saturating_sub(since.as_nanos() as u64)) / 1_000_000,
                answered: entry.stats.answered,
                suppressed: entry.stats.suppressed,
                conflicts: entry.stats.conflicts,
                announced_age_ms: announced.get(&(ip, name.as_str())).copied(),
                link: name,
            }
        })
        .collect();
    vips.sort_by(|a, b| (a.vip, &a.link, a.vlan).cmp(&(b.vip, &b.link, b.vlan)));
    let (outcomes, egress, (events_limited, events_lost)) =
        (maps.outcomes()?, maps.egress()?, maps.events_missed()?);
    let received = Outcome::ALL.iter().map(|o| (o.name(), outcomes.get(*o)));
    let sent = EgressOutcome::ALL.iter().map(|o| (o.name(), egress.get(*o)));
    Ok(Status {
        bpffs: pins.root().to_owned(),
        agent,
        fence: FenceStatus {
            deadline_left_ms: until(fence.deadline_ns),
            suppress_left_ms: until(fence.suppress_until_ns),
            heartbeat_age_ms: -until(fence.heartbeat_ns),
        },
        links,
        vips,
        received: received.filter(|(_, n)| *n > 0).collect(),
        sent: sent.filter(|(_, n)| *n > 0).collect(),
        events_limited,
        events_lost,
    })
}

/// Adds an entry to those of the same address on the same link: counters of all ports, the slot of the link itself.
fn add(vips: &mut BTreeMap<(IpAddr, u32, u32), VipEntry>, key: (IpAddr, u32, u32), entry: &VipEntry) {
    let known = vips.get(&key).map(|known| (known.stats, known.slot));
    let mut sum = *entry;
    if let Some((stats, slot)) = known {
        sum.stats.answered += stats.answered;
        sum.stats.suppressed += stats.suppressed;
        sum.stats.conflicts += stats.conflicts;
        if (entry.at.ifindex, entry.at.vlan) != (key.1, 0) {
            sum.slot = slot;
        }
    }
    vips.insert(key, sum);
}

/// The links with their places.
fn links(pins: &Pins, places: &BTreeMap<LinkKey, Link>) -> Result<Vec<PinnedLinkStatus>, DatapathError> {
    let mut links: BTreeMap<u32, PinnedLinkStatus> = BTreeMap::new();
    for (key, place) in places {
        let running = xdp::query(key.ifindex)?;
        let port = PinnedPortStatus {
            ifindex: key.ifindex,
            name: interface_name(key.ifindex),
            vlan: key.vlan,
            role: if place.is(LINK_BACKUP) {
                "backup"
            } else if place.is(LINK_FORWARDS) {
                "forwards"
            } else {
                "answers"
            }
            .to_owned(),
            mode: running.map(|x| x.mode.to_string()),
            prog_id: running.map(|x| x.prog_id),
        };
        let link = links.entry(place.interface).or_insert_with(|| PinnedLinkStatus {
            ifindex: place.interface,
            name: interface_name(place.interface),
            mac: place.mac().to_string(),
            mode: None,
            prog_id: None,
            tcx: pins.tx_link(place.interface).exists(),
            ports: Vec::new(),
        });
        link.ports.push(port);
    }
    for link in links.values_mut() {
        // Where the program runs on ports alone, the link's own place is for what the host sends.
        let own = |port: &PinnedPortStatus| port.ifindex == link.ifindex && port.vlan == 0;
        if link.ports.len() > 1 {
            link.ports.retain(|port| !own(port) || port.mode.is_some());
        }
        let runs = |role: &str| link.ports.iter().find(|port| port.role == role && port.mode.is_some());
        if let Some(port) = runs("answers").map(|port| runs("forwards").unwrap_or(port)) {
            (link.mode, link.prog_id) = (port.mode.clone(), port.prog_id);
        }
    }
    let mut links: Vec<_> = links.into_values().collect();
    links.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(links)
}

fn interface_name(ifindex: u32) -> String {
    nix::net::if_::if_indextoname(ifindex)
        .map_or_else(|_gone| format!("if{ifindex}"), |name| name.to_string_lossy().into_owned())
}

fn ms(ns: u64) -> i64 {
    i64::try_from(ns / 1_000_000).unwrap_or(i64::MAX)
}
