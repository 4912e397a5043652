//! Neighbor Discovery: addresses, headers, advertisements.

use std::net::Ipv6Addr;

use super::{
    CLIENT, CLIENT6, Case, ClaimKind, OTHER, OWN, OWN7, PRIORITY, STANDBY6, UNKNOWN6, VIP6, VLAN5, VLAN7,
    ndp::{GROUP, answered, na, ns, probe, unicast, unknown},
};
use crate::build::{ALL_NODES, ALL_NODES_MAC, BROADCAST, Nd, Tag, multicast_mac, solicited_node};

/// N18 to N22.
pub(super) fn addresses() -> Vec<Case> {
    let from = |ip_src: &str| Nd { ip_src: ip_src.parse().unwrap_or(CLIENT6), ..ns() };
    let elsewhere = |id: &str, ip_dst: Ipv6Addr| {
        let dst = if ip_dst.is_multicast() { multicast_mac(ip_dst) } else { OWN };
        Case::drop(id, Nd { dst, ip_dst, ..ns() }.bytes(), "ns_other_destination")
    };
    let group = |last: u16, scope: u16| Ipv6Addr::new(0xff00 | scope, 0, 0, 0, 0, 0, 0, last);
    let mut cases = vec![
        Case::pass("N18.1", from("ff02::1").bytes(), "nd_bad_source"),
        Case::pass("N18.2", from("::1").bytes(), "nd_bad_source"),
        Case::drop("N18.3", Nd { ip_src: VIP6, ..ns() }.bytes(), "ns_conflict")
            .claim(ClaimKind::Solicitation, VIP6, CLIENT)
            .linux(),
        answered("N19.1", &Nd { dst: ALL_NODES_MAC, ip_dst: ALL_NODES, ..ns() }, &na()),
        elsewhere("N19.2", group(2, 2)).linux(),
        elsewhere("N19.3", solicited_node(UNKNOWN6)),
        elsewhere("N19.4", UNKNOWN6),
        elsewhere("N19.5", group(1, 1)),
        elsewhere("N19.6", group(1, 5)),
        answered("N20", &Nd { dst: OWN, ..ns() }, &na()),
        answered("N20b", &Nd { dst: BROADCAST, ..ns() }, &na()),
        answered("N20c", &Nd { dst: GROUP, ..ns() }, &na()),
        Case::drop("N21", Nd { dst: ns().dst, ..unicast() }.bytes(), "ns_multicast").linux(),
        Case::drop("N21b", Nd { dst: BROADCAST, ..unicast() }.bytes(), "ns_multicast").linux(),
        Case::pass("N22", Nd { dst: OTHER, ..unicast() }.bytes(), "ns_other_host"),
        Case::pass("N22b", Nd { dst: OTHER, ..ns() }.bytes(), "ns_other_host"),
        Case::drop("N40", Nd::solicitation(CLIENT, CLIENT6, STANDBY6).bytes(), "suppressed_standby").linux(),
        Case::drop("N41", Nd::probe(CLIENT, STANDBY6).bytes(), "suppressed_standby").linux(),
        // A frame from ourselves, or from nobody.
        Case::drop("N42", Nd { src: OWN, ..ns() }.bytes(), "ns_own_hardware").linux(),
        Case::drop("N43", Nd { src: GROUP, ..ns() }.bytes(), "ns_bad_hardware").linux(),
        Case::drop("N44", Nd { src: [0; 6], ..probe() }.bytes(), "ns_bad_hardware").linux(),
    ];
    for (id, ip) in [("N18.4", "2001:db8:ffff::1"), ("N18.5", "fe80::c1"), ("N18.6", "::ffff:192.0.2.1")] {
        let question = from(ip);
        cases.push(answered(id, &question, &Nd { ip_dst: question.ip_src, ..na() }));
    }
    cases
}

/// N23 to N27, N30 to N33, N35.
pub(super) fn headers() -> Vec<Case> {
    let behind =
        |next: u8, extensions: &[&[u8]]| Nd { next, extensions: extensions.concat(), ..ns() }.bytes();
    let hidden = |id: &str, next, extensions: &[&[u8]]| {
        Case::drop(id, behind(next, extensions), "ns_extension_header").linux()
    };
    let pad = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let fragment = |offset: u8| [58, 0, 0, offset, 0, 0, 0, 1];
    let tags = |nd: Nd, tags: &[Tag]| Nd { tags: tags.to_vec(), ..nd };
    let to_unicast =
        |next: u8, extensions: &[u8]| Nd { next, extensions: extensions.to_vec(), ..unicast() }.bytes();
    let mut cases = vec![
        hidden("N23.1", 0, &[&pad(58)]),
        hidden("N23.2", 0, &[&[58, 0, 5, 2, 0, 0, 1, 0]]),
        hidden("N23.3", 60, &[&pad(58)]),
        Case::ignored("N23.4", behind(43, &[&[58, 0, 0, 1, 0, 0, 0, 0]])),
        Case::ignored("N23.5", behind(60, &[&[58, 0, 0xc0, 4, 0, 0, 0, 0]])),
        hidden("N23.6", 60, &[&pad(60), &pad(58)]),
        hidden("N23.7", 0, &[&pad(60), &[60, 1], &[0x1e, 12], &[0; 12], &pad(58)]),
        // More than any host may send (RFC 8200 section 4.1).
        hidden("N23.8", 60, &[&pad(60), &pad(60), &pad(60), &pad(58)]),
        Case::ignored("N23.11", {
            let extensions = [pad(60), pad(60), pad(60), pad(58)].concat();
            Nd { next: 60, hop: 64, extensions, ..ns() }.bytes()
        }),
        Case::ignored("N23.9", behind(0, &[&pad(0), &pad(58)])),
        // A routing header that has been used up is skipped by the last node (RFC 8200 section 4.4).
        Case::drop("N23.10", to_unicast(43, &[58, 0, 0, 0, 0, 0, 0, 0]), "ns_extension_header").linux(),
        Case::ignored("N24.1", behind(44, &[&fragment(0)])),
        Case::ignored("N24.2", behind(44, &[&fragment(1)])),
        Case::ignored("N24.3", behind(44, &[&fragment(0x18)])),
        Case::ignored("N24.4", behind(0, &[&pad(44), &fragment(0)])),
        Case::pass("N26", Nd { payload_len: Some(0), ..ns() }.bytes(), "nd_truncated"),
        Case::pass("N27", Nd { version: 0x4000_0000, ..ns() }.bytes(), "nd_header"),
        Case::pass("N27b", Nd { version: 0x7000_0000, ..ns() }.bytes(), "nd_header"),
        Case::pass("N30.1", tags(ns(), &[VLAN5]).bytes(), "ns_not_ours"),
        answered("N30.2", &tags(ns(), &[PRIORITY]), &tags(na(), &[PRIORITY])),
        Case::ignored("N30.3", tags(ns(), &[Tag(0x88a8, 5), VLAN5]).bytes()),
        Case::drop("N30.4", tags(ns(), &[PRIORITY; 2]).bytes(), "stacked_tags").linux(),
        Case::drop("N30.5", tags(ns(), &[Tag(0x88a8, 0)]).bytes(), "stacked_tags").linux(),
        Case::drop("N30.6", tags(ns(), &[PRIORITY; 6]).bytes(), "stacked_tags").linux(),
        // In a VLAN where we are a router: R, S and O.
        Case::answer(
            "N30.vlan",
            tags(ns(), &[VLAN7]).bytes(),
            "ns_answered",
            tags(Nd::advertisement(OWN7, VIP6, CLIENT, CLIENT6, 14), &[VLAN7]).bytes(),
        ),
        Case::answer(
            "N30.vlan-probe",
            tags(probe(), &[VLAN7]).bytes(),
            "dad_answered",
            tags(Nd::advertisement(OWN7, VIP6, ALL_NODES_MAC, ALL_NODES, 10), &[VLAN7]).bytes(),
        ),
        Case::ignored("N32", Nd { next: 17, ..ns() }.bytes()),
        Case::ignored("N33", Nd { kind: 133, ..ns() }.bytes()),
        Case::ignored("N33b", Nd { kind: 137, ..ns() }.bytes()),
        Case::ignored("N33c", Nd { kind: 128, ..ns() }.bytes()),
        Case::pass("N35.1", ns().bytes()[..54].to_vec(), "nd_truncated"),
        Case::pass("N35.2", ns().bytes()[..30].to_vec(), "nd_truncated"),
    ];
    for length in (15..86).filter(|l| ![30, 54, 74].contains(l)) {
        let frame = ns().bytes()[..length].to_vec();
        cases.push(Case::pass(format!("N35.cut{length}"), frame, "nd_truncated"));
    }
    cases
}

/// N29: advertisements.
pub(super) fn advertisements() -> Vec<Case> {
    let spoofed = || Nd::advertisement(OTHER, VIP6, ALL_NODES_MAC, ALL_NODES, 2);
    let claimed = |id: &str, nd: Nd, claimer| {
        Case::pass(id, nd.bytes(), "na_conflict").claim(ClaimKind::Advertisement, VIP6, claimer)
    };
    let quiet = |id: &str, nd: Nd, outcome| Case::pass(id, nd.bytes(), outcome);
    vec![
        claimed("N29", spoofed(), OTHER),
        claimed("N29.1", Nd { options: vec![], ..spoofed() }, OTHER),
        claimed("N29.2", Nd { src: CLIENT, ..spoofed() }, OTHER),
        claimed("N29.3", Nd { dst: OWN, ip_dst: VIP6, ..spoofed() }, OTHER),
        claimed("N29.4", Nd { ip_src: CLIENT6, ..spoofed() }, OTHER),
        quiet("N29.5", Nd::advertisement(OWN, VIP6, ALL_NODES_MAC, ALL_NODES, 2), "na_not_ours"),
        quiet("N29.6", Nd { target: UNKNOWN6, ..spoofed() }, "na_not_ours"),
        quiet("N29.7", Nd { target: STANDBY6, ..spoofed() }, "na_not_ours"),
        quiet("N29.8", Nd { hop: 64, ..spoofed() }, "nd_header"),
        quiet("N29.9", Nd { checksum: Some(1), ..spoofed() }, "nd_checksum"),
        quiet("N29.10", Nd { options: vec![2, 0, 0, 0, 0, 0, 0, 0], ..spoofed() }, "nd_option"),
        quiet("N29.11", Nd { options: vec![unknown(1); 40].concat(), ..spoofed() }, "na_not_ours"),
        quiet("N29.12", Nd { tags: vec![PRIORITY; 2], ..spoofed() }, "na_not_ours"),
        quiet("N29.13", Nd { payload_len: Some(200), ..spoofed() }, "nd_truncated"),
        Case::ignored(
            "N29.14",
            Nd { next: 60, extensions: vec![58, 0, 1, 4, 0, 0, 0, 0], ..spoofed() }.bytes(),
        ),
    ]
}
