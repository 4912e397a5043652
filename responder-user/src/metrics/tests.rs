//! What is served, and the table in the documentation.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    path::Path,
    sync::Arc,
};

use responder_leadership::{
    event::Note,
    id::{Incarnation, Object, SessionId},
    lease::{Fitness, Reach},
    machine::Overview,
    settings::Times,
};

use super::{counts::Counts, health::Readiness, *};
use crate::{
    control::{AgentStatus, LeadershipStatus, LinkStatus, PortStatus},
    datapath::xdp::WantedMode,
    decision::services::{Refused, Rules, ServiceKey},
    journal::Happening,
    status::{FenceStatus, PinnedLinkStatus, Status, VipState, VipStatus},
};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn session() -> SessionId {
    SessionId { node: "n1".into(), incarnation: Incarnation(7) }
}

fn vip(address: &str, state: VipState) -> VipStatus {
    VipStatus {
        vip: ip(address),
        link: "eth0".to_owned(),
        vlan: 0,
        state,
        slot: 2,
        slot_age_ms: 1,
        answered: 5,
        suppressed: 6,
        conflicts: 7,
        announced_age_ms: None,
    }
}

/// A node that answers for one address and stands by for another.
fn status() -> Status {
    let service = ServiceKey { namespace: "default".to_owned(), name: "web".to_owned() };
    let refused = Refused { service, address: "192.0.2.1".to_owned() };
    let machine = Overview {
        session: Some(session()),
        deadline: None,
        groups: [1, 4].into(),
        exceptions: BTreeSet::new(),
        fitness: Fitness::Fit,
        reach: Reach::Prefixes(BTreeSet::new()),
        synced: true,
        stopping: false,
        unsettled: BTreeSet::new(),
        writing: BTreeSet::new(),
        doubtful: BTreeSet::new(),
        failing: [(Object::Claim(3), 2)].into(),
        moves: BTreeMap::new(),
    };
    let leadership = LeadershipStatus {
        node: "n1".into(),
        namespace: "l2-responder".to_owned(),
        kubeconfig: None,
        context: None,
        rules: Rules::default(),
        gateways: BTreeSet::new(),
        claims: std::num::NonZeroU16::new(16),
        machine: Some(machine),
        deadline_left_ms: Some(2500),
        notes: Vec::new(),
        times: Some(Times::of(std::time::Duration::from_secs(3))),
        expected_nodes: 2,
        wanted: 3,
        without_node: vec![ip("192.0.2.12")],
        refused: vec![(refused, "is the address of a default gateway".to_owned())],
    };
    let link = LinkStatus {
        running: true,
        xdp: Some("native by link".to_owned()),
        egress: Some("tcx".to_owned()),
        ports: vec![PortStatus {
            name: "eth0".to_owned(),
            role: "answers".to_owned(),
            ..PortStatus::default()
        }],
        ..LinkStatus::default()
    };
    let agent = AgentStatus {
        version: "0.1.0".to_owned(),
        file: Some("/etc/vips.toml".into()),
        wanted_mode: Some(WantedMode::Native),
        links: [("eth0".to_owned(), link)].into(),
        burst_frames: 4,
        leadership: Some(leadership),
        ..AgentStatus::default()
    };
    let link = PinnedLinkStatus {
        ifindex: 3,
        name: "eth0".to_owned(),
        mac: "02:00:00:00:00:01".to_owned(),
        mode: Some("native".to_owned()),
        prog_id: Some(1),
        tcx: true,
        ports: Vec::new(),
    };
    Status {
        bpffs: "/sys/fs/bpf/responder".into(),
        agent: Some(agent),
        fence: FenceStatus { deadline_left_ms: 2500, suppress_left_ms: 3_600_000, heartbeat_age_ms: 3 },
        links: vec![link],
        vips: vec![vip("192.0.2.10", VipState::Answering), vip("192.0.2.11", VipState::Standby)],
        received: [("arp_answered", 9), ("suppressed_standby", 8), ("arp_conflict", 2)].into(),
        sent: BTreeMap::new(),
        events_limited: 0,
        events_lost: 0,
    }
}

fn text(status: Status, counts: &Counts, per_vip: usize) -> String {
    encode(&Arc::new(status), counts, per_vip).unwrap()
}

/// A family as it is served.
#[derive(Default)]
struct Served {
    help: String,
    kind: String,
    unit: Option<String>,
    /// Names and labels.
    series: Vec<(String, String)>,
}

/// All families in their order; whatever is not as OpenMetrics has it is a panic.
fn parse(text: &str) -> Vec<(String, Served)> {
    let mut families: Vec<(String, Served)> = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "# EOF" {
            assert!(lines.peek().is_none(), "something after the end");
            return families;
        }
        if let Some(rest) = line.strip_prefix("# ") {
            let (word, rest) = rest.split_once(' ').unwrap();
            let (name, rest) = rest.split_once(' ').unwrap();
            if word == "HELP" {
                assert!(families.iter().all(|(known, _)| known != name), "{name} twice");
                families.push((name.to_owned(), Served { help: rest.to_owned(), ..Served::default() }));
                continue;
            }
            let (last, family) = families.last_mut().unwrap();
            assert_eq!(last, name, "{line}");
            match word {
                "TYPE" => rest.clone_into(&mut family.kind),
                "UNIT" => family.unit = Some(rest.to_owned()),
                _ => panic!("{line}"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        value.parse::<f64>().unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let series = (name.to_owned(), labels.trim_end_matches('}').to_owned());
        let (last, family) = families.last_mut().unwrap();
        assert!(name.starts_with(last.as_str()), "{line} in {last}");
        assert!(!family.series.contains(&series), "{line} twice");
        family.series.push(series);
    }
    panic!("no end");
}

/// The labels of a series.
fn labels(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split("\",").filter_map(|label| label.trim_end_matches('"').split_once("=\""))
}

#[test]
fn names_and_units_follow_the_conventions() {
    for (name, family) in parse(&text(status(), &Counts::new(true), 100)) {
        assert!(name.starts_with("responder_"), "{name}");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        assert!(family.help.ends_with('.') && !family.help.ends_with(".."), "{name}: {}", family.help);
        assert!(["counter", "gauge", "histogram"].contains(&family.kind.as_str()), "{name}: {}", family.kind);
        assert_eq!(family.unit.as_deref(), name.ends_with("_seconds").then_some("seconds"), "{name}");
        assert!(!name.ends_with("_total") && !name.ends_with("_ms"), "{name}");
        assert!(!family.series.is_empty(), "{name} is not shown");
        for (series, _) in &family.series {
            assert_eq!(series.ends_with("_total"), family.kind == "counter", "{series}");
        }
    }
}

#[test]
fn values_are_where_they_belong() {
    let counts = Counts::new(true);
    counts.count(&Happening::Leadership { note: Note::Took { group: 1, from: Some(session()) } });
    counts.count(&Happening::Leadership { note: Note::Took { group: 2, from: None } });
    let reason = "no annotation".to_owned();
    counts.count(&Happening::Leadership { note: Note::BadLease { object: Object::Claim(3), reason } });
    counts.bad_record();
    counts.count(&Happening::Lapsed { silent_ms: 1500, resumed: true });
    let outcome = responder_leadership::event::Outcome::Conflict;
    let began = std::time::Instant::now().checked_sub(std::time::Duration::from_secs(2)).unwrap();
    counts.renewals().observe(&outcome, began);
    let text = text(status(), &counts, 1);
    for line in [
        "responder_received_frames_total{verdict=\"answered\",reason=\"arp_answered\"} 9",
        "responder_received_frames_total{verdict=\"suppressed\",reason=\"suppressed_standby\"} 8",
        "responder_received_frames_total{verdict=\"passed\",reason=\"arp_not_ours\"} 0",
        "responder_conflicts_total{by=\"arp\"} 2",
        "responder_deadline_left_seconds 2.5",
        "responder_vips{link=\"eth0\",state=\"answering\"} 1",
        "responder_vips{link=\"eth0\",state=\"expired\"} 0",
        "responder_owned_vips 1",
        "responder_vip_answered_frames_total{vip=\"192.0.2.10\",link=\"eth0\"} 5",
        "responder_vips_without_series 1",
        "responder_agent_up 1",
        "responder_build_info{version=\"0.1.0\"} 1",
        "responder_link_info{link=\"eth0\",mode=\"native\",via=\"link\",egress=\"tcx\",wanted=\"native\"} 1",
        "responder_refused_vips{reason=\"gateway\"} 1",
        "responder_expected_nodes 2",
        "responder_lease_duration_seconds 3.0",
        "responder_renew_interval_seconds 0.75",
        "responder_renewal_timeout_seconds 0.5",
        "responder_wanted_vips 3",
        "responder_vips_without_eligible_node 1",
        "responder_claims_held 2",
        "responder_leases_failing 1",
        "responder_claims_gained_total{cause=\"holder_gone\"} 1",
        "responder_claims_gained_total{cause=\"free\"} 1",
        "responder_claims_gained_total{cause=\"handed_over\"} 0",
        "responder_bad_leases_total{kind=\"claim\"} 1",
        "responder_bad_leases_total{kind=\"cluster\"} 1",
        "responder_lapses_total 1",
        "responder_lapse_seconds_total 1.5",
        "responder_renewal_duration_seconds_bucket{le=\"1.0\",outcome=\"conflict\"} 0",
        "responder_renewal_duration_seconds_count{outcome=\"conflict\"} 1",
        "responder_renewal_duration_seconds_count{outcome=\"done\"} 0",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("192.0.2.11"), "beyond --metrics-per-vip");
}

#[test]
fn without_an_agent_or_a_cluster_there_is_the_rest() {
    let mut alone = status();
    alone.agent.as_mut().unwrap().leadership = None;
    let alone = text(alone, &Counts::new(false), 0);
    assert!(!alone.contains("claims") && !alone.contains("renewal"), "{alone}");
    let stuck = text(Status { agent: None, ..status() }, &Counts::new(true), 0);
    assert!(
        stuck.contains("responder_agent_up 0\n") && stuck.contains("responder_owned_vips 1\n"),
        "{stuck}"
    );
}

#[test]
fn ready_is_synced_attached_and_ahead_or_standing_by() {
    let check = |change: fn(&mut Status, &mut AgentStatus), good: bool, words: &str| {
        let mut status = status();
        let mut agent = status.agent.take().unwrap();
        change(&mut status, &mut agent);
        status.agent = Some(agent);
        let readiness = Readiness::of(&status);
        assert_eq!(readiness.is_good(), good, "{}", readiness.text());
        assert!(readiness.text().contains(words), "{} lacks {words}", readiness.text());
    };
    check(|_, _| {}, true, "[+] deadline: ahead by 2500 ms");
    check(|status, _| status.fence.deadline_left_ms = -1, false, "[-] deadline: it has passed");
    check(
        |status, agent| {
            status.fence.deadline_left_ms = -1;
            agent.leadership.as_mut().unwrap().machine.as_mut().unwrap().groups.clear();
        },
        true,
        "standing by",
    );
    check(
        |_, agent| {
            let machine = agent.leadership.as_mut().unwrap().machine.as_mut().unwrap();
            machine.groups.clear();
            machine.session = None;
        },
        false,
        "[-] deadline: the session cannot be renewed",
    );
    check(
        |_, agent| {
            let machine = agent.leadership.as_mut().unwrap().machine.as_mut().unwrap();
            machine.groups.clear();
            machine.failing.insert(Object::Session("n1".into()), 3);
        },
        false,
        "[-] deadline: the session cannot be renewed",
    );
    check(
        |_, agent| agent.leadership.as_mut().unwrap().machine.as_mut().unwrap().synced = false,
        false,
        "[-] caches synced",
    );
    check(
        |_, agent| {
            let link = agent.links.get_mut("eth0").unwrap();
            link.xdp = None;
            link.error = Some("another program".to_owned());
        },
        false,
        "[-] program attached: the program runs on no link: eth0: another program",
    );
    check(|_, agent| agent.leadership = None, true, "[+] deadline");
    let stuck = Readiness::of(&Status { agent: None, ..status() });
    assert!(!stuck.is_good());
}

/// Labels of which the table does not list the values.
const OPEN: [&str; 11] =
    ["link", "vip", "version", "mode", "via", "egress", "port", "role", "vlan", "wanted", "le"];

/// The table of all metrics, for the documentation.
fn table() -> String {
    let mut table = "| metric | type | labels | what |\n|---|---|---|---|\n".to_owned();
    for (name, family) in parse(&text(status(), &Counts::new(true), 100)) {
        let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (label, value) in family.series.iter().flat_map(|(_, text)| labels(text)) {
            values.entry(label).or_default().insert(value);
        }
        let words = values.iter().filter(|(label, _)| **label != "le").map(|(label, values)| {
            if OPEN.contains(label) || values.len() > 16 {
                format!("`{label}`")
            } else {
                let values: Vec<_> = values.iter().copied().collect();
                format!("`{label}`: {}", values.join(", "))
            }
        });
        let words: Vec<_> = words.collect();
        let total = if family.kind == "counter" { "_total" } else { "" };
        let Served { help, kind, .. } = &family;
        let help = help.trim_end_matches('.');
        table += &format!("| `{name}{total}` | {kind} | {} | {help} |\n", words.join("; "));
    }
    table
}

#[test]
fn the_documentation_has_all_of_them() {
    const BEGIN: &str =
        "<!-- Made from the code: RESPONDER_BLESS=1 cargo test -p responder-user metrics -->\n";
    const END: &str = "<!-- The end of it. -->\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let document = fs::read_to_string(&path).unwrap();
    let (before, rest) = document.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let wanted = format!("{before}{BEGIN}{}{END}{after}", table());
    if std::env::var_os("RESPONDER_BLESS").is_some() {
        fs::write(&path, wanted).unwrap();
    } else {
        assert_eq!(document, wanted, "RESPONDER_BLESS=1 writes it anew");
    }
}
