//! A program that was not attached, and why.

use nix::errno::Errno;

use super::{
    chain,
    obstacles::{self, Nic},
};
use crate::net::{NetlinkError, ethtool, xdp as netlink, xdp_features::xdp_features};

/// Why a program could not be attached in one way.
pub(super) struct Refusal {
    /// Something is attached there.
    pub(super) busy: bool,
    /// What was said.
    pub(super) text: String,
    errno: Option<Errno>,
    /// The kernel's own words.
    extack: Option<String>,
}

impl Refusal {
    pub(super) fn new(error: &(dyn std::error::Error + 'static), errno: Option<Errno>) -> Self {
        let busy = matches!(errno, Some(Errno::EBUSY | Errno::EEXIST));
        Self { busy, text: chain(error), errno, extack: None }
    }

    pub(super) fn of_kernel(text: &str) -> Self {
        Self { busy: false, text: text.to_owned(), errno: None, extack: None }
    }

    /// With what is known to help.
    pub(super) fn explained(self, ifindex: u32) -> String {
        let (Some(errno), Ok(link)) = (self.errno, netlink::link(ifindex)) else {
            return self.text;
        };
        let features = ethtool::features(&link.name);
        let xdp = xdp_features(ifindex).ok();
        let nic = Nic { name: &link.name, mtu: link.mtu, features: &features, xdp };
        match obstacles::way_out(&nic, errno, self.extack.as_deref()) {
            Some(way_out) => format!("{} ({way_out})", self.text),
            None => self.text,
        }
    }
}

impl From<NetlinkError> for Refusal {
    fn from(error: NetlinkError) -> Self {
        Self { extack: error.extack.clone(), ..Self::new(&error, Some(error.errno)) }
    }
}
