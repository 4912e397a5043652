//! The cluster for people: one screen, whatever its size.

use std::{
    io::{self, Write},
    net::IpAddr,
    time::Duration,
};

use comfy_table::{Table, presets};
use ipnet::IpNet;
use responder_leadership::lease::Fitness;

use super::{ClaimView, ClusterView, SessionView, VipView, sessions::Life};
use crate::{program, status::Paint};

/// Rows of a table without being asked for more; what needs attention comes first.
const SHOWN: usize = 20;
/// Claims, which are few by default.
const SHOWN_CLAIMS: usize = 32;
/// Addresses that are not announced.
const SHOWN_REFUSED: usize = 8;

/// Which addresses are shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Shown {
    /// Those that nobody answers for.
    Silent,
    /// All.
    All,
    /// Those that match: an address, a prefix, a node, a Service (`namespace/name`), or `nobody`.
    Matching(String),
}

impl Shown {
    /// Whether an address is shown.
    #[must_use]
    pub fn includes(&self, vip: &VipView) -> bool {
        match self {
            Self::Silent => vip.owner.is_none(),
            Self::All => true,
            Self::Matching(word) => {
                let network = word.parse::<IpNet>().is_ok_and(|net| net.contains(&vip.vip));
                let address = word.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical() == vip.vip);
                let owner = vip.owner.as_ref().map_or("nobody", |owner| owner.as_str());
                let service = vip.services.iter().any(|service| service.to_string() == *word);
                network || address || service || owner == word
            }
        }
    }
}

/// Writes a view as text.
///
/// # Errors
///
/// If `out` takes no more.
pub fn text(out: &mut impl Write, view: &ClusterView, shown: &Shown, paint: Paint) -> io::Result<()> {
    head(out, view, paint)?;
    sessions(out, view, paint)?;
    claims(out, view, paint)?;
    vips(out, view, shown, paint)?;
    refused(out, view, paint)
}

fn head(out: &mut impl Write, view: &ClusterView, paint: Paint) -> io::Result<()> {
    let count = view.claim_count.map_or_else(|| "unknown".to_owned(), |count| count.to_string());
    let here = match &view.this_node {
        Some(node) if view.session(node).is_some() => format!("; this node is {node} (*)"),
        Some(_) | None => String::new(),
    };
    writeln!(out, "Cluster   Leases of namespace {}, claims: {count}{here}", view.namespace)?;
    for problem in &view.problems {
        writeln!(out, "          {} {problem}", paint.bad("problem:"))?;
    }
    writeln!(out)
}

fn sessions(out: &mut impl Write, view: &ClusterView, paint: Paint) -> io::Result<()> {
    if view.sessions.is_empty() {
        return writeln!(out, "No sessions: no agent runs in this cluster, or they cannot be read");
    }
    let mut table =
        new_table(["NODE", "SESSION", "SINCE", "RENEWED", "FITNESS", "CLAIMS", "ADDRESSES", "ANNOUNCES"]);
    for session in &view.sessions {
        let renewed = session.renewed_ms.map_or_else(|| "-".to_owned(), |ms| format!("{} ago", time(ms)));
        table.add_row([
            mark(view, session, paint),
            life(session, paint),
            session.since_ms.map_or_else(|| "-".to_owned(), time),
            renewed,
            fitness(session, paint),
            session.claims.to_string(),
            session.vips.to_string(),
            session.reach.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
        ]);
    }
    writeln!(out, "{table}")
}

/// The node's name, with a star if it is this one.
fn mark(view: &ClusterView, session: &SessionView, paint: Paint) -> String {
    if view.this_node.as_ref() == Some(&session.node) {
        paint.strong(format!("{} *", session.node))
    } else {
        session.node.to_string()
    }
}

fn life(session: &SessionView, paint: Paint) -> String {
    match &session.life {
        Life::Live => paint.good("live"),
        Life::Expired => paint.bad("expired"),
        Life::Ended(by) if *by == session.node => "ended".to_owned(),
        Life::Ended(by) => paint.bad(format!("revoked by {by}")),
        Life::Unreadable(reason) => paint.bad(format!("not understood: {reason}")),
        Life::Absent => "no agent".to_owned(),
    }
}

fn fitness(session: &SessionView, paint: Paint) -> String {
    match &session.fitness {
        Some(Fitness::Fit) => paint.good("fit"),
        Some(Fitness::LastResort(reason)) => paint.bad(format!("last resort: {reason}")),
        Some(Fitness::Unfit(reason)) => paint.bad(format!("unfit: {reason}")),
        None => "-".to_owned(),
    }
}

fn claims(out: &mut impl Write, view: &ClusterView, paint: Paint) -> io::Result<()> {
    if view.claims.is_empty() {
        return Ok(());
    }
    let misplaced = view.claims.iter().filter(|claim| claim.misplaced().is_some()).count();
    let held = view.claims.iter().filter(|claim| claim.problem.is_none()).count();
    let mut line = format!("{} claims: {held} held", view.claims.len());
    if misplaced > 0 {
        let way = program::called().speak("`responder rebalance` moves them");
        line += &format!(", {misplaced} not at their first choice ({way})");
    }
    writeln!(out, "\n{line}")?;
    let mut table = new_table(["CLAIM", "HOLDER", "SINCE", "ADDRESSES", "EXCEPTIONS", "NOTE"]);
    let mut rows: Vec<&ClaimView> = view.claims.iter().collect();
    if rows.len() > SHOWN_CLAIMS {
        rows.sort_by_key(|claim| (claim.problem.is_none(), claim.misplaced().is_none(), claim.group));
    }
    for claim in rows.iter().take(SHOWN_CLAIMS) {
        let note = match (&claim.problem, claim.misplaced()) {
            (Some(problem), _) => paint.bad(problem),
            (None, Some(node)) => format!("first choice {node}"),
            (None, None) => String::new(),
        };
        table.add_row([
            claim.name.clone(),
            claim.holder.as_ref().map_or_else(|| paint.bad("nobody"), |holder| name(view, holder, paint)),
            claim.since_ms.filter(|_| claim.holder.is_some()).map_or_else(|| "-".to_owned(), time),
            claim.vips.to_string(),
            exceptions(claim),
            note,
        ]);
    }
    writeln!(out, "{table}")?;
    more(out, rows.len(), SHOWN_CLAIMS, "--json has all")
}

fn name(view: &ClusterView, holder: &responder_leadership::id::SessionId, paint: Paint) -> String {
    let name = holder.node.to_string();
    if view.this_node.as_ref() == Some(&holder.node) { paint.strong(name) } else { name }
}

/// `3: n2 2, n3 1`.
fn exceptions(claim: &ClaimView) -> String {
    let mut holders = std::collections::BTreeMap::<_, usize>::new();
    for id in claim.exceptions.values() {
        *holders.entry(&id.node).or_default() += 1;
    }
    if holders.is_empty() {
        return "-".to_owned();
    }
    let list: Vec<_> = holders.iter().map(|(node, count)| format!("{node} {count}")).collect();
    format!("{}: {}", claim.exceptions.len(), list.join(", "))
}

fn vips(out: &mut impl Write, view: &ClusterView, shown: &Shown, paint: Paint) -> io::Result<()> {
    let silent = view.vips.iter().filter(|vip| vip.owner.is_none()).count();
    let answered = view.vips.len() - silent;
    let mut line = format!("{} addresses: {answered} answered", view.vips.len());
    if silent > 0 {
        line += &format!(", {}", paint.bad(format!("{silent} by nobody")));
    }
    if *shown == Shown::Silent && answered > 0 {
        line += " (--vips shows each)";
    }
    writeln!(out, "\n{line}")?;
    let rows: Vec<&VipView> = view.vips.iter().filter(|vip| shown.includes(vip)).collect();
    if rows.is_empty() {
        return match shown {
            Shown::Silent | Shown::All => Ok(()),
            Shown::Matching(word) => writeln!(out, "none matches {word:?}"),
        };
    }
    let limit = if *shown == Shown::Silent { SHOWN } else { usize::MAX };
    let mut table = new_table(["ADDRESS", "SERVICES", "OWNER", "REASON"]);
    for vip in rows.iter().take(limit) {
        let services: Vec<_> = vip.services.iter().map(ToString::to_string).collect();
        let owner = match &vip.owner {
            None => paint.bad("nobody"),
            Some(owner) if view.this_node.as_ref() == Some(owner) => paint.strong(owner.to_string()),
            Some(owner) => owner.to_string(),
        };
        table.add_row([vip.vip.to_string(), services.join(", "), owner, vip.reason.clone()]);
    }
    writeln!(out, "{table}")?;
    more(out, rows.len(), limit, "--vips=nobody shows all")
}

fn refused(out: &mut impl Write, view: &ClusterView, paint: Paint) -> io::Result<()> {
    for refused in view.refused.iter().take(SHOWN_REFUSED) {
        let (service, address, reason) = (&refused.service, &refused.address, &refused.reason);
        writeln!(out, "{} {address} of Service {service} {reason}", paint.bad("refused"))?;
    }
    more(out, view.refused.len(), SHOWN_REFUSED, "--json has all")
}

fn more(out: &mut impl Write, all: usize, limit: usize, way: &str) -> io::Result<()> {
    match all.saturating_sub(limit) {
        0 => Ok(()),
        more => writeln!(out, "… and {more} more ({way})"),
    }
}

fn new_table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}

/// Tenths of seconds below ten, whole seconds above, and no more than two units.
pub(crate) fn time(ms: u64) -> String {
    let rounded = match ms {
        0..10_000 => ms / 100 * 100,
        10_000..3_600_000 => ms / 1000 * 1000,
        _ => ms / 60_000 * 60_000,
    };
    let text = humantime::format_duration(Duration::from_millis(rounded)).to_string();
    text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}
