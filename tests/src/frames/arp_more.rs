//! ARP frames of all lengths, with tags, and beyond the list.

use std::net::Ipv4Addr;

use super::{
    CLIENT, CLIENT4, Case, ClaimKind, OTHER, OWN, OWN7, PRIORITY, STANDBY4, UNKNOWN4, VIP4, VLAN5, VLAN7,
    Verdict,
    arp::{GROUP, answered, reply, request},
};
use crate::build::{Arp, BROADCAST, Tag};

/// A19 and A20: frames cut short, padded, and padded with what must not come back.
pub(super) fn lengths() -> Vec<Case> {
    let mut cases = vec![];
    for (id, length) in [("A19.1", 41), ("A19.2", 22), ("A19.3", 14)] {
        cases.push(Case::pass(id, request().bytes()[..length].to_vec(), "arp_truncated"));
    }
    let bare = Arp { pad: vec![], ..reply() };
    cases.push(answered("A20.1", &Arp { pad: vec![], ..request() }, &bare));
    cases.push(answered("A20.2", &Arp { pad: vec![0x5a; 18], ..request() }, &reply()));
    cases.push(answered("A20.3", &Arp { pad: vec![0x5a; 1472], ..request() }, &reply()));
    cases.push(answered("A20.4", &Arp { pad: vec![0x5a; 19], ..request() }, &reply()));
    for length in 15..60 {
        let frame = Arp { pad: vec![0x5a; 18], ..request() }.bytes()[..length].to_vec();
        let id = format!("A20.cut{length}");
        cases.push(if length < 42 {
            Case::pass(id, frame, "arp_truncated")
        } else {
            Case::answer(id, frame, "arp_answered", bare.bytes()).linux()
        });
    }
    cases
}

/// A23: tags.
pub(super) fn tagged() -> Vec<Case> {
    let with = |tags: &[Tag]| Arp { tags: tags.to_vec(), ..request() };
    let to = |tags: &[Tag]| Arp { tags: tags.to_vec(), ..reply() };
    let service0 = Tag(0x88a8, 0);
    let mut cases = vec![
        Case::pass("A23.1", with(&[VLAN5]).bytes(), "arp_not_ours"),
        answered("A23.2", &with(&[PRIORITY]), &to(&[PRIORITY])),
        Case::ignored("A23.3", with(&[Tag(0x88a8, 5), VLAN5]).bytes()),
        Case::drop("A23.4", with(&[PRIORITY; 2]).bytes(), "stacked_tags").linux(),
        Case::drop("A23.5", with(&[PRIORITY; 4]).bytes(), "stacked_tags").linux(),
        Case::drop("A23.6", with(&[PRIORITY; 5]).bytes(), "stacked_tags").linux(),
        Case::drop("A23.7", with(&[PRIORITY; 12]).bytes(), "stacked_tags").linux(),
        Case::drop("A23.8", with(&[service0]).bytes(), "stacked_tags").linux(),
        Case::drop("A23.9", with(&[service0, PRIORITY]).bytes(), "stacked_tags").linux(),
        Case::ignored("A23.10", with(&[PRIORITY, VLAN7]).bytes()),
        Case::ignored("A23.11", with(&[Tag(0x88a8, 7)]).bytes()),
        Case::ignored("A23.12", with(&[VLAN7, VLAN7]).bytes()),
        Case::ignored("A23.13", with(&[PRIORITY, PRIORITY, VLAN5]).bytes()),
        Case::ignored("A23.cut15", with(&[PRIORITY]).bytes()[..15].to_vec()),
        Case::ignored("A23.cut17", with(&[PRIORITY]).bytes()[..17].to_vec()),
        Case::pass("A23.cut18", with(&[PRIORITY]).bytes()[..18].to_vec(), "arp_truncated"),
        Case::ignored("A23.cut21", with(&[PRIORITY; 2]).bytes()[..21].to_vec()),
        // In a VLAN that announces: its own hardware address, the tag with its priority as it was.
        Case::answer(
            "A23.vlan",
            with(&[VLAN7]).bytes(),
            "arp_answered",
            Arp { tags: vec![VLAN7], ..Arp::reply(OWN7, VIP4, CLIENT, CLIENT4) }.bytes(),
        ),
        Case::answer(
            "A23.vlan-unicast",
            Arp { dst: OWN7, pad: vec![], ..with(&[VLAN7]) }.bytes(),
            "arp_answered",
            Arp { tags: vec![VLAN7], pad: vec![], ..Arp::reply(OWN7, VIP4, CLIENT, CLIENT4) }.bytes(),
        ),
        Case::pass("A23.vlan-other", Arp { dst: OWN, ..with(&[VLAN7]) }.bytes(), "arp_other_host"),
    ];
    let claim = Case::pass("A23.vlan-claim", Arp { spa: VIP4, ..with(&[VLAN7]) }.bytes(), "arp_conflict")
        .claim(ClaimKind::Arp, VIP4, CLIENT);
    cases.push(Case { claim: claim.claim.map(|c| super::Claim { vlan: 7, ..c }), ..claim });
    cases
}

/// Beyond the list: a second address, combinations.
pub(super) fn extra() -> Vec<Case> {
    let standby = || Arp { tpa: STANDBY4, ..request() };
    let any = Ipv4Addr::UNSPECIFIED;
    let conflict = Some("arp_conflict");
    vec![
        Case::drop("A30", standby().bytes(), "suppressed_standby").linux(),
        Case::drop("A31", Arp { spa: any, ..standby() }.bytes(), "suppressed_standby").linux(),
        Case::drop("A32", Arp { dst: OWN, ..standby() }.bytes(), "suppressed_standby").linux(),
        // The owner's announcements of an address that is not owned here.
        Case::pass("A33", Arp { spa: STANDBY4, ..standby() }.bytes(), "arp_announcement"),
        Case::pass("A34", Arp::reply(OTHER, STANDBY4, BROADCAST, STANDBY4).bytes(), "arp_not_request"),
        // Another owner asks for ours: no conflict.
        Case::answer(
            "A35",
            Arp { spa: STANDBY4, ..request() }.bytes(),
            "arp_answered",
            Arp { tpa: STANDBY4, ..reply() }.bytes(),
        ),
        // Somebody claims ours and asks for another known address: neither answered nor passed.
        Case::drop("A36", Arp { spa: VIP4, ..standby() }.bytes(), "arp_conflict_dropped").claim(
            ClaimKind::Arp,
            VIP4,
            CLIENT,
        ),
        // A claim to another station is a claim.
        Case::pass("A37", Arp { dst: OTHER, spa: VIP4, tpa: UNKNOWN4, ..request() }.bytes(), "arp_conflict")
            .claim(ClaimKind::Arp, VIP4, CLIENT),
        Case::new("A38", Arp { spa: VIP4, op: 3, ..request() }.bytes(), conflict, Verdict::Pass).claim(
            ClaimKind::Arp,
            VIP4,
            CLIENT,
        ),
        Case::drop("A39", Arp { spa: any, sha: OWN, ..request() }.bytes(), "arp_own_hardware").linux(),
        Case::pass("A40", Arp { dst: OTHER, ..standby() }.bytes(), "arp_other_host"),
        // An announcement by a broken station: still a claim.
        Case::pass("A41", Arp { spa: VIP4, sha: GROUP, ..request() }.bytes(), "arp_conflict").claim(
            ClaimKind::Arp,
            VIP4,
            GROUP,
        ),
        Case::pass("A42", Arp { spa: any, tpa: any, ..request() }.bytes(), "arp_not_ours"),
    ]
}
