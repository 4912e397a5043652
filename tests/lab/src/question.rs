//! Questions for VIPs whose sender address tells which one an answer is for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{
    frames::{arp_request, solicitation},
    mac::Mac,
};

/// So many sender addresses take turns; 2^20 at the most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turns(pub(crate) u32);

impl Turns {
    /// Question `n` for `vip`: its sender is in 10.0.0.0/12, or in the VIP's /64.
    pub(crate) fn question(self, mac: Mac, vip: IpAddr, n: usize) -> Vec<u8> {
        let turn = u32::try_from(n % self.0 as usize).unwrap_or_default() + 1;
        match vip {
            IpAddr::V4(vip) => arp_request(mac, Ipv4Addr::from_bits(0x0a00_0000 | turn), vip),
            IpAddr::V6(vip) => {
                let prefix = vip.to_bits() & !u128::from(u64::MAX);
                solicitation(mac, Ipv6Addr::from_bits(prefix | 0x5eed << 48 | u128::from(turn)), vip)
            }
        }
    }

    /// The latest of `asked` questions that `sender` asked.
    pub(crate) fn latest(self, sender: IpAddr, asked: usize) -> Option<usize> {
        let turn = match sender {
            IpAddr::V4(a) if a.to_bits() >> 24 == 10 => a.to_bits() & 0x00ff_ffff,
            IpAddr::V6(a) if a.to_bits() >> 48 & 0xffff == 0x5eed => (a.to_bits() & 0xffff_ffff) as u32,
            IpAddr::V4(_) | IpAddr::V6(_) => return None,
        };
        let first = turn.checked_sub(1)? as usize;
        let again = asked.checked_sub(first + 1)? / self.0 as usize;
        Some(first + again * self.0 as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        frames::{Body, Frame},
        time::BootTime,
    };

    #[test]
    fn senders_tell_their_latest_question() {
        let turns = Turns(10);
        for vip in ["192.0.2.10", "2001:db8::10"] {
            let vip: IpAddr = vip.parse().unwrap();
            let sender = |n| match Frame::parse(BootTime(1), &turns.question(Mac::ZERO, vip, n)).unwrap().body
            {
                Body::Arp(arp) => IpAddr::V4(arp.spa),
                Body::Solicitation(ns) => IpAddr::V6(ns.src),
                Body::Advertisement(na) => panic!("{na:?}"),
            };
            for (asked, n) in [(1, 0), (10, 9), (11, 10), (25, 24), (25, 15)] {
                assert_eq!(turns.latest(sender(n), asked), Some(n), "{vip} {n} of {asked}");
            }
            assert_eq!(turns.latest(sender(3), 14), Some(13));
            assert_eq!(turns.latest(sender(3), 3), None, "not asked yet");
        }
    }
}
