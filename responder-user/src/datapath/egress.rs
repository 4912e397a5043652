//! Attaching the egress program: by TCX where the kernel has it (6.6), else as a clsact filter.

use std::{io, path::Path};

use aya::programs::{
    Link as _, LinkOrder, ProgramError, SchedClassifier, TcAttachType,
    links::{FdLink, PinnedLink},
    tc::{self, NlOptions, SchedClassifierLink, SchedClassifierLinkId, TcAttachOptions, TcHandle},
};
use serde::Serialize;

use super::{
    DatapathError, chain,
    object::{Object, is_ours},
    pins::{Pins, unpin},
    probe::{self, Answer},
    xdp::{Attempt, WantedAttach},
};
use crate::net::tc::{egress_program, remove_unused_clsact};

/// Where the filter is: a place of its own, so that it can be found again.
const PRIORITY: u16 = 49_000;
const MINOR: u16 = 0x7e5;
const HANDLE: u32 = MINOR as u32;
const TC_HANDLE: TcHandle = TcHandle::new(0, MINOR);

/// How the egress program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EgressVia {
    /// By a pinned TCX link.
    Tcx,
    /// As a filter of a clsact qdisc.
    Clsact,
}

/// Attaches the program to interface `ifindex` of this `name`, replacing an earlier agent's in place.
///
/// # Errors
///
/// What was tried, if nothing worked.
pub fn attach(
    object: &mut Object,
    pins: &Pins,
    ifindex: u32,
    name: &str,
    how: WantedAttach,
) -> Result<EgressVia, Vec<Attempt>> {
    let mut tried = Vec::new();
    if how != WantedAttach::Netlink {
        match attach_tcx(object, pins, ifindex, name) {
            Ok(()) => {
                // An earlier agent may have used the other way.
                remove_filter(pins, ifindex, name);
                return Ok(EgressVia::Tcx);
            }
            Err(error) => tried.push(Attempt { what: "egress by tcx".to_owned(), error }),
        }
    }
    // Who wants links gets a filter where the kernel has no links for this.
    if how != WantedAttach::Link || probe::tcx() == Answer::No {
        match attach_clsact(object, pins, ifindex, name) {
            Ok(()) => {
                if let Err(error) = unpin(&pins.tx_link(ifindex)) {
                    tracing::warn!(%error, "cannot remove the earlier egress link");
                }
                return Ok(EgressVia::Clsact);
            }
            Err(error) => tried.push(Attempt { what: "egress by clsact".to_owned(), error }),
        }
    }
    Err(tried)
}

fn attach_tcx(object: &mut Object, pins: &Pins, ifindex: u32, name: &str) -> Result<(), String> {
    let path = pins.tx_link(ifindex);
    if path.exists() {
        match replace_tcx(object, &path) {
            Ok(()) => return Ok(()),
            // The interface that it was on is gone.
            Err(error) => tracing::debug!(%error, "stale egress link"),
        }
        unpin(&path).map_err(|e| chain(&e))?;
    }
    let tx = object.tx().map_err(|e| chain(&e))?;
    // Before those of others: one that ends the chain ("ok") would hide what follows it from this one.
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = tx.attach_with_options(name, TcAttachType::Egress, options).map_err(|e| chain(&e))?;
    let link = tx.take_link(id).map_err(|e| chain(&e))?;
    let link = FdLink::try_from(link).map_err(|e| chain(&e))?;
    drop(link.pin(path).map_err(|e| chain(&e))?); // the pin keeps it attached
    Ok(())
}

fn replace_tcx(object: &mut Object, path: &Path) -> Result<(), String> {
    let link = PinnedLink::from_pin(path).map_err(|e| chain(&e))?;
    let link = SchedClassifierLink::try_from(FdLink::from(link)).map_err(|e| chain(&e))?;
    let tx = object.tx().map_err(|e| chain(&e))?;
    let id = tx.attach_to_link(link).map_err(|e| chain(&e))?;
    drop(tx.take_link(id).map_err(|e| chain(&e))?); // the pin keeps it attached
    Ok(())
}

fn attach_clsact(object: &mut Object, pins: &Pins, ifindex: u32, name: &str) -> Result<(), String> {
    let before = egress_program(ifindex, PRIORITY, HANDLE).map_err(|e| chain(&e))?;
    if let Some(id) = before.filter(|id| !is_ours(pins, "tx", *id)) {
        return Err(format!(
            "a filter (program id {id}) that is not ours is at priority {PRIORITY}, handle {HANDLE:#x}: left alone"
        ));
    }
    // There may be one already; if it could not be made, the filter has no place, and that error counts.
    let qdisc = tc::qdisc_add_clsact(name);
    let tx = object.tx().map_err(|e| chain(&e))?;
    let id = match filter(name) {
        // Replaces the program of an existing filter, and fails if there is none.
        Ok(link) => tx.attach_to_link(link).or_else(|_| attach_filter(tx, name)),
        Err(e) => return Err(chain(&e)),
    }
    .map_err(|e| match &qdisc {
        Ok(()) => chain(&e),
        Err(qdisc) => format!("{} (making the clsact qdisc: {})", chain(&e), chain(qdisc)),
    })?;
    let link = tx.take_link(id).map_err(|e| chain(&e))?;
    // Dropping it would remove the filter, which must outlive the agent.
    std::mem::forget(link);
    Ok(())
}

fn attach_filter(tx: &mut SchedClassifier, name: &str) -> Result<SchedClassifierLinkId, ProgramError> {
    let options = NlOptions { priority: PRIORITY, handle: TC_HANDLE, classid: None };
    tx.attach_with_options(name, TcAttachType::Egress, TcAttachOptions::Netlink(options))
}

fn filter(name: &str) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(name, TcAttachType::Egress, PRIORITY, TC_HANDLE, None)
}

/// Removes our clsact filter if there is one, and then the qdisc if nobody else uses it. False: there is none.
fn remove_filter(pins: &Pins, ifindex: u32, name: &str) -> bool {
    let ours = egress_program(ifindex, PRIORITY, HANDLE)
        .is_ok_and(|program| program.is_some_and(|id| is_ours(pins, "tx", id)));
    if !ours || !filter(name).is_ok_and(|filter| filter.detach().is_ok()) {
        return false;
    }
    if let Err(error) = remove_unused_clsact(ifindex) {
        tracing::warn!(link = name, %error, "cannot remove the clsact qdisc");
    }
    true
}

/// Detaches what this or an earlier agent has attached to the interface. False: there was nothing.
///
/// # Errors
///
/// If a pin cannot be removed.
pub fn detach(pins: &Pins, ifindex: u32, name: Option<&str>) -> Result<bool, DatapathError> {
    let path = pins.tx_link(ifindex);
    let pinned = path.exists();
    unpin(&path)?;
    let filtered = name.is_some_and(|name| remove_filter(pins, ifindex, name));
    Ok(pinned || filtered)
}
