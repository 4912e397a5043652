//! How writes end.

use super::{Doubt, Gives, Machine, Pending};
use crate::{
    event::{Note, Outcome},
    flaw::Flaw,
    id::{Object, Version},
    lease::{Content, Seen},
};

impl Machine {
    pub(super) fn note_written(&mut self, write: u64, outcome: Outcome) {
        let found = self.pending.iter().find(|(_, pending)| pending.id == write);
        let Some(object) = found.map(|(object, _)| object.clone()) else {
            return;
        };
        let Some(pending) = self.pending.remove(&object) else {
            return;
        };
        if let Object::Claim(group) = object {
            self.unsettle(group);
        }
        let own = object == self.own_object();
        match outcome {
            Outcome::Done(version) => self.note_done(&object, version, pending),
            Outcome::Conflict => {
                if own {
                    self.note_own_conflict();
                } else {
                    // What is known is old: nothing is answered on the strength of it.
                    self.doubt(&object, pending.version, pending.gives);
                }
                // Forgotten when a newer version is read.
                self.back_off(object.clone());
                self.read(object);
            }
            Outcome::Refused(reason) => {
                if own {
                    self.note_own_failure(reason);
                } else {
                    self.tell(Note::WriteRefused { object: object.clone(), reason });
                }
                self.back_off(object);
            }
            Outcome::Unknown(reason) => {
                self.back_off(object.clone());
                if own {
                    self.note_own_failure(reason);
                } else {
                    self.doubt(&object, pending.version, pending.gives);
                    self.read(object);
                }
            }
        }
    }

    /// Remembers what a write may have given away, or may still give away.
    fn doubt(&mut self, object: &Object, version: Version, gives: Gives) {
        let current = match object {
            Object::Session(_) => return,
            Object::Claim(group) => self.claims.get(usize::from(*group)).map(|view| view.version),
        };
        // Once another version is there, the write has happened or cannot happen any more.
        if current != Some(version) || gives.nothing() || self.has(Flaw::ResumeAtOnce) {
            return;
        }
        let doubt = self.doubts.entry(object.clone()).or_insert_with(|| Doubt {
            version,
            gives: Gives::default(),
            only: None,
        });
        doubt.gives.group |= gives.group;
        doubt.gives.vips.extend(gives.vips);
    }

    fn note_done(&mut self, object: &Object, version: Version, pending: Pending) {
        self.retries.remove(object);
        if let Some(note) = pending.note {
            self.tell(note);
        }
        match (object, pending.content) {
            (Object::Session(node), Content::Session(session)) => {
                let own = *node == self.settings.node;
                if own {
                    self.note_renewed(&session, pending.sent_at);
                }
                self.see_session(node, version, Seen::Good(session));
                if own {
                    // A later version may have been seen before.
                    self.compare_own();
                }
            }
            (Object::Claim(group), Content::Claim(claim)) => {
                self.see_claim(*group, version, Seen::Good(claim));
            }
            (Object::Session(_), Content::Claim(_)) | (Object::Claim(_), Content::Session(_)) => {}
        }
    }
}
