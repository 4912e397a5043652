//! Frames that `responder check --cluster` hears on the segment.

use responder_tests::frames;
use responder_user::check::cluster::segment::wire::{Advert, answer};

/// The acceptance list, and VRRP.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = frames::all()
        .into_iter()
        .filter(|case| matches!(case.outcome, Some("arp_answered" | "arp_not_request" | "na_conflict")))
        .map(|case| case.frame)
        .collect();
    let mut vrrp4 = vec![1, 0, 0x5e, 0, 0, 18, 0, 0, 0x5e, 0, 1, 51, 8, 0];
    vrrp4.extend([0x45, 0, 0, 32, 0, 1, 0, 0, 255, 112, 0, 0, 192, 0, 2, 1, 224, 0, 0, 18]);
    vrrp4.extend([0x31, 51, 100, 1, 0, 100, 0, 0, 192, 0, 2, 10]);
    let mut vrrp6 = vec![0x33, 0x33, 0, 0, 0, 18, 0, 0, 0x5e, 0, 2, 51, 0x86, 0xdd];
    vrrp6.extend([0x60, 0, 0, 0, 0, 24, 112, 255]);
    vrrp6.extend([[0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], [0xff; 16]].concat());
    vrrp6.extend([0x31, 51, 100, 1, 0, 100, 0, 0]);
    vrrp6.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    seeds.extend([vrrp4, vrrp6]);
    seeds
}

/// What is understood is in the frame.
///
/// # Panics
///
/// If not.
pub fn run(bytes: &[u8]) {
    let has = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    if let Some((ip, mac)) = answer(bytes) {
        assert!(has(&octets(ip)) && has(&mac.octets()), "{ip} at {mac} is not in it");
    }
    if let Some(advert) = Advert::parse(bytes) {
        assert!(has(&octets(advert.sender)), "{} is not in it", advert.sender);
        for ip in &advert.addresses {
            assert!(has(&octets(*ip)), "{ip} is not in it");
            assert_eq!(ip.is_ipv4(), advert.sender.is_ipv4());
        }
        assert!(advert.addresses.len() <= 255);
    }
}

fn octets(ip: std::net::IpAddr) -> Vec<u8> {
    match ip {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}
