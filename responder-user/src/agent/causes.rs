//! What is told of addresses that come and go: each with its cause.

use super::{Agent, source::Source};
use crate::{decision::plan::VipAt, journal::Happening};

impl Agent {
    /// An address is announced from now on.
    pub(super) fn tell_gained(&mut self, at: VipAt) {
        let (vip, link) = (at.ip, self.link_name(at.place()));
        let happening = if self.kept.remove(&at) {
            let cause = "an earlier agent had it answered here".to_owned();
            Happening::Kept { vip, link, cause }
        } else {
            let cause = match &mut self.source {
                Source::File(_) => "the static file names it, and the link is ready".to_owned(),
                Source::Cluster(cluster) => cluster.why_gained(vip),
            };
            Happening::Gained { vip, link, cause }
        };
        self.tell(happening);
    }

    /// An address is not announced any more.
    pub(super) fn tell_lost(&mut self, at: VipAt) {
        let link = self.link_name(at.place());
        let cause = self.why_lost(&at, &link);
        self.tell(Happening::Lost { vip: at.ip, link, cause });
    }

    fn why_lost(&self, at: &VipAt, link: &str) -> String {
        let Some(planned) = self.plan.interfaces.get(&at.ifindex) else {
            return format!("{link} is gone, or is not used any more");
        };
        let slot = self.plan.vips.get(at);
        if slot.is_some_and(|slot| self.plan.owned.contains(slot)) {
            return if planned.running {
                format!("the program does not run for {link} any more")
            } else {
                format!("{link} is down or has no carrier")
            };
        }
        match &self.source {
            Source::Cluster(cluster) => cluster.why_lost(at.ip, slot.is_some()),
            Source::File(_) if slot.is_some() => "the static file says that another host owns it".to_owned(),
            Source::File(_) => {
                let refused = self.plan.refused.iter().find(|((vip, _), _)| *vip == at.ip);
                refused.map_or_else(
                    || "the static file does not name it any more".to_owned(),
                    |(_, reason)| format!("it {reason}"),
                )
            }
        }
    }
}
