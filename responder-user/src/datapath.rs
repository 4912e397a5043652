//! The datapath as the agent uses it: programs, links and maps.
//!
//! * [`pins`]: the directory on bpffs, and the agent's lock.
//! * [`object`]: loading programs, with the maps of an earlier agent where there are any.
//! * [`probe`]: what the kernel can do.
//! * [`xdp`] and [`egress`]: attaching, taking over and detaching the two kinds of programs.
//! * [`obstacles`]: what drivers want before they run a program.
//! * [`foreign`]: naming programs that are not ours.
//! * [`maps`] and [`shared`]: the maps.

pub mod egress;
pub mod foreign;
pub mod maps;
pub mod object;
pub mod obstacles;
pub mod pins;
pub mod probe;
mod refusal;
pub mod shared;
pub mod xdp;

use std::{io, path::PathBuf};

use aya::{
    EbpfError,
    maps::MapError,
    pin::PinError,
    programs::{ProgramError, links::LinkError},
};

use crate::net::NetlinkError;

/// Why the datapath cannot be set up or used.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The object could not be loaded.
    #[error("cannot load the programs into the kernel: {0}")]
    Load(#[source] EbpfError),
    /// A program was refused.
    #[error("the kernel refuses program {name}: {source}")]
    Program {
        /// The program.
        name: &'static str,
        /// Why, with the verifier's log where there is one.
        source: ProgramError,
    },
    /// A map is missing or of another kind.
    #[error("cannot open map {name}: {source}")]
    Map {
        /// The map.
        name: &'static str,
        /// Why.
        source: MapError,
    },
    /// A map is of another kind.
    #[error("map {name} is not of the kind that this program makes; run `responder detach` to start over")]
    MapKind {
        /// The map.
        name: &'static str,
    },
    /// A pinned map has another shape.
    #[error(
        "pinned map {path} has {what} {found}, and this program needs {needed}; run `responder detach` to start \
         over"
    )]
    MapShape {
        /// The pin.
        path: PathBuf,
        /// Which property.
        what: &'static str,
        /// As it is.
        found: u32,
        /// As it should be.
        needed: u32,
    },
    /// A map cannot be mapped into the agent's memory.
    #[error("cannot map {name} into memory: {source}")]
    Share {
        /// The map.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Something cannot be pinned.
    #[error("cannot pin {path}: {source}")]
    Pin {
        /// Where.
        path: PathBuf,
        /// Why.
        source: PinError,
    },
    /// A link cannot be used.
    #[error("cannot {action} link {path}: {source}")]
    Link {
        /// What was tried.
        action: &'static str,
        /// Its pin.
        path: PathBuf,
        /// Why.
        source: LinkError,
    },
    /// Netlink refused something.
    #[error("cannot {action} on interface {ifindex}: {source}")]
    Netlink {
        /// What was tried.
        action: &'static str,
        /// On which interface.
        ifindex: u32,
        /// Why.
        source: NetlinkError,
    },
}

/// An error with all that caused it.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
