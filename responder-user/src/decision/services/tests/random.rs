//! Whatever the order of events: what is known in the end decides.

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

#[derive(Clone, Debug)]
enum Event {
    Service(ServiceKey, Option<Box<Service>>),
    Slice(SliceKey, Option<Box<EndpointSlice>>),
    Node(String, Option<Box<Node>>),
    Protect(Protected, BTreeSet<IpAddr>),
    Take,
}

const ADDRESSES: [&str; 9] = [
    "192.0.2.1",
    "192.0.2.2",
    "192.0.2.3",
    "198.51.100.1",
    "2001:db8::1",
    "2001:db8::2",
    "::ffff:192.0.2.1",
    "127.0.0.1",
    "nonsense",
];

fn addresses() -> impl Strategy<Value = Vec<&'static str>> {
    vec(select(&ADDRESSES[..]), 0..4)
}

fn service_keys() -> impl Strategy<Value = ServiceKey> {
    select(vec!["a/web", "a/api", "b/web", "default/kubernetes"]).prop_map(key)
}

fn services() -> impl Strategy<Value = Service> {
    let types = select(vec!["LoadBalancer", "LoadBalancer", "LoadBalancer", "NodePort", "ExternalName"]);
    let classes = select(vec![None, None, Some(OWN_CLASS), Some("x")]);
    let cluster_ips = select(vec![None, Some("192.0.2.2"), Some("10.96.0.1"), Some("None")]);
    (addresses(), addresses(), types, classes, cluster_ips, any::<bool>()).prop_map(
        |(status, external, type_, class, cluster_ip, is_local)| {
            let service = with(load_balancer(&status), |spec| {
                spec.type_ = Some(type_.to_owned());
                spec.external_ips = Some(strings(&external));
                spec.load_balancer_class = class.map(str::to_owned);
                spec.cluster_ip = cluster_ip.map(str::to_owned);
            });
            if is_local { local(service) } else { service }
        },
    )
}

fn slices() -> impl Strategy<Value = EndpointSlice> {
    let conditions = select(vec![READY, READY, UNREADY, DRAINING, DYING, [None; 3]]);
    let parts = (select(vec!["n1", "n2", "n3", ""]), conditions, select(&ADDRESSES[..]));
    let endpoints = vec(
        parts.prop_map(|(node, conditions, address)| {
            let mut endpoint = endpoint(node, conditions);
            endpoint.addresses = strings(&[address]);
            endpoint
        }),
        0..4,
    );
    (select(vec!["web", "api", "kubernetes", ""]), select(vec!["IPv4", "IPv4", "IPv6", "FQDN"]), endpoints)
        .prop_map(|(service, family, endpoints)| slice(service, family, endpoints))
}

fn events() -> impl Strategy<Value = Event> {
    let slice_keys = select(vec!["a/1", "a/2", "b/1", "default/1"]).prop_map(slice_key);
    let node = addresses().prop_map(|all| {
        Box::new(node(&all.iter().map(|address| ("InternalIP", *address)).collect::<Vec<_>>()))
    });
    let protected = select(vec![Protected::ApiServer, Protected::Gateway]);
    let given = addresses().prop_map(|all| all.iter().filter_map(|text| text.parse().ok()).collect());
    prop_oneof![
        4 => (service_keys(), proptest::option::weighted(0.8, services().prop_map(Box::new)))
            .prop_map(|(key, object)| Event::Service(key, object)),
        4 => (slice_keys, proptest::option::weighted(0.8, slices().prop_map(Box::new)))
            .prop_map(|(key, object)| Event::Slice(key, object)),
        2 => (select(vec!["n1", "n2"]), proptest::option::weighted(0.7, node))
            .prop_map(|(name, object)| Event::Node(name.to_owned(), object)),
        1 => (protected, given).prop_map(|(what, addresses)| Event::Protect(what, addresses)),
        1 => Just(Event::Take),
    ]
}

fn rules() -> impl Strategy<Value = Rules> {
    let classes = select(vec![None, Some("x".to_owned())]);
    let ranges =
        select(vec![vec![], vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/127".parse().unwrap()]]);
    (classes, any::<bool>(), ranges).prop_map(|(class, external_ips, ranges)| Rules {
        class,
        external_ips,
        ranges,
    })
}

/// What somebody knows who only looks at what has changed.
#[derive(Default, PartialEq, Debug)]
struct Mirror {
    demands: BTreeMap<IpAddr, Demand>,
    refusals: BTreeMap<Refused, String>,
}

impl Mirror {
    fn follow(&mut self, machine: &mut Services) {
        let changes = machine.take_changes();
        for ip in changes.demands {
            let new = machine.demands().get(&ip).cloned();
            assert_ne!(new.as_ref(), self.demands.get(&ip), "{ip} has not changed");
            match new {
                Some(demand) => self.demands.insert(ip, demand),
                None => self.demands.remove(&ip),
            };
        }
        for refused in changes.refusals {
            let new = machine.refusals().get(&refused).cloned();
            assert_ne!(new.as_ref(), self.refusals.get(&refused), "{refused:?} has not changed");
            match new {
                Some(reason) => self.refusals.insert(refused, reason),
                None => self.refusals.remove(&refused),
            };
        }
    }

    fn of(machine: &Services) -> Self {
        Self { demands: machine.demands().clone(), refusals: machine.refusals().clone() }
    }
}

fn apply(machine: &mut Services, event: &Event) {
    match event {
        Event::Service(key, object) => machine.service(key, object.as_deref()),
        Event::Slice(key, object) => machine.slice(key, object.as_deref()),
        Event::Node(name, object) => machine.node(name, object.as_deref()),
        Event::Protect(what, addresses) => machine.protect(*what, addresses.clone()),
        Event::Take => {}
    }
}

/// The last event about each object, the youngest first: another order than the one in which they came.
fn last(events: &[Event]) -> Vec<Event> {
    let mut seen = BTreeSet::new();
    let about = |event: &Event| match event {
        Event::Service(key, _) => format!("service {key}"),
        Event::Slice(key, _) => format!("slice {}/{}", key.namespace, key.name),
        Event::Node(name, _) => format!("node {name}"),
        Event::Protect(Protected::ApiServer, _) => "the API server".to_owned(),
        Event::Protect(Protected::Gateway, all) => format!("gateways {all:?}"), // they add up
        Event::Take => "take".to_owned(),
    };
    events.iter().rev().filter(|event| seen.insert(about(event))).cloned().collect()
}

proptest! {
    #[test]
    fn the_order_of_events_does_not_matter(rules in rules(), events in vec(events(), 0..60)) {
        let mut machine = Services::new(rules.clone());
        let mut mirror = Mirror::default();
        for event in &events {
            apply(&mut machine, event);
            if matches!(event, Event::Take) {
                mirror.follow(&mut machine);
                prop_assert_eq!(&mirror, &Mirror::of(&machine));
            }
        }
        mirror.follow(&mut machine);
        prop_assert_eq!(&mirror, &Mirror::of(&machine));

        let mut anew = Services::new(rules);
        for event in &last(&events) {
            apply(&mut anew, event);
        }
        prop_assert_eq!(&mirror, &Mirror::of(&anew));
    }

    #[test]
    fn nothing_stays_when_all_is_gone(events in vec(events(), 0..40)) {
        let mut machine = Services::new(with_external_ips());
        let events: Vec<_> =
            events.into_iter().filter(|e| !matches!(e, Event::Protect(Protected::Gateway, _))).collect();
        for event in &events {
            apply(&mut machine, event);
        }
        for event in &events {
            match event {
                Event::Service(key, _) => machine.service(key, None),
                Event::Slice(key, _) => machine.slice(key, None),
                Event::Node(name, _) => machine.node(name, None),
                Event::Protect(what, _) => machine.protect(*what, BTreeSet::new()),
                Event::Take => {}
            }
        }
        machine.take_changes();
        prop_assert_eq!(format!("{machine:?}").replace(char::is_numeric, ""), empty());
    }
}

/// What a machine that knows nothing looks like, but for how often it judged.
fn empty() -> String {
    format!("{:?}", Services::new(with_external_ips())).replace(char::is_numeric, "")
}
