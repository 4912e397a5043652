//! What happens, as told to `responder watch` and to the log.

use std::net::IpAddr;

use responder_leadership::event::Note;
use serde::{Deserialize, Serialize};

/// Something an operator may want to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Happening {
    /// The VIP is answered here from now on.
    Gained {
        /// The address.
        vip: IpAddr,
        /// The link's name.
        link: String,
        /// Why.
        #[serde(default)]
        cause: String,
    },
    /// An earlier agent had the VIP answered here, and it goes on.
    Kept {
        /// The address.
        vip: IpAddr,
        /// The link's name.
        link: String,
        /// Why.
        #[serde(default)]
        cause: String,
    },
    /// The VIP is not answered here any more.
    Lost {
        /// The address.
        vip: IpAddr,
        /// The link's name.
        link: String,
        /// Why.
        #[serde(default)]
        cause: String,
    },
    /// A gratuitous ARP or an unsolicited Neighbor Advertisement has been sent.
    Announced {
        /// The address.
        vip: IpAddr,
        /// The link's name.
        link: String,
        /// The hardware address that it was announced at.
        mac: String,
    },
    /// Another station claims a VIP that is owned here.
    Conflict {
        /// The address.
        vip: IpAddr,
        /// The link's name.
        link: String,
        /// The hardware address that claims it.
        claimer: String,
        /// "arp", "ns" or "na": the kind of frame.
        by: String,
        /// Claims of this address so far, including those without an event of their own.
        claims: u32,
    },
    /// The program runs on a link.
    Attached {
        /// The link's name.
        link: String,
        /// Where and how.
        mode: String,
    },
    /// The program does not run on a link.
    NotAttached {
        /// The link's name.
        link: String,
        /// Why.
        reason: String,
    },
    /// The static file has been read.
    Configured {
        /// Addresses in it that may be announced.
        vips: usize,
        /// Addresses in it that may not.
        refused: usize,
    },
    /// The static file is bad; what it said before goes on.
    ConfigRejected {
        /// File, line and reason.
        reason: String,
    },
    /// Something about sessions and claims.
    Leadership {
        /// What.
        note: Note,
    },
    /// A client that watches was too slow for this many events, and has missed them.
    Missed {
        /// How many.
        events: u64,
    },
    /// The fence's deadline had passed before the agent could extend it.
    Lapsed {
        /// For how long, in ms, nothing was answered.
        silent_ms: u64,
        /// Whether it answers again; otherwise it has lost what it held.
        resumed: bool,
    },
}

impl Happening {
    /// Writes it to the log: a line for each change, at a level that says whether somebody should look.
    pub fn log(&self) {
        match self {
            Self::Gained { vip, link, cause } => tracing::info!(%vip, %link, %cause, "gained"),
            Self::Kept { vip, link, cause } => tracing::info!(%vip, %link, %cause, "kept"),
            Self::Lost { vip, link, cause } => tracing::info!(%vip, %link, %cause, "lost"),
            Self::Announced { vip, link, mac } => tracing::trace!(%vip, %link, %mac, "announced"),
            Self::Conflict { vip, link, claimer, by, claims } => {
                tracing::warn!(%vip, %link, %claimer, %by, claims, "another station claims this address");
            }
            Self::Attached { link, mode } => tracing::info!(%link, %mode, "attached"),
            Self::NotAttached { link, reason } => tracing::warn!(%link, %reason, "not attached"),
            Self::Configured { vips, refused } => tracing::info!(vips, refused, "static file read"),
            Self::ConfigRejected { reason } => {
                tracing::error!(%reason, "static file rejected; what it said before goes on");
            }
            Self::Leadership { note } => crate::notes::log(note),
            Self::Missed { events } => tracing::debug!(events, "a watching client is too slow"),
            Self::Lapsed { silent_ms, resumed: true } => {
                tracing::warn!(silent_ms, "the deadline had passed; answering again");
            }
            Self::Lapsed { silent_ms, resumed: false } => {
                tracing::warn!(silent_ms, "the deadline had passed; what was held is lost");
            }
        }
    }
}

impl std::fmt::Display for Happening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Gained { vip, link, cause } => write!(f, "gained        {vip} on {link}: {cause}"),
            Self::Kept { vip, link, cause } => write!(f, "kept          {vip} on {link}: {cause}"),
            Self::Lost { vip, link, cause } => write!(f, "lost          {vip} on {link}: {cause}"),
            Self::Announced { vip, link, mac } => write!(f, "announced     {vip} on {link} at {mac}"),
            Self::Conflict { vip, link, claimer, by, claims } => {
                write!(f, "conflict      {vip} on {link} claimed by {claimer} ({by}, {claims} so far)")
            }
            Self::Attached { link, mode } => write!(f, "attached      {link} ({mode})"),
            Self::NotAttached { link, reason } => write!(f, "not attached  {link}: {reason}"),
            Self::Configured { vips, refused } => {
                write!(f, "configured    {vips} addresses, {refused} refused")
            }
            Self::ConfigRejected { reason } => write!(f, "rejected      {reason}"),
            Self::Leadership { note } => write!(f, "leadership    {}", crate::notes::text(note)),
            Self::Missed { events } => {
                write!(
                    f,
                    "missed        {events} events, faster than they could be told; see `responder status`"
                )
            }
            Self::Lapsed { silent_ms, resumed } => {
                let then = if *resumed { "" } else { ", then all was lost" };
                write!(f, "lapsed        silent for {silent_ms} ms{then}")
            }
        }
    }
}
