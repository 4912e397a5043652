//! What happens besides faults.

use anyhow::{Context as _, Result};
use rand::{Rng as _, rngs::StdRng};
use responder_lab::{Service, send_all};

use crate::{
    build::{Arp, BROADCAST, Mac, Nd},
    crowd::addresses,
    fleet::{Fleet, SETTLED},
    frames::{UNKNOWN4, UNKNOWN6},
};

/// Addresses of a Service.
const EACH: usize = 4;
/// So many questions in a row without an answer: nobody has it.
const SILENT: usize = 20;
/// So many frames are sent at a time.
const BATCH: u32 = 1000;

/// Services come, are answered, are tied to one node, are answered there, and go. How many addresses that were.
pub(super) fn churn(fleet: &mut Fleet, services: u8) -> Result<u64> {
    let all = addresses(u32::from(services) * EACH as u32);
    let service = |(n, addresses)| Service::new(&format!("churn-{n}")).vips(addresses).on(&["n1", "n2"]);
    let mut made: Vec<Service> = all.chunks(EACH).enumerate().map(service).collect();
    fleet.cluster.services(&made)?;
    fleet.sweep(&all).context("new Services")?;
    made = made
        .into_iter()
        .enumerate()
        .map(|(n, s)| if n % 2 == 0 { s.local().on(&["n2"]) } else { s })
        .collect();
    fleet.cluster.services(&made)?;
    fleet.sweep(&all).context("Services of one node")?;
    for n in 0..made.len() {
        fleet.cluster.delete_service(&format!("churn-{n}"))?;
    }
    let gone = [all.first(), all.last()].into_iter().flatten().copied().collect::<Vec<_>>();
    fleet.observer.ask_for(&gone);
    fleet.observer.wait_rounds(SILENT, SETTLED)?;
    for vip in &gone {
        let silent = fleet.observer.wait_silence(*vip, SILENT, SETTLED);
        silent.with_context(|| format!("{vip} is gone, and answered\n{}", fleet.diagnosis()))?;
    }
    fleet.observer.ask_for(fleet.vips());
    Ok(all.len() as u64)
}

/// Floods of questions for VIPs, of questions for others, and of what is no question, from the client. How many frames that
/// were.
pub(super) fn floods(fleet: &Fleet, count: u32, random: &mut StdRng) -> Result<u64> {
    let client = fleet.cluster.host("c").ns();
    let vips = fleet.vips().to_vec();
    let mut sent = 0;
    for flood in 0..4 {
        let mut frame = |n: usize| {
            let sender: Mac = [2, 0, 0, 0, 0x0f, random.random()];
            let from = [192, 0, 2, random.random_range(100..150)].into();
            let vip = match vips[n % vips.len()] {
                std::net::IpAddr::V4(vip) => vip,
                std::net::IpAddr::V6(_) => UNKNOWN4,
            };
            match flood {
                0 => Arp { dst: BROADCAST, ..Arp::request(sender, from, vip) }.bytes(),
                1 => Arp::request(sender, from, UNKNOWN4).bytes(),
                2 => Nd::solicitation(sender, "fe80::f".parse().expect("an address"), UNKNOWN6).bytes(),
                // Hardware addresses of 8 bytes.
                _ => {
                    let mut frame = Arp::request(sender, from, vip).bytes();
                    frame[18] = 8;
                    frame
                }
            }
        };
        for _ in 0..count.div_ceil(BATCH) {
            let frames: Vec<Vec<u8>> = (0..BATCH as usize).map(&mut frame).collect();
            send_all(client, "eth0", &frames).context("a flood")?;
            sent += u64::from(BATCH);
        }
    }
    Ok(sent)
}
