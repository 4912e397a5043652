//! Others that have an address of a Service, found by probes that change nobody's cache: ARP probes (RFC 5227 section 2.1.1) and
//! those of Duplicate Address Detection (RFC 4862 section 5.4.2) name no sender. Some announcers, MetalLB's among them, leave the
//! latter unanswered: so every other one comes from this host's own link-local address, which neighbours may learn.
//!
//! A station that is about to take such an address, which it should not, takes a probe for another that does, and leaves it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use responder_common::wire::Mac;
use responder_leadership::id::NodeName;
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    super::super::{
        Finding,
        Verdict::{Bad, Limited, Ok as Fine},
    },
    wire::{answer, probe, solicitation},
};
use crate::{
    net::{
        link::Link,
        listen::{Kind, Listener},
        packet::PacketSender,
    },
    overview::VipView,
};

/// Addresses probed for.
const PROBED: usize = 1000;
/// Each so many times, …
const ROUNDS: usize = 2;
/// … so far apart, with so much for the last answer.
const ROUND: Duration = Duration::from_millis(500);
/// Between two probes: a switch's ARP policer must not be overrun.
const PACE: Duration = Duration::from_millis(2);

/// The hardware addresses that answer for each address.
pub(super) type Answers = BTreeMap<IpAddr, BTreeSet<[u8; 6]>>;

/// Asks for the first [`PROBED`] addresses, and collects who answers.
pub(super) async fn ask(link: &Link, vips: &[&VipView]) -> io::Result<Answers> {
    let listener = Listener::new(link.index, Kind::Neighbours)?;
    let mut sender = PacketSender::new()?;
    let own = link.addrs.iter().find_map(|prefix| match prefix.ip {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => Some(ip),
        IpAddr::V6(_) | IpAddr::V4(_) => None,
    });
    let mut asked = BTreeMap::new();
    for vip in vips.iter().take(PROBED) {
        let questions = match vip.vip {
            IpAddr::V4(ip) => [probe(link.mac, ip), probe(link.mac, ip)],
            IpAddr::V6(ip) => {
                let ask = |from| solicitation(link.mac, from, ip).map_err(io::Error::other);
                [ask(Ipv6Addr::UNSPECIFIED)?, ask(own.unwrap_or(Ipv6Addr::UNSPECIFIED))?]
            }
        };
        asked.insert(vip.vip, questions);
    }
    let ask = async {
        for round in 0..ROUNDS {
            let next = Instant::now() + ROUND;
            for question in asked.values().filter_map(|questions| questions.get(round)) {
                sender.send(link.index, question)?;
                sleep(PACE).await;
            }
            sleep_until(next).await;
        }
        sleep(ROUND).await;
        io::Result::Ok(())
    };
    let mut answers = Answers::new();
    let hear = async {
        loop {
            let frame = match listener.next().await {
                Ok(frame) => frame,
                Err(error) => return error,
            };
            if let Some((ip, mac)) =
                answer(&frame).filter(|(ip, mac)| asked.contains_key(ip) && *mac != link.mac)
            {
                answers.entry(ip).or_default().insert(mac.octets());
            }
        }
    };
    tokio::select! {
        asked = ask => asked?,
        error = hear => return Err(error),
    }
    Ok(answers)
}

/// Whether others answer than should.
pub(super) fn judge(
    link: &str,
    vips: &[&VipView],
    answers: &Answers,
    here: Option<&NodeName>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (mut fine, mut mute) = (0, Vec::new());
    let mut faces: BTreeMap<&NodeName, BTreeMap<[u8; 6], IpAddr>> = BTreeMap::new();
    for vip in vips.iter().take(PROBED) {
        let ip = vip.vip;
        let of = answers.get(&ip).cloned().unwrap_or_default();
        if let (Some(owner), [mac]) = (&vip.owner, of.iter().collect::<Vec<_>>().as_slice()) {
            faces.entry(owner).or_default().entry(**mac).or_insert(ip);
        }
        let list = of.iter().map(|mac| Mac::new(*mac).to_string()).collect::<Vec<_>>().join(" and ");
        let way =
            "find it in the switches' tables by its hardware address, or take the address out of the pool";
        let bad = match &vip.owner {
            None if !of.is_empty() => {
                Some(format!("no node should answer for {ip} now ({}), but {list} does: {way}", vip.reason))
            }
            Some(owner) if Some(owner) == here && !of.is_empty() => {
                Some(format!("{ip} is this node's ({owner}), but {list} answers for it, too: {way}"))
            }
            Some(owner) if of.len() > 1 => Some(format!(
                "{ip} is {owner}'s alone, but {list} answer for it: two stations have it; {way}"
            )),
            Some(owner) if of.is_empty() && Some(owner) != here => {
                mute.push(ip.to_string());
                None
            }
            Some(_) | None => {
                fine += 1;
                None
            }
        };
        findings.extend(bad.map(|text| Finding::new(link, Bad, text)));
    }
    // A station that answers where the holder cannot be heard.
    for (owner, faces) in faces.iter().filter(|(_, faces)| faces.len() > 1) {
        let list: Vec<_> = faces.iter().map(|(mac, ip)| format!("{} for {ip}", Mac::new(*mac))).collect();
        let text = format!(
            "addresses of {owner} are answered by different stations: {}. One may be another's; `ip link` on {owner} lists its \
             own",
            list.join(", ")
        );
        findings.push(Finding::new(link, Limited, text));
    }
    if !mute.is_empty() {
        let first = mute.iter().take(10).cloned().collect::<Vec<_>>().join(", ");
        let text = format!(
            "{} addresses that nodes hold were not answered here ({first}): is this link on the nodes' segment? (`responder \
             why {}`)",
            mute.len(),
            mute[0]
        );
        findings.push(Finding::new(link, Limited, text));
    }
    if fine > 0 {
        let text = format!(
            "{fine} addresses probed for by ARP and Neighbor Discovery: no more than one station answers for each"
        );
        findings.push(Finding::new(link, Fine, text));
    }
    if vips.len() > PROBED {
        let text = format!("only the first {PROBED} of {} addresses were probed for", vips.len());
        findings.push(Finding::new(link, Limited, text));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overview::{
        tests::{VIP, facts},
        view,
    };

    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 0xee];
    const HOLDER: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn judged(answers: &[[u8; 6]], owner: Option<&str>, here: &str) -> Vec<Finding> {
        let mut view = view(&facts());
        view.vips[0].owner = owner.map(Into::into);
        let ip: IpAddr = VIP.parse().unwrap();
        let vips: Vec<_> = view.vips.iter().collect();
        judge("eth0", &vips, &[(ip, answers.iter().copied().collect())].into(), Some(&here.into()))
    }

    #[test]
    fn one_answer_is_the_holders_and_more_are_too_many() {
        assert_eq!(judged(&[HOLDER], Some("n1"), "n2")[0].verdict, Fine);
        assert_eq!(judged(&[], Some("n1"), "n1")[0].verdict, Fine, "nobody hears its own answer");
        let two = &judged(&[HOLDER, OTHER], Some("n1"), "n2")[0];
        assert_eq!(two.verdict, Bad);
        assert!(two.text.contains("02:00:00:00:00:01 and 02:00:00:00:00:ee answer"), "{two:?}");
        let own = &judged(&[OTHER], Some("n1"), "n1")[0];
        assert!(own.verdict == Bad && own.text.contains("this node's (n1)"), "{own:?}");
        assert_eq!(judged(&[OTHER], None, "n2")[0].verdict, Bad);
        let mute = &judged(&[], Some("n1"), "n2")[0];
        assert!(mute.verdict == Limited && mute.text.contains("responder why 192.0.2.10"), "{mute:?}");
    }

    /// An impostor is not seen twice where the holder cannot be heard; but it has another face than the holder elsewhere.
    #[test]
    fn one_holder_with_two_faces_is_told() {
        let mut view = view(&facts());
        view.vips.truncate(1);
        view.vips[0].owner = Some("n1".into());
        let more: IpAddr = [192, 0, 2, 99].into();
        view.vips.push(view.vips[0].clone());
        view.vips[1].vip = more;
        let vips: Vec<_> = view.vips.iter().collect();
        let judged = |second: [u8; 6]| {
            let answers = [(vips[0].vip, [HOLDER].into()), (more, [second].into())].into();
            judge("eth0", &vips, &answers, Some(&"n2".into()))
        };
        assert!(judged(HOLDER).iter().all(|finding| finding.verdict == Fine));
        let found = judged(OTHER);
        let told = found.iter().find(|finding| finding.verdict == Limited).unwrap();
        assert!(told.text.contains("addresses of n1 are answered by different stations"), "{told:?}");
        assert!(told.text.contains("02:00:00:00:00:ee for 192.0.2.99"), "{told:?}");
    }
}
