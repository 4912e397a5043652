//! Who may announce.

use super::*;

const VIP: &str = "192.0.2.1";

/// Who may announce the address of a Local Service with these endpoints.
fn eligible(endpoints: &[(&str, Conditions)]) -> Eligible {
    let mut machine = machine(Rules::default(), &[("a/web", local(load_balancer(&[VIP])))]);
    let endpoints = endpoints.iter().map(|(node, conditions)| endpoint(node, *conditions)).collect();
    machine.slice(&slice_key("a/web-1"), Some(&slice("web", "IPv4", endpoints)));
    machine.demands()[&ip(VIP)].nodes.clone()
}

#[test]
fn with_policy_cluster_every_node_even_without_endpoints() {
    let mut machine = machine(Rules::default(), &[("a/web", load_balancer(&[VIP]))]);
    assert_eq!(machine.demands()[&ip(VIP)].nodes, Eligible::Any);
    machine.take_changes();
    machine.slice(&slice_key("a/web-1"), Some(&slice("web", "IPv4", vec![endpoint("n1", READY)])));
    assert!(machine.take_changes().is_empty());
    assert!(machine.demands()[&ip(VIP)].nodes.allows("n2"));
}

#[test]
fn with_policy_local_nodes_with_a_ready_endpoint() {
    assert_eq!(eligible(&[]), nodes(&[]), "silence");
    assert_eq!(
        eligible(&[("n1", READY), ("n2", UNREADY), ("n3", READY), ("n3", UNREADY)]),
        nodes(&["n1", "n3"])
    );
    assert_eq!(eligible(&[("n1", [None, None, None]), ("n2", UNREADY)]), nodes(&["n1"]), "unsaid is ready");
    assert!(!eligible(&[("n1", READY)]).allows("n2"));
    // publishNotReadyAddresses: the controller says ready even of what terminates.
    assert_eq!(eligible(&[("n1", [Some(true), Some(false), Some(true)])]), nodes(&["n1"]));
}

#[test]
fn what_terminates_counts_while_it_serves_and_nothing_is_ready() {
    assert_eq!(eligible(&[("n1", DRAINING), ("n2", READY)]), nodes(&["n2"]));
    assert_eq!(eligible(&[("n1", DRAINING), ("n2", UNREADY), ("n3", DYING)]), nodes(&["n1"]));
    assert_eq!(eligible(&[("n1", [Some(false), None, Some(true)])]), nodes(&["n1"]), "unsaid is serving");
    assert_eq!(eligible(&[("n1", [Some(false), Some(true), None])]), nodes(&[]), "unsaid is not terminating");
    assert_eq!(eligible(&[("n1", DYING)]), nodes(&[]));
}

#[test]
fn local_holds_for_external_ips_too() {
    for type_ in ["ClusterIP", "NodePort", "LoadBalancer"] {
        let machine = machine(with_external_ips(), &[("a/web", local(external(type_, &[VIP])))]);
        assert_eq!(machine.demands()[&ip(VIP)].nodes, nodes(&[]), "{type_}");
    }
}

#[test]
fn each_family_by_its_own_slices() {
    let mut machine = machine(Rules::default(), &[("a/web", local(load_balancer(&[VIP, "2001:db8::1"])))]);
    machine.slice(&slice_key("a/web-4"), Some(&slice("web", "IPv4", vec![endpoint("n1", READY)])));
    machine.slice(&slice_key("a/web-6"), Some(&slice("web", "IPv6", vec![endpoint("n2", READY)])));
    machine.slice(&slice_key("a/web-f"), Some(&slice("web", "FQDN", vec![endpoint("n3", READY)])));
    assert_eq!(machine.demands()[&ip(VIP)].nodes, nodes(&["n1"]));
    assert_eq!(machine.demands()[&ip("2001:db8::1")].nodes, nodes(&["n2"]));
}

#[test]
fn slices_that_come_change_move_and_go() {
    let mut machine = machine(
        Rules::default(),
        &[("a/web", local(load_balancer(&[VIP]))), ("a/api", local(load_balancer(&["192.0.2.2"])))],
    );
    machine.slice(&slice_key("a/1"), Some(&slice("web", "IPv4", vec![endpoint("n1", READY)])));
    machine.slice(&slice_key("a/2"), Some(&slice("web", "IPv4", vec![endpoint("n2", READY)])));
    machine.slice(&slice_key("b/3"), Some(&slice("web", "IPv4", vec![endpoint("n3", READY)])));
    assert_eq!(machine.demands()[&ip(VIP)].nodes, nodes(&["n1", "n2"]), "only of the Service's namespace");
    machine.take_changes();
    machine.slice(&slice_key("a/2"), Some(&slice("web", "IPv4", vec![endpoint("n1", READY)])));
    assert_eq!(machine.take_changes().demands, ips(&[VIP]));
    machine.slice(&slice_key("a/1"), Some(&slice("api", "IPv4", vec![endpoint("n1", READY)])));
    assert_eq!(machine.take_changes().demands, ips(&["192.0.2.2"]), "a/2 still has n1 for web");
    machine.slice(&slice_key("a/2"), None);
    assert_eq!(machine.demands()[&ip(VIP)].nodes, nodes(&[]));
    let mut unlabelled = slice("api", "IPv4", vec![endpoint("n1", READY)]);
    unlabelled.metadata.labels = None;
    machine.slice(&slice_key("a/1"), Some(&unlabelled));
    assert_eq!(machine.demands()[&ip("192.0.2.2")].nodes, nodes(&[]));
}

#[test]
fn slices_may_come_before_their_service() {
    let mut machine = Services::new(Rules::default());
    machine.slice(&slice_key("a/1"), Some(&slice("web", "IPv4", vec![endpoint("n1", READY)])));
    assert!(machine.take_changes().is_empty());
    machine.service(&key("a/web"), Some(&local(load_balancer(&[VIP]))));
    assert_eq!(machine.demands()[&ip(VIP)].nodes, nodes(&["n1"]));
}

#[test]
fn an_endpoint_on_no_node_is_local_to_none() {
    let mut machine = machine(Rules::default(), &[("a/web", local(load_balancer(&[VIP])))]);
    let mut outside = endpoint("", READY);
    machine.slice(&slice_key("a/1"), Some(&slice("web", "IPv4", vec![outside.clone()])));
    assert_eq!(machine.demands()[&ip(VIP)].nodes, nodes(&[]));
    outside.node_name = None;
    machine.slice(&slice_key("a/1"), Some(&slice("web", "IPv4", vec![outside])));
    assert_eq!(machine.demands()[&ip(VIP)].nodes, nodes(&[]));
}

/// Two Local Services and one that is not share an address.
fn shared(web: &[(&str, Conditions)], api: &[(&str, Conditions)]) -> Demand {
    let services = [
        ("a/web", local(load_balancer(&[VIP]))),
        ("b/api", local(load_balancer(&[VIP]))),
        ("c/any", load_balancer(&[VIP])),
    ];
    let mut machine = machine(Rules::default(), &services);
    for (key, service, all) in [("a/1", "web", web), ("b/1", "api", api)] {
        let endpoints = all.iter().map(|(node, conditions)| endpoint(node, *conditions)).collect();
        machine.slice(&slice_key(key), Some(&slice(service, "IPv4", endpoints)));
    }
    machine.demands()[&ip(VIP)].clone()
}

#[test]
fn a_shared_address_has_an_owner_that_satisfies_all() {
    let demand = shared(&[("n1", READY), ("n2", READY)], &[("n2", READY), ("n3", READY)]);
    assert_eq!(demand.nodes, nodes(&["n2"]));
    assert_eq!(demand.services, [key("a/web"), key("b/api"), key("c/any")].into());
    assert_eq!(shared(&[("n1", READY)], &[("n2", READY)]).nodes, nodes(&[]));
    assert_eq!(shared(&[("n1", READY)], &[]).nodes, nodes(&[]));
}

#[test]
fn a_shared_address_goes_where_kube_proxy_forwards_for_all() {
    // Nowhere is a ready endpoint of both, but on n2 kube-proxy uses the terminating one of web.
    let demand = shared(&[("n1", READY), ("n2", DRAINING)], &[("n2", READY)]);
    assert_eq!(demand.nodes, nodes(&["n2"]));
    let demand = shared(&[("n1", READY), ("n2", DRAINING)], &[("n1", READY), ("n2", READY)]);
    assert_eq!(demand.nodes, nodes(&["n1"]));
}
