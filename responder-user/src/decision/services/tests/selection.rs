//! Which Services, and which of their addresses.

use super::*;

#[test]
fn of_load_balancers_what_their_status_has() {
    let mut dual = load_balancer(&["192.0.2.1", "2001:db8::1", "198.51.100.1", ""]);
    let ingress = dual.status.as_mut().unwrap().load_balancer.as_mut().unwrap().ingress.as_mut().unwrap();
    ingress[0].ip_mode = Some("VIP".to_owned());
    ingress[2].ip_mode = Some("Proxy".to_owned());
    ingress.push(LoadBalancerIngress {
        hostname: Some("lb.example".to_owned()),
        ..LoadBalancerIngress::default()
    });
    let machine = machine(Rules::default(), &[("a/web", dual)]);
    assert_eq!(announced(&machine), ["192.0.2.1", "2001:db8::1"]);
    assert!(refused(&machine).is_empty());
    let demand = &machine.demands()[&ip("192.0.2.1")];
    assert_eq!((&demand.services, &demand.nodes), (&[key("a/web")].into(), &Eligible::Any));
}

#[test]
fn a_status_that_is_left_over_from_another_type_does_not_count() {
    for type_ in [Some("NodePort"), Some("ClusterIP"), Some("ExternalName"), None] {
        let service = with(load_balancer(&["192.0.2.1"]), |spec| spec.type_ = type_.map(str::to_owned));
        assert!(announced(&machine(with_external_ips(), &[("a/web", service)])).is_empty(), "{type_:?}");
    }
    let bare = Service { spec: None, ..load_balancer(&["192.0.2.1"]) };
    assert!(announced(&machine(Rules::default(), &[("a/web", bare)])).is_empty());
}

#[test]
fn by_class() {
    let classes = [None, Some(OWN_CLASS), Some("example.com/x"), Some("example.com/y"), Some("")];
    for (rule, taken) in [
        (None, [true, true, false, false, false]),
        (Some("example.com/x"), [false, false, true, false, false]),
    ] {
        let rules = Rules { class: rule.map(str::to_owned), external_ips: true, ..Rules::default() };
        for (class, taken) in classes.iter().zip(taken) {
            let service = with(load_balancer(&["192.0.2.1"]), |spec| {
                spec.load_balancer_class = class.map(str::to_owned);
                spec.external_ips = Some(strings(&["192.0.2.2"]));
            });
            let machine = machine(rules.clone(), &[("a/web", service)]);
            let wanted: &[&str] = if taken { &["192.0.2.1", "192.0.2.2"] } else { &[] };
            assert_eq!(announced(&machine), wanted, "{rule:?} {class:?}");
            assert!(refused(&machine).is_empty(), "another's Service is no refusal");
        }
    }
}

#[test]
fn external_ips_on_request_and_of_any_type() {
    for type_ in ["ClusterIP", "NodePort", "LoadBalancer"] {
        let services = [("a/web", external(type_, &["192.0.2.1"]))];
        assert!(announced(&machine(Rules::default(), &services)).is_empty());
        assert_eq!(announced(&machine(with_external_ips(), &services)), ["192.0.2.1"], "{type_}");
        let classed = Rules { class: Some("example.com/x".to_owned()), ..with_external_ips() };
        let wanted: &[&str] = if type_ == "LoadBalancer" { &[] } else { &["192.0.2.1"] };
        assert_eq!(
            announced(&machine(classed, &services)),
            wanted,
            "{type_}: only load balancers have a class"
        );
    }
}

#[test]
fn nothing_is_announced_for_which_nothing_is_forwarded() {
    let headless =
        with(external("ClusterIP", &["192.0.2.1"]), |spec| spec.cluster_ip = Some("None".to_owned()));
    let name = external("ExternalName", &["192.0.2.2"]);
    let machine = machine(with_external_ips(), &[("a/headless", headless), ("a/name", name)]);
    assert!(announced(&machine).is_empty());
    assert_eq!(
        refused(&machine),
        [
            "a/headless: 192.0.2.1 is an address of a headless Service, for which nothing is forwarded",
            "a/name: 192.0.2.2 is an address of a Service of type ExternalName, for which nothing is forwarded",
        ]
    );
}

#[test]
fn addresses_are_normalised() {
    let texts = ["::ffff:192.0.2.1", "192.0.2.1", "2001:DB8:0::0:1"];
    let machine = machine(Rules::default(), &[("a/web", load_balancer(&texts))]);
    assert_eq!(announced(&machine), ["192.0.2.1", "2001:db8::1"]);
}

#[test]
fn what_comes_changes_and_goes_is_followed() {
    let mut machine = machine(Rules::default(), &[("a/web", load_balancer(&["192.0.2.1", "192.0.2.2"]))]);
    assert_eq!(machine.take_changes().demands, ips(&["192.0.2.1", "192.0.2.2"]));
    assert!(machine.take_changes().is_empty());

    machine.service(&key("a/web"), Some(&load_balancer(&["192.0.2.2", "192.0.2.3"])));
    assert_eq!(announced(&machine), ["192.0.2.2", "192.0.2.3"]);
    assert_eq!(machine.take_changes().demands, ips(&["192.0.2.1", "192.0.2.3"]));

    machine.service(&key("a/web"), Some(&local(load_balancer(&["192.0.2.2", "192.0.2.3"]))));
    assert_eq!(machine.take_changes().demands, ips(&["192.0.2.2", "192.0.2.3"]), "another policy");

    let other = with(load_balancer(&["192.0.2.2"]), |spec| spec.load_balancer_class = Some("x".to_owned()));
    machine.service(&key("a/web"), Some(&other));
    assert_eq!(machine.take_changes().demands, ips(&["192.0.2.2", "192.0.2.3"]), "another class");
    assert!(machine.demands().is_empty());

    machine.service(&key("a/web"), Some(&load_balancer(&["192.0.2.9"])));
    machine.service(&key("a/web"), None);
    assert!(machine.take_changes().is_empty(), "what came and went is no change");
    machine.service(&key("a/web"), None);
    assert!(machine.take_changes().is_empty());
}

#[test]
fn a_change_of_something_else_is_none() {
    let mut machine = machine(Rules::default(), &[("a/web", load_balancer(&["192.0.2.1"]))]);
    machine.take_changes();
    let judged = machine.judged;
    let mut service = load_balancer(&["192.0.2.1"]);
    service.metadata.resource_version = Some("7".to_owned());
    machine.service(&key("a/web"), Some(&service));
    assert!(machine.take_changes().is_empty());
    assert_eq!(machine.judged, judged);
}
