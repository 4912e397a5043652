//! A host or client and what belongs to it.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{cleanup, mac::Mac, ns::NetNs, time::wait_until};

/// Where bpffs is mounted.
pub const BPFFS: &str = "/sys/fs/bpf";

/// A host or client.
#[derive(Debug)]
pub struct Node {
    name: String,
    is_host: bool,
    nics: Vec<Nic>,
    ns: NetNs,
    bpffs: Dir,
    dir: Dir,
}

impl Node {
    /// A namespace without interfaces, its settings those of a host that nobody has tuned.
    pub(crate) fn create(lab: &str, dir: &Path, name: &str, is_host: bool, keepable: bool) -> Result<Self> {
        let full = format!("{lab}-{name}");
        let ns = NetNs::create(full.clone(), dir, keepable)?;
        let mut settings = Vec::new();
        for conf in ["all", "default"] {
            for key in ["rp_filter", "arp_ignore", "arp_announce", "arp_filter", "arp_accept"] {
                settings.push((format!("ipv4/conf/{conf}/{key}"), "0"));
            }
            for key in ["accept_dad", "accept_ra", "router_solicitations", "forwarding"] {
                settings.push((format!("ipv6/conf/{conf}/{key}"), "0"));
            }
        }
        ns.run(|| {
            settings.iter().try_for_each(|(key, value)| {
                fs::write(format!("/proc/sys/net/{key}"), value).with_context(|| format!("setting {key}"))
            })
        })?;
        Ok(Self {
            name: name.to_owned(),
            is_host,
            nics: Vec::new(),
            ns,
            bpffs: Dir::register(Path::new(BPFFS).join(&full)),
            dir: Dir::create(dir.join(name))?,
        })
    }

    pub(crate) fn add_nic(&mut self, nic: Nic) {
        self.nics.push(nic);
    }

    pub(crate) fn is_host(&self) -> bool {
        self.is_host
    }

    /// Its short name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its namespace.
    #[must_use]
    pub fn ns(&self) -> &NetNs {
        &self.ns
    }

    /// Its interfaces as they were built, `eth0` first.
    #[must_use]
    pub fn nics(&self) -> &[Nic] {
        &self.nics
    }

    /// Hardware address that `eth0` was built with.
    #[must_use]
    pub fn mac(&self) -> Mac {
        self.nics[0].mac
    }

    /// Its directory on bpffs. It does not exist at first; it goes with the lab.
    #[must_use]
    pub fn bpffs(&self) -> &Path {
        self.bpffs.path()
    }

    /// A directory for files of this node.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Puts VIPs on `lo`, as a host has them that takes their traffic.
    ///
    /// # Errors
    ///
    /// If one is there already.
    pub fn add_to_lo(&self, vips: &[IpAddr]) -> Result<()> {
        vips.iter().try_for_each(|vip| self.ns.add_address("lo", *vip))
    }

    /// Switches IPv6 forwarding on or off, which decides the R flag of advertisements.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn set_ipv6_forwarding(&self, on: bool) -> Result<()> {
        self.ns.set_sysctl("ipv6/conf/all/forwarding", if on { "1" } else { "0" })
    }

    /// Waits until the interface has a carrier and a link-local address that it may use.
    pub(crate) fn wait_usable(&self, nic: &str) -> Result<()> {
        let what = format!("a usable address on {nic} of {}", self.name);
        wait_until(&what, Duration::from_secs(20), || {
            let shown = self.ns.ip_json(&format!("addr show dev {nic}")).ok()?;
            let is_up = shown.pointer("/0/operstate")?.as_str()? == "UP";
            let addresses = shown.pointer("/0/addr_info")?.as_array()?.clone();
            let has = |a: &Value, key: &str| a.get(key).is_some();
            let link_local = |a: &Value| a.get("scope").and_then(Value::as_str) == Some("link");
            let usable = addresses.iter().any(link_local) && !addresses.iter().any(|a| has(a, "tentative"));
            (is_up && usable).then_some(())
        })
    }
}

/// An interface of a [`Node`], as it was built.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Nic {
    /// `eth0`, `eth1`, …
    pub name: String,
    /// The segment that it is on, from 0.
    pub segment: u8,
    /// 02:00:00:00:SS:51 for the first host on segment SS, …52 for the second; clients from …c1.
    pub mac: Mac,
    /// 192.0.2.1/24 for the first host on the first segment; clients from .101. Further segments: 198.51.100.0/24,
    /// 203.0.113.0/24.
    pub v4: Ipv4Addr,
    /// 2001:db8::1/64 for the first host on the first segment; clients from ::101. Segment S: 2001:db8:0:S::/64.
    pub v6: Ipv6Addr,
}

impl Nic {
    pub(crate) fn new(segment: u8, number: u8, mac: u16) -> Self {
        let [a, b, c] = match segment {
            0 => [192, 0, 2],
            1 => [198, 51, 100],
            _ => [203, 0, 113],
        };
        // The last group is read as the same decimal number: ::101 for .101.
        let [n, hundred] = [u16::from(number), 100];
        let low = n / hundred * 0x100 + n / 10 % 10 * 0x10 + n % 10;
        let [high, low_byte] = mac.to_be_bytes();
        Self {
            name: format!("eth{segment}"),
            segment,
            mac: Mac([2, 0, 0, high, segment, low_byte]),
            v4: Ipv4Addr::new(a, b, c, number),
            v6: Ipv6Addr::new(0x2001, 0xdb8, 0, u16::from(segment), 0, 0, 0, low),
        }
    }
}

/// A directory that is removed with all its content.
#[derive(Debug)]
pub(crate) struct Dir(PathBuf);

impl Dir {
    /// One that somebody else will create.
    pub(crate) fn register(path: PathBuf) -> Self {
        cleanup::add_dir(&path);
        Self(path)
    }

    pub(crate) fn create(path: PathBuf) -> Result<Self> {
        fs::create_dir(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self::register(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        cleanup::remove_dir(&self.0);
    }
}
