//! Why addresses come and go, for the log: what the machine wants and says, kept until an address is gained or lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use responder_leadership::{
    event::{Effect, Note},
    id::{Group, NodeName, Object},
    lease::{Claim, Content, Fitness},
};

/// What is known of why.
#[derive(Debug, Default)]
pub(super) struct Causes {
    /// Why each group was last gained.
    gained: BTreeMap<Group, String>,
    /// Addresses that came up for announcing while their group was held.
    added: BTreeSet<IpAddr>,
    /// Why groups are lost by the effects that are being performed.
    lost: BTreeMap<Group, String>,
    /// Why single addresses are lost by them.
    given: BTreeMap<IpAddr, String>,
    /// Why everything is lost by them.
    all_lost: Option<String>,
    situation: Option<Situation>,
}

/// What the node's state says of why it gives something up.
#[derive(Clone, Debug)]
pub(super) struct Situation {
    /// This node.
    pub node: NodeName,
    /// Whether it should hold anything.
    pub fitness: Fitness,
    /// Why everything is being handed over, if it is.
    pub leaving: Option<&'static str>,
    /// What an administrator wants to move.
    pub moves: BTreeMap<Group, NodeName>,
}

impl Situation {
    /// Why this group is given away.
    fn reason(&self, group: Group) -> Option<String> {
        if let Some(why) = self.leaving {
            return Some(why.to_owned());
        }
        match &self.fitness {
            Fitness::Unfit(reason) | Fitness::LastResort(reason) => Some(format!("this node {reason}")),
            Fitness::Fit => self.moves.get(&group).map(|to| format!("a move to {to} was asked for")),
        }
    }
}

/// Whether these effects may change who answers, or say why.
pub(super) fn matter(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| match effect {
        Effect::Answer(_) | Effect::Tell(_) => true,
        Effect::Write { renewal, .. } => !renewal,
        Effect::Deadline(_) | Effect::DeadlineAtMost(_) | Effect::Read { .. } | Effect::Finished => false,
    })
}

impl Causes {
    /// Reads what is about to be done. What it says of losses holds until the next time.
    pub(super) fn read(&mut self, effects: &[Effect], situation: Situation) {
        self.lost.clear();
        self.given.clear();
        self.all_lost = None;
        for effect in effects {
            match effect {
                Effect::Tell(note) => self.note(note),
                Effect::Write { object: Object::Claim(group), content: Content::Claim(claim), .. } => {
                    self.written(*group, claim, &situation);
                }
                Effect::Write { .. }
                | Effect::Answer(_)
                | Effect::Deadline(_)
                | Effect::DeadlineAtMost(_)
                | Effect::Read { .. }
                | Effect::Finished => {}
            }
        }
        self.situation = Some(situation);
    }

    /// The machine tells what was done.
    fn note(&mut self, note: &Note) {
        match note {
            Note::Took { group, from: Some(from) } => {
                self.gain(*group, format!("claim {group} taken, which {from} held"));
            }
            Note::Took { group, from: None } => {
                self.gain(*group, format!("claim {group} taken, which nobody held"));
            }
            Note::Received { group, from: Some(from) } => {
                self.gain(*group, format!("claim {group} received from {from}"));
            }
            Note::Received { group, from: None } => self.gain(*group, format!("claim {group} received")),
            Note::GroupLost { group, reason } => {
                self.lost.insert(*group, format!("claim {group} is lost: {reason}"));
            }
            Note::SessionLost { .. } | Note::WatchStale | Note::NameInUse { .. } => {
                self.all_lost = Some(crate::notes::text(note));
            }
            Note::SessionStarted { .. }
            | Note::SessionAdopted { .. }
            | Note::RenewalFailed { .. }
            | Note::Revoked { .. }
            | Note::HandedOver { .. }
            | Note::Excepted { .. }
            | Note::BadLease { .. }
            | Note::WriteRefused { .. }
            | Note::MoveRefused { .. } => {}
        }
    }

    fn gain(&mut self, group: Group, cause: String) {
        self.gained.insert(group, cause);
    }

    /// The machine stops answering, then writes to whom it gives: that says why it stops.
    fn written(&mut self, group: Group, claim: &Claim, situation: &Situation) {
        match &claim.holder {
            Some(holder) if holder.node == situation.node => {}
            holder => {
                let reason = situation.reason(group).map(|reason| format!(": {reason}")).unwrap_or_default();
                let to = holder
                    .as_ref()
                    .map_or_else(|| "given up".to_owned(), |to| format!("handed over to {to}"));
                self.lost.insert(group, format!("claim {group} {to}{reason}"));
            }
        }
        for (vip, to) in claim.exceptions.iter().filter(|(_, to)| to.node != situation.node) {
            self.given.insert(*vip, format!("given to {to}, as an exception of claim {group}"));
        }
    }

    /// Somebody must announce this address, of a group that is held.
    pub(super) fn add(&mut self, vip: IpAddr) {
        self.added.insert(vip);
    }

    /// Why an address is gained. `exception`: it is held by itself.
    pub(super) fn of_gain(&mut self, vip: IpAddr, group: Group, exception: bool) -> String {
        let added = self.added.remove(&vip);
        if exception {
            return format!("held here as an exception of claim {group}");
        }
        match self.gained.get(&group) {
            Some(cause) if !added => cause.clone(),
            Some(_) | None => format!("a Service has it now, and claim {group} is held here"),
        }
    }

    /// Why an address is lost that still has a Service.
    pub(super) fn of_loss(&self, vip: IpAddr, group: Group) -> String {
        let known = self.given.get(&vip).or_else(|| self.lost.get(&group)).or(self.all_lost.as_ref());
        known.cloned().unwrap_or_else(|| match self.situation.as_ref().and_then(|s| s.reason(group)) {
            Some(reason) => format!("claim {group} is given up: {reason}"),
            None => format!("this node may not answer for it any more, or does not hold claim {group}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use responder_leadership::id::{Incarnation, SessionId};

    use super::*;

    fn id(node: &str) -> SessionId {
        SessionId { node: node.into(), incarnation: Incarnation(7) }
    }

    fn write(holder: Option<&str>, exceptions: &[(IpAddr, &str)]) -> Effect {
        let claim = Claim {
            holder: holder.map(id),
            exceptions: exceptions.iter().map(|(vip, node)| (*vip, id(node))).collect(),
            written: (id("n1"), 1),
        };
        let content = Content::Claim(claim);
        Effect::Write { id: 1, object: Object::Claim(3), base: None, content, renewal: false }
    }

    #[test]
    fn the_cause_is_what_the_machine_says_or_does() {
        let vip = IpAddr::from([192, 0, 2, 10]);
        let situation = |fitness, leaving| Situation {
            node: "n1".into(),
            fitness,
            leaving,
            moves: [(5, "n3".into())].into(),
        };
        let fit = || situation(Fitness::Fit, None);
        let unfit = || situation(Fitness::Unfit("is drained".to_owned()), None);
        let mut causes = Causes::default();

        let took = Note::Took { group: 3, from: Some(id("n2")) };
        causes.read(&[Effect::Tell(took)], fit());
        assert_eq!(causes.of_gain(vip, 3, false), "claim 3 taken, which n2/7 held");
        assert_eq!(causes.of_gain(vip, 3, true), "held here as an exception of claim 3");
        causes.add(vip);
        assert!(causes.of_gain(vip, 3, false).starts_with("a Service has it now"));
        assert_eq!(causes.of_gain(vip, 3, false), "claim 3 taken, which n2/7 held", "only once");

        causes.read(&[write(Some("n2"), &[])], unfit());
        assert_eq!(causes.of_loss(vip, 3), "claim 3 handed over to n2/7: this node is drained");
        causes.read(&[write(None, &[])], situation(Fitness::Fit, Some("the agent ends")));
        assert_eq!(causes.of_loss(vip, 3), "claim 3 given up: the agent ends");
        causes.read(&[write(Some("n1"), &[(vip, "n2")])], fit());
        assert_eq!(causes.of_loss(vip, 3), "given to n2/7, as an exception of claim 3");
        let lost = Note::SessionLost { reason: "revoked".to_owned() };
        causes.read(&[Effect::Tell(lost)], fit());
        assert!(causes.of_loss(vip, 3).contains("the session is lost"));

        // What was said of losses does not outlive the turn.
        causes.read(&[], fit());
        assert!(causes.of_loss(vip, 3).contains("does not hold claim 3"));
        assert_eq!(causes.of_loss(vip, 5), "claim 5 is given up: a move to n3 was asked for");
        causes.read(&[], unfit());
        assert_eq!(causes.of_loss(vip, 3), "claim 3 is given up: this node is drained");
    }
}
