//! ARP tools as clients of the running agent: what they send and whether they are answered, in every state.
#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

use responder_lab::{
    root_or_skip,
    site::{Site, State, VIP4},
    skip, tools, tools_or_skip,
};

/// A tool's frames and how many answers there must be.
struct Step {
    argv: &'static str,
    /// From a host that owns the VIP.
    owned: usize,
    /// From a host whose agent does not know the VIP and whose kernel has it on `lo`: what Linux does.
    linux: usize,
}

const fn step(argv: &'static str, owned: usize, linux: usize) -> Step {
    Step { argv, owned, linux }
}

/// `VIP`, `OWNER` and `HABETS` are replaced.
const ARPING: &[Step] = &[
    step("arping -D -c 2 -w 2 -f -I eth0 VIP", 1, 1),
    step("arping -c 2 -I eth0 VIP", 2, 2),
    step("arping -b -c 2 -I eth0 VIP", 2, 2),
];

const HABETS: &[Step] = &[
    step("HABETS -d -c 2 -W 0.1 -i eth0 VIP", 2, 2),
    step("HABETS -0 -c 1 -i eth0 VIP", 1, 1),
    step("HABETS -c 1 -w 1 -V 5 -i eth0 VIP", 0, 0),
];

const ARP_SCAN: &[Step] = &[
    step("VIP", 1, 1),
    step("--arpspa=0.0.0.0 VIP", 1, 1),
    step("--arpspa=dest VIP", 0, 0),
    step("--arpspa=127.0.0.1 VIP", 0, 0),
    step("--arpspa=224.0.0.1 VIP", 0, 0),
    step("--arpspa=10.9.9.9 VIP", 1, 1),
    step("--arpsha=01:00:5e:00:00:01 VIP", 0, 1),
    step("--arpsha=ff:ff:ff:ff:ff:ff VIP", 0, 1),
    step("--arpsha=00:00:00:00:00:00 VIP", 0, 1),
    // Linux answers this one, too, but to itself.
    step("--arpsha=OWNER VIP", 0, 0),
    step("--arphln=8 VIP", 0, 0),
    step("--arppln=16 VIP", 0, 0),
    step("--arpop=2 VIP", 0, 0),
    step("--arpop=8 VIP", 0, 0),
    step("--arphrd=32 VIP", 0, 0),
    step("--arphrd=6 VIP", 1, 1),
    step("--arppro=0x86dd VIP", 0, 0),
    step("--prototype=0x8035 VIP", 0, 0),
    step("--llc VIP", 0, 0),
    step("--vlan=5 VIP", 0, 0),
    step("--vlan=0 VIP", 1, 1),
    step("--padding=aa55aa55aa55aa55aa55aa55aa55aa55aa55aa55aa55 VIP", 1, 1),
    step("--destaddr=OWNER --arptha=OWNER VIP", 1, 1),
    step("--destaddr=02:00:00:00:00:99 VIP", 0, 0),
    step("--destaddr=01:00:5e:00:00:01 VIP", 0, 1),
];

const STATES: [State; 4] = [State::Owned, State::Standby, State::Expired, State::Unknown];

/// Runs `steps` in all four states, each behind `prefix`.
fn run(prefix: &str, steps: &[Step]) {
    for state in STATES {
        let site = Site::new(state, &[]).unwrap();
        let habets = tools::habets().unwrap_or_default();
        for step in steps {
            let line = format!("{prefix}{}", step.argv)
                .replace("VIP", &VIP4.to_string())
                .replace("OWNER", &site.host().mac().to_string())
                .replace("HABETS", &habets.to_string_lossy());
            let argv: Vec<&str> = line.split_whitespace().collect();
            let (output, answers) = site.answers(&argv).unwrap();
            let what = format!("{state:?}: {line}\n{}{}", output.stdout, output.stderr);
            let count = match state {
                State::Owned => step.owned,
                State::Standby | State::Expired => 0,
                State::Unknown => step.linux,
            };
            assert_eq!(answers.len(), count, "{what}{answers:?}");
            if state == State::Owned {
                site.expect(&what, &answers, count).unwrap();
            }
        }
        let vip = site.vip(VIP4.into()).unwrap();
        let count = |key| vip.as_ref().and_then(|v| v.get(key)?.as_u64()).unwrap_or(0);
        match state {
            State::Owned => assert_eq!(
                (count("answered"), count("suppressed")),
                (steps.iter().map(|s| s.owned as u64).sum(), 0)
            ),
            State::Standby | State::Expired => {
                assert!(count("suppressed") > 0 && count("answered") == 0, "{vip:?}");
            }
            State::Unknown => assert_eq!(vip, None),
        }
    }
}

#[test]
fn iputils_arping_is_answered_by_the_owner_alone() {
    let test = "iputils_arping_is_answered_by_the_owner_alone";
    if root_or_skip(test) && tools_or_skip(test, &["arping"]) {
        run("", ARPING);
    }
}

#[test]
fn habets_arping_is_answered_by_the_owner_alone() {
    let test = "habets_arping_is_answered_by_the_owner_alone";
    if !root_or_skip(test) {
        return;
    }
    if tools::habets().is_none() {
        skip(test, "needs RESPONDER_ARPING_HABETS");
        return;
    }
    run("", HABETS);
}

#[test]
fn arp_scan_is_answered_as_it_should_be() {
    let test = "arp_scan_is_answered_as_it_should_be";
    if root_or_skip(test) && tools_or_skip(test, &["arp-scan"]) {
        run("arp-scan -I eth0 -N -q -x -r 1 -t 50 ", ARP_SCAN);
    }
}
