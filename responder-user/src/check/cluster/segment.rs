//! What is on the segment: VRRP routers, by their advertisements, and others that have an address of a Service, by probes.

mod probes;
pub mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use anyhow::Result;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tokio::time::{Instant, timeout_at};

use self::wire::Advert;
use super::{
    super::{
        Finding,
        Verdict::{Bad, Limited, Ok as Fine},
    },
    Options,
};
use crate::{
    net::{
        link::{Link, NetState},
        listen::{Kind, Listener},
        watch::watch,
    },
    overview::{ClusterView, VipView},
};

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
    let vips: Vec<_> = view.vips.iter().filter(|vip| on_link(link, vip.vip)).collect();
    let (routers, answers) = tokio::try_join!(vrrp(link, options.listen), probes::ask(link, &vips))?;
    let mut findings = Vec::new();
    if !options.listen.is_zero() {
        findings.extend(judge_vrrp(&link.name, options.listen, &routers, view));
    }
    findings.extend(probes::judge(&link.name, &vips, &answers, view.this_node.as_ref()));
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
            "no VRRP (keepalived) was heard within {listened:?}; what is sent by unicast is heard by its sender and peers \
             alone"
        );
        return vec![Finding::new(link, Fine, text)];
    }
    let judge = |((sender, id), (priority, addresses)): (&(IpAddr, u8), &(u8, BTreeSet<IpAddr>))| {
        let list = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let router = format!("VRRP router {id} at {sender} (keepalived, priority {priority})");
        if addresses.is_empty() {
            let text =
                format!("{router} tells no address; those in virtual_ipaddress_excluded are never told");
            return Finding::new(link, Fine, text);
        }
        let router = format!("{router} has {list}");
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overview::{
        tests::{VIP, facts},
        view,
    };

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
        let mut mute = router(VIP);
        mute.values_mut().for_each(|(_, addresses)| addresses.clear());
        let mute = &judge_vrrp("eth0", Duration::from_secs(4), &mute, &view)[0];
        assert!(mute.verdict == Fine && mute.text.contains("tells no address"), "{mute:?}");
    }
}
