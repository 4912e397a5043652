//! Clients' tools, run in a namespace, their answers parsed.

use std::{
    env,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{mac::Mac, ns::NetNs, process::Output, time::wait_until};

/// How long a tool may take, its own timeouts included.
const DEADLINE: Duration = Duration::from_secs(30);

/// Which addresses a tool was given, and how it ended.
#[derive(Clone, Debug)]
pub struct Answers {
    /// The hardware address of each answer, in order.
    pub macs: Vec<Mac>,
    /// Exit code and output.
    pub output: Output,
}

impl Answers {
    /// The one address that all answers gave.
    ///
    /// # Errors
    ///
    /// If there was no answer or answers differ, with what the tool printed.
    pub fn one(&self) -> Result<Mac> {
        match self.macs.as_slice() {
            [first, rest @ ..] if rest.iter().all(|m| m == first) => Ok(*first),
            _ => bail!("{}: answers {:?}\n{}", self.output.command, self.macs, self.output.stdout),
        }
    }

    /// Collects what stands behind `before` and before `after` in each line of stdout.
    fn find(output: Output, before: &str, after: &str) -> Result<Self> {
        let mut macs = Vec::new();
        for line in output.stdout.lines() {
            if let Some((_, rest)) = line.split_once(before) {
                let mac = rest.split_once(after).map_or(rest, |(mac, _)| mac);
                macs.push(mac.parse().with_context(|| format!("{}: {line:?}", output.command))?);
            }
        }
        Ok(Self { macs, output })
    }
}

/// `arping` of iputils: asks `vip` once, waiting a second for the answer. `extra`: further options, such as `-D` or
/// `-c 3`.
///
/// # Errors
///
/// If it cannot be run; not if nobody answers.
pub fn arping(ns: &NetNs, interface: &str, vip: Ipv4Addr, extra: &[&str]) -> Result<Answers> {
    let vip = vip.to_string();
    let mut argv = vec!["arping", "-I", interface, "-w", "1", "-c", "1"];
    argv.extend(extra);
    argv.push(&vip);
    let output = ns.output(&argv, DEADLINE)?;
    if output.code() == Some(2) || output.stdout.is_empty() {
        bail!("{}: {}", output.command, output.stderr);
    }
    Answers::find(output, "[", "]")
}

/// The `arping` of Thomas Habets, which the environment variable `RESPONDER_ARPING_HABETS` names (its package and
/// that of iputils exclude each other), if it does.
#[must_use]
pub fn habets() -> Option<PathBuf> {
    env::var_os("RESPONDER_ARPING_HABETS").map(PathBuf::from)
}

/// Habets's `arping`: asks `vip` once. See [`habets`].
///
/// # Errors
///
/// If it cannot be run; not if nobody answers.
pub fn arping_habets(ns: &NetNs, interface: &str, vip: Ipv4Addr, extra: &[&str]) -> Result<Answers> {
    let program = habets().context("RESPONDER_ARPING_HABETS does not name Habets's arping")?;
    let program = program.to_str().context("RESPONDER_ARPING_HABETS is not UTF-8")?;
    let vip = vip.to_string();
    let mut argv = vec![program, "-i", interface, "-c", "1", "-w", "1"];
    argv.extend(extra);
    argv.push(&vip);
    Answers::find(ns.output(&argv, DEADLINE)?, "bytes from ", " ")
}

/// `arp-scan` over `vips`: who answered for which.
///
/// # Errors
///
/// If it cannot be run or prints what is no answer.
pub fn arp_scan(ns: &NetNs, interface: &str, vips: &[Ipv4Addr]) -> Result<Vec<(Ipv4Addr, Mac)>> {
    let interface = format!("--interface={interface}");
    let vips: Vec<String> = vips.iter().map(Ipv4Addr::to_string).collect();
    let mut argv = vec!["arp-scan", "--plain", "--retry=1", "--ignoredups", &interface];
    argv.extend(vips.iter().map(String::as_str));
    let output = ns.output(&argv, DEADLINE)?.ok()?;
    let mut found = Vec::new();
    for line in output.stdout.lines() {
        let mut fields = line.split('\t');
        let (Some(ip), Some(mac)) = (fields.next(), fields.next()) else {
            bail!("arp-scan printed {line:?}");
        };
        found.push((ip.parse()?, mac.parse()?));
    }
    Ok(found)
}

/// `ndisc6`: solicits `vip` once, waiting a second for the answer.
///
/// # Errors
///
/// If it cannot be run; not if nobody answers.
pub fn ndisc6(ns: &NetNs, interface: &str, vip: Ipv6Addr, extra: &[&str]) -> Result<Answers> {
    let vip = vip.to_string();
    let mut argv = vec!["ndisc6", "-1", "-r", "1", "-w", "1000"];
    argv.extend(extra);
    argv.extend([vip.as_str(), interface]);
    Answers::find(ns.output(&argv, DEADLINE)?, "link-layer address: ", "\n")
}

/// `ping`: one echo request. True if it was answered.
///
/// # Errors
///
/// If it cannot be run.
pub fn ping(ns: &NetNs, address: IpAddr) -> Result<bool> {
    let output = ns.output(&["ping", "-n", "-c", "1", "-W", "1", &address.to_string()], DEADLINE)?;
    match output.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        Some(_) | None => bail!("{}: {} {}", output.command, output.status, output.stderr),
    }
}

/// Any other tool, such as `ns6`, `na6`, `atk6-…`: run to its end within half a minute.
///
/// # Errors
///
/// If it cannot be run; not if its exit code is not 0.
pub fn run(ns: &NetNs, argv: &[&str]) -> Result<Output> {
    ns.output(argv, DEADLINE)
}

/// Gives `interface` the address `vip`/64 and lets the kernel detect duplicates as on any host: true if it found one.
/// The address is removed again.
///
/// # Errors
///
/// If `ip` fails, or the kernel does not come to a conclusion.
pub fn kernel_dad_fails(ns: &NetNs, interface: &str, vip: Ipv6Addr) -> Result<bool> {
    ns.set_sysctl(&format!("ipv6/conf/{interface}/accept_dad"), "1")?;
    ns.ip(&format!("addr add {vip}/64 dev {interface}"))?;
    let wanted = vip.to_string();
    let verdict = wait_until(&format!("the kernel's verdict on {vip}"), Duration::from_secs(10), || {
        let shown = ns.ip_json(&format!("-6 addr show dev {interface}")).ok()?;
        let addresses = shown.pointer("/0/addr_info")?.as_array()?;
        let entry = addresses.iter().find(|a| a.get("local").and_then(Value::as_str) == Some(&wanted))?;
        match (entry.get("dadfailed"), entry.get("tentative")) {
            (Some(_), _) => Some(true),
            (None, Some(_)) => None,
            (None, None) => Some(false),
        }
    });
    ns.ip(&format!("addr del {vip}/64 dev {interface}"))?;
    ns.set_sysctl(&format!("ipv6/conf/{interface}/accept_dad"), "0")?;
    verdict
}
