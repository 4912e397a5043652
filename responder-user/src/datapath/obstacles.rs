//! What drivers are known to make conditions of before they run a program, and the way out: facts in, sentences out.
//!
//! Some drivers say in the extended acknowledgement why they refuse, some only in the kernel's log, some nowhere.

use nix::errno::Errno;

use crate::net::{
    ethtool::{Channels, Features},
    xdp_features::XdpFeatures,
};

/// A NIC, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub struct Nic<'a> {
    /// Name of the interface.
    pub name: &'a str,
    /// Largest payload in bytes.
    pub mtu: u32,
    /// What its driver reports.
    pub features: &'a Features,
    /// And of XDP, where the kernel can be asked.
    pub xdp: Option<XdpFeatures>,
}

/// The largest MTU for native mode with a program for frames in one buffer (x86-64, pages of 4 KiB), by driver.
const SINGLE_BUFFER: [(&str, u32); 21] = [
    ("mlx4_en", 3498),
    ("mlx5_core", 3498),
    ("ena", 3498),
    ("vmxnet3", 3494),
    ("bnxt_en", 3502),
    ("ionic", 3502),
    ("virtio_net", 3506),
    ("mana", 3506),
    ("hv_netvsc", 3506),
    ("veth", 3520),
    ("mvneta", 3520),
    ("i40e", 3046),
    ("ice", 3046),
    ("igb", 3046),
    ("ixgbe", 3050),
    ("gve", 2032),
    ("atlantic", 2048),
    ("igc", 1500),
    ("tun", 1500),
    ("nfp", 4096),
    ("xen_netfront", 3840),
];
/// Drivers that take longer frames in several buffers, in kernels that have such programs.
const MULTI_BUFFER: [&str; 10] =
    ["mlx5_core", "bnxt_en", "ionic", "virtio_net", "veth", "mvneta", "i40e", "ice", "atlantic", "vmxnet3"];
/// Drivers that refuse while large receive offload is on.
const NO_LRO: [&str; 8] =
    ["mlx5_core", "mlx4_en", "ixgbe", "hv_netvsc", "gve", "qede", "vmxnet3", "atlantic"];
/// Drivers that refuse while the NIC itself coalesces what it receives.
const NO_HARDWARE_GRO: [&str; 3] = ["mlx5_core", "gve", "qede"];
/// Drivers that make their queues anew when they get the first program or lose the last, which interrupts traffic, and
/// with some the link.
const RESET: [&str; 10] =
    ["i40e", "ice", "ixgbe", "igb", "igc", "ena", "mlx5_core", "gve", "bnxt_en", "stmmac"];

/// What about this NIC, as it is now, is known to make its driver refuse native mode.
#[must_use]
pub fn known(nic: &Nic<'_>) -> Vec<String> {
    let Nic { name, mtu, features, xdp } = *nic;
    let Some(driver) = features.driver.as_deref() else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let limit = SINGLE_BUFFER.iter().find(|(of, limit)| *of == driver && mtu > *limit);
    if let Some((_, limit)) = limit
        && xdp.is_none_or(|xdp| !xdp.multi_buffer)
    {
        let more = match xdp {
            None if MULTI_BUFFER.contains(&driver) => {
                " in one buffer, and beyond that where kernel and driver have multi-buffer XDP"
            }
            _ => "",
        };
        found.push(format!(
            "{driver} runs programs up to an MTU of {limit}{more}; it is {mtu}: ip link set {name} mtu {limit}"
        ));
    }
    if features.lro == Some(true) && NO_LRO.contains(&driver) {
        found.push(format!("{driver} refuses while large receive offload is on: ethtool -K {name} lro off"));
    }
    if features.gro_hw == Some(true) && NO_HARDWARE_GRO.contains(&driver) {
        found.push(format!("{driver} refuses while hardware GRO is on: ethtool -K {name} rx-gro-hw off"));
    }
    found.extend(features.channels.and_then(|channels| of_channels(name, driver, channels)));
    found
}

fn of_channels(name: &str, driver: &str, channels: Channels) -> Option<String> {
    let Channels { rx, tx, combined, max_tx, max_combined, .. } = channels;
    match driver {
        "ena" if 2 * combined > max_combined => Some(format!(
            "ena needs half of its channels for what programs send, and {combined} of {max_combined} are in use: \
             ethtool -L {name} combined {}",
            max_combined / 2
        )),
        "gve" if rx != tx || 2 * tx > max_tx => Some(format!(
            "gve needs as many receive as send queues, and half of them free; {rx} and {tx} of {max_tx} are in use: \
             ethtool -L {name} rx {half} tx {half}",
            half = max_tx / 2
        )),
        "bnxt_en" if rx + tx > 0 => Some(format!(
            "bnxt_en needs combined channels: ethtool -L {name} rx 0 tx 0 combined {}",
            rx.max(1)
        )),
        _ => None,
    }
}

/// What to do about a refusal of native mode, by what the kernel said of it.
#[must_use]
pub fn way_out(nic: &Nic<'_>, errno: Errno, extack: Option<&str>) -> Option<String> {
    let driver = nic.features.driver.as_deref().unwrap_or("");
    let words = extack.unwrap_or("").to_lowercase();
    let says = |part: &str| words.contains(part);
    if says("does not support xdp in native mode") {
        return None; // generic mode, and nothing can be done about it
    }
    if let Some(text) = of_both_modes(&words) {
        return Some(text.to_owned());
    }
    let about = match driver {
        "veth" => of_veth(nic.name, errno),
        "virtio_net" => of_virtio(nic.name, errno, &words),
        _ => None,
    };
    if about.is_some() {
        return about;
    }
    if says("bonding mode") {
        return Some("balance-rr, active-backup, balance-xor and 802.3ad can run programs".to_owned());
    }
    let known = known(nic);
    if !known.is_empty() {
        return Some(known.join("; "));
    }
    if errno == Errno::ENOMEM || errno == Errno::ENOSPC || says("queue") || says("channel") || says("ring") {
        let name = nic.name;
        return Some(format!(
            "the driver wants queues of its own for what programs send, mostly one per CPU: leave some free with \
             ethtool -L {name} (ethtool -l {name} shows how many there are)"
        ));
    }
    match driver {
        "ixgbe" if errno == Errno::EINVAL => Some("ixgbe refuses while SR-IOV or DCB is on".to_owned()),
        "" | "veth" | "virtio_net" => None,
        _ if words.is_empty() => Some("some drivers say why in the kernel's log (dmesg)".to_owned()),
        _ => None,
    }
}

/// A program that is there already, in the other mode or on a device above.
fn of_both_modes(words: &str) -> Option<&'static str> {
    if words.contains("native and generic xdp can't be active at the same time") {
        Some("another program runs there in the other mode; the kernel runs only one on an interface")
    } else if words.contains("upper device already has a program") {
        Some("a device above (a bond) has a program, which the kernel runs on this interface, too")
    } else {
        None
    }
}

fn of_veth(name: &str, errno: Errno) -> Option<String> {
    if errno == Errno::ERANGE {
        Some(
            "frames of the other end are longer than a page: lower its MTU to 3500, or have a kernel with multi-buffer \
             XDP (5.18)"
                .to_owned(),
        )
    } else if errno == Errno::ENOSPC {
        Some(format!(
            "the other end sends on more queues than this one receives on: more here (ethtool -L {name} rx N, or \
             numrxqueues when the pair is made), or fewer there (ethtool -L PEER tx N)"
        ))
    } else {
        (errno == Errno::ENOTCONN).then(|| "the other end is gone".to_owned())
    }
}

fn of_virtio(name: &str, errno: Errno, words: &str) -> Option<String> {
    if words.contains("while host is implementing") {
        return Some(
            "the hypervisor coalesces frames and does not let the guest turn that off; with QEMU: \
             -device virtio-net-pci,…,guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off, or \
             ctrl_guest_offloads=on"
                .to_owned(),
        );
    }
    if errno == Errno::ENOMEM || words.contains("free tx rings") {
        return Some(format!(
            "the kernel wants one queue pair per CPU besides those in use: fewer in use (ethtool -L {name} combined 1), or \
             more of them from the hypervisor (QEMU: queues=N, mq=on)"
        ));
    }
    None
}

/// What attaching and detaching does to the NIC's traffic, where that is known to be more than nothing.
#[must_use]
pub fn reset_on_attach(driver: &str) -> Option<String> {
    let when = match driver {
        "bnxt_en" => "also when the agent is upgraded",
        driver if RESET.contains(&driver) => "not when the agent is restarted or upgraded",
        _ => return None,
    };
    Some(format!(
        "{driver} makes its queues anew when it gets its first program or loses it, and traffic stops for up to some \
         seconds; {when}"
    ))
}

#[cfg(test)]
#[path = "obstacles_tests.rs"]
mod tests;
