//! What the tests of the running agent share: questions and their answers, its status, its events.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]
// Each test program uses a part of this.
#![expect(dead_code, reason = "shared by several test programs")]

use std::{collections::BTreeMap, fs, net::IpAddr, time::Duration};

use responder_lab::{
    Agent, Capture, Commands, Lab, Mac, Node, Process,
    frames::{self, Body, Frame},
    send_all, wait_until,
};
use serde_json::Value;

/// How long something may take that an event brings about, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(10);
/// Below the agent's inspection (5 s): what is there by then came by an event.
pub(crate) const BY_EVENT: Duration = Duration::from_secs(3);

/// A lab with one host `a` and a client `c`.
pub(crate) fn one_host(segments: u8) -> Lab {
    Lab::builder().hosts(&["a"]).segments(segments).build().unwrap()
}

/// 192.0.2.n.
pub(crate) fn v4(n: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, n])
}

/// 2001:db8::n.
pub(crate) fn v6(n: u16) -> IpAddr {
    IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n])
}

/// The question of a client at `nic` for `vip`: a broadcast ARP request or a solicitation.
pub(crate) fn question(client: &Node, nic: &str, vip: IpAddr) -> Vec<u8> {
    let nic = client.nics().iter().find(|n| n.name == nic).unwrap();
    match vip {
        IpAddr::V4(vip) => frames::arp_request(nic.mac, nic.v4, vip),
        IpAddr::V6(vip) => frames::solicitation(nic.mac, nic.v6, vip),
    }
}

/// The address that a frame gives in answer to a question for `vip`.
pub(crate) fn answer_for(frame: &Frame, vip: IpAddr) -> Option<Mac> {
    let solicited = match frame.body {
        Body::Arp(arp) => arp.op == 2 && arp.spa != arp.tpa,
        Body::Advertisement(na) => na.flags & 0x40 != 0,
        Body::Solicitation(_) => false,
    };
    frame.claim().filter(|(ip, _)| solicited && *ip == vip).map(|(_, mac)| mac)
}

/// Asks at `nic` until `mac` is the answer.
pub(crate) fn assert_answers(client: &Node, nic: &str, vip: IpAddr, mac: Mac) {
    let capture = Capture::start(client.ns(), nic).unwrap();
    let question = [question(client, nic, vip)];
    let asked = wait_until(&format!("an answer for {vip} at {nic} by {mac}"), SOON, || {
        send_all(client.ns(), nic, &question).unwrap();
        let heard = Duration::from_millis(100);
        capture.wait_for("it", heard, |f| answer_for(f, vip) == Some(mac)).ok()
    });
    assert!(asked.is_ok(), "{asked:?}; heard {:?}", capture.frames());
}

/// Asks for `silent` and then for `control`, which `mac` answers: by then an answer for the first would have come.
pub(crate) fn assert_silent(client: &Node, nic: &str, silent: IpAddr, control: (IpAddr, Mac)) {
    let capture = Capture::start(client.ns(), nic).unwrap();
    let questions = [question(client, nic, silent), question(client, nic, control.0)];
    wait_until(&format!("an answer for {}", control.0), SOON, || {
        send_all(client.ns(), nic, &questions).unwrap();
        let heard = Duration::from_millis(100);
        capture.wait_for("it", heard, |f| answer_for(f, control.0) == Some(control.1)).ok()
    })
    .unwrap();
    let answers: Vec<_> = capture.frames().into_iter().filter_map(|f| answer_for(&f, silent)).collect();
    assert_eq!(answers, [], "{silent} was answered");
}

/// The addresses in the maps: state by address and link.
pub(crate) fn states(status: &Value) -> BTreeMap<(IpAddr, String), String> {
    let text = |v: &Value, key: &str| v[key].as_str().unwrap().to_owned();
    let vips = status["vips"].as_array().unwrap().iter();
    vips.map(|v| ((text(v, "vip").parse().unwrap(), text(v, "link")), text(v, "state"))).collect()
}

/// What [`states`] is compared with.
pub(crate) fn expected(list: &[(IpAddr, &str, &str)]) -> BTreeMap<(IpAddr, String), String> {
    list.iter().map(|(ip, link, state)| ((*ip, (*link).to_owned()), (*state).to_owned())).collect()
}

/// Waits until the status satisfies `condition`, and returns it.
pub(crate) fn wait_status(commands: &Commands, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let found = wait_until(what, SOON, || {
        last = commands.status().ok()?;
        (!last["agent"].is_null() && condition(&last)).then_some(())
    });
    assert!(found.is_ok(), "{found:?}: {last:#}");
    last
}

/// Waits until the maps hold exactly these.
pub(crate) fn wait_states(commands: &Commands, list: &[(IpAddr, &str, &str)]) -> Value {
    let wanted = expected(list);
    wait_status(commands, &format!("{wanted:?}"), |status| states(status) == wanted)
}

/// A counter of an address.
pub(crate) fn count(status: &Value, vip: IpAddr, counter: &str) -> u64 {
    let vip = vip.to_string();
    let vips = status["vips"].as_array().unwrap();
    let entry = vips.iter().find(|v| v["vip"] == vip.as_str());
    entry.and_then(|v| v[counter].as_u64()).unwrap_or_else(|| panic!("no {counter} of {vip} in {status:#}"))
}

/// Why `vip` is refused on `link`.
pub(crate) fn refusal(status: &Value, vip: IpAddr, link: &str) -> Option<String> {
    let vip = vip.to_string();
    let list = status["agent"]["refused"].as_array()?;
    let entry = list.iter().find(|r| r[0] == vip.as_str() && r[1] == link)?;
    Some(entry[2].as_str()?.to_owned())
}

/// A `responder watch --json`.
pub(crate) struct Watch(Process);

impl Watch {
    /// Starts it, and returns when the agent has let it in.
    pub(crate) fn start(node: &Node, agent: &mut Agent) -> Self {
        let fds = format!("/proc/{}/fd", agent.process().pid());
        let sockets = || {
            let links = fs::read_dir(&fds).unwrap().flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
            links.filter(|to| to.to_string_lossy().starts_with("socket:")).count()
        };
        let before = sockets();
        let mut command = agent.commands().command("watch");
        command.arg("--json");
        let process = node.ns().spawn(command).unwrap();
        wait_until("the agent to let a watching client in", SOON, || (sockets() > before).then_some(()))
            .unwrap();
        Self(process)
    }

    /// What has been told so far.
    pub(crate) fn events(&self) -> Vec<Value> {
        let text = self.0.stdout();
        // The last line may not be complete yet.
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits for an event of this kind that `matches`.
    pub(crate) fn wait(&self, kind: &str, matches: impl Fn(&Value) -> bool) -> Value {
        let found = wait_until(&format!("an event {kind:?}"), SOON, || {
            self.events().into_iter().find(|e| e["event"] == kind && matches(e))
        });
        found.unwrap_or_else(|e| panic!("{e}; told: {:#?}", self.events()))
    }

    /// Waits for an event of this kind about `vip`.
    pub(crate) fn wait_vip(&self, kind: &str, vip: IpAddr) -> Value {
        let vip = vip.to_string();
        self.wait(kind, |e| e["vip"] == vip.as_str())
    }
}
