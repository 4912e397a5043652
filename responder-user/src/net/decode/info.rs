//! What a link's kind says of it: `IFLA_LINKINFO`.

use netlink_packet_core::{parse_string, parse_u8, parse_u16, parse_u32};

use super::{attributes, index_of};
use crate::net::link::{BondMode, Detail, Link};

// linux/if_link.h; not in libc.
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_VLAN_PROTOCOL: u16 = 5;
const IFLA_BOND_MODE: u16 = 1;
const IFLA_BOND_ACTIVE_SLAVE: u16 = 2;
const IFLA_BOND_SLAVE_STATE: u16 = 1;
const IFLA_BR_STP_STATE: u16 = 5;
const IFLA_BR_VLAN_FILTERING: u16 = 7;

/// linux/if_ether.h, in the order of a frame.
const ETH_P_8021AD: [u8; 2] = [0x88, 0xa8];
// linux/if_bonding.h
const BOND_MODE_ACTIVEBACKUP: u8 = 1;
const BOND_MODE_TLB: u8 = 5;
const BOND_MODE_ALB: u8 = 6;
const BOND_STATE_BACKUP: u8 = 1;

/// Reads kind, detail and whether the link is a backup slave.
pub(super) fn read(link: &mut Link, info: &[u8]) {
    let (mut own, mut as_slave) = (None, None);
    for nla in attributes(info) {
        match nla.kind() {
            libc::IFLA_INFO_KIND => link.kind = parse_string(nla.value()).ok(),
            libc::IFLA_INFO_DATA => own = Some(nla.value().to_vec()),
            libc::IFLA_INFO_SLAVE_KIND => as_slave = parse_string(nla.value()).ok(),
            // The kind comes first.
            IFLA_INFO_SLAVE_DATA if as_slave.as_deref() == Some("bond") => {
                link.backup = attributes(nla.value()).any(|nla| {
                    nla.kind() == IFLA_BOND_SLAVE_STATE
                        && parse_u8(nla.value()).is_ok_and(|state| state == BOND_STATE_BACKUP)
                });
            }
            _ => {}
        }
    }
    let Some(own) = own else { return };
    link.detail = match link.kind.as_deref() {
        Some("vlan") => vlan(&own),
        Some("bond") => bond(&own),
        Some("bridge") => bridge(&own),
        _ => Detail::None,
    };
}

fn vlan(data: &[u8]) -> Detail {
    let (mut id, mut service) = (0, false);
    for nla in attributes(data) {
        match nla.kind() {
            IFLA_VLAN_ID => id = parse_u16(nla.value()).unwrap_or(0),
            IFLA_VLAN_PROTOCOL => service = nla.value() == ETH_P_8021AD,
            _ => {}
        }
    }
    Detail::Vlan { id, service }
}

fn bond(data: &[u8]) -> Detail {
    let (mut mode, mut active) = (BondMode::All, None);
    for nla in attributes(data) {
        match nla.kind() {
            IFLA_BOND_MODE => {
                mode = match parse_u8(nla.value()) {
                    Ok(BOND_MODE_ACTIVEBACKUP | BOND_MODE_TLB | BOND_MODE_ALB) => BondMode::One,
                    Ok(_) | Err(_) => BondMode::All,
                };
            }
            IFLA_BOND_ACTIVE_SLAVE => active = index_of(nla.value()),
            _ => {}
        }
    }
    Detail::Bond { mode, active }
}

fn bridge(data: &[u8]) -> Detail {
    let (mut vlan_filtering, mut stp) = (false, false);
    for nla in attributes(data) {
        match nla.kind() {
            IFLA_BR_STP_STATE => stp = parse_u32(nla.value()).is_ok_and(|state| state != 0),
            IFLA_BR_VLAN_FILTERING => vlan_filtering = parse_u8(nla.value()).is_ok_and(|on| on != 0),
            _ => {}
        }
    }
    Detail::Bridge { vlan_filtering, stp }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::decode::link;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let len = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [&len.to_ne_bytes(), &kind.to_ne_bytes(), value].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// A link with this information.
    fn with(info: &[Vec<u8>]) -> Link {
        let mut header = [0; 16];
        header[4] = 7; // ifi_index
        let body = [
            &header[..],
            &attribute(libc::IFLA_IFNAME, b"x\0"),
            &attribute(libc::IFLA_LINKINFO, &info.concat()),
        ];
        link(&body.concat()).unwrap()
    }

    fn detail(kind: &str, data: &[Vec<u8>]) -> Detail {
        let (kind, data) = (attribute(1, kind.as_bytes()), attribute(2, &data.concat()));
        with(&[kind, data]).detail
    }

    #[test]
    fn vlans_bonds_and_bridges() {
        let id = attribute(1, &100u16.to_ne_bytes());
        let of = |protocol: u16| attribute(5, &protocol.to_be_bytes());
        assert_eq!(detail("vlan", &[id.clone(), of(0x8100)]), Detail::Vlan { id: 100, service: false });
        assert_eq!(detail("vlan", &[id, of(0x88a8)]), Detail::Vlan { id: 100, service: true });
        let bond = |mode: u8| detail("bond", &[attribute(1, &[mode]), attribute(2, &3u32.to_ne_bytes())]);
        for (mode, wanted) in [(0, BondMode::All), (1, BondMode::One), (4, BondMode::All), (6, BondMode::One)]
        {
            assert_eq!(bond(mode), Detail::Bond { mode: wanted, active: Some(3) });
        }
        let none = [attribute(1, &[1]), attribute(2, &0u32.to_ne_bytes())];
        assert_eq!(detail("bond", &none), Detail::Bond { mode: BondMode::One, active: None });
        let filtering = [attribute(7, &[1]), attribute(5, &0u32.to_ne_bytes())];
        assert_eq!(detail("bridge", &filtering), Detail::Bridge { vlan_filtering: true, stp: false });
        let stp = [attribute(7, &[0]), attribute(5, &2u32.to_ne_bytes())];
        assert_eq!(detail("bridge", &stp), Detail::Bridge { vlan_filtering: false, stp: true });
        assert_eq!(detail("dummy", &stp), Detail::None);
    }

    #[test]
    fn slaves_in_use_and_not() {
        let slave = |kind: &[u8], state: u8| {
            with(&[attribute(4, kind), attribute(5, &attribute(1, &[state]))]).backup
        };
        assert!(slave(b"bond\0", 1));
        assert!(!slave(b"bond\0", 0));
        assert!(!slave(b"bridge\0", 1), "there it is another number");
    }
}
