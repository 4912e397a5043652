//! What a NIC's driver does, and one setting of it, by the ioctl interface of ethtool, which every supported kernel has.

use std::io;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// linux/sockios.h; as the request of the C library at hand, whose type differs.
const SIOCETHTOOL: libc::Ioctl = 0x8946;
// linux/ethtool.h; not in libc.
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_SFEATURES: u32 = 0x3b;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETH_SS_FEATURES: u32 = 4;
/// The kernel's name of what ethtool calls `rxvlan`.
const RX_VLAN: &str = "rx-vlan-hw-parse";
/// `ETH_GSTRING_LEN`, in words.
const STRING_WORDS: usize = 8;
/// `struct ethtool_drvinfo` in words.
const DRVINFO_WORDS: usize = 49;

/// What a link's driver reports; `None` where it, or the kernel, does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Name of the driver.
    pub driver: Option<String>,
    /// The NIC takes VLAN tags out of received frames (`ethtool -K … rxvlan`).
    pub rx_vlan_offload: Option<bool>,
    /// The NIC inserts VLAN tags (`txvlan`).
    pub tx_vlan_offload: Option<bool>,
    /// Large receive offload (`lro`).
    pub lro: Option<bool>,
    /// Receive coalescing in the NIC (`rx-gro-hw`).
    pub gro_hw: Option<bool>,
    /// Queues.
    pub channels: Option<Channels>,
}

/// Queues of a NIC in use, and how many there can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channels {
    /// For receiving only.
    pub rx: u32,
    /// For sending only.
    pub tx: u32,
    /// For both.
    pub combined: u32,
    /// Most of `rx`.
    pub max_rx: u32,
    /// Most of `tx`.
    pub max_tx: u32,
    /// Most of `combined`.
    pub max_combined: u32,
}

/// Asks the driver of the link `ifname`. Nothing is known of a link that does not exist.
#[must_use]
pub fn features(ifname: &str) -> Features {
    let words = |command: u32, len: usize| {
        let mut request = vec![0; len];
        request[0] = command;
        call(ifname, &mut request).ok().map(|()| request)
    };
    let driver = words(ETHTOOL_GDRVINFO, DRVINFO_WORDS).map(|info| string(&info[1..=STRING_WORDS]));
    let channels = words(ETHTOOL_GCHANNELS, 9).map(|c| Channels {
        max_rx: c[1],
        max_tx: c[2],
        max_combined: c[4],
        rx: c[5],
        tx: c[6],
        combined: c[8],
    });
    let (names, active) = offloads(ifname).unwrap_or_default();
    let is_active = |name: &str| {
        let bit = names.iter().position(|have| have == name)?;
        Some(active.get(bit / 32)? & (1 << (bit % 32)) != 0)
    };
    Features {
        driver: driver.filter(|name| !name.is_empty()),
        rx_vlan_offload: is_active(RX_VLAN),
        tx_vlan_offload: is_active("tx-vlan-hw-insert"),
        lro: is_active("rx-lro"),
        gro_hw: is_active("rx-gro-hw"),
        channels,
    }
}

/// Why the stripping of VLAN tags could not be switched.
#[derive(Debug, thiserror::Error)]
pub enum VlanOffloadError {
    /// The kernel or the driver has said no.
    #[error("cannot turn rxvlan {} on {name}: {source}", on_off(*.on))]
    Refused {
        /// The link.
        name: String,
        /// What was wanted.
        on: bool,
        /// Why: `EPERM` without CAP_NET_ADMIN, `ENODEV`, `EOPNOTSUPP`.
        source: io::Error,
    },
    /// The kernel has taken the wish, and the driver does what it did before.
    #[error("rxvlan stays {} on {name}: its driver does not let it be changed (`ethtool -k {name}` calls it [fixed])",
        on_off(!*.on))]
    Kept {
        /// The link.
        name: String,
        /// What was wanted.
        on: bool,
    },
}

fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// Has the NIC `name` take VLAN tags out of received frames (`on`) or leave them in, like `ethtool -K … rxvlan`, and
/// looks whether it does. Some drivers switch `txvlan` with it, and some reset the NIC.
///
/// # Errors
///
/// If the kernel refuses, or if the driver goes on as before.
pub fn set_rx_vlan_offload(name: &str, on: bool) -> Result<(), VlanOffloadError> {
    switch(name, RX_VLAN, on).map_err(|source| VlanOffloadError::Refused {
        name: name.to_owned(),
        on,
        source,
    })?;
    if features(name).rx_vlan_offload == Some(on) {
        Ok(())
    } else {
        Err(VlanOffloadError::Kept { name: name.to_owned(), on })
    }
}

/// Asks for one offload to be on or off. A driver may leave it as it is all the same.
fn switch(ifname: &str, offload: &str, on: bool) -> io::Result<()> {
    let (names, active) = offloads(ifname)?;
    let bit = names.iter().position(|have| have == offload).ok_or(io::ErrorKind::Unsupported)?;
    // struct ethtool_sfeatures: cmd, blocks, then per block of 32 bits: which to change, and to what
    let mut request = vec![0; 2 + 2 * active.len()];
    request[0] = ETHTOOL_SFEATURES;
    request[1] = u32::try_from(active.len()).map_err(io::Error::other)?;
    let (block, mask) = (2 + 2 * (bit / 32), 1 << (bit % 32));
    request[block] = mask;
    request[block + 1] = if on { mask } else { 0 };
    call(ifname, &mut request)
}

/// The names of all offloads that the kernel knows, and which of them are active, as a bit set.
fn offloads(ifname: &str) -> io::Result<(Vec<String>, Vec<u32>)> {
    // struct ethtool_sset_info: cmd, reserved, 64-bit mask, one number per bit of the mask
    let mut info = [ETHTOOL_GSSET_INFO, 0, 0, 0, 0];
    info[2..4].copy_from_slice(&words_of(1u64 << ETH_SS_FEATURES));
    call(ifname, &mut info)?;
    let count = usize::try_from(info[4]).map_err(io::Error::other)?;

    // struct ethtool_gstrings: cmd, set, length, strings
    let mut strings = vec![0; 3 + count * STRING_WORDS];
    strings[..3].copy_from_slice(&[ETHTOOL_GSTRINGS, ETH_SS_FEATURES, info[4]]);
    call(ifname, &mut strings)?;
    let names = strings[3..].chunks(STRING_WORDS).map(string).collect();

    // struct ethtool_gfeatures: cmd, blocks, then per block of 32 bits: available, requested, active, never changed
    let blocks = count.div_ceil(32);
    let mut features = vec![0; 2 + 4 * blocks];
    features[0] = ETHTOOL_GFEATURES;
    features[1] = u32::try_from(blocks).map_err(io::Error::other)?;
    call(ifname, &mut features)?;
    let active = features[2..].chunks(4).map(|block| block[2]).collect();
    Ok((names, active))
}

fn words_of(value: u64) -> [u32; 2] {
    let b = value.to_ne_bytes();
    [u32::from_ne_bytes([b[0], b[1], b[2], b[3]]), u32::from_ne_bytes([b[4], b[5], b[6], b[7]])]
}

/// The text in a field of fixed size.
fn string(words: &[u32]) -> String {
    let bytes = words.iter().flat_map(|word| word.to_ne_bytes()).take_while(|&byte| byte != 0).collect();
    String::from_utf8(bytes).unwrap_or_default()
}

/// `SIOCETHTOOL` with the request, and room for the answer, in `request`: all structures of ethtool are made of
/// 32-bit words (and of text and 64-bit words, which lie in those).
fn call(ifname: &str, request: &mut [u32]) -> io::Result<()> {
    #[expect(unsafe_code, reason = "an ioctl without a wrapper in nix")]
    // SAFETY: `ifreq` consists of integers, arrays and pointers, for which zero is a value.
    let mut ifreq: libc::ifreq = unsafe { std::mem::zeroed() };
    if ifname.len() >= ifreq.ifr_name.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{ifname:?} is too long a name")));
    }
    for (to, from) in ifreq.ifr_name.iter_mut().zip(ifname.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    ifreq.ifr_ifru.ifru_data = request.as_mut_ptr().cast();
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    #[expect(unsafe_code, reason = "see above")]
    // SAFETY: the name ends with a zero, and `request` has room for what its command makes the kernel write:
    // fixed structures, or as many strings and blocks as the request itself counts; the number of strings is the
    // kernel's own constant, asked for just before.
    let done = unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&socket), SIOCETHTOOL, &mut ifreq) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
