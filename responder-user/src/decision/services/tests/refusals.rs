//! What is refused, and why.

use super::*;

#[test]
fn what_is_no_address() {
    let texts = ["192.0.2.256", "010.1.2.3", "fe80::1%eth0", "lb.example", "192.0.2.0/24"];
    let mut machine = machine(Rules::default(), &[("a/web", load_balancer(&texts))]);
    assert!(announced(&machine).is_empty());
    assert_eq!(machine.refusals().len(), texts.len());
    assert!(refused(&machine).contains(&"a/web: lb.example is no IP address".to_owned()));
    assert_eq!(machine.take_changes().refusals.len(), texts.len());
    machine.service(&key("a/web"), Some(&load_balancer(&["lb.example"])));
    assert_eq!(machine.take_changes().refusals.len(), texts.len() - 1);
    machine.service(&key("a/web"), None);
    assert!(machine.refusals().is_empty());
}

#[test]
fn what_no_host_may_announce() {
    let texts = [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "127.1.2.3",
        "169.254.1.1",
        "224.0.0.1",
        "239.1.2.3",
        "255.255.255.255",
        "::",
        "::1",
        "ff02::1",
        "ff0e::1",
        "::ffff:127.0.0.1",
    ];
    let machine = machine(Rules::default(), &[("a/web", load_balancer(&texts))]);
    assert!(announced(&machine).is_empty(), "{:?}", announced(&machine));
    assert_eq!(machine.refusals().len(), texts.len() - 1, "127.0.0.1 is there twice");
}

#[test]
fn what_is_outside_of_the_ranges() {
    let ranges = vec!["192.0.2.0/25".parse().unwrap(), "2001:db8::/64".parse().unwrap()];
    let rules = Rules { ranges, ..Rules::default() };
    let texts = ["192.0.2.127", "192.0.2.128", "2001:db8::1", "2001:db8:0:1::1"];
    let machine = machine(rules, &[("a/web", load_balancer(&texts))]);
    assert_eq!(announced(&machine), ["192.0.2.127", "2001:db8::1"]);
    assert_eq!(
        refused(&machine),
        [
            "a/web: 192.0.2.128 is in none of --ip-ranges 192.0.2.0/25,2001:db8::/64",
            "a/web: 2001:db8:0:1::1 is in none of --ip-ranges 192.0.2.0/25,2001:db8::/64",
        ]
    );
}

#[test]
fn addresses_of_nodes_of_any_type() {
    let texts = ["192.0.2.1", "198.51.100.1", "2001:db8::1", "192.0.2.9"];
    let mut machine = machine(Rules::default(), &[("a/web", load_balancer(&texts))]);
    machine.take_changes();
    let object = node(&[
        ("InternalIP", "192.0.2.1"),
        ("ExternalIP", "198.51.100.1"),
        ("Hostname", "n1.example"),
        ("Anything", "2001:DB8::1"),
    ]);
    machine.node("n1", Some(&object));
    assert_eq!(announced(&machine), ["192.0.2.9"]);
    assert!(refused(&machine).contains(&"a/web: 2001:db8::1 is an address of node n1".to_owned()));
    let changes = machine.take_changes();
    assert_eq!((changes.demands.len(), changes.refusals.len()), (3, 3));

    machine.node("n2", Some(&node(&[("InternalIP", "192.0.2.1")])));
    machine.node("n1", Some(&node(&[("InternalIP", "198.51.100.1")])));
    assert_eq!(announced(&machine), ["192.0.2.9", "2001:db8::1"]);
    assert!(refused(&machine).contains(&"a/web: 192.0.2.1 is an address of node n2".to_owned()));
    machine.node("n1", None);
    machine.node("n2", None);
    assert_eq!(announced(&machine).len(), 4);
    assert!(machine.refusals().is_empty());
}

#[test]
fn gateways_and_the_api_server() {
    let mut machine = machine(Rules::default(), &[("a/web", load_balancer(&["192.0.2.1", "192.0.2.2"]))]);
    machine.protect(Protected::Gateway, ips(&["::ffff:192.0.2.1", "fe80::1"]));
    machine.protect(Protected::ApiServer, ips(&["192.0.2.2"]));
    assert_eq!(
        refused(&machine),
        [
            "a/web: 192.0.2.1 is, or was since the agent started, the address of a default gateway",
            "a/web: 192.0.2.2 is an address of the API server",
        ]
    );
    machine.protect(Protected::Gateway, BTreeSet::new());
    assert_eq!(machine.refusals().len(), 2, "a route that is gone for a moment opens no way");
    machine.protect(Protected::ApiServer, ips(&["192.0.2.254"]));
    assert_eq!(announced(&machine), ["192.0.2.2"], "it is somewhere else now");
}

#[test]
fn the_api_server_is_found_by_its_service() {
    let mut machine = machine(Rules::default(), &[("a/web", load_balancer(&["192.0.2.1", "10.96.0.1"]))]);
    let mut at = endpoint("n1", READY);
    at.node_name = None;
    at.addresses = strings(&["192.0.2.1"]);
    let other = slice("kubernetes", "IPv4", vec![at]);
    machine.slice(&slice_key("a/kubernetes"), Some(&other));
    assert_eq!(announced(&machine).len(), 2, "another namespace's is not the one");
    machine.slice(&slice_key("default/kubernetes"), Some(&other));
    let service = with(external("ClusterIP", &[]), |spec| spec.cluster_ip = Some("10.96.0.1".to_owned()));
    machine.service(&key("default/kubernetes"), Some(&service));
    assert_eq!(
        refused(&machine),
        [
            "a/web: 10.96.0.1 is the cluster IP of Service default/kubernetes",
            "a/web: 192.0.2.1 is an address of the API server",
        ]
    );
    machine.slice(&slice_key("default/kubernetes"), None);
    assert_eq!(announced(&machine), ["192.0.2.1"]);
}

#[test]
fn cluster_ips_of_any_service() {
    let dns = with(external("ClusterIP", &[]), |spec| {
        spec.cluster_ip = Some("10.96.0.10".to_owned());
        spec.cluster_ips = Some(strings(&["10.96.0.10", "fd00::a"]));
    });
    let services = [("a/evil", external("ClusterIP", &["10.96.0.10", "fd00::a"])), ("kube-system/dns", dns)];
    let machine = machine(with_external_ips(), &services);
    assert!(announced(&machine).is_empty());
    assert_eq!(refused(&machine)[0], "a/evil: 10.96.0.10 is the cluster IP of Service kube-system/dns");
    let own =
        with(external("ClusterIP", &["10.96.0.10"]), |spec| spec.cluster_ip = Some("10.96.0.10".to_owned()));
    assert!(announced(&super::machine(with_external_ips(), &[("a/own", own)])).is_empty());
}

#[test]
fn an_external_ip_is_not_another_namespaces_load_balancer_address() {
    let mut machine = machine(
        with_external_ips(),
        &[
            ("evil/web", local(external("ClusterIP", &["192.0.2.1"]))),
            ("good/web", load_balancer(&["192.0.2.1"])),
            ("good/more", external("ClusterIP", &["192.0.2.1"])),
        ],
    );
    let demand = Demand { services: [key("good/more"), key("good/web")].into(), nodes: Eligible::Any };
    assert_eq!(machine.demands()[&ip("192.0.2.1")], demand);
    assert_eq!(
        refused(&machine),
        [
            "evil/web: 192.0.2.1 is the load balancer address of Service good/web; only Services of its namespace may \
          share it"
        ]
    );
    machine.service(&key("good/web"), None);
    assert!(machine.refusals().is_empty(), "nobody's any more");
    assert_eq!(machine.demands()[&ip("192.0.2.1")].nodes, nodes(&[]), "and evil/web has a say");
}

#[test]
fn the_same_address_by_status_and_by_hand_is_the_load_balancers() {
    let both = with(load_balancer(&["192.0.2.1"]), |spec| spec.external_ips = Some(strings(&["192.0.2.1"])));
    let machine = machine(with_external_ips(), &[("a/web", load_balancer(&["192.0.2.1"])), ("b/web", both)]);
    assert!(machine.refusals().is_empty());
    assert_eq!(machine.demands()[&ip("192.0.2.1")].services.len(), 2);
}

#[test]
fn a_refusal_ends_with_its_claim() {
    let mut machine =
        machine(with_external_ips(), &[("a/web", external("ClusterIP", &["127.0.0.1", "192.0.2.1"]))]);
    assert_eq!(machine.refusals().len(), 1);
    let headless = with(external("ClusterIP", &["127.0.0.1", "192.0.2.1"]), |spec| {
        spec.cluster_ip = Some("None".to_owned());
    });
    machine.service(&key("a/web"), Some(&headless));
    assert_eq!(machine.refusals().len(), 2, "of the Service, now");
    machine.service(&key("a/web"), Some(&external("ClusterIP", &["192.0.2.1"])));
    assert!(machine.refusals().is_empty());
    assert_eq!(announced(&machine), ["192.0.2.1"]);
}
