//! What must become of a frame, whatever it is and whatever is known and owned.
//!
//! Written from RFC 826, 4861, 4862, 5227 and docs/protocol.md, over byte slices. The order of the checks is part
//! of it where two reasons hold, as one frame is counted once.

mod arp;
mod egress;
mod ndp;

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
};

pub use self::egress::{Sent, expect_sent};

use crate::{
    build::{Mac, Tag},
    frames::{Claim, OWN, OWN7, SLOT, STANDBY4, STANDBY6, VIP4, VIP6, Verdict},
};

/// The interface that `BPF_PROG_TEST_RUN` receives on unless told otherwise: `lo`.
pub const IFINDEX: u32 = 1;

/// How the host stands to an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Answers.
    Owned,
    /// Another host answers.
    Standby,
    /// The deadline has passed.
    Expired,
    /// The end of suppression has passed.
    Abandoned,
}

/// When answering and suppressing end, relative to now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fence {
    /// Both ahead.
    Ahead,
    /// Answering has ended.
    Expired,
    /// Both have ended.
    Abandoned,
}

/// The part that a port has for its interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// What it receives is for this host, or nobody.
    Whole,
    /// A port of a bridge, which has stations behind it and a program of its own.
    Bridged,
    /// A bond's slave that is not in use.
    Backup,
}

/// A link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// Its hardware address.
    pub mac: Mac,
    /// Whether advertisements say "router".
    pub router: bool,
    /// Its part.
    pub part: Part,
    /// Addresses of its own, with the length of their prefix.
    pub own4: [Option<(Ipv4Addr, u8)>; 4],
}

/// Where an address is known: interface and VLAN.
pub type Place = (u32, u32);

/// What a host knows.
#[derive(Clone, Debug)]
pub struct Host {
    /// Known addresses and their slots.
    pub vips: HashMap<(IpAddr, Place), u32>,
    /// Its links.
    pub links: HashMap<Place, Link>,
    /// Slots that are owned.
    pub owned: Vec<u32>,
    /// The fence.
    pub fence: Fence,
}

impl Host {
    /// The host of the acceptance list.
    #[must_use]
    pub fn listed() -> Self {
        let mut vips = HashMap::new();
        for vlan in [0, 7] {
            for ip in [IpAddr::from(VIP4), IpAddr::from(VIP6)] {
                vips.insert((ip, (IFINDEX, vlan)), SLOT);
            }
        }
        for ip in [IpAddr::from(STANDBY4), IpAddr::from(STANDBY6)] {
            vips.insert((ip, (IFINDEX, 0)), 0);
        }
        let link = |mac, router| Link { mac, router, part: Part::Whole, own4: [None; 4] };
        let links = HashMap::from([((IFINDEX, 0), link(OWN, false)), ((IFINDEX, 7), link(OWN7, true))]);
        Self { vips, links, owned: vec![SLOT], fence: Fence::Ahead }
    }

    /// The same, all links being such ports.
    #[must_use]
    pub fn on(mut self, part: Part) -> Self {
        self.links.values_mut().for_each(|link| link.part = part);
        self
    }

    /// How the host stands to the addresses of a slot.
    #[must_use]
    pub fn standing(&self, slot: u32) -> Standing {
        match (self.fence, self.owned.contains(&slot)) {
            (Fence::Abandoned, _) => Standing::Abandoned,
            (_, false) => Standing::Standby,
            (Fence::Ahead, true) => Standing::Owned,
            (Fence::Expired, true) => Standing::Expired,
        }
    }

    fn known(&self, ip: impl Into<IpAddr>, place: Place) -> Option<Standing> {
        let slot = *self.vips.get(&(ip.into(), place))?;
        Some(self.standing(slot))
    }
}

/// What a known address's counters show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counted {
    /// One answer more.
    Answered,
    /// One suppressed question more.
    Suppressed,
}

/// What must become of a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expected {
    /// The counter that moves, if any.
    pub outcome: Option<&'static str>,
    /// What is done.
    pub verdict: Verdict,
    /// The claim that is counted, and reported unless there are too many.
    pub claim: Option<Claim>,
    /// The address whose counters move, besides `claim`.
    pub counted: Option<(IpAddr, Place, Counted)>,
}

impl Expected {
    fn new(outcome: Option<&'static str>, verdict: Verdict) -> Self {
        Self { outcome, verdict, claim: None, counted: None }
    }

    fn pass(outcome: &'static str) -> Self {
        Self::new(Some(outcome), Verdict::Pass)
    }

    fn drop(outcome: &'static str) -> Self {
        Self::new(Some(outcome), Verdict::Drop)
    }

    fn ignored() -> Self {
        Self::new(None, Verdict::Pass)
    }
}

/// The Ethernet part of a frame, and what is behind it.
struct Outer<'a> {
    dst: Mac,
    src: Mac,
    place: Place,
    /// The one tag that an answer carries, too.
    tags: Vec<Tag>,
    /// Tags that name no VLAN and are not answered.
    stacked: bool,
    body: &'a [u8],
}

/// What must become of `frame`, received on [`IFINDEX`].
#[must_use]
pub fn expect(host: &Host, frame: &[u8]) -> Expected {
    match outer(frame) {
        Layers::Body(0x0806, outer) => arp::expect(host, &outer),
        Layers::Body(0x86dd, outer) => ndp::expect(host, &outer),
        Layers::TooDeep => Expected::drop("stacked_tags"),
        Layers::Body(..) | Layers::None => Expected::ignored(),
    }
}

/// What the Ethernet part of a frame says.
enum Layers<'a> {
    /// Something of this EtherType.
    Body(u16, Outer<'a>),
    /// More tags than are looked at, none of which names a VLAN.
    TooDeep,
    /// Nothing that is looked at.
    None,
}

fn outer(frame: &[u8]) -> Layers<'_> {
    let Some((addresses, mut rest)) = frame.split_at_checked(12) else {
        return Layers::None;
    };
    let mut tags = vec![];
    let ethertype = loop {
        let Some(ethertype) = be16(rest, 0) else {
            return Layers::None;
        };
        rest = &rest[2..];
        if ethertype != 0x8100 && ethertype != 0x88a8 {
            break ethertype;
        }
        // Four tags are looked at. A fifth behind four that name no VLAN is beyond anything that exists.
        if tags.len() == 4 {
            return match tags.iter().all(|t: &Tag| t.1 & 0xfff == 0) {
                true => Layers::TooDeep,
                false => Layers::None,
            };
        }
        let Some(tci) = be16(rest, 0) else {
            return Layers::None;
        };
        tags.push(Tag(ethertype, tci));
        rest = &rest[2..];
    };
    let stacked = tags.len() > 1 || tags.first().is_some_and(|t| t.0 != 0x8100);
    if stacked && tags.iter().any(|t| t.1 & 0xfff != 0) {
        return Layers::None;
    }
    let outer = Outer {
        dst: mac(addresses, 0),
        src: mac(addresses, 6),
        place: (IFINDEX, tags.first().map_or(0, |t| u32::from(t.1 & 0xfff))),
        tags,
        stacked,
        body: rest,
    };
    Layers::Body(ethertype, outer)
}

/// Neither a group address nor zero: what one station can have.
fn is_station(mac: Mac) -> bool {
    mac[0] & 1 == 0 && mac != [0; 6]
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The hardware address at `at`, which must be there.
fn mac(bytes: &[u8], at: usize) -> Mac {
    std::array::from_fn(|i| bytes[at + i])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames;

    /// List and model were written separately.
    #[test]
    fn model_agrees_with_the_list() {
        let host = Host::listed();
        for case in frames::all() {
            let expected = expect(&host, &case.frame);
            assert_eq!(expected.outcome, case.outcome, "{}", case.id);
            assert_eq!(expected.verdict, case.verdict, "{}", case.id);
            assert_eq!(expected.claim, case.claim, "{}", case.id);
        }
    }

    /// What Linux would answer is never passed while the address is known and an agent has been there.
    #[test]
    fn nothing_that_linux_answers_is_passed() {
        for fence in [Fence::Ahead, Fence::Expired] {
            for owned in [vec![SLOT], vec![]] {
                let host = Host { owned, fence, ..Host::listed() };
                for case in frames::all().into_iter().filter(|c| c.linux_answers) {
                    let expected = expect(&host, &case.frame);
                    assert_ne!(expected.verdict, Verdict::Pass, "{}: {expected:?}", case.id);
                }
            }
        }
    }
}
