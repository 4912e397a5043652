//! What a change costs: addresses judged, not time.

use super::*;

const SERVICES: u32 = 2_500;

fn name(service: u32) -> String {
    format!("ns{}/svc{service}", service % 10)
}

/// Four addresses of its own, and the first of the next Service.
fn object(service: u32) -> Service {
    let own = |i| format!("10.{}.{}.{i}", service / 250, service % 250);
    let next = (service + 1) % SERVICES;
    let shared = format!("10.{}.{}.1", next / 250, next % 250);
    local(load_balancer(&[&own(1), &own(2), &own(3), &own(4), &shared]))
}

fn spent(machine: &mut Services, change: impl FnOnce(&mut Services)) -> u64 {
    let before = machine.judged;
    change(machine);
    machine.judged - before
}

#[test]
fn a_change_costs_what_it_concerns_of_ten_thousand_addresses() {
    let mut machine = Services::new(Rules::default());
    for service in 0..SERVICES {
        machine.service(&key(&name(service)), Some(&object(service)));
    }
    assert_eq!(machine.demands().len(), 10_000);
    assert_eq!(machine.judged, 5 * u64::from(SERVICES));
    assert_eq!(machine.take_changes().demands.len(), 10_000);

    let at = name(77);
    let (namespace, service) = at.split_once('/').unwrap();
    let ready = slice(service, "IPv4", vec![endpoint("n1", READY)]);
    let slice_key = slice_key(&format!("{namespace}/s"));
    assert_eq!(spent(&mut machine, |m| m.slice(&slice_key, Some(&ready))), 5);
    // The first address is shared with Services that have no endpoint, and so is the last.
    assert_eq!(machine.earlier_demands.len(), 3, "take_changes looks at these alone");
    assert_eq!(machine.take_changes().demands.len(), 3);
    assert_eq!(spent(&mut machine, |m| m.slice(&slice_key, Some(&ready))), 0, "nothing new");

    assert_eq!(spent(&mut machine, |m| m.service(&key(&at), Some(&object(77)))), 0, "nothing new");
    assert_eq!(spent(&mut machine, |m| m.service(&key(&at), Some(&local(load_balancer(&["10.0.77.1"]))))), 4);
    assert_eq!(machine.take_changes().demands.len(), 4);

    let some = node(&[("InternalIP", "10.1.1.1"), ("InternalIP", "172.16.0.1")]);
    assert_eq!(spent(&mut machine, |m| m.node("n1", Some(&some))), 1);
    assert_eq!(spent(&mut machine, |m| m.node("n1", Some(&some))), 0);

    machine.service(&key("ns0/any"), Some(&load_balancer(&["192.0.2.1"])));
    let pods = slice("any", "IPv4", vec![endpoint("n1", READY)]);
    let key = super::slice_key("ns0/any-1");
    assert_eq!(
        spent(&mut machine, |m| m.slice(&key, Some(&pods))),
        0,
        "pods of a Cluster Service come and go"
    );
}
