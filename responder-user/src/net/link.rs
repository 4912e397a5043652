//! What there is to know about the links of a network namespace.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use responder_common::wire::Mac;

/// The links of a network namespace at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetState {
    /// By interface index.
    pub links: BTreeMap<u32, Link>,
    /// Interfaces with a unicast default route, of either family, in the main table, that are up.
    ///
    /// Routes through nexthop objects are seen only while `net.ipv4.nexthop_compat_mode` is 1, its default.
    pub default_route_links: BTreeSet<u32>,
    /// Gateways of these routes; of multipath routes all of them. With the same exception.
    pub default_gateways: BTreeSet<IpAddr>,
    /// How often events were lost because the kernel's queue ran over, and all was read anew.
    pub overruns: u64,
}

impl NetState {
    /// The link with this name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index; never used twice while the kernel runs, unless somebody asks for a certain one.
    pub index: u32,
    /// Name, at most 15 bytes.
    pub name: String,
    /// Hardware address; zero where the link has none of six bytes.
    pub mac: Mac,
    /// Largest payload in bytes.
    pub mtu: u32,
    /// Set up by the administrator (`IFF_UP`).
    pub admin_up: bool,
    /// The layer below can carry frames (`IFF_LOWER_UP`); false while the link is administratively down.
    pub carrier: bool,
    /// `veth`, `bridge`, `vlan`, `bond`, …; `None` for a device of hardware.
    pub kind: Option<String>,
    /// Index of the bridge, bond or VRF that this link belongs to.
    pub master: Option<u32>,
    /// Index of the link below (VLAN, macvlan) or at the other end (veth), if it is in the same namespace.
    pub parent: Option<u32>,
    /// Addresses; of each family the primary ones first, else in the kernel's order.
    pub addrs: Vec<Prefix>,
    /// The XDP program as the kernel last reported it with the link. Attaching by `bpf_link` causes no report:
    /// [`super::xdp::query`] asks.
    pub xdp: Option<XdpOnLink>,
    /// The loopback device.
    pub loopback: bool,
    /// Frames on it are Ethernet frames.
    pub ethernet: bool,
    /// What is told of links of its kind.
    pub detail: Detail,
    /// A bond's slave that is not in use.
    pub backup: bool,
    /// The NIC takes VLAN tags off before a program sees them (`rxvlan`). Asked of links of hardware only.
    pub strips_tags: bool,
}

/// What is told of links of certain kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// Nothing that matters here.
    #[default]
    None,
    /// A VLAN.
    Vlan {
        /// Its id.
        id: u16,
        /// Its tags are 802.1ad service tags, not 802.1Q ones.
        service: bool,
    },
    /// A bond.
    Bond {
        /// How it uses its slaves.
        mode: BondMode,
        /// Index of the one slave in use, in the modes that have one.
        active: Option<u32>,
    },
    /// A bridge.
    Bridge {
        /// It tells VLANs apart.
        vlan_filtering: bool,
        /// It runs the Spanning Tree Protocol.
        stp: bool,
    },
}

/// How a bond uses its slaves, as far as it matters who receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BondMode {
    /// One at a time receives: active-backup, balance-tlb, balance-alb.
    One,
    /// All do that the bond has not set aside: 802.3ad, balance-rr, balance-xor, broadcast.
    All,
}

impl Link {
    /// Whether the kernel lets the link have IPv6, as far as its MTU says: below 1280 (RFC 8200 section 5) it
    /// drops all addresses and multicast groups.
    #[must_use]
    pub fn has_ipv6(&self) -> bool {
        self.mtu >= 1280
    }

    /// Why answers of native XDP may get lost although the driver takes the program.
    #[must_use]
    pub fn native_tx_obstacle(&self) -> Option<String> {
        (self.kind.as_deref() == Some("veth")).then(|| {
            "a veth drops what native XDP sends unless its other end has an XDP program or generic receive offload: \
             `ethtool -K PEER gro on` there, or --xdp-mode generic here"
                .to_owned()
        })
    }
}

/// An address of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The link's own address, not its peer's.
    pub ip: IpAddr,
    /// Bits of the prefix.
    pub len: u8,
    /// Not a secondary IPv4 address and not a temporary IPv6 one.
    pub primary: bool,
    /// Set by an administrator or agent for good, not leased (DHCP) or learnt from a router.
    pub permanent: bool,
    /// IPv6: Duplicate Address Detection has not ended yet, or has failed.
    pub tentative: bool,
    /// How far the address is valid.
    pub scope: Scope,
}

/// How far an address is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everywhere, as far as the kernel knows.
    Global,
    /// On the link.
    Link,
    /// In the host.
    Host,
    /// Another value of the kernel's table (`/etc/iproute2/rt_scopes`), 200 being the deprecated IPv6 site scope.
    Other(u8),
}

/// An XDP program on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpOnLink {
    /// Where it runs.
    pub mode: XdpMode,
    /// Kernel's id of the program; where several are attached, of the one that sees frames first.
    pub prog_id: u32,
}

/// Where an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the network stack.
    Generic,
    /// On the NIC.
    Hardware,
    /// In more than one of these places.
    Multi,
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Hardware => "hardware",
            Self::Multi => "multi",
        })
    }
}
