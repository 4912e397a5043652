//! Neighbor Discovery.

use std::net::Ipv6Addr;

use super::{CLIENT, CLIENT6, Case, OTHER, OWN, UNKNOWN6, VIP6};
use crate::build::{ALL_NODES, ALL_NODES_MAC, BROADCAST, Mac, Nd, link_layer, solicited_node};

pub(super) const GROUP: Mac = [0x33, 0x33, 0, 0, 0, 9];

pub(super) fn ns() -> Nd {
    Nd::solicitation(CLIENT, CLIENT6, VIP6)
}

pub(super) fn unicast() -> Nd {
    Nd { dst: OWN, ip_dst: VIP6, ..ns() }
}

pub(super) fn probe() -> Nd {
    Nd::probe(CLIENT, VIP6)
}

/// What the client gets: S and O.
pub(super) fn na() -> Nd {
    Nd::advertisement(OWN, VIP6, CLIENT, CLIENT6, 6)
}

/// What everybody gets in answer to a probe: O.
pub(super) fn na_all() -> Nd {
    Nd::advertisement(OWN, VIP6, ALL_NODES_MAC, ALL_NODES, 2)
}

pub(super) fn answered(id: &str, question: &Nd, answer: &Nd) -> Case {
    Case::answer(id, question.bytes(), "ns_answered", answer.bytes()).linux()
}

fn with(options: &[&[u8]]) -> Nd {
    Nd { options: options.concat(), ..ns() }
}

fn sllao() -> Vec<u8> {
    link_layer(1, CLIENT)
}

/// An option of a type that nobody knows, of `units` times eight bytes.
pub(super) fn unknown(units: u8) -> Vec<u8> {
    let mut option = vec![253, units];
    option.resize(8 * usize::from(units), 0xa5);
    option
}

/// A Nonce option (RFC 3971).
const NONCE: [u8; 8] = [14, 1, 1, 2, 3, 4, 5, 6];

/// N01 to N14, N17, N28.
pub(super) fn solicitations() -> Vec<Case> {
    let dad = |id: &str, nd: &Nd| Case::answer(id, nd.bytes(), "dad_answered", na_all().bytes()).linux();
    let bad_source = |id: &str, nd: Nd| Case::pass(id, nd.bytes(), "nd_bad_source");
    let no_options = |nd: Nd| Nd { options: vec![], ..nd };
    let mut cases = vec![
        answered("N01", &ns(), &na()),
        answered("N02", &unicast(), &na()),
        Case::answer("N03", no_options(unicast()).bytes(), "ns_answered", na().bytes()),
        Case::answer("N04", no_options(ns()).bytes(), "ns_answered", na().bytes()),
        dad("N05", &probe()),
        bad_source("N06", Nd { ip_dst: VIP6, dst: OWN, ..probe() }),
        bad_source("N07", Nd { ip_dst: ALL_NODES, dst: ALL_NODES_MAC, ..probe() }),
        bad_source("N08", Nd { options: sllao(), ..probe() }),
        dad("N09", &Nd { options: NONCE.to_vec(), ..probe() }),
        Case::drop(
            "N09b",
            Nd { ip_dst: solicited_node(UNKNOWN6), ..probe() }.bytes(),
            "ns_other_destination",
        ),
        Case::pass("N11", Nd { code: 1, ..ns() }.bytes(), "nd_header"),
        Case::pass("N12.1", Nd { checksum: Some(0xbad), ..ns() }.bytes(), "nd_checksum"),
        Case::pass("N12.2", Nd { checksum: Some(0), ..ns() }.bytes(), "nd_checksum"),
        Case::pass("N13.1", ns().bytes()[..74].to_vec(), "nd_truncated"),
        Case::pass("N13.1b", Nd { payload_len: Some(20), ..ns() }.bytes(), "nd_truncated"),
        Case::pass("N13.2", Nd { payload_len: Some(200), ..ns() }.bytes(), "nd_truncated"),
        answered("N13.3", &Nd { trailer: vec![0x5a; 40], ..ns() }, &na()),
        dad("N13.3b", &Nd { trailer: vec![0x5a; 3], ..probe() }),
        answered("N13.3c", &Nd { trailer: vec![0x5a; 1428], ..ns() }, &na()),
        Case::pass("N13.4", Nd { payload_len: Some(23), ..ns() }.bytes(), "nd_truncated"),
        answered("N17", &Nd { flags: 0xdead_beef, ..ns() }, &na()),
        answered("N28", &Nd { version: 0x6ab1_2345, ..ns() }, &na()),
    ];
    for hop in [254, 64, 1, 0] {
        cases.push(Case::pass(format!("N10.{hop}"), Nd { hop, ..ns() }.bytes(), "nd_header"));
    }
    for (i, target) in
        [ALL_NODES, Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST, UNKNOWN6].into_iter().enumerate()
    {
        let nd = Nd { target, ..ns() };
        cases.push(Case::pass(format!("N14.{}", i + 1), nd.bytes(), "ns_not_ours"));
    }
    cases
}

/// N15, N16, N34.
pub(super) fn options() -> Vec<Case> {
    let bad = |id: &str, options: &[&[u8]]| Case::pass(id, with(options).bytes(), "nd_option");
    let drop = |id: &str, options: &[&[u8]], outcome| Case::drop(id, with(options).bytes(), outcome).linux();
    let other = link_layer(1, OTHER);
    let to_other = Nd { dst: OTHER, ..na() };
    let thirty_one = vec![unknown(1); 31].concat();
    let many = vec![unknown(1); 150].concat();
    vec![
        bad("N15.1", &[&[1, 0, 2, 0, 0, 0, 0, 0xc1]]),
        bad("N15.2", &[&[253, 4, 0, 0, 0, 0, 0, 0]]),
        bad("N15.3", &[&sllao(), &[0]]),
        bad("N15.4", &[&[253, 255, 0, 0, 0, 0, 0, 0], &sllao()]),
        bad("N15.5", &[&sllao(), &[0; 8]]),
        answered("N15.6", &with(&[&unknown(1), &sllao()]), &na()),
        bad("N15.7", &[&[0; 7]]),
        bad("N15.8", &[&unknown(2), &[253, 2, 0, 0, 0, 0, 0, 0]]),
        answered("N15.9", &with(&[&unknown(5), &sllao(), &unknown(3)]), &na()),
        answered("N16.1", &with(&[&sllao(), &unknown(1)]), &na()),
        answered("N16.2", &with(&[&sllao(), &other]), &na()),
        answered("N16.2b", &with(&[&other, &sllao()]), &to_other),
        bad("N16.3", &[&[1, 2, 2, 0, 0, 0, 0, 0xc1, 0, 0, 0, 0, 0, 0, 0, 0]]),
        drop("N16.4", &[&link_layer(1, GROUP)], "ns_bad_hardware"),
        drop("N16.5", &[&link_layer(1, [0; 6])], "ns_bad_hardware"),
        drop("N16.6", &[&link_layer(1, BROADCAST)], "ns_bad_hardware"),
        Case::answer("N16.7", with(&[&link_layer(2, OTHER)]).bytes(), "ns_answered", na().bytes()),
        answered("N16.8", &with(&[&other]), &to_other),
        drop("N16.9", &[&link_layer(1, OWN)], "ns_own_hardware"),
        // A second source address with a wrong length is not looked at.
        answered("N16.10", &with(&[&sllao(), &[1, 2], &[0; 14]]), &na()),
        // An option's body is no option.
        answered("N16.11", &with(&[&[253, 2, 0, 0, 0, 0, 0, 0], &other, &sllao()]), &na()),
        answered("N34.1", &with(&[&thirty_one, &sllao()]), &na()),
        drop("N34.2", &[&many, &sllao()], "ns_too_long"),
        drop("N34.3", &[&sllao(), &many], "ns_too_long"),
        drop("N34.4", &[&unknown(1), &thirty_one, &sllao()], "ns_too_long"),
    ]
}
