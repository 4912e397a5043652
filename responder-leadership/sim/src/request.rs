//! Requests to the API server: late, lost, refused, answered.

use responder_leadership::{
    event::{Event, Outcome, Via},
    id::{Object, Version},
    lease::{Content, Seen},
};

use crate::{
    api::{Answer, told},
    world::{Next, World},
};

/// A read or a write.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) host: usize,
    pub(crate) generation: u32,
    pub(crate) object: Object,
    kind: Kind,
    sent: u64,
    fate: Fate,
    /// What will be told, once it is known.
    answer: Option<Event>,
    over: bool,
}

#[derive(Debug)]
enum Kind {
    Read { known: Version },
    Write { id: u64, base: Option<Version>, content: Content },
}

/// What will become of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Good,
    Lost,
    /// Executed, but nobody hears of it.
    Unanswered,
    Refused,
    /// An error of the server; executed or not.
    Failed(bool),
}

impl World {
    pub(crate) fn write(
        &mut self,
        host: usize,
        id: u64,
        object: Object,
        base: Option<Version>,
        content: Content,
    ) {
        self.judge_sent(host, &object);
        self.send(host, object, Kind::Write { id, base, content });
    }

    pub(crate) fn read(&mut self, host: usize, object: Object, known: Version) {
        self.send(host, object, Kind::Read { known });
    }

    fn send(&mut self, host: usize, object: Object, kind: Kind) {
        let mut delay = self.rng.within(self.setup.latency.0, self.setup.latency.1);
        delay += self.rng.within(0, self.hosts[host].ways.slow);
        let rates = self.setup.rates;
        let mut fate = Fate::Good;
        if self.faults {
            let write = matches!(kind, Kind::Write { .. });
            if self.rng.permille(rates.lost_requests) {
                fate = Fate::Lost;
            } else if self.rng.permille(rates.lost_responses) {
                fate = Fate::Unanswered;
            } else if write && self.rng.permille(rates.refused) {
                fate = Fate::Refused;
            } else if write && self.rng.permille(rates.failed) {
                fate = Fate::Failed(self.rng.permille(500));
            }
            if write && self.rng.permille(rates.late) {
                delay += self.rng.within(0, self.setup.lateness);
            }
        }
        let h = &self.hosts[host];
        let timeout = h.clock.local(self.t) + h.times.request_timeout();
        let expires = h.clock.instant(timeout);
        let generation = h.generation;
        let number = self.requests.len();
        self.requests.push(Request {
            host,
            generation,
            object,
            kind,
            sent: self.t,
            fate,
            answer: None,
            over: false,
        });
        if fate != Fate::Lost {
            self.after(delay, Next::Arrive(number));
        }
        self.at(expires, Next::Expire(number));
    }

    /// The server has a request.
    pub(crate) fn arrive(&mut self, number: usize) {
        let request = &self.requests[number];
        let (host, sent) = (request.host, request.sent);
        if self.hosts[host].ways.requests {
            // Perhaps the client's kernel sends it again until it gets through.
            if self.t < sent + self.setup.lateness && self.rng.permille(500) {
                let delay = self.rng.within(1, self.setup.lateness / 4);
                self.after(delay, Next::Arrive(number));
            }
            return;
        }
        let event = match &request.kind {
            Kind::Read { known } => {
                let (version, stored) = match self.api.get(&request.object) {
                    Some((version, stored)) => (*version, Some(&**stored)),
                    None => (*known, None),
                };
                Some(told(&request.object, version, stored, Via::Read))
            }
            Kind::Write { id, .. } => {
                let id = *id;
                let outcome = match request.fate {
                    Fate::Refused => Outcome::Refused("too many requests".to_owned()),
                    Fate::Failed(false) => Outcome::Unknown("500".to_owned()),
                    Fate::Failed(true) => {
                        self.execute(number);
                        Outcome::Unknown("500".to_owned())
                    }
                    Fate::Good | Fate::Lost | Fate::Unanswered => match self.execute(number) {
                        Answer::Stored(version) | Answer::Same(version) => Outcome::Done(version),
                        Answer::Conflict => Outcome::Conflict,
                    },
                };
                Some(Event::Written { write: id, outcome })
            }
        };
        self.requests[number].answer = event;
        if self.requests[number].fate != Fate::Unanswered {
            let delay = self.rng.within(self.setup.latency.0, self.setup.latency.1);
            let delay = delay + self.rng.within(0, self.hosts[host].ways.slow);
            self.after(delay, Next::Respond(number));
        }
    }

    fn execute(&mut self, number: usize) -> Answer {
        let request = &self.requests[number];
        let Kind::Write { base, content, .. } = &request.kind else { return Answer::Conflict };
        let answer = self.api.write(&request.object, *base, content);
        let host = request.host;
        if self.trace {
            self.say(Some(host), || {
                format!("   at the API server: {} by write {number}: {answer:?}", request.object)
            });
        }
        if request.over {
            self.tally.count("write: landed late");
        }
        if request.generation != self.hosts[host].generation {
            self.tally.count("write: of a dead agent");
        }
        match answer {
            Answer::Stored(_) => {
                let object = self.requests[number].object.clone();
                self.judge_stored(host, &object);
                self.spread();
            }
            Answer::Same(_) => {
                let what =
                    format!("{} is written without a change: that stops no late write", request.object);
                self.violated(what);
            }
            Answer::Conflict => self.judge_refused(),
        }
        answer
    }

    /// The response is there.
    pub(crate) fn respond(&mut self, number: usize) {
        let request = &mut self.requests[number];
        if request.over || self.hosts[request.host].ways.responses {
            return;
        }
        if let Some(event) = request.answer.take() {
            self.told(number, event);
        }
    }

    /// The client has waited long enough.
    pub(crate) fn expire(&mut self, number: usize) {
        let request = &self.requests[number];
        if request.over {
            return;
        }
        let event = match &request.kind {
            Kind::Read { .. } => Event::Unread { object: request.object.clone() },
            Kind::Write { id, .. } => {
                Event::Written { write: *id, outcome: Outcome::Unknown("no answer in time".to_owned()) }
            }
        };
        self.told(number, event);
    }

    fn told(&mut self, number: usize, event: Event) {
        let request = &mut self.requests[number];
        request.over = true;
        let host = request.host;
        if self.hosts[host].generation != request.generation {
            return;
        }
        let version = match &event {
            Event::Written { outcome: Outcome::Done(version), .. } => Some(*version),
            Event::Session { version, seen: Seen::Good(_) | Seen::Bad(_), .. } => Some(*version),
            Event::Claim { version, seen: Seen::Good(_) | Seen::Bad(_), .. } => Some(*version),
            _ => None,
        };
        let object = request.object.clone();
        if let (Some(version), Some(agent)) = (version, &mut self.hosts[host].agent) {
            let known = agent.told.entry(object).or_default();
            *known = version.max(*known);
        }
        self.offer(host, event, false);
    }
}
