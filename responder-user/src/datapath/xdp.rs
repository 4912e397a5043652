//! Attaching the XDP program to an interface, or taking over what an earlier agent attached.

use std::{fmt, os::fd::AsFd as _, path::Path, thread::sleep, time::Duration};

use aya::programs::{
    ProgramError, XdpError, XdpMode as AyaMode,
    links::{FdLink, PinnedLink},
    xdp::XdpLink,
};
use clap::ValueEnum;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::{
    DatapathError, chain,
    foreign::Foreign,
    object::{Object, is_ours},
    pins::{Pins, open_pin, unpin},
    refusal::Refusal,
};
use crate::net::{
    NetlinkError,
    link::{XdpMode, XdpOnLink},
    xdp as netlink,
};

/// Where the operator wants the program to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WantedMode {
    /// In the driver, or in the network stack where the driver cannot.
    Auto,
    /// In the driver only.
    Native,
    /// In the network stack: slower, works with every driver.
    Generic,
}

/// How the operator wants programs to be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WantedAttach {
    /// By `bpf_link`, or by netlink where the kernel does not know it.
    Auto,
    /// By `bpf_link` only.
    Link,
    /// By netlink only (XDP) and as a clsact filter (egress).
    Netlink,
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// By a pinned `bpf_link`.
    Link,
    /// By netlink.
    Netlink,
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Link => "link",
            Self::Netlink => "netlink",
        })
    }
}

/// Something that was tried and failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// For example "native by link".
    pub what: String,
    /// The kernel's answer, in its own words where it gave any.
    pub error: String,
}

/// A running program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attached {
    /// "native", "generic", "hardware" or "multi".
    pub mode: String,
    /// How.
    pub via: Via,
    /// Kernel id of the program.
    pub prog_id: u32,
    /// Whether an earlier agent had attached it.
    pub taken_over: bool,
    /// What was tried before, without success.
    pub tried: Vec<Attempt>,
}

/// Why the program does not run on an interface.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Somebody else's program is there.
    #[error(
        "{0} is attached, and not ours: left alone. The kernel runs one program on an interface, in whatever mode: detach \
         it, or leave this interface out"
    )]
    Foreign(Foreign),
    /// It would run, and do wrong.
    #[error("{0}")]
    Obstacle(String),
    /// Nothing worked.
    #[error("cannot attach: {}", list(.0))]
    Refused(Vec<Attempt>),
    /// Something else.
    #[error(transparent)]
    Other(#[from] DatapathError),
}

fn list(attempts: &[Attempt]) -> String {
    let parts: Vec<_> = attempts.iter().map(|a| format!("{}: {}", a.what, a.error)).collect();
    parts.join("; ")
}

/// How often and how long to wait for the kernel to end an earlier attachment, which it does asynchronously
/// after the link is gone.
const BUSY_RETRIES: u32 = 50;
const BUSY_WAIT: Duration = Duration::from_millis(10);

/// Attaches the program to interface `ifindex`.
///
/// What an earlier agent attached in a fitting mode is replaced atomically: no frame is missed.
///
/// # Errors
///
/// If another program is attached (it is left alone) or the kernel refuses all that the options allow.
pub fn attach(
    object: &mut Object,
    pins: &Pins,
    ifindex: u32,
    mode: WantedMode,
    how: WantedAttach,
) -> Result<Attached, AttachError> {
    let mut tried = Vec::new();
    let current = query(ifindex)?;
    if let Some(current) = current {
        if !is_ours(pins, "xdp", current.prog_id) {
            return Err(AttachError::Foreign(Foreign::inspect(current.prog_id)));
        }
        if let Some(taken) = take_over(object, pins, ifindex, current, mode, how, &mut tried)? {
            return Ok(taken);
        }
        detach(pins, ifindex)?;
    } else {
        // A link whose interface went away, or a pin without effect.
        unpin(&pins.xdp_link(ifindex))?;
    }
    let modes: &[AyaMode] = match mode {
        WantedMode::Auto => &[AyaMode::Driver, AyaMode::Skb],
        WantedMode::Native => &[AyaMode::Driver],
        WantedMode::Generic => &[AyaMode::Skb],
    };
    for mode in modes {
        for via in [Via::Link, Via::Netlink] {
            let excluded = match via {
                Via::Link => how == WantedAttach::Netlink,
                // In automatic mode also for the kernel's explanation, which a link does not give.
                Via::Netlink => how == WantedAttach::Link,
            };
            if excluded {
                continue;
            }
            match attach_new(object, pins, ifindex, *mode, via) {
                Ok(via) => {
                    let mode = query(ifindex)?.map_or_else(|| "unknown".to_owned(), |x| x.mode.to_string());
                    return Ok(Attached { mode, via, prog_id: object.xdp_id, taken_over: false, tried });
                }
                Err(refusal) => {
                    // Somebody else may have been quicker.
                    if let Some(other) = query(ifindex)?
                        && !is_ours(pins, "xdp", other.prog_id)
                    {
                        return Err(AttachError::Foreign(Foreign::inspect(other.prog_id)));
                    }
                    // By netlink the driver can say why; where that is tried as well, it comes to the same.
                    let is_last = via == Via::Netlink || how == WantedAttach::Link;
                    let explain = *mode == AyaMode::Driver && is_last;
                    let error = if explain { refusal.explained(ifindex) } else { refusal.text };
                    tried.push(Attempt { what: format!("{} by {via}", mode_name(*mode)), error });
                }
            }
        }
    }
    Err(AttachError::Refused(tried))
}

/// Puts the new program where an earlier agent's runs. `None`: not possible in place.
fn take_over(
    object: &mut Object,
    pins: &Pins,
    ifindex: u32,
    current: XdpOnLink,
    mode: WantedMode,
    how: WantedAttach,
    tried: &mut Vec<Attempt>,
) -> Result<Option<Attached>, AttachError> {
    let path = pins.xdp_link(ifindex);
    let via = if path.exists() { Via::Link } else { Via::Netlink };
    let fits = match mode {
        WantedMode::Auto => true,
        WantedMode::Native => current.mode == XdpMode::Native,
        WantedMode::Generic => current.mode == XdpMode::Generic,
    } && match how {
        WantedAttach::Auto => true,
        WantedAttach::Link => via == Via::Link,
        WantedAttach::Netlink => via == Via::Netlink,
    };
    if !fits {
        return Ok(None);
    }
    let replaced = match via {
        Via::Link => replace_by_link(object, &path),
        Via::Netlink => replace_by_netlink(object, pins, ifindex, current),
    };
    match replaced {
        Ok(()) => Ok(Some(Attached {
            mode: current.mode.to_string(),
            via,
            prog_id: object.xdp_id,
            taken_over: true,
            tried: std::mem::take(tried),
        })),
        Err(error) => {
            tried.push(Attempt { what: format!("replacing program {} by {via}", current.prog_id), error });
            Ok(None)
        }
    }
}

fn replace_by_link(object: &mut Object, path: &Path) -> Result<(), String> {
    let link = PinnedLink::from_pin(path).map_err(|e| chain(&e))?;
    let link = XdpLink::try_from(FdLink::from(link)).map_err(|e| chain(&e))?;
    let xdp = object.xdp().map_err(|e| chain(&e))?;
    let id = xdp.attach_to_link(link).map_err(|e| chain(&e))?;
    // The pin keeps it attached.
    drop(xdp.take_link(id).map_err(|e| chain(&e))?);
    Ok(())
}

fn replace_by_netlink(
    object: &mut Object,
    pins: &Pins,
    ifindex: u32,
    current: XdpOnLink,
) -> Result<(), String> {
    let old = pins.progs_dir().join(format!("xdp-{}", current.prog_id));
    let old = open_pin(&old).map_err(|e| chain(&e))?;
    let xdp = object.xdp().map_err(|e| chain(&e))?;
    let new = xdp.fd().map_err(|e| chain(&e))?;
    netlink::attach(ifindex, new.as_fd(), netlink_mode(current.mode), Some(old.as_fd()))
        .map_err(|e| chain(&e))
}

/// Attaches where nothing is attached, and pins.
fn attach_new(
    object: &mut Object,
    pins: &Pins,
    ifindex: u32,
    mode: AyaMode,
    via: Via,
) -> Result<Via, Refusal> {
    let mut left = BUSY_RETRIES;
    loop {
        let result = match via {
            Via::Link => attach_link(object, pins, ifindex, mode),
            Via::Netlink => attach_netlink(object, ifindex, mode).map(|()| Via::Netlink),
        };
        match result {
            Err(Refusal { busy: true, .. }) if left > 0 && query(ifindex).is_ok_and(|x| x.is_none()) => {
                left -= 1;
                sleep(BUSY_WAIT);
            }
            other => return other,
        }
    }
}

fn attach_link(object: &mut Object, pins: &Pins, ifindex: u32, mode: AyaMode) -> Result<Via, Refusal> {
    let refused = |e: ProgramError| {
        let errno = if let ProgramError::SyscallError(e) = &e {
            e.io_error.raw_os_error()
        } else if let ProgramError::XdpError(XdpError::NetlinkError(e)) = &e {
            e.raw_os_error() // what aya falls back to
        } else {
            None
        };
        Refusal::new(&e, errno.map(Errno::from_raw))
    };
    if !object.has_links {
        // Not tried: aya would attach by netlink, and detach, and some NICs lose their link at each.
        return Err(Refusal::of_kernel("the kernel has no links for XDP"));
    }
    let xdp = object.xdp().map_err(|e| Refusal::new(&e, None))?;
    let id = xdp.attach_to_if_index(ifindex, mode).map_err(refused)?;
    let link = xdp.take_link(id).map_err(refused)?;
    match FdLink::try_from(link) {
        Ok(link) => {
            let pinned = link.pin(pins.xdp_link(ifindex)).map_err(|e| Refusal::new(&e, None))?;
            drop(pinned); // the pin keeps it attached
            Ok(Via::Link)
        }
        // On EINVAL aya attaches by netlink instead, and what it gave up here it has detached again.
        Err(_) => Err(Refusal::of_kernel("the driver takes no link (EINVAL)")),
    }
}

fn attach_netlink(object: &mut Object, ifindex: u32, mode: AyaMode) -> Result<(), Refusal> {
    let xdp = object.xdp().map_err(|e| Refusal::new(&e, None))?;
    let fd = xdp.fd().map_err(|e| Refusal::new(&e, None))?;
    let mode = if mode == AyaMode::Skb { netlink::Mode::Generic } else { netlink::Mode::Native };
    Ok(netlink::attach(ifindex, fd.as_fd(), mode, None)?)
}

/// Detaches what this or an earlier agent has attached to the interface. Others' programs stay.
///
/// # Errors
///
/// If the kernel refuses.
pub fn detach(pins: &Pins, ifindex: u32) -> Result<(), DatapathError> {
    unpin(&pins.xdp_link(ifindex))?;
    for _ in 0..BUSY_RETRIES {
        let Ok(Some(current)) = query(ifindex) else {
            return Ok(()); // detached, or the interface is gone
        };
        let path = pins.progs_dir().join(format!("xdp-{}", current.prog_id));
        if !path.exists() {
            return Ok(());
        }
        let mode = netlink_mode(current.mode);
        let detached = open_pin(&path)
            .map_err(NetlinkError::from)
            .and_then(|program| netlink::detach(ifindex, mode, Some(program.as_fd())));
        match detached {
            Ok(()) => return Ok(()),
            // Still held by a link that the kernel has not let go yet.
            Err(_) => sleep(BUSY_WAIT),
        }
    }
    Err(DatapathError::Netlink {
        action: "detach the XDP program",
        ifindex,
        source: NetlinkError { errno: Errno::EBUSY, extack: None },
    })
}

/// Detaches the program of `object` where it was attached by netlink, without the help of pins.
pub(crate) fn detach_own(object: &mut Object, ifindex: u32, prog_id: u32) -> Result<(), AttachError> {
    let Some(current) = query(ifindex)?.filter(|x| x.prog_id == prog_id) else {
        return Ok(());
    };
    let failed = |error: String| {
        AttachError::Refused(vec![Attempt { what: format!("detaching program {prog_id}"), error }])
    };
    let xdp = object.xdp()?;
    let fd = xdp.fd().map_err(|e| failed(chain(&e)))?;
    netlink::detach(ifindex, netlink_mode(current.mode), Some(fd.as_fd())).map_err(|e| failed(chain(&e)))
}

/// What runs on the interface; nothing if it does not exist.
///
/// # Errors
///
/// If the kernel does not answer.
pub fn query(ifindex: u32) -> Result<Option<XdpOnLink>, DatapathError> {
    match netlink::query(ifindex) {
        Err(e) if e.errno == Errno::ENODEV => Ok(None),
        other => other.map_err(|source| DatapathError::Netlink {
            action: "ask for the XDP program",
            ifindex,
            source,
        }),
    }
}

fn netlink_mode(mode: XdpMode) -> netlink::Mode {
    if mode == XdpMode::Generic { netlink::Mode::Generic } else { netlink::Mode::Native }
}

fn mode_name(mode: AyaMode) -> &'static str {
    match mode {
        AyaMode::Default => "default",
        AyaMode::Driver => "native",
        AyaMode::Skb => "generic",
        AyaMode::Hardware => "hardware",
    }
}
