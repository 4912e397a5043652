//! The acceptance list, in every state, in both entry points of the program, byte by byte.
#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

use std::net::{IpAddr, Ipv4Addr};

use responder_common::{
    layout::{EVENT_BURST, Event},
    outcome::{Outcome, Outcomes},
};
use responder_tests::{
    build::Arp,
    frames::{self, CLIENT, CLIENT4, Case, Claim, SLOT, VIP4, VIP6, Verdict},
    model::{Counted, Expected, Fence, Host, IFINDEX, Part, expect},
    run::{Kernel, Program, now_ns},
    skip::is_root,
};

/// The only counter that went up by one between the two.
fn moved(before: &Outcomes, after: &Outcomes) -> Vec<(&'static str, u64)> {
    let change = |o: &Outcome| (o.name(), after.get(*o).wrapping_sub(before.get(*o)));
    Outcome::ALL.iter().map(change).filter(|(_, n)| *n != 0).collect()
}

fn mapped(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn assert_event(case: &str, events: &[Event], claim: Option<Claim>) {
    assert_eq!(events.len(), usize::from(claim.is_some()), "{case}: {events:?}");
    if let (Some(claim), Some(event)) = (claim, events.first()) {
        let Event { kind, ifindex, vlan, vip, claimer, conflicts, boot_ns, .. } = *event;
        assert_eq!(
            (kind, ifindex, vlan, vip, claimer),
            (claim.kind as u32, IFINDEX, claim.vlan, mapped(claim.vip), claim.claimer),
            "{case}"
        );
        assert_eq!(conflicts, 1, "{case}");
        assert!(boot_ns.abs_diff(now_ns()) < 60_000_000_000, "{case}: {boot_ns}");
    }
}

/// Sends one frame and compares everything that can be seen with `expected`.
fn check(kernel: &mut Kernel, program: Program, host: &Host, case: &Case, expected: &Expected) {
    let id = format!("{} ({program:?}, {:?})", case.id, host.fence);
    // Counters of addresses and the limit of events begin anew.
    kernel.fill(host).unwrap();
    let before = kernel.outcomes().unwrap();
    let (verdict, after) = kernel.receive(program, &case.frame).unwrap();
    assert_eq!(verdict, expected.verdict, "{id}");
    if !matches!(verdict, Verdict::Answer(_)) {
        assert_eq!(after, case.frame, "{id}: a frame that is not answered stays as it is");
    }
    let counters = moved(&before, &kernel.outcomes().unwrap());
    let wanted: Vec<_> = expected.outcome.iter().map(|name| (*name, 1)).collect();
    assert_eq!(counters, wanted, "{id}");
    for &(ip, place) in host.vips.keys() {
        let stats = kernel.stats(ip, place).unwrap();
        let counted = |what| u64::from(expected.counted == Some((ip, place, what)));
        let claimed = expected.claim.is_some_and(|c| (c.vip, c.vlan) == (ip, place.1));
        assert_eq!(
            (stats.answered, stats.suppressed, stats.conflicts),
            (counted(Counted::Answered), counted(Counted::Suppressed), u64::from(claimed)),
            "{id}: {ip}"
        );
    }
    assert_event(&id, &kernel.events(), expected.claim);
}

/// Runs the list on `host`; `also` says what must hold besides agreement with the model.
fn run(name: &str, host: &Host, also: impl Fn(&Case, &Expected)) {
    if !is_root(name) {
        return;
    }
    let mut kernel = Kernel::with(host).unwrap();
    for &program in Program::of_this_kernel() {
        for case in frames::all() {
            let expected = expect(host, &case.frame);
            also(&case, &expected);
            check(&mut kernel, program, host, &case, &expected);
        }
    }
}

#[test]
fn owned() {
    run("owned", &Host::listed(), |case, expected| {
        assert_eq!(expected.outcome, case.outcome, "{}", case.id);
        assert_eq!(expected.verdict, case.verdict, "{}", case.id);
        assert_eq!(expected.claim, case.claim, "{}", case.id);
    });
}

/// Silence, and nothing that Linux would answer reaches it.
fn silent(outcome: &str) -> impl Fn(&Case, &Expected) {
    move |case, expected| {
        assert!(!matches!(expected.verdict, Verdict::Answer(_)), "{}", case.id);
        assert_eq!(expected.claim, None, "{}: who does not own cannot be in conflict", case.id);
        if case.linux_answers {
            assert_eq!(expected.verdict, Verdict::Drop, "{}", case.id);
        }
        if matches!(case.verdict, Verdict::Answer(_)) {
            assert_eq!(expected.outcome, Some(outcome), "{}", case.id);
        }
    }
}

#[test]
fn standby() {
    let host = Host { owned: vec![], ..Host::listed() };
    run("standby", &host, silent("suppressed_standby"));
}

#[test]
fn expired() {
    let host = Host { fence: Fence::Expired, ..Host::listed() };
    run("expired", &host, silent("suppressed_expired"));
}

/// Once suppression has ended, the host answers for itself again.
#[test]
fn abandoned() {
    for owned in [vec![SLOT], vec![]] {
        let host = Host { fence: Fence::Abandoned, owned, ..Host::listed() };
        run("abandoned", &host, |case, expected| {
            // Frames beyond what is parsed are dropped without a look at who asks for what.
            if !BEYOND.contains(&case.id.as_str()) {
                assert_eq!(expected.verdict, Verdict::Pass, "{}", case.id);
            }
            assert_eq!(expected.claim, None, "{}", case.id);
        });
    }
}

fn untouched(case: &Case, expected: &Expected) {
    if !BEYOND.contains(&case.id.as_str()) {
        assert_eq!(expected.verdict, Verdict::Pass, "{}", case.id);
    }
    assert_eq!((expected.claim, expected.counted), (None, None), "{}", case.id);
}

#[test]
fn absent() {
    let mut host = Host::listed();
    host.vips.clear();
    run("absent", &host, untouched);
}

#[test]
fn owned_on_another_interface() {
    let mut host = Host::listed();
    host.vips = host.vips.into_iter().map(|((ip, (_, vlan)), slot)| ((ip, (2, vlan)), slot)).collect();
    run("owned_on_another_interface", &host, untouched);
}

/// A known address without its link cannot be answered for, and must not be answered by the host.
#[test]
fn link_entry_missing() {
    let mut host = Host::listed();
    host.links.clear();
    run("link_entry_missing", &host, |case, expected| {
        if case.linux_answers {
            assert_eq!(expected.verdict, Verdict::Drop, "{}", case.id);
        }
    });
}

/// Frames that are dropped without a look at who asks for what.
const BEYOND: [&str; 4] = ["A23.6", "A23.7", "N23.8", "N30.6"];

/// Who owns an address may be behind the bridge; what is owned here is answered as ever.
#[test]
fn on_a_port_of_a_bridge() {
    run("on_a_port_of_a_bridge", &Host::listed().on(Part::Bridged), |case, expected| {
        if matches!(case.verdict, Verdict::Answer(_)) {
            assert_eq!(expected.verdict, case.verdict, "{}", case.id);
        }
        if expected.verdict == Verdict::Pass {
            assert_eq!(expected.claim, None, "{}: the bridge's program reports it", case.id);
        }
    });
    for host in [Host { owned: vec![], ..Host::listed() }, Host { fence: Fence::Expired, ..Host::listed() }] {
        run("on_a_port_of_a_bridge", &host.on(Part::Bridged), |case, expected| {
            if !BEYOND.contains(&case.id.as_str()) {
                assert_eq!(expected.verdict, Verdict::Pass, "{}", case.id);
            }
            if matches!(case.verdict, Verdict::Answer(_)) {
                assert_eq!(expected.outcome, Some("passed_forwarded"), "{}", case.id);
            }
            assert_eq!((expected.claim, expected.counted), (None, None), "{}", case.id);
        });
    }
}

/// Neither an answer nor a report from a slave that is not in use.
#[test]
fn on_a_backup_slave() {
    run("on_a_backup_slave", &Host::listed().on(Part::Backup), |case, expected| {
        silent("backup_port")(case, expected);
        assert_eq!(expected.counted, None, "{}", case.id);
    });
}

/// The ends of the clock, and one nanosecond.
#[test]
fn deadlines() {
    if !is_root("deadlines") {
        return;
    }
    let mut kernel = Kernel::with(&Host::listed()).unwrap();
    for id in ["A01", "A03", "N01", "N05"] {
        let case = frames::get(id);
        let mut outcome = |deadline, suppress| {
            kernel.set_limits(deadline, suppress).unwrap();
            let before = kernel.outcomes().unwrap();
            let (verdict, _) = kernel.receive(Program::Plain, &case.frame).unwrap();
            let counter = moved(&before, &kernel.outcomes().unwrap());
            (verdict, counter[0].0)
        };
        let expired = (Verdict::Drop, "suppressed_expired");
        assert_eq!(outcome(u64::MAX, u64::MAX), (case.verdict.clone(), case.outcome.unwrap()), "{id}");
        assert_eq!(outcome(0, u64::MAX), expired, "{id}");
        assert_eq!(outcome(now_ns() - 1, u64::MAX), expired, "{id}");
        assert_eq!(outcome(0, 0), (Verdict::Pass, "passed_abandoned"), "{id}");
        // An agent that never wrote: as if there were none.
        assert_eq!(outcome(u64::MAX, 0), (case.verdict.clone(), case.outcome.unwrap()), "{id}");
        // Answers end at the deadline by themselves.
        let deadline = now_ns() + 20_000_000;
        let mut answers = 0;
        let last = loop {
            let (verdict, _) = outcome(deadline, u64::MAX);
            if verdict == Verdict::Drop {
                break now_ns();
            }
            answers += 1;
            assert!(now_ns() < deadline + 1_000_000_000, "{id}: still answering");
        };
        assert!(answers > 0 && last >= deadline, "{id}: {answers} answers");
    }
}

/// Gaining and losing is one write.
#[test]
fn slots_switch_all_their_addresses() {
    if !is_root("slots_switch_all_their_addresses") {
        return;
    }
    let mut kernel = Kernel::with(&Host { owned: vec![], ..Host::listed() }).unwrap();
    for owned in [false, true, false, true] {
        kernel.set_slot(SLOT, owned).unwrap();
        for id in ["A01", "A03", "A23.vlan", "N01", "N05", "N30.vlan"] {
            let case = frames::get(id);
            let (verdict, _) = kernel.receive(Program::Plain, &case.frame).unwrap();
            assert_eq!(verdict, if owned { case.verdict } else { Verdict::Drop }, "{id}");
        }
    }
}

#[test]
fn a_flood_of_claims_is_counted_and_reported_once() {
    if !is_root("a_flood_of_claims_is_counted_and_reported_once") {
        return;
    }
    for (id, vip) in [("A05", IpAddr::from(VIP4)), ("N29", IpAddr::from(VIP6))] {
        let mut kernel = Kernel::with(&Host::listed()).unwrap();
        let frame = frames::get(id).frame;
        let start = now_ns();
        for _ in 0..1000 {
            kernel.receive(Program::Plain, &frame).unwrap();
        }
        let seconds = (now_ns() - start) / 1_000_000_000;
        let events = kernel.events();
        assert!((1..=1 + seconds).contains(&(events.len() as u64)), "{id}: {events:?}");
        assert_eq!(events[0].conflicts, 1, "{id}");
        assert_eq!(kernel.stats(vip, (IFINDEX, 0)).unwrap().conflicts, 1000, "{id}");
        assert_eq!(kernel.events_missed().unwrap(), (1000 - events.len() as u64, 0), "{id}");
        // The next one a second later tells how many there were.
        while now_ns() < events[events.len() - 1].boot_ns + 1_000_000_000 {
            std::thread::yield_now();
        }
        kernel.receive(Program::Plain, &frame).unwrap();
        assert_eq!(kernel.events()[0].conflicts, 1001, "{id}");
    }
}

#[test]
fn claims_of_many_addresses_are_limited_for_each_cpu() {
    if !is_root("claims_of_many_addresses_are_limited_for_each_cpu") {
        return;
    }
    let mut host = Host::listed();
    let vip = |i: u32| Ipv4Addr::from(0x0a00_0000 + i);
    host.vips.extend((0..1000).map(|i| ((IpAddr::from(vip(i)), (IFINDEX, 0)), SLOT)));
    let mut kernel = Kernel::with(&host).unwrap();
    let start = now_ns();
    for i in 0..1000 {
        let arp = Arp::request(CLIENT, vip(i), vip(i));
        kernel.receive(Program::Plain, &arp.bytes()).unwrap();
    }
    let intervals = 1 + (now_ns() - start) / 1_000_000_000;
    let cpus = std::thread::available_parallelism().unwrap().get() as u64;
    let events = kernel.events().len() as u64;
    let burst = u64::from(EVENT_BURST);
    assert!((burst..=burst * cpus * intervals).contains(&events), "{events} events");
    assert_eq!(kernel.events_missed().unwrap(), (1000 - events, 0));
    for i in 0..1000 {
        assert_eq!(kernel.stats(vip(i).into(), (IFINDEX, 0)).unwrap().conflicts, 1);
    }
}

#[test]
fn a_full_map_refuses_and_goes_on() {
    if !is_root("a_full_map_refuses_and_goes_on") {
        return;
    }
    let mut kernel = Kernel::load(Some(4)).unwrap();
    kernel.fill(&Host::listed()).unwrap();
    kernel.add_vip(Ipv4Addr::new(10, 0, 0, 1).into(), (IFINDEX, 0), SLOT).unwrap();
    let full = kernel.add_vip(Ipv4Addr::new(10, 0, 0, 2).into(), (IFINDEX, 0), SLOT).unwrap_err();
    let errno = full.chain().find_map(|e| e.downcast_ref::<std::io::Error>()?.raw_os_error());
    assert_eq!(errno, Some(libc::E2BIG), "{full:?}");
    for tpa in [VIP4, Ipv4Addr::new(10, 0, 0, 1)] {
        let request = Arp::request(CLIENT, CLIENT4, tpa).bytes();
        let (verdict, _) = kernel.receive(Program::Plain, &request).unwrap();
        assert!(matches!(verdict, Verdict::Answer(_)), "{tpa}: {verdict:?}");
    }
}
