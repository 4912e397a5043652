//! Makes links receive frames for solicited-node multicast groups.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::Ipv6Addr,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType};
use socket2::{Domain, Socket, Type};

/// Membership in multicast groups: in the NIC's filter and, by MLD, for the switches that snoop it.
///
/// A socket can hold as many groups as `net.core.optmem_max` has room for (2340 of them in 128 KiB, 365 in the
/// 20 KiB of old kernels), so there are several. Where the system allows no more, the link receives all multicast.
#[derive(Debug)]
pub struct Groups {
    holders: BTreeMap<u32, Holder>,
    /// By link and group, the holder.
    joined: BTreeMap<(u32, Ipv6Addr), u32>,
    /// Links that receive all multicast, and why.
    all_multicast: BTreeMap<u32, String>,
    /// Holds all-multicast for links. Opened at once, because it is needed when no socket can be opened any more.
    packet: io::Result<OwnedFd>,
    next_holder: u32,
}

#[derive(Debug)]
struct Holder {
    socket: Socket,
    joined: usize,
    full: bool,
}

/// How things stand after [`Groups::sync`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupReport {
    /// Memberships, one per link and group.
    pub joined: usize,
    /// Sockets that hold them.
    pub sockets: usize,
    /// Links, by index, that receive all multicast because not all of their groups could be joined, and why.
    pub all_multicast: BTreeMap<u32, String>,
    /// What could not be done either way. Solicitations for these groups may not arrive.
    pub errors: Vec<(u32, Ipv6Addr, String)>,
}

/// Why a group was not joined.
enum Refused {
    /// The link is gone.
    NoLink,
    /// It, or the system, allows no more.
    Limit(String),
}

impl Default for Groups {
    fn default() -> Self {
        Self::new()
    }
}

impl Groups {
    /// No group yet; in the network namespace of this thread.
    #[must_use]
    pub fn new() -> Self {
        Self {
            holders: BTreeMap::new(),
            joined: BTreeMap::new(),
            all_multicast: BTreeMap::new(),
            packet: packet_socket(),
            next_holder: 0,
        }
    }

    /// Joins what is wanted, given as interface index and multicast address, and leaves the rest.
    ///
    /// Ten thousand joins on one link take the kernel about a second, during which the thread is blocked.
    ///
    /// A group on a link that does not exist is not an error: it is tried anew at every call. What failed for
    /// other reasons is tried anew, too.
    pub fn sync(&mut self, wanted: &BTreeSet<(u32, Ipv6Addr)>) -> GroupReport {
        let mut errors = Vec::new();
        // The kernel's lists begin with the latest: in this order it need not search them.
        let stale = self.joined.keys().rev().filter(|have| !wanted.contains(have));
        let stale: Vec<_> = stale.copied().collect();
        for group in stale {
            self.leave(group);
        }

        let mut limits: BTreeMap<u32, String> = BTreeMap::new();
        for &(link, group) in wanted {
            if self.joined.contains_key(&(link, group)) || limits.contains_key(&link) {
                continue; // one refusal is enough: each further one costs the system as much
            }
            if !group.is_multicast() {
                errors.push((link, group, "not a multicast address".to_owned()));
                continue;
            }
            match self.join(link, group) {
                Ok(()) | Err(Refused::NoLink) => {}
                Err(Refused::Limit(reason)) => {
                    limits.insert(link, reason);
                }
            }
        }

        let ended: Vec<_> =
            self.all_multicast.keys().filter(|have| !limits.contains_key(have)).copied().collect();
        for link in ended {
            self.all_multicast.remove(&link);
            self.set_all_multicast(link, false).ok(); // the link may be gone
        }
        for (link, reason) in limits {
            if !self.all_multicast.contains_key(&link)
                && let Err(error) = self.set_all_multicast(link, true)
            {
                let what = format!("{reason}; receiving all multicast instead failed, too: {error}");
                errors.extend(self.missing(wanted, link).map(|group| (link, group, what.clone())));
                continue;
            }
            self.all_multicast.insert(link, reason);
        }

        GroupReport {
            joined: self.joined.len(),
            sockets: self.holders.len(),
            all_multicast: self.all_multicast.clone(),
            errors,
        }
    }

    /// Leaves all groups of a link, so that the next [`Groups::sync`] joins them anew.
    ///
    /// To be called when the kernel may have dropped them behind an index that stays the same: the link left
    /// the namespace and came back, or its MTU was below 1280 for a while.
    pub fn forget(&mut self, link: u32) {
        let groups = (link, Ipv6Addr::UNSPECIFIED)..=(link, Ipv6Addr::from_bits(u128::MAX));
        let joined: Vec<_> = self.joined.range(groups).map(|(group, _)| *group).collect();
        for group in joined {
            self.leave(group);
        }
        if self.all_multicast.remove(&link).is_some() {
            self.set_all_multicast(link, false).ok();
        }
    }

    fn missing(&self, wanted: &BTreeSet<(u32, Ipv6Addr)>, link: u32) -> impl Iterator<Item = Ipv6Addr> {
        let of_link = wanted.iter().filter(move |have| have.0 == link && have.1.is_multicast());
        of_link.filter(|have| !self.joined.contains_key(have)).map(|have| have.1)
    }

    fn join(&mut self, link: u32, group: Ipv6Addr) -> Result<(), Refused> {
        while let Some(id) = self.holders.iter().find(|(_, holder)| !holder.full).map(|(&id, _)| id) {
            if self.join_by(id, link, group)? {
                return Ok(());
            }
        }
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, None)
            .map_err(|error| Refused::Limit(format!("no further socket for multicast groups: {error}")))?;
        let id = self.next_holder;
        self.next_holder = id.wrapping_add(1);
        self.holders.insert(id, Holder { socket, joined: 0, full: false });
        let joined = self.join_by(id, link, group);
        if !matches!(joined, Ok(true)) {
            self.holders.remove(&id);
        }
        if joined? {
            return Ok(());
        }
        Err(Refused::Limit(
            "not even a fresh socket has room for a multicast group (net.core.optmem_max, or no memory)"
                .to_owned(),
        ))
    }

    /// False if the socket has no room left.
    fn join_by(&mut self, id: u32, link: u32, group: Ipv6Addr) -> Result<bool, Refused> {
        let Some(holder) = self.holders.get_mut(&id) else {
            return Ok(false);
        };
        let Err(error) = holder.socket.join_multicast_v6(&group, link) else {
            holder.joined += 1;
            self.joined.insert((link, group), id);
            return Ok(true);
        };
        match error.raw_os_error() {
            Some(libc::ENOMEM | libc::ENOBUFS) => {
                holder.full = true;
                Ok(false)
            }
            Some(libc::ENODEV) => Err(Refused::NoLink),
            Some(libc::EINVAL) => Err(Refused::Limit(format!(
                "the link has no IPv6 (an MTU below 1280 or ipv6.disable=1), so {group} cannot be joined: {error}"
            ))),
            _ => Err(Refused::Limit(format!("cannot join {group}: {error}"))),
        }
    }

    fn leave(&mut self, (link, group): (u32, Ipv6Addr)) {
        let Some(id) = self.joined.remove(&(link, group)) else {
            return;
        };
        let Some(holder) = self.holders.get_mut(&id) else {
            return;
        };
        // The socket lets go of its entry also when the link is gone, and only then reports that.
        holder.socket.leave_multicast_v6(&group, link).ok();
        holder.full = false;
        holder.joined -= 1;
        if holder.joined == 0 {
            self.holders.remove(&id);
        }
    }

    fn set_all_multicast(&mut self, link: u32, on: bool) -> io::Result<()> {
        if self.packet.is_err() {
            self.packet = packet_socket();
        }
        let packet = self.packet.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
        let request = libc::packet_mreq {
            mr_ifindex: i32::try_from(link).map_err(io::Error::other)?,
            mr_type: libc::PACKET_MR_ALLMULTI as u16,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        let option = if on { libc::PACKET_ADD_MEMBERSHIP } else { libc::PACKET_DROP_MEMBERSHIP };
        #[expect(unsafe_code, reason = "no crate offers these options of packet(7)")]
        // SAFETY: the kernel reads a `packet_mreq`, which lives here and is given with its own size.
        let set = unsafe {
            libc::setsockopt(
                packet.as_raw_fd(),
                libc::SOL_PACKET,
                option,
                (&raw const request).cast(),
                size_of_val(&request) as libc::socklen_t,
            )
        };
        if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// Protocol 0 (`None`): it receives nothing.
fn packet_socket() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    Ok(nix::sys::socket::socket(AddressFamily::Packet, SockType::Raw, flags, None)?)
}
