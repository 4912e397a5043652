//! What is on the segment: VRRP routers, by their advertisements, and others that have an address of a Service, by ARP
//! probes (RFC 5227 section 2.1.1: with no sender address, so that nobody's cache changes).

mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use anyhow::Result;
use responder_common::wire::Mac;
use responder_leadership::id::NodeName;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tokio::time::{Instant, sleep, timeout_at};

use self::wire::{Advert, answer, probe};
use super::{
    super::{
        Finding,
        Verdict::{Bad, Limited, Ok as Fine},
    },
    Options,
    vips::probed,
};
use crate::{
    net::{
        link::{Link, NetState},
        listen::{Kind, Listener},
        packet::PacketSender,
        watch::watch,
    },
    overview::{ClusterView, VipView},
};

/// Addresses probed for.
const PROBED: usize = 1000;
/// Each so many times, …
const ROUNDS: usize = 2;
/// … so far apart, with so much for the last answer.
const ROUND: Duration = Duration::from_millis(500);
/// Between two probes: a switch's ARP policer must not be overrun.
const PACE: Duration = Duration::from_millis(2);
/// Where VRRP routers advertise.
const VRRP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
const VRRP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);

pub(super) async fn check(options: &Options, view: &ClusterView) -> Result<Vec<Finding>> {
    let (net, _follower) = watch().await?;
    let net = net.borrow().clone();
    let mut findings = Vec::new();
    for name in options.interfaces.iter().filter(|name| net.by_name(name).is_none()) {
        findings.push(Finding::new(name, Bad, "there is no such interface; `ip link` lists them"));
    }
    let links = links(options, view, &net);
    if links.is_empty() {
        let text = "no interface of this host has a prefix with an address of a Service: neither other stations nor VRRP were \
                    looked for; run this on a node";
        findings.push(Finding::new("segment", Limited, text));
        return Ok(findings);
    }
    for link in links {
        match look(link, options, view).await {
            Ok(found) => findings.extend(found),
            Err(error) => {
                let denied = error.kind() == io::ErrorKind::PermissionDenied;
                let way = if denied { "; run this as root (CAP_NET_RAW)" } else { "" };
                let text = format!("neither other stations nor VRRP could be looked for: {error}{way}");
                findings.push(Finding::new(&link.name, Limited, text));
            }
        }
    }
    Ok(findings)
}

/// Where to listen and to probe.
fn links<'a>(options: &Options, view: &ClusterView, net: &'a NetState) -> Vec<&'a Link> {
    let covers = |link: &Link| view.vips.iter().any(|vip| on_link(link, vip.vip));
    let usable =
        net.links.values().filter(|link| link.ethernet && !link.loopback && link.admin_up && link.carrier);
    let chosen = usable.filter(|link| match options.interfaces.as_slice() {
        [] => link.kind.as_deref() != Some("dummy") && covers(link),
        names => names.contains(&link.name),
    });
    chosen.collect()
}

/// Whether a prefix of the link covers an address.
fn on_link(link: &Link, vip: IpAddr) -> bool {
    let nets = link.addrs.iter().filter_map(|prefix| ipnet::IpNet::new(prefix.ip, prefix.len).ok());
    let mut nets = nets.filter(|net| net.prefix_len() < net.max_prefix_len());
    nets.any(|net| net.contains(&vip))
}

async fn look(link: &Link, options: &Options, view: &ClusterView) -> io::Result<Vec<Finding>> {
    let vips: Vec<_> = probed(view).filter(|vip| on_link(link, vip.vip)).collect();
    let (routers, answers) =
        tokio::try_join!(vrrp(link, options.listen), probe_all(link, &vips[..vips.len().min(PROBED)]))?;
    let mut findings = Vec::new();
    if !options.listen.is_zero() {
        findings.extend(judge_vrrp(&link.name, options.listen, &routers, view));
    }
    findings.extend(judge_answers(&link.name, &vips, &answers, view.this_node.as_ref()));
    Ok(findings)
}

/// Routers that advertise, with all addresses that they did.
type Routers = BTreeMap<(IpAddr, u8), (u8, BTreeSet<IpAddr>)>;

/// Listens for advertisements. They come every second by default; the longest usual interval is longer.
async fn vrrp(link: &Link, listen: Duration) -> io::Result<Routers> {
    let mut routers = Routers::new();
    if listen.is_zero() {
        return Ok(routers);
    }
    let _member = join_vrrp(link.index);
    let listener = Listener::new(link.index, Kind::Vrrp)?;
    let until = Instant::now() + listen;
    while let Ok(frame) = timeout_at(until, listener.next()).await {
        if let Some(Advert { sender, id, priority, addresses }) = Advert::parse(&frame?) {
            let (of, all) = routers.entry((sender, id)).or_default();
            *of = priority;
            all.extend(addresses);
        }
    }
    Ok(routers)
}

/// Has the NIC and snooping switches let advertisements through, as long as what is returned lives.
fn join_vrrp(ifindex: u32) -> [Option<Socket>; 2] {
    let v4 = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).ok().filter(|socket| {
        socket.join_multicast_v4_n(&VRRP_V4, &InterfaceIndexOrAddress::Index(ifindex)).is_ok()
    });
    let v6 = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))
        .ok()
        .filter(|socket| socket.join_multicast_v6(&VRRP_V6, ifindex).is_ok());
    [v4, v6]
}

fn judge_vrrp(link: &str, listened: Duration, routers: &Routers, view: &ClusterView) -> Vec<Finding> {
    if routers.is_empty() {
        let text = format!(
            "no VRRP (keepalived) was heard within {listened:?}; what is sent by unicast is not heard here"
        );
        return vec![Finding::new(link, Fine, text)];
    }
    let judge = |((sender, id), (priority, addresses)): (&(IpAddr, u8), &(u8, BTreeSet<IpAddr>))| {
        let list = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let router = format!("VRRP router {id} at {sender} (keepalived, priority {priority}) has {list}");
        let shared: Vec<_> = view.vips.iter().filter(|vip| addresses.contains(&vip.vip)).collect();
        match shared.first() {
            Some(VipView { vip, .. }) => {
                let text = format!(
                    "{router}, and {vip} is a Service's: two would answer for it. Take it out of keepalived's \
                     virtual_ipaddress, or give the Service another"
                );
                Finding::new(link, Bad, text)
            }
            None => Finding::new(link, Fine, format!("{router}: none is a Service's")),
        }
    };
    routers.iter().map(judge).collect()
}

/// The hardware addresses that answer for each address.
type Answers = BTreeMap<Ipv4Addr, BTreeSet<[u8; 6]>>;

/// Asks for each address, and collects who answers.
async fn probe_all(link: &Link, vips: &[&VipView]) -> io::Result<Answers> {
    let listener = Listener::new(link.index, Kind::Arp)?;
    let mut sender = PacketSender::new()?;
    let asked: BTreeSet<Ipv4Addr> = vips
        .iter()
        .filter_map(|vip| match vip.vip {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        })
        .collect();
    let ask = async {
        for _ in 0..ROUNDS {
            let next = Instant::now() + ROUND;
            for ip in &asked {
                sender.send(link.index, &probe(link.mac, *ip))?;
                sleep(PACE).await;
            }
            tokio::time::sleep_until(next).await;
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
            if let Some((ip, mac)) = answer(&frame).filter(|(ip, mac)| asked.contains(ip) && *mac != link.mac)
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

fn judge_answers(link: &str, vips: &[&VipView], answers: &Answers, here: Option<&NodeName>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (mut fine, mut mute) = (0, Vec::new());
    for vip in vips.iter().take(PROBED) {
        let IpAddr::V4(ip) = vip.vip else {
            continue;
        };
        let of = answers.get(&ip).cloned().unwrap_or_default();
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
            "{fine} IPv4 addresses probed for by ARP: nobody else has them (IPv6 ones are not probed for)"
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
        let ip: Ipv4Addr = VIP.parse().unwrap();
        let vips: Vec<_> = view.vips.iter().collect();
        judge_answers("eth0", &vips, &[(ip, answers.iter().copied().collect())].into(), Some(&here.into()))
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

    #[test]
    fn routers_are_bad_if_they_have_an_address_of_a_service() {
        let view = view(&facts());
        let router = |address: &str| -> Routers {
            let sender: IpAddr = "192.0.2.3".parse().unwrap();
            [((sender, 51), (100, [address.parse().unwrap()].into()))].into()
        };
        let judged =
            |routers: &Routers| judge_vrrp("eth0", Duration::from_secs(4), routers, &view)[0].verdict;
        assert_eq!(judged(&router(VIP)), Bad);
        assert_eq!(judged(&router("192.0.2.77")), Fine);
        assert_eq!(judged(&Routers::new()), Fine);
    }
}
