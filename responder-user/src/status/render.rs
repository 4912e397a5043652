//! The status for people: one screen.

use std::{
    io::{self, IsTerminal as _, Write, stdout},
    time::Duration,
};

use comfy_table::{Table, presets};

use super::{PinnedLinkStatus, PinnedPortStatus, Status, VipState, VipStatus, leadership};
use crate::telemetry::no_color;

/// Addresses shown; the rest is summed up, and in the JSON.
const SHOWN: usize = 20;
/// Refused addresses shown, and interfaces that are waited for.
const SHOWN_REFUSED: usize = 8;

/// Writes `status` as text.
pub(super) fn text(out: &mut impl Write, status: &Status, paint: Paint) -> io::Result<()> {
    head(out, status, paint)?;
    links(out, status, paint)?;
    vips(out, status, paint)?;
    counters(out, status)
}

/// Colours, or none.
#[derive(Clone, Copy, Debug)]
pub struct Paint(bool);

impl Paint {
    /// Colours where standard output is a terminal and nobody objects.
    #[must_use]
    pub fn of_stdout() -> Self {
        Self(stdout().is_terminal() && !no_color())
    }

    /// None.
    #[must_use]
    pub const fn none() -> Self {
        Self(false)
    }

    /// As it should be.
    pub fn good(self, text: impl Into<String>) -> String {
        self.with(32, text.into())
    }

    /// Somebody should look.
    pub fn bad(self, text: impl Into<String>) -> String {
        self.with(31, text.into())
    }

    /// This is here.
    pub fn strong(self, text: impl Into<String>) -> String {
        self.with(1, text.into())
    }

    fn with(self, colour: u8, text: String) -> String {
        if self.0 { format!("\x1b[{colour}m{text}\x1b[0m") } else { text }
    }
}

fn head(out: &mut impl Write, status: &Status, paint: Paint) -> io::Result<()> {
    match &status.agent {
        Some(agent) => {
            let source =
                agent.file.as_ref().map_or_else(|| "in a cluster".into(), |file| file.to_string_lossy());
            writeln!(out, "Agent     {} pid {}, {source}", paint.good("running"), agent.pid)?;
            if let Some(error) = &agent.file_error {
                writeln!(out, "          {} {error}", paint.bad("file not in effect:"))?;
            }
        }
        None => writeln!(
            out,
            "Agent     {} (this is what the maps at {} say)",
            paint.bad("none answers"),
            status.bpffs.display()
        )?,
    }
    let fence = status.fence;
    let deadline = if fence.deadline_left_ms > 0 {
        paint.good(format!("ahead for another {}", time(fence.deadline_left_ms)))
    } else {
        paint.bad(format!("passed {} ago: nothing is answered", time(-fence.deadline_left_ms)))
    };
    writeln!(out, "Deadline  {deadline}; last heartbeat {} ago", time(fence.heartbeat_age_ms))?;
    match status.agent.as_ref().and_then(|agent| agent.leadership.as_ref()) {
        Some(leadership) => leadership::text(out, leadership, paint),
        None => Ok(()),
    }
}

fn links(out: &mut impl Write, status: &Status, paint: Paint) -> io::Result<()> {
    writeln!(out)?;
    let mut table = new_table(["LINK", "IFINDEX", "MAC", "XDP", "EGRESS", "PROGRAM", "NOTE"]);
    let agent = status.agent.as_ref();
    for link in &status.links {
        let told = agent.and_then(|a| a.links.get(&link.name));
        let mode = match (&link.mode, told.and_then(|t| t.xdp.as_ref())) {
            (Some(_), Some(told)) => paint.good(told),
            (Some(mode), None) => paint.good(mode),
            (None, _) => paint.bad("none"),
        };
        let name = match ports(link) {
            Some(ports) => format!("{} ({ports})", link.name),
            None => link.name.clone(),
        };
        let mut notes = Vec::new();
        if let Some(told) = told {
            if !told.running {
                notes.push("down or without carrier".to_owned());
            }
            notes.extend(told.error.clone());
            notes.extend(told.notes.clone());
            notes.extend(told.all_multicast.iter().map(|why| format!("all-multicast: {why}")));
            // After an error that names them there is no need to.
            if told.error.is_none() {
                notes.extend(told.tried.iter().map(|t| format!("{} failed: {}", t.what, t.error)));
            }
        }
        // A filter leaves no pin, so that without an agent only the other way can be seen.
        let egress = match (agent, told.and_then(|t| t.egress.clone())) {
            (_, Some(via)) => via,
            (Some(_), None) => "none".to_owned(),
            (None, None) if link.tcx => "tcx".to_owned(),
            (None, None) => "unknown".to_owned(),
        };
        table.add_row([
            name,
            link.ifindex.to_string(),
            link.mac.clone(),
            mode,
            egress,
            link.prog_id.map_or_else(String::new, |id| format!("id {id}")),
            notes.join("; "),
        ]);
    }
    writeln!(out, "{table}")?;
    let waiting = agent.iter().flat_map(|a| &a.waiting);
    for (name, reason) in waiting.clone().take(SHOWN_REFUSED) {
        writeln!(out, "{}  {reason}", paint.bad(name))?;
    }
    let more = waiting.count().saturating_sub(SHOWN_REFUSED);
    if more > 0 {
        writeln!(out, "… and {more} more interfaces (--json has all)")?;
    }
    Ok(())
}

/// "eth1 native, eth2 backup": where the program runs for a link that is not its own only port.
fn ports(link: &PinnedLinkStatus) -> Option<String> {
    if let [only] = link.ports.as_slice()
        && (only.ifindex, only.vlan) == (link.ifindex, 0)
    {
        return None;
    }
    let port = |port: &PinnedPortStatus| {
        let vlan = if port.vlan == 0 { String::new() } else { format!(" vlan {}", port.vlan) };
        let mode = port.mode.as_deref().unwrap_or("none");
        let backup = if port.role == "backup" { ", backup" } else { "" };
        format!("{}{vlan} {mode}{backup}", port.name)
    };
    (!link.ports.is_empty()).then(|| link.ports.iter().map(port).collect::<Vec<_>>().join("; "))
}

/// "3 addresses: 2 answering, 1 standby".
fn summary(vips: &[VipStatus]) -> String {
    use VipState::{Abandoned, Answering, Detached, Expired, Standby};
    let states = [
        (Answering, "answering"),
        (Standby, "standby"),
        (Expired, "expired"),
        (Abandoned, "abandoned"),
        (Detached, "detached"),
    ];
    let counts = states.map(|(state, name)| (vips.iter().filter(|v| v.state == state).count(), name));
    let parts: Vec<_> =
        counts.iter().filter(|(n, _)| *n > 0).map(|(n, name)| format!("{n} {name}")).collect();
    let (s, colon) = (if vips.len() == 1 { "" } else { "es" }, if parts.is_empty() { "" } else { ": " });
    format!("{} address{s}{colon}{}", vips.len(), parts.join(", "))
}

fn vips(out: &mut impl Write, status: &Status, paint: Paint) -> io::Result<()> {
    writeln!(out)?;
    writeln!(out, "{}", summary(&status.vips))?;
    let mut table =
        new_table(["VIP", "LINK", "STATE", "SLOT", "ANSWERED", "SUPPRESSED", "CONFLICTS", "ANNOUNCED"]);
    for vip in status.vips.iter().take(SHOWN) {
        let state = match vip.state {
            VipState::Answering => paint.good("answering"),
            VipState::Standby => "standby".to_owned(),
            VipState::Expired => paint.bad("expired"),
            VipState::Abandoned => paint.bad("abandoned"),
            VipState::Detached => paint.bad("detached"),
        };
        let vlan = if vip.vlan == 0 { String::new() } else { format!(" vlan {}", vip.vlan) };
        table.add_row([
            vip.vip.to_string(),
            format!("{}{vlan}", vip.link),
            state,
            vip.slot.to_string(),
            vip.answered.to_string(),
            vip.suppressed.to_string(),
            if vip.conflicts == 0 { "0".to_owned() } else { paint.bad(vip.conflicts.to_string()) },
            vip.announced_age_ms.map_or_else(
                || "-".to_owned(),
                |age| format!("{} ago", time(i64::try_from(age).unwrap_or(i64::MAX))),
            ),
        ]);
    }
    writeln!(out, "{table}")?;
    if status.vips.len() > SHOWN {
        writeln!(out, "… and {} more (--json has all)", status.vips.len() - SHOWN)?;
    }
    let refused = status.agent.iter().flat_map(|a| &a.refused);
    for (ip, link, reason) in refused.clone().take(SHOWN_REFUSED) {
        let on = if link.is_empty() { String::new() } else { format!(" on {link}") };
        writeln!(out, "{} {ip}{on} {reason}", paint.bad("refused"))?;
    }
    let more = refused.count().saturating_sub(SHOWN_REFUSED);
    if more > 0 {
        writeln!(out, "… and {more} more refused (--json has all)")?;
    }
    Ok(())
}

fn counters(out: &mut impl Write, status: &Status) -> io::Result<()> {
    writeln!(out)?;
    let line = |counts: &std::collections::BTreeMap<&str, u64>| {
        let parts: Vec<_> = counts.iter().map(|(name, n)| format!("{name} {n}")).collect();
        if parts.is_empty() { "nothing yet".to_owned() } else { parts.join(", ") }
    };
    writeln!(out, "Received  {}", line(&status.received))?;
    writeln!(out, "Sent      {}", line(&status.sent))?;
    if status.events_limited + status.events_lost > 0 {
        writeln!(out, "Events    {} left out, {} lost", status.events_limited, status.events_lost)?;
    }
    if let Some(agent) = &status.agent {
        writeln!(
            out,
            "Bursts    {} frames sent, {} errors, {} announcements waiting; {} multicast groups joined",
            agent.burst_frames, agent.burst_errors, agent.burst_queued, agent.groups
        )?;
    }
    Ok(())
}

fn new_table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}

fn time(ms: i64) -> String {
    let duration = Duration::from_millis(ms.unsigned_abs());
    // Tenths are enough for people; below ten seconds all of them.
    let rounded = if ms.abs() < 10_000 { duration } else { Duration::from_secs(duration.as_secs()) };
    humantime::format_duration(rounded).to_string()
}
