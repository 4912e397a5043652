//! Sending bursts.

use std::{net::IpAddr, time::Duration};

use responder_common::{
    announce::{GratuitousArp, UnsolicitedNa},
    wire::Mac,
};

use super::{Agent, now};
use crate::{
    decision::{change::Step, plan::VipAt},
    journal::Happening,
};

/// Announcements sent before the loop looks at anything else.
const BATCH: u32 = 64;

/// Bursts begun before it does.
const BEGUN: usize = 256;

impl Agent {
    /// Begins to announce what is answered and not announced yet, at most so many. What remains comes
    /// when the loop comes round.
    pub(super) fn begin_announcements(&mut self, most: usize) {
        let mut left = most;
        self.behind = false;
        for step in self.steps() {
            // Only what the map answers for.
            let Step::Announce(at) = step else { continue };
            if !self.answers(&at) {
                continue;
            }
            if left == 0 {
                self.behind = true;
                return;
            }
            left -= 1;
            self.begin_announcement(at);
            self.beat_if_due();
        }
        self.say_announcing();
    }

    /// Catches up with what was gained since the loop came round.
    pub(super) fn catch_up(&mut self) {
        if self.behind {
            self.begin_announcements(BEGUN);
        }
    }

    /// Whether the maps answer for it.
    fn answers(&self, at: &VipAt) -> bool {
        self.actual.vips.get(at).is_some_and(|slot| self.actual.owned.contains(slot))
    }

    pub(super) fn begin_announcement(&mut self, at: VipAt) {
        if let Some(link) = self.plan.interfaces.get(&at.ifindex).filter(|_| self.answers(&at)) {
            let known = self.actual.announcing.insert(at, link.mac).is_some();
            // Another hardware address is no change of ownership.
            if !known || self.kept.contains(&at) {
                self.tell_gained(at);
            }
            self.begin_burst(at, now());
        }
    }

    /// Starts the burst of a VIP.
    pub(super) fn begin_burst(&mut self, at: VipAt, now: Duration) {
        let packets = match at.ip {
            IpAddr::V4(_) => 2,
            IpAddr::V6(_) => 1,
        };
        self.bursts.gain(at, packets, now);
    }

    /// Sends what is due.
    pub(super) fn announce(&mut self) {
        for _ in 0..BATCH {
            // After a lapse nothing is claimed before it is known to be still owned. (The egress program would
            // stop it, too.)
            if now().as_nanos() >= self.maps.fence().deadline_ns.into() {
                return;
            }
            let Some(at) = self.bursts.poll(now()) else {
                return;
            };
            let Some(mac) = self.actual.announcing.get(&at).copied() else {
                self.bursts.lose(&at);
                continue;
            };
            let router = self.plan.links.get(&at.place()).is_some_and(|link| link.router);
            match self.send(at, mac, router) {
                Ok(()) => {
                    self.announced.insert(at, now());
                    let link = self.link_name(at.place());
                    self.tell(Happening::Announced { vip: at.ip, link, mac: mac.to_string() });
                }
                Err(error) => {
                    self.burst_errors += 1;
                    tracing::debug!(vip = %at.ip, link = %self.link_name(at.place()), %error, "cannot announce now");
                    self.bursts.failed(&at, now());
                }
            }
        }
    }

    fn send(&mut self, at: VipAt, mac: Mac, router: bool) -> std::io::Result<()> {
        match at.ip {
            IpAddr::V4(vip) => {
                for frame in [GratuitousArp::request(vip, mac), GratuitousArp::reply(vip, mac)] {
                    self.sender.send(at.ifindex, frame.as_bytes())?;
                    self.burst_frames += 1;
                }
            }
            IpAddr::V6(vip) => {
                self.sender.send(at.ifindex, UnsolicitedNa::new(vip, mac, router).as_bytes())?;
                self.burst_frames += 1;
            }
        }
        Ok(())
    }

    /// Another station claims a VIP: says so, and defends it.
    pub(super) fn conflict(&mut self, at: VipAt, happening: Happening) {
        self.tell(happening);
        if self.bursts.defend(&at, now()) {
            tracing::info!(vip = %at.ip, link = %self.link_name(at.place()), "announced in defence");
        }
    }
}
