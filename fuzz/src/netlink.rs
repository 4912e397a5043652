//! What the kernel says of links, addresses and default routes, and what is planned for them.
//!
//! A message is a byte for what it is about, one for the length of its body, and the body. At last comes a static file.

use std::{path::Path, str};

use responder_user::{
    config::StaticConfig,
    decision::plan::Plan,
    net::{decode, link::NetState},
};

/// So many links at most; loops, which the kernel does not make, cost what their number allows.
const LINKS: usize = 10;
const LINK: u8 = 0;
const ADDRESS: u8 = 1;
const ROUTE: u8 = 2;

const CONFIG: &str = "interfaces=[\"*\"]\nvips=[\"192.0.2.10\",\"2001:db8::10\"]";

/// A bridge over a bond, VLANs, a veth, addresses and a route.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let word = |value: u32| value.to_ne_bytes().to_vec();
    let nla = |kind: u16, value: &[u8]| {
        let mut bytes = u16::try_from(4 + value.len()).unwrap_or(4).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let message = |kind: u8, body: &[u8]| [&[kind, u8::try_from(body.len()).unwrap_or(0)], body].concat();
    let link = |index: u8, name: &str, more: &[u8]| {
        // Ethernet, IFF_UP, IFF_LOWER_UP.
        let header = [0, 0, 1, 0, index, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0];
        let named = nla(3, &[name.as_bytes(), &[0]].concat());
        let attributes = [&named[..], &nla(1, &[2, 0, 0, 0, 0, index]), &nla(4, &word(1500)), more].concat();
        message(LINK, &[&header[..], &attributes].concat())
    };
    let info = |kind: &str, data: &[u8]| nla(18, &[nla(1, kind.as_bytes()), nla(2, data)].concat());
    let master = |index| nla(10, &word(index));
    let parent = |index| nla(5, &word(index));
    let nic = link(2, "eth0", &master(4));
    let slave =
        link(3, "eth1", &[master(4), nla(18, &[nla(4, b"bond"), nla(5, &nla(1, &[1]))].concat())].concat());
    let bond =
        link(4, "bond0", &[info("bond", &[nla(1, &[1]), nla(2, &word(2))].concat()), master(5)].concat());
    let bridge = link(5, "br0", &info("bridge", &[nla(5, &word(1)), nla(7, &[1])].concat()));
    let vlan = link(
        6,
        "br0.7",
        &[parent(5), info("vlan", &[nla(1, &[7, 0]), nla(5, &[0x81, 0])].concat())].concat(),
    );
    let veth = link(
        7,
        "v0",
        &[parent(8), info("veth", &[]), nla(43, &[nla(2, &[1]), nla(4, &word(9))].concat())].concat(),
    );
    let macvlan = link(8, "m0", &[parent(2), info("macvlan", &[])].concat());
    let address = |index: u8, ip: &[u8], len| {
        let family = if ip.len() == 4 { 2 } else { 10 };
        message(ADDRESS, &[&[family, len, 0x80, 0, index, 0, 0, 0], &nla(2, ip)[..]].concat())
    };
    let own4 = address(6, &[192, 0, 2, 1], 24);
    let own6 = address(5, &[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], 64);
    let hop = [&[16, 0, 0, 0, 5, 0, 0, 0][..], &nla(5, &[192, 0, 2, 254])].concat();
    let route = |more: &[u8]| message(ROUTE, &[&[2, 0, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0], more].concat());
    let routes =
        [route(&[nla(4, &word(5)), nla(5, &[192, 0, 2, 254])].concat()), route(&nla(9, &hop))].concat();
    let end = [&[0xff], CONFIG.as_bytes()].concat();
    vec![
        [&nic[..], &slave, &bond, &bridge, &vlan, &own4, &own6, &routes, &end].concat(),
        [&veth[..], &macvlan, &nic, &vlan, &own4, &end].concat(),
        [&nic[..], &slave, &bond, &own6, &route(&[]), &end].concat(),
        [&bond[..], &link(9, "ovs", &info("openvswitch", &[])), &link(1, "ip0", &info("ipvlan", &[])), &end]
            .concat(),
    ]
}

/// What the kernel says is understood or left out, and every plan is about links that are there.
///
/// # Panics
///
/// If not.
pub fn run(bytes: &[u8]) {
    let mut state = NetState::default();
    let mut rest = bytes;
    let mut text = "";
    while let [kind, len, more @ ..] = rest {
        if *kind > ROUTE {
            text = str::from_utf8(&rest[1..]).unwrap_or_default();
            break;
        }
        let (body, behind) = more.split_at(usize::from(*len).min(more.len()));
        apply(&mut state, *kind, body);
        rest = behind;
    }
    for link in state.links.values() {
        assert!(state.enslaved(link).is_none_or(|reason| !reason.is_empty()));
        assert!(state.height(link.index) <= 8);
        assert!(state.directly_above(link.index).count() <= 2 * LINKS);
        assert!(link.native_tx_obstacle().is_none_or(|reason| !reason.is_empty()));
        if state.refusal(link).is_none() {
            let found = state.ports(link);
            assert!(found.ports.is_empty() <= found.obstacle.is_some(), "no port, and no reason why");
            for port in found.ports {
                assert!(state.links.contains_key(&port.ifindex), "{port:?} is not there");
            }
        }
    }
    let text = if text.is_empty() { CONFIG } else { text };
    let Ok(config) = StaticConfig::from_text(Path::new("vips.toml"), text) else {
        return;
    };
    let plan = Plan::for_static(&config, &state, |name| name.len() % 2 == 0);
    for (at, slot) in &plan.vips {
        assert!(plan.links.contains_key(&at.place()), "{at:?} is on no link");
        assert!(config.vips.iter().any(|vip| vip.ip == at.ip), "{at:?} is not wanted");
        assert!(*slot <= 1, "{at:?} in slot {slot}");
    }
    for link in plan.links.values() {
        assert!(plan.interfaces.contains_key(&link.interface), "{link:?} is on no interface");
    }
    for index in plan.interfaces.keys() {
        assert!(state.links.contains_key(index), "interface {index} is not there");
    }
}

fn apply(state: &mut NetState, kind: u8, body: &[u8]) {
    match kind {
        LINK => {
            let features = decode::features_changed(body);
            assert!(!features || body.len() > 16, "an attribute, but no room for one");
            let Some(link) = decode::link(body) else {
                return;
            };
            assert_eq!(decode::link_index(body), Some(link.index));
            if state.links.len() < LINKS || state.links.contains_key(&link.index) {
                state.links.insert(link.index, link);
            }
        }
        ADDRESS => {
            let Some((index, prefix)) = decode::address(body) else {
                return;
            };
            if let Some(link) = state.links.get_mut(&index) {
                link.addrs.push(prefix);
            }
        }
        _ => {
            let route = decode::default_route(body);
            state.default_route_links.extend(route.links);
            state.default_gateways.extend(route.gateways);
        }
    }
}
