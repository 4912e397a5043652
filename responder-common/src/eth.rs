//! Ethernet: EtherTypes and VLAN tags.

use crate::wire::{Be16, EthAddrs, Frame, Mac, VlanTag};

/// EtherType of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// EtherType of an 802.1Q tag.
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// EtherType of an 802.1ad service tag.
pub const ETHERTYPE_QINQ: u16 = 0x88a8;

/// Offset of the first EtherType.
const TYPE_OFFSET: usize = 12;
/// How many tags are looked at. Linux takes off any number of tags that name no VLAN, so the walk goes
/// beyond the one tag that is answered, to keep the host silent about the rest.
const MAX_TAGS: usize = 4;

/// What the Ethernet header and the tags behind it say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Eth {
    /// Offset of what follows the last EtherType.
    pub l3: usize,
    /// The last EtherType; one of a tag where there are more tags than are looked at, and none names a VLAN.
    pub ethertype: u16,
    /// VLAN id, 0 for none (priority tags included).
    pub vlan: u32,
    /// The TCI of the single 802.1Q tag, if there is one.
    pub tci: Option<Be16>,
    /// True below tags that Linux would take off, but that are not answered: two or more, or 802.1ad.
    pub stacked: bool,
}

impl Eth {
    /// Parses the header. `None`: too short, or tagged in a way that is none of our business (802.1ad or
    /// stacked tags that name a VLAN).
    #[inline(always)]
    pub fn parse<F: Frame>(frame: &F) -> Option<Self> {
        let ethertype = frame.view::<Be16>(TYPE_OFFSET)?.get();
        if ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_QINQ {
            return Some(Self { l3: TYPE_OFFSET + 2, ethertype, vlan: 0, tci: None, stacked: false });
        }
        Self::parse_tags(frame, ethertype)
    }

    #[inline(always)]
    fn parse_tags<F: Frame>(frame: &F, first: u16) -> Option<Self> {
        let tag = frame.view::<VlanTag>(TYPE_OFFSET + 2)?;
        let (tci, mut ethertype) = (tag.tci, tag.ethertype.get());
        let vlan = u32::from(tci.get() & 0x0fff);
        let mut l3 = TYPE_OFFSET + 6;
        let mut stacked = first != ETHERTYPE_VLAN;
        let mut named = vlan;
        for _ in 1..MAX_TAGS {
            if ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_QINQ {
                break;
            }
            let tag = frame.view::<VlanTag>(l3)?;
            stacked = true;
            named |= u32::from(tag.tci.get() & 0x0fff);
            ethertype = tag.ethertype.get();
            l3 += 4;
        }
        if stacked && named != 0 {
            return None;
        }
        Some(Self { l3, ethertype, vlan, tci: Some(tci), stacked })
    }

    /// Writes addresses, the tag if there was one, and the EtherType.
    #[inline(always)]
    pub(crate) fn emit<F: Frame>(&self, frame: &mut F, dst: Mac, src: Mac) -> Option<()> {
        *frame.view_mut(0)? = EthAddrs { dst, src };
        let ethertype = Be16::new(self.ethertype);
        match self.tci {
            None => *frame.view_mut(TYPE_OFFSET)? = ethertype,
            Some(tci) => {
                *frame.view_mut(TYPE_OFFSET)? = Be16::new(ETHERTYPE_VLAN);
                *frame.view_mut(TYPE_OFFSET + 2)? = VlanTag { tci, ethertype };
            }
        }
        Some(())
    }
}
