//! What events change in what is known.

use crate::net::{
    decode, ethtool,
    link::{Link, NetState},
};

/// Links are reported without addresses and offloads, so those known are kept. Offloads are asked for by name: who had
/// another name by then was not found, or another link was, and the event that tells the new name comes after that.
pub(super) fn put_link(state: &mut NetState, mut link: Link, features_changed: bool) {
    let known = state.links.get_mut(&link.index);
    let asked = known.as_ref().filter(|known| !features_changed && known.name == link.name);
    let strips_tags = asked.map(|known| known.strips_tags);
    if let Some(known) = known {
        link.addrs = std::mem::take(&mut known.addrs);
    }
    // Only hardware does: others hand tags on beside the frame, whatever they call it.
    if link.kind.is_none() && link.ethernet {
        link.strips_tags =
            strips_tags.unwrap_or_else(|| ethtool::features(&link.name).rx_vlan_offload == Some(true));
    }
    // Of a new pair, the end that is reported first does not have its peer yet, and no event tells later.
    if let Some(peer) = link.parent.and_then(|parent| state.links.get_mut(&parent))
        && link.kind.as_deref() == Some("veth")
    {
        peer.parent = Some(link.index);
    }
    state.links.insert(link.index, link);
}

/// Nor does an event tell that the other end of a pair has left the namespace.
pub(super) fn remove_link(state: &mut NetState, index: u32) {
    state.links.remove(&index);
    for link in state.links.values_mut().filter(|link| link.parent == Some(index)) {
        link.parent = None;
    }
}

pub(super) fn add_address(state: &mut NetState, body: &[u8]) {
    let Some((index, new)) = decode::address(body) else {
        return;
    };
    let Some(link) = state.links.get_mut(&index) else {
        return;
    };
    match link.addrs.iter_mut().find(|have| (have.ip, have.len) == (new.ip, new.len)) {
        Some(known) => *known = new,
        None => link.addrs.push(new),
    }
    link.addrs.sort_by_key(|prefix| !prefix.primary);
}

#[cfg(test)]
mod tests {
    use responder_common::wire::Mac;

    use super::*;
    use crate::net::link::Detail;

    /// A NIC, as an event reports it. No such one is there: of who is not found, nothing is known.
    fn nic(name: &str) -> Link {
        Link {
            index: u32::MAX,
            name: name.to_owned(),
            mac: Mac::ZERO,
            mtu: 1500,
            admin_up: true,
            carrier: true,
            kind: None,
            master: None,
            parent: None,
            addrs: Vec::new(),
            xdp: None,
            loopback: false,
            ethernet: true,
            detail: Detail::None,
            backup: false,
            strips_tags: false,
        }
    }

    #[test]
    fn offloads_are_asked_for_again_when_they_change_and_by_a_new_name() {
        let strips = |name: &str, features_changed| {
            let mut state = NetState::default();
            state.links.insert(u32::MAX, Link { strips_tags: true, ..nic("rsp-none0") });
            put_link(&mut state, nic(name), features_changed);
            state.links[&u32::MAX].strips_tags
        };
        assert!(strips("rsp-none0", false), "what is known is kept");
        assert!(!strips("rsp-none0", true), "asked for again");
        assert!(!strips("rsp-none1", false), "the first answer may have been about another link");
    }
}
