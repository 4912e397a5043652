//! Hosts that know this and that: what the tables may say, beyond the host of the acceptance list.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use crate::{
    frames::{
        CLIENT, CLIENT4, CLIENT6, OTHER, OWN, OWN7, STANDBY4, STANDBY6, UNKNOWN4, UNKNOWN6, VIP4, VIP6,
    },
    model::{Fence, Host, IFINDEX, Link, Part},
};

/// VLANs of which something may be known; 0 is the link itself.
const VLANS: [u32; 4] = [0, 7, 5, 0xfff];
/// Slots that addresses may name. The first is never owned; there is none of the last number.
const SLOTS: [u32; 6] = [0, 1, 2, 5, 65_535, 65_536];

/// The same seed makes the same host.
#[must_use]
pub fn host(seed: u64) -> Host {
    let rng = &mut StdRng::seed_from_u64(seed);
    let mut pool: Vec<IpAddr> = vec![VIP4.into(), STANDBY4.into(), VIP6.into(), STANDBY6.into()];
    pool.extend([CLIENT4, UNKNOWN4].map(IpAddr::from));
    pool.extend([CLIENT6, UNKNOWN6].map(IpAddr::from));
    let (mut vips, mut links) = (HashMap::new(), HashMap::new());
    for vlan in VLANS {
        // Mostly in the places of the list, so that most frames find something.
        let common = vlan == 0 || vlan == 7;
        for ip in &pool {
            let frequent = *ip == VIP4 || *ip == VIP6;
            if rng.random_ratio(if frequent && common { 9 } else { 3 }, 10) {
                vips.insert((*ip, (IFINDEX, vlan)), pick(rng, &SLOTS));
            }
        }
        if rng.random_ratio(if common { 24 } else { 12 }, 25) {
            links.insert((IFINDEX, vlan), link(rng, if vlan == 0 { OWN } else { OWN7 }));
        }
    }
    for _ in 0..rng.random_range(0..100) {
        let ip = match rng.random_bool(0.5) {
            true => Ipv4Addr::from([192, 0, 2, rng.random_range(1..255)]).into(),
            false => Ipv6Addr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(rng.random::<u8>())]).into(),
        };
        vips.insert((ip, (IFINDEX, pick(rng, &VLANS))), pick(rng, &SLOTS));
    }
    let owned = SLOTS[1..5].iter().copied().filter(|_| rng.random_ratio(2, 3)).collect();
    use Fence::{Abandoned, Ahead, Expired};
    Host { vips, links, owned, fence: pick(rng, &[Ahead, Ahead, Ahead, Expired, Abandoned]) }
}

fn link(rng: &mut StdRng, usual: [u8; 6]) -> Link {
    use Part::{Backup, Bridged, Whole};
    let own = [[192, 0, 2, 51], [198, 51, 100, 51], [192, 0, 2, 52], [10, 0, 0, 1]].map(Ipv4Addr::from);
    let mut own4 = [None; 4];
    for (place, ip) in own4.iter_mut().zip(own).take(rng.random_range(0..5)) {
        *place = Some((ip, rng.random_range(1..=32)));
    }
    Link {
        mac: pick(rng, &[usual, usual, usual, CLIENT, OTHER]),
        router: rng.random(),
        part: pick(rng, &[Whole, Whole, Whole, Whole, Bridged, Backup]),
        own4,
    }
}

fn pick<T: Copy>(rng: &mut StdRng, of: &[T]) -> T {
    *of.choose(rng).expect("never empty")
}
