//! What the local agent says of its part in the cluster.

use std::io::{self, Write};

use responder_leadership::lease::Fitness;

use super::Paint;
use crate::{control::LeadershipStatus, overview::time};

/// Notes shown.
const NOTES: usize = 3;

/// Writes it as text, in the manner of the lines above it.
pub(super) fn text(out: &mut impl Write, leadership: &LeadershipStatus, paint: Paint) -> io::Result<()> {
    let node = &leadership.node;
    let Some(machine) = leadership.machine.as_ref().filter(|machine| machine.synced) else {
        return writeln!(
            out,
            "Node      {node}: {}",
            paint.bad("has not heard enough of the cluster to take part in it; see the agent's log")
        );
    };
    let session = match &machine.session {
        Some(session) => paint.good(format!("session {session}")),
        None => paint.bad("has no session: nothing is answered"),
    };
    let (claims, singles) = (machine.groups.len(), machine.exceptions.len());
    writeln!(out, "Node      {node}: {session}, {claims} claims, {singles} addresses beside them")?;
    match &machine.fitness {
        Fitness::Fit => {}
        Fitness::LastResort(reason) => {
            writeln!(out, "          {} it {reason}", paint.bad("last resort:"))?;
        }
        Fitness::Unfit(reason) => writeln!(out, "          {} it {reason}", paint.bad("unfit:"))?,
    }
    if machine.stopping {
        writeln!(out, "          {}", paint.bad("ends, and hands everything over"))?;
    }
    let list = |objects: Vec<String>| objects.join(", ");
    let doubtful: Vec<_> = machine.doubtful.iter().map(ToString::to_string).collect();
    if !doubtful.is_empty() {
        let doubtful = list(doubtful);
        writeln!(out, "          {} the outcome of a write to {doubtful}", paint.bad("not known:"))?;
    }
    let failing = machine.failing.iter().map(|(object, times)| format!("{object} ({times} in a row)"));
    let failing: Vec<_> = failing.collect();
    if !failing.is_empty() {
        writeln!(out, "          {} writes to {}", paint.bad("failing:"), list(failing))?;
    }
    for (age, note) in leadership.notes.iter().rev().take(NOTES).rev() {
        writeln!(out, "          {} ago: {note}", time(*age))?;
    }
    Ok(())
}
