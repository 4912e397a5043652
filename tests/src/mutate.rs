//! Frames that are almost those of the acceptance list.
//!
//! Most mutations of a Neighbor Discovery message would end at its checksum, so most get a new one.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use std::net::{IpAddr, Ipv6Addr};

use crate::{
    build::{checksum, solicited_node},
    frames::{self, CLIENT, CLIENT4, CLIENT6, OTHER, OWN, OWN7, STANDBY4, STANDBY6, VIP4, VIP6},
    model::Host,
};

/// The longest frame, in bytes: a page less what the kernel needs of it in `BPF_PROG_TEST_RUN`.
pub const LONGEST: usize = 3500;

/// An endless source of frames.
pub struct Mutator {
    rng: StdRng,
    seeds: Vec<Vec<u8>>,
    macs: Vec<Vec<u8>>,
    ips4: Vec<Vec<u8>>,
    ips6: Vec<Vec<u8>>,
}

impl Mutator {
    /// The same seed makes the same frames. They are about the addresses of this host more often than chance has it.
    #[must_use]
    pub fn new(seed: u64, host: &Host) -> Self {
        let ip6 = |s: &str| s.parse::<Ipv6Addr>().expect("written below").octets().to_vec();
        let mut ips6: Vec<_> =
            ["::", "::1", "ff02::1", "ff02::2", "fe80::1", "2001:db8::99"].map(ip6).to_vec();
        for ip in [VIP6, STANDBY6] {
            ips6.extend([ip.octets().to_vec(), solicited_node(ip).octets().to_vec()]);
        }
        ips6.push(CLIENT6.octets().to_vec());
        let ip4 = [[0; 4], [127, 0, 0, 1], [224, 0, 0, 1], [255; 4], [0, 0, 0, 9], [192, 0, 2, 99]];
        let mut ips4: Vec<_> = ip4.map(Vec::from).to_vec();
        ips4.extend([VIP4, STANDBY4, CLIENT4].map(|ip| ip.octets().to_vec()));
        let mut known: Vec<_> = host.vips.keys().map(|(ip, _)| *ip).collect();
        known.sort_unstable();
        for ip in known {
            match ip {
                IpAddr::V4(ip) => ips4.push(ip.octets().to_vec()),
                IpAddr::V6(ip) => ips6.push(ip.octets().to_vec()),
            }
        }
        let macs =
            [OWN, OWN7, CLIENT, OTHER, [0; 6], [0xff; 6], [0x33, 0x33, 0, 0, 0, 1], [3, 0, 0, 0, 0, 1]];
        Self {
            rng: StdRng::seed_from_u64(seed),
            seeds: frames::all().into_iter().map(|c| c.frame).collect(),
            macs: macs.map(Vec::from).to_vec(),
            ips4,
            ips6,
        }
    }

    /// The next frame, 14 to [`LONGEST`] bytes.
    pub fn frame(&mut self) -> Vec<u8> {
        let mut frame = if self.rng.random_ratio(1, 20) {
            self.noise()
        } else {
            let mut frame = self.seeds.choose(&mut self.rng).cloned().unwrap_or_default();
            for _ in 0..self.rng.random_range(0..4) {
                self.mutate(&mut frame);
            }
            frame
        };
        if self.rng.random_ratio(4, 5) {
            self.repair(&mut frame);
        }
        if self.rng.random_ratio(1, 200) {
            frame.resize(self.rng.random_range(14..=LONGEST), 0);
        }
        frame.resize(frame.len().clamp(14, LONGEST), 0);
        frame
    }

    /// Random bytes behind a plausible EtherType.
    fn noise(&mut self) -> Vec<u8> {
        let mut frame = vec![0; self.rng.random_range(14..200)];
        self.rng.fill(&mut frame[..]);
        let types: [[u8; 2]; 5] = [[8, 6], [0x86, 0xdd], [0x81, 0], [0x88, 0xa8], [8, 0]];
        frame[12..14].copy_from_slice(types.choose(&mut self.rng).unwrap_or(&types[0]));
        frame
    }

    fn mutate(&mut self, frame: &mut Vec<u8>) {
        let l3 = l3(frame);
        match self.rng.random_range(0..12) {
            0 => {
                let at = self.rng.random_range(0..frame.len());
                frame[at] ^= 1 << self.rng.random_range(0..8);
            }
            1 => {
                let at = self.rng.random_range(0..frame.len());
                frame[at] = self.rng.random();
            }
            2 => frame.truncate(self.rng.random_range(14..=frame.len().max(14))),
            3 => {
                let more = self.rng.random_range(1..80);
                frame.extend((0..more).map(|_| self.rng.random::<u8>()));
            }
            4 => {
                let tpid = if self.rng.random_ratio(1, 4) { [0x88, 0xa8] } else { [0x81, 0] };
                let vlan = [0, 0, 7, 5, 0xff].choose(&mut self.rng).copied().unwrap_or(0);
                let high = if vlan == 0xff { 0x0f } else { 0 };
                let tag = [tpid[0], tpid[1], self.rng.random::<u8>() & 0xf0 | high, vlan];
                splice(frame, 12, &tag);
            }
            5 => {
                let at = [0, 6, l3 + 8, l3 + 18, l3 + 66].choose(&mut self.rng).copied().unwrap_or(0);
                overwrite(frame, at, self.macs.choose(&mut self.rng));
            }
            6 => {
                let at = [l3 + 14, l3 + 24].choose(&mut self.rng).copied().unwrap_or(l3);
                overwrite(frame, at, self.ips4.choose(&mut self.rng));
            }
            7 => {
                let at = [l3 + 8, l3 + 24, l3 + 48].choose(&mut self.rng).copied().unwrap_or(l3);
                overwrite(frame, at, self.ips6.choose(&mut self.rng));
            }
            8 => {
                // An option, or what looks like one.
                let mut option = vec![self.rng.random_range(0..4), self.rng.random_range(0..4)];
                option.resize(8 * self.rng.random_range(1..5), 0);
                self.rng.fill(&mut option[8..]);
                let at = l3 + 64 + 8 * self.rng.random_range(0..3);
                splice(frame, at, &option);
                lengthen(frame, l3, option.len());
            }
            9 => {
                // An extension header in front of what is behind the IPv6 header.
                let next = frame.get(l3 + 6).copied().unwrap_or(58);
                let first = [1, 5, 0, 0x40, 0xc0].choose(&mut self.rng).copied().unwrap_or(1);
                splice(frame, l3 + 40, &[next, 0, first, self.rng.random_range(0..5), 0, 0, 0, 0]);
                let kind = [0, 60, 60, 43, 44, 50].choose(&mut self.rng).copied().unwrap_or(60);
                overwrite(frame, l3 + 6, Some(&vec![kind]));
                lengthen(frame, l3, 8);
            }
            10 => {
                let other = self.seeds.choose(&mut self.rng).cloned().unwrap_or_default();
                let at = self.rng.random_range(0..frame.len().min(other.len()));
                let end = (at + self.rng.random_range(1..20)).min(frame.len()).min(other.len());
                frame[at..end].copy_from_slice(&other[at..end]);
            }
            _ => {
                let at = self.rng.random_range(0..frame.len());
                let value = [0, 1, 2, 0x7f, 0x80, 0xff].choose(&mut self.rng).copied().unwrap_or(0);
                frame[at] = value;
            }
        }
    }

    /// Makes length and checksum of an ICMPv6 message right, most of the time.
    fn repair(&mut self, frame: &mut [u8]) {
        let l3 = l3(frame);
        let Some(body) = frame.get_mut(l3..).filter(|b| b.len() > 48) else {
            return;
        };
        if body[6] != 58 {
            return;
        }
        let mut length = usize::from(u16::from_be_bytes([body[4], body[5]]));
        if length > body.len() - 40 || self.rng.random_ratio(1, 10) {
            length = body.len() - 40;
            body[4..6].copy_from_slice(&(length as u16).to_be_bytes());
        }
        if length < 4 {
            return;
        }
        body[42..44].fill(0);
        let ip = |at: usize| Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|i| body[at + i]));
        let sum = checksum(ip(8), ip(24), &body[40..40 + length]);
        body[42..44].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Offset behind the EtherType, as far as there are tags.
fn l3(frame: &[u8]) -> usize {
    let mut at = 12;
    while matches!(frame.get(at..at + 2), Some([0x81, 0] | [0x88, 0xa8])) {
        at += 4;
    }
    at + 2
}

fn overwrite(frame: &mut [u8], at: usize, with: Option<&Vec<u8>>) {
    if let Some(with) = with
        && let Some(place) = frame.get_mut(at..at + with.len())
    {
        place.copy_from_slice(with);
    }
}

fn splice(frame: &mut Vec<u8>, at: usize, with: &[u8]) {
    if at <= frame.len() {
        frame.splice(at..at, with.iter().copied());
    }
}

/// Adds to the IPv6 payload length.
fn lengthen(frame: &mut [u8], l3: usize, by: usize) {
    if let Some([high, low]) = frame.get_mut(l3 + 4..l3 + 6) {
        let sum = u16::from_be_bytes([*high, *low]).wrapping_add(by as u16);
        [*high, *low] = sum.to_be_bytes();
    }
}
