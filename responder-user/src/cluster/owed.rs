//! The answers that the machine waits for.

use responder_leadership::event::Event;
use tokio::sync::mpsc::UnboundedSender;

use super::leases::Arrival;

/// An event that the machine waits for: told once, when this is dropped, also if the task that was to bring it has
/// panicked or was never run.
pub(super) struct Owed {
    tell: UnboundedSender<Arrival>,
    /// What is told; taken by `drop` alone.
    event: Option<Event>,
}

impl Owed {
    /// `otherwise` is told if nothing better is.
    pub(super) fn new(tell: UnboundedSender<Arrival>, otherwise: Event) -> Self {
        Self { tell, event: Some(otherwise) }
    }

    /// Tells `event`.
    pub(super) fn tell(mut self, event: Event) {
        self.event = Some(event);
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if let Some(event) = self.event.take() {
            self.tell.send(Arrival::Event(event)).ok(); // the agent may be ending
        }
    }
}
