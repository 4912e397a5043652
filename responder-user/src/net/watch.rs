//! Follows the links by the events that the kernel sends.

mod state;

use std::{collections::BTreeSet, io, sync::Arc};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::AddressMessage,
    link::{LinkAttribute, LinkExtentMask, LinkMessage},
    route::RouteMessage,
};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use socket2::{SockFilter, SockRef};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
};

use self::state::{add_address, put_link, remove_link};
use super::{
    decode,
    link::{Detail, NetState},
    netlink::{Connection, NetlinkError, messages, receive},
};

/// Room for events in the kernel, in bytes: thousands of links can change at once before any is read.
const EVENT_BUFFER: usize = 4 << 20;
/// So many datagrams are read before what they say is published.
const BATCH: usize = 256;
/// The loopback device of every namespace.
const LOOPBACK: u32 = 1;

const GROUPS: [(&str, u32); 5] = [
    ("RTNLGRP_LINK", libc::RTNLGRP_LINK),
    ("RTNLGRP_IPV4_IFADDR", libc::RTNLGRP_IPV4_IFADDR),
    ("RTNLGRP_IPV6_IFADDR", libc::RTNLGRP_IPV6_IFADDR),
    ("RTNLGRP_IPV4_ROUTE", libc::RTNLGRP_IPV4_ROUTE),
    ("RTNLGRP_IPV6_ROUTE", libc::RTNLGRP_IPV6_ROUTE),
];

/// The links cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// No socket.
    #[error("cannot open a netlink socket to follow the links: {0}; is the limit of open files too low?")]
    Open(#[source] io::Error),
    /// A kind of event cannot be had.
    #[error("cannot join netlink group {group}: {source}; the kernel must offer rtnetlink with this family")]
    Join {
        /// The kernel's name of the group.
        group: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The initial state, or after an overrun the current one, cannot be had.
    #[error("the kernel refuses to list the {what} of this network namespace: {source}")]
    List {
        /// `links`, `addresses` or `routes`.
        what: &'static str,
        /// Why.
        source: NetlinkError,
    },
    /// The event socket broke.
    #[error("cannot read the kernel's link events: {0}; restart the agent")]
    Receive(#[source] io::Error),
}

/// Follows the links of this thread's network namespace.
///
/// The receiver has the complete state at once. The future keeps it current and must be polled: it ends without
/// error when all receivers are gone.
///
/// The kernel reports a lost carrier at once, or up to a second late where the same link flaps.
///
/// # Errors
///
/// If there is no netlink, or the kernel does not list what there is.
pub async fn watch() -> Result<
    (watch::Receiver<Arc<NetState>>, impl Future<Output = Result<(), NetError>> + Send + 'static),
    NetError,
> {
    watch_with_buffer(EVENT_BUFFER).await
}

/// Like [`watch()`], with `bytes` of room for events in the kernel.
///
/// # Errors
///
/// See [`watch()`].
pub async fn watch_with_buffer(
    bytes: usize,
) -> Result<
    (watch::Receiver<Arc<NetState>>, impl Future<Output = Result<(), NetError>> + Send + 'static),
    NetError,
> {
    let socket = subscribe(bytes)?;
    #[expect(unsafe_code, reason = "tokio cannot know what keeps a file descriptor open")]
    // SAFETY: the socket owns its descriptor, never exchanges it and closes it when dropped, which only the
    // `AsyncFd` that takes it here does.
    let events = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }
        .map_err(|error| NetError::Open(error.into()))?;
    let mut follower = Follower {
        requests: Connection::open().map_err(NetError::Open)?,
        state: NetState::default(),
        routes_stale: false,
        bonds_stale: BTreeSet::new(),
        buffer: Vec::new(),
    };
    follower.list().await?;
    let (sender, receiver) = watch::channel(Arc::new(follower.state.clone()));
    Ok((receiver, follower.run(events, sender)))
}

/// A socket that gets every event about links and addresses, and those about default routes.
fn subscribe(bytes: usize) -> Result<Socket, NetError> {
    let mut socket = Socket::new(NETLINK_ROUTE).map_err(NetError::Open)?;
    socket.bind_auto().map_err(NetError::Open)?;
    socket.set_non_blocking(true).map_err(NetError::Open)?;
    // Without CAP_NET_ADMIN `net.core.rmem_max` is the limit; that costs overruns, not correctness.
    if nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &bytes).is_err() {
        socket.set_rx_buf_sz(i32::try_from(bytes).unwrap_or(i32::MAX)).map_err(NetError::Open)?;
    }
    SockRef::from(&socket).attach_filter(&default_routes_only()).map_err(NetError::Open)?;
    for (name, group) in GROUPS {
        socket.add_membership(group).map_err(|source| NetError::Join { group: name, source })?;
    }
    Ok(socket)
}

/// A socket filter that drops events about routes other than the default ones of the main table: a router with
/// the Internet's routes changes thousands of them per second.
fn default_routes_only() -> [SockFilter; 9] {
    const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
    const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    // A filter loads in network byte order; the header's fields are in the host's.
    let kind = |kind: u16| u32::from(kind.to_be());
    [
        SockFilter::new(LOAD_HALF, 0, 0, 4), // nlmsg_type
        SockFilter::new(EQUAL, 1, 0, kind(libc::RTM_NEWROUTE)),
        SockFilter::new(EQUAL, 0, 4, kind(libc::RTM_DELROUTE)),
        SockFilter::new(LOAD_BYTE, 0, 0, 17), // rtm_dst_len
        SockFilter::new(EQUAL, 0, 3, 0),
        SockFilter::new(LOAD_BYTE, 0, 0, 20), // rtm_table
        SockFilter::new(EQUAL, 0, 1, u32::from(libc::RT_TABLE_MAIN)),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

struct Follower {
    requests: Connection,
    state: NetState,
    /// Default routes may have changed in a way that only a list tells.
    routes_stale: bool,
    /// Bonds that may use other slaves by now, of which no event tells in every mode.
    bonds_stale: BTreeSet<u32>,
    buffer: Vec<u8>,
}

/// Why reading events stopped.
enum Drained {
    /// There are no more.
    Empty,
    /// Enough to publish.
    Batch,
}

impl Follower {
    async fn run(
        mut self,
        events: AsyncFd<Socket>,
        sender: watch::Sender<Arc<NetState>>,
    ) -> Result<(), NetError> {
        let mut lost = false;
        loop {
            let mut ready = tokio::select! {
                () = sender.closed() => return Ok(()),
                ready = events.readable() => ready.map_err(NetError::Receive)?,
            };
            match self.drain(events.get_ref(), &mut lost)? {
                Drained::Empty if lost => {
                    // Listed after the queue is empty, because the kernel drops what comes while it is full.
                    lost = false;
                    self.state.overruns += 1;
                    self.list().await?;
                    // What queued up meanwhile may be older than the list, so it is read before publishing.
                    continue;
                }
                Drained::Empty => ready.clear_ready(),
                Drained::Batch if lost => continue,
                Drained::Batch => {}
            }
            self.ask_bonds();
            self.publish(&sender);
            if std::mem::take(&mut self.routes_stale) {
                self.list_routes().await?;
                self.publish(&sender);
            }
        }
    }

    fn publish(&self, sender: &watch::Sender<Arc<NetState>>) {
        sender.send_if_modified(|published| {
            let changed = **published != self.state;
            if changed {
                *published = Arc::new(self.state.clone());
            }
            changed
        });
    }

    fn drain(&mut self, events: &Socket, lost: &mut bool) -> Result<Drained, NetError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut outcome = Ok(Drained::Batch);
        for _ in 0..BATCH {
            match receive(events, &mut buffer) {
                Ok(complete) => *lost |= !complete,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    outcome = Ok(Drained::Empty);
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    *lost = true;
                    continue;
                }
                Err(error) => {
                    outcome = Err(NetError::Receive(error));
                    break;
                }
            }
            for message in messages(&buffer) {
                self.apply(message.message_type(), message.payload());
            }
        }
        self.buffer = buffer;
        outcome
    }

    fn apply(&mut self, kind: u16, body: &[u8]) {
        match kind {
            libc::RTM_NEWLINK => self.link_changed(body),
            libc::RTM_DELLINK => {
                if let Some(index) = decode::link_index(body) {
                    remove_link(&mut self.state, index);
                    self.routes_stale |= self.state.default_route_links.remove(&index);
                }
            }
            libc::RTM_NEWADDR => add_address(&mut self.state, body),
            libc::RTM_DELADDR => self.address_removed(body),
            libc::RTM_NEWROUTE | libc::RTM_DELROUTE => self.routes_stale = true,
            _ => {}
        }
    }

    fn link_changed(&mut self, body: &[u8]) {
        let Some(link) = decode::link(body) else { return };
        // IPv4 routes vanish with the link's state, without an event.
        if !link.admin_up {
            self.routes_stale |= self.state.default_route_links.remove(&link.index);
        }
        let master = link.master.and_then(|master| self.state.links.get(&master));
        if let Some(bond) = master.filter(|master| matches!(master.detail, Detail::Bond { .. })) {
            self.bonds_stale.insert(bond.index);
        }
        put_link(&mut self.state, link, decode::features_changed(body));
    }

    /// Reads again which slaves bonds use.
    fn ask_bonds(&mut self) {
        for index in std::mem::take(&mut self.bonds_stale) {
            let mut message = LinkMessage::default();
            message.header.index = index;
            let state = &mut self.state;
            let read = self.requests.request(RouteNetlinkMessage::GetLink(message), |_, body| {
                if let Some(bond) = decode::link(body) {
                    put_link(state, bond, false);
                }
            });
            read.unwrap_or_else(|error| tracing::debug!(index, %error, "no such bond any more"));
        }
    }

    fn address_removed(&mut self, body: &[u8]) {
        let Some((index, gone)) = decode::address(body) else {
            return;
        };
        if let Some(link) = self.state.links.get_mut(&index) {
            link.addrs.retain(|have| (have.ip, have.len) != (gone.ip, gone.len));
        }
        // IPv4 routes that use it as their source vanish without an event on older kernels.
        self.routes_stale |= self.state.default_route_links.contains(&index);
    }

    /// Reads all from the start.
    async fn list(&mut self) -> Result<(), NetError> {
        let failed = |what| move |source| NetError::List { what, source };

        let mut links = LinkMessage::default();
        links.attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
        self.requests
            .dump(
                RouteNetlinkMessage::GetLink(links),
                &mut self.state,
                |state| state.links.clear(),
                |state, body| {
                    if let Some(link) = decode::link(body) {
                        put_link(state, link, false);
                    }
                },
            )
            .await
            .map_err(failed("links"))?;
        self.requests
            .dump(
                RouteNetlinkMessage::GetAddress(AddressMessage::default()),
                &mut self.state,
                |state| state.links.values_mut().for_each(|link| link.addrs.clear()),
                add_address,
            )
            .await
            .map_err(failed("addresses"))?;
        self.list_routes().await
    }

    async fn list_routes(&mut self) -> Result<(), NetError> {
        // The event about a removed address is sent *before* its routes are flushed, under the same lock that
        // this request waits for.
        let mut barrier = LinkMessage::default();
        barrier.header.index = LOOPBACK;
        self.requests.request(RouteNetlinkMessage::GetLink(barrier), |_, _| ()).ok();

        let mut routes = RouteMessage::default();
        routes.header.address_family = AddressFamily::Unspec;
        self.requests
            .dump(
                RouteNetlinkMessage::GetRoute(routes),
                &mut self.state,
                |state| {
                    state.default_route_links.clear();
                    state.default_gateways.clear();
                },
                |state, body| {
                    let route = decode::default_route(body);
                    state.default_gateways.extend(route.gateways);
                    for link in route.links {
                        if state.links.get(&link).is_some_and(|link| link.admin_up) {
                            state.default_route_links.insert(link);
                        }
                    }
                },
            )
            .await
            .map_err(|source| NetError::List { what: "routes", source })
    }
}
