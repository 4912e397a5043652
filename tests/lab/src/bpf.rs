//! What the kernel and bpftool say of programs on a host's links, and programs that are not the agent's.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{ns::NetNs, paths};

/// The XDP program of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct XdpSeen {
    /// Its kernel id.
    pub id: u64,
    /// "native" or "generic" (as `ip` tells).
    pub mode: &'static str,
}

/// The XDP program that runs on a link, as `ip` sees it.
///
/// # Errors
///
/// If there is no such link.
pub fn xdp_on(ns: &NetNs, link: &str) -> Result<Option<XdpSeen>> {
    let shown = ns.ip_json(&format!("link show dev {link}"))?;
    let xdp = &shown[0]["xdp"];
    let Some(id) = xdp["prog"]["id"].as_u64() else {
        return Ok(None);
    };
    // linux/if_link.h: XDP_ATTACHED_DRV, XDP_ATTACHED_SKB.
    let mode = match xdp["mode"].as_u64() {
        Some(1) => "native",
        Some(2) => "generic",
        Some(_) | None => "other",
    };
    Ok(Some(XdpSeen { id, mode }))
}

/// `bpftool -j WORDS` in a namespace.
///
/// # Errors
///
/// If it fails or prints no JSON.
pub fn bpftool(ns: &NetNs, words: &[&str]) -> Result<Value> {
    let mut argv = vec!["bpftool", "-j"];
    argv.extend(words);
    let text = ns.check(&argv)?;
    serde_json::from_str(&text).with_context(|| format!("bpftool {words:?} printed {text:?}"))
}

/// Whether the kernel has a program of this id.
///
/// # Errors
///
/// If bpftool cannot be run.
pub fn program_exists(ns: &NetNs, id: u64) -> Result<bool> {
    let argv = ["bpftool", "-j", "prog", "show", "id", &id.to_string()];
    Ok(ns.output(&argv, crate::ns::COMMAND_DEADLINE)?.code() == Some(0))
}

/// Attaches the program `name` of the reference object to a link by netlink, as somebody else's program, in the
/// driver. Returns its id.
///
/// # Errors
///
/// If the object is missing or the kernel refuses.
pub fn reference_program(ns: &NetNs, link: &str, name: &str) -> Result<u64> {
    let object = paths::object("reference.o")?;
    let object = object.to_str().context("the target directory's path is not UTF-8")?;
    ns.check(&["ip", "link", "set", "dev", link, "xdpdrv", "object", object, "program", name])?;
    Ok(xdp_on(ns, link)?.context("it was attached a moment ago")?.id)
}
