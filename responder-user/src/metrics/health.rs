//! Whether the agent is ready: does what it should, answering or standing by.

use responder_leadership::{
    id::{NodeName, Object},
    machine::Overview,
};

use crate::status::Status;

/// A renewal may be lost now and then; so many in a row are none.
const LOST_RENEWALS: u32 = 3;

/// What was looked at, and whether it is as it should be.
pub(super) struct Readiness(Vec<(&'static str, Result<String, String>)>);

impl Readiness {
    /// Of the agent whose status this is. One that is not ready may still answer.
    pub(super) fn of(status: &Status) -> Self {
        let Some(agent) = &status.agent else {
            return Self(vec![("agent", Err("its loop does not answer".to_owned()))]);
        };
        let attached: Vec<_> = agent.links.iter().filter(|(_, link)| link.xdp.is_some()).collect();
        let attached = if attached.is_empty() {
            let failed = agent.links.iter().filter_map(|(name, link)| Some((name, link.error.as_ref()?)));
            let reasons: Vec<_> =
                failed.chain(&agent.waiting).map(|(name, reason)| format!("{name}: {reason}")).collect();
            let none = "the program runs on no link";
            Err(if reasons.is_empty() { none.to_owned() } else { format!("{none}: {}", reasons.join("; ")) })
        } else {
            Ok(attached.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", "))
        };
        let mut checks = vec![("program attached", attached)];
        let (mut holds, mut joined) = (true, true);
        if let Some(leadership) = &agent.leadership {
            let machine = leadership.machine.as_ref().filter(|machine| machine.synced);
            checks.push((
                "caches synced",
                machine.map(|_| "Leases, Services, EndpointSlices, Nodes".to_owned()).ok_or_else(|| {
                    "not enough has been heard of the cluster to take part in it; see the agent's log"
                        .to_owned()
                }),
            ));
            holds =
                machine.is_some_and(|machine| !machine.groups.is_empty() || !machine.exceptions.is_empty());
            joined = machine.is_none_or(|machine| renews(machine, &leadership.node));
        }
        let left = status.fence.deadline_left_ms;
        checks.push((
            "deadline",
            match (holds, left > 0) {
                (false, _) if joined => Ok("nothing is held: standing by".to_owned()),
                (false, _) => {
                    Err("the session cannot be renewed, so nothing can be held; the agent's log says why"
                        .to_owned())
                }
                (true, true) => Ok(format!("ahead by {left} ms")),
                (true, false) => Err("it has passed, and nothing is answered".to_owned()),
            },
        ));
        Self(checks)
    }

    /// Whether all is as it should be.
    pub(super) fn is_good(&self) -> bool {
        self.0.iter().all(|(_, check)| check.is_ok())
    }

    /// A line for each check.
    pub(super) fn text(&self) -> String {
        let line = |(name, check): &(&str, Result<String, String>)| match check {
            Ok(text) => format!("[+] {name}: {text}\n"),
            Err(text) => format!("[-] {name}: {text}\n"),
        };
        self.0.iter().map(line).collect()
    }
}

/// Whether this node has a session that it can renew.
fn renews(machine: &Overview, node: &NodeName) -> bool {
    let failed = machine.failing.get(&Object::Session(node.clone())).copied().unwrap_or_default();
    machine.session.is_some() && failed < LOST_RENEWALS
}
