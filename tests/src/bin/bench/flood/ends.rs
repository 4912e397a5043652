//! Who answers: one veth pair for each, in one namespace.

use std::{fs, net::IpAddr, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use aya::{Ebpf, programs::XdpMode};
use nix::{
    sys::signal::Signal,
    time::{clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};
use responder_common::layout::XDP_PROGRAM;
use responder_lab::{Lab, NetNs, Process, wait_until};
use responder_tests::{
    frames::{CLIENT, CLIENT6, OWN, STANDBY6, VIP4, VIP6},
    model::Host,
    peers::PacketResponder,
    run::Kernel,
};

use crate::live::{self, attach};

const SOON: Duration = Duration::from_secs(20);

/// Who answers at a pair's far end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum By {
    /// A program that drops: the generator's cost.
    Nobody,
    /// A program that exchanges two addresses.
    Swap,
    Responder,
    Linux,
    /// Linux, for addresses that keepalived has put there.
    Keepalived,
    Packet,
    Ndppd,
}

/// A far end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct End {
    pub(crate) by: By,
    pub(crate) name: &'static str,
    /// Frames are handed to the interface as packet buffers, where generic programs run; otherwise they come
    /// through the pair, where native ones run.
    pub(crate) generic: bool,
}

const fn end(by: By, name: &'static str, generic: bool) -> End {
    End { by, name, generic }
}

/// All of them. The first of each kind is the control.
pub(crate) const ENDS: [End; 10] = [
    end(By::Nobody, "(dropped)", false),
    end(By::Swap, "swap and send", false),
    end(By::Responder, "responder", false),
    end(By::Linux, "Linux", false),
    end(By::Keepalived, "keepalived's", false),
    end(By::Packet, "AF_PACKET", false),
    end(By::Ndppd, "ndppd", false),
    end(By::Nobody, "(dropped) generic", true),
    end(By::Responder, "responder generic", true),
    end(By::Linux, "Linux generic", true),
];

impl End {
    /// Its control.
    pub(crate) fn control(self) -> Self {
        end(By::Nobody, if self.generic { ENDS[7].name } else { ENDS[0].name }, self.generic)
    }

    /// Frames in one flood that a process answers, and how many at once its buffers hold.
    pub(crate) fn portions(self) -> Option<(u32, u32)> {
        match self.by {
            By::Packet => Some((16_384, 1_024)),
            By::Ndppd => Some((2_048, 32)),
            By::Nobody | By::Swap | By::Responder | By::Linux | By::Keepalived => None,
        }
    }

    /// Whether it answers such a question at all.
    pub(crate) fn answers(self, v6: bool) -> bool {
        self.by != By::Ndppd || v6
    }

    /// What it needs.
    pub(crate) fn tool(self) -> Option<&'static str> {
        match self.by {
            By::Keepalived => Some("keepalived"),
            By::Ndppd => Some("ndppd"),
            By::Nobody | By::Swap | By::Responder | By::Linux | By::Packet => None,
        }
    }
}

/// Who uses a CPU beside the generator.
enum Worker {
    Thread(PacketResponder),
    Process(Process),
}

/// A pair with its ends in place.
pub(crate) struct Pair {
    pub(crate) end: End,
    /// Of the near interface, or of the far one if frames are handed to that.
    pub(crate) ifindex: u32,
    worker: Option<Worker>,
}

impl Pair {
    /// What whoever answers has had of a CPU by itself.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        match &self.worker {
            None => Ok(Duration::ZERO),
            Some(Worker::Thread(responder)) => responder.cpu_time(),
            Some(Worker::Process(process)) => {
                let pid = Pid::from_raw(process.pid().cast_signed());
                Ok(clock_gettime(clock_getcpuclockid(pid)?)?.into())
            }
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // keepalived has a child, which it ends itself.
        if let (By::Keepalived, Some(Worker::Process(process))) = (self.end.by, &mut self.worker) {
            let ended = process.signal(Signal::SIGTERM).and_then(|()| process.wait(SOON));
            ended.inspect_err(|error| eprintln!("keepalived: {error:#}")).ok();
        }
    }
}

/// The programs at the ends.
pub(crate) struct Programs {
    /// The generators, and `count` on the near ends.
    pub(crate) near: Ebpf,
    reference: Ebpf,
    responder: Kernel,
}

impl Programs {
    pub(crate) fn load() -> Result<Self> {
        Ok(Self {
            near: live::load("bench.o", &["count", "send_arp", "send_ns", "hand_arp", "hand_ns"])?,
            reference: live::load("reference.o", &["pass", "drop", "swap"])?,
            responder: Kernel::load(None)?,
        })
    }
}

/// Makes the pair number `i`. Called on a thread in the namespace `ns`.
pub(crate) fn pair(lab: &Lab, ns: &NetNs, programs: &mut Programs, i: usize, end: End) -> Result<Pair> {
    let mac = OWN.map(|b| format!("{b:02x}")).join(":");
    let (near, far) = (format!("near{i}"), format!("far{i}"));
    ns.ip(&format!(
        "link add {near} type veth peer name {far} address {mac}\nlink set {near} up\nlink set {far} up"
    ))?;
    attach(&mut programs.near, "count", &near, XdpMode::Driver)?;
    let mode = if end.generic { XdpMode::Skb } else { XdpMode::Driver };
    let far_index = ns.ifindex(&far)?;
    match (end.by, end.generic) {
        (By::Responder, _) => {
            programs.responder.fill(&host_on(far_index))?;
            attach(programs.responder.ebpf(), XDP_PROGRAM, &far, mode)?;
        }
        (By::Nobody, _) => attach(&mut programs.reference, "drop", &far, mode)?,
        (By::Swap, _) => attach(&mut programs.reference, "swap", &far, mode)?,
        (_, true) => {}
        // A veth takes frames from a program only if it has one itself.
        (_, false) => attach(&mut programs.reference, "pass", &far, mode)?,
    }
    let worker = match end.by {
        By::Nobody | By::Swap | By::Responder => None,
        By::Linux => {
            ns.ip(&format!("addr add {VIP4}/24 dev {far}\naddr add {VIP6}/64 dev {far} nodad"))?;
            None
        }
        By::Packet => {
            let vips = [IpAddr::from(VIP4), IpAddr::from(VIP6)];
            Some(Worker::Thread(PacketResponder::start(far_index, OWN, &vips)?))
        }
        By::Keepalived => Some(Worker::Process(keepalived(lab, ns, &far)?)),
        By::Ndppd => Some(Worker::Process(ndppd(lab, ns, &far)?)),
    };
    let ifindex = if end.generic { far_index } else { ns.ifindex(&near)? };
    Ok(Pair { end, ifindex, worker })
}

/// The list's host on another interface.
fn host_on(ifindex: u32) -> Host {
    let listed = Host::listed();
    let moved = |(_, vlan)| (ifindex, vlan);
    Host {
        vips: listed.vips.iter().map(|((ip, at), slot)| ((*ip, moved(*at)), *slot)).collect(),
        links: listed.links.iter().map(|(at, link)| (moved(*at), *link)).collect(),
        ..listed
    }
}

fn keepalived(lab: &Lab, ns: &NetNs, far: &str) -> Result<Process> {
    // What it speaks from.
    ns.ip(&format!("addr add 198.51.100.1/24 dev {far}"))?;
    let config = lab.dir().join("keepalived.conf");
    fs::write(
        &config,
        format!(
            "vrrp_instance bench {{\n state MASTER\n interface {far}\n virtual_router_id 51\n priority 255\n \
             advert_int 1\n virtual_ipaddress {{\n {VIP4}/24\n }}\n virtual_ipaddress_excluded {{\n {VIP6}/64\n }}\n}}\n"
        ),
    )?;
    let mut command = Command::new("keepalived");
    command.args(["--dont-fork", "--log-console", "--vrrp", "--use-file"]).arg(&config);
    command.arg("--pid").arg(config.with_extension("pid"));
    command.arg("--vrrp_pid").arg(config.with_extension("vrrp.pid"));
    let process = ns.spawn(command)?;
    wait_until("keepalived's addresses", SOON, || {
        let shown = ns.check(&["ip", "-brief", "address", "show", "dev", far]).ok()?;
        (shown.contains(&format!(" {VIP4}/")) && shown.contains(&format!(" {VIP6}/"))).then_some(())
    })
    .with_context(|| process.last_words())?;
    Ok(process)
}

fn ndppd(lab: &Lab, ns: &NetNs, far: &str) -> Result<Process> {
    // Its answers take the host's way, which is not measured: it knows where the asker is.
    let asker = CLIENT.map(|b| format!("{b:02x}")).join(":");
    ns.ip(&format!(
        "addr add {STANDBY6}/64 dev {far} nodad\nneigh replace {CLIENT6} lladdr {asker} dev {far} nud permanent"
    ))?;
    let config = lab.dir().join("ndppd.conf");
    fs::write(&config, format!("proxy {far} {{\n router no\n rule {VIP6}/128 {{\n static\n }}\n}}\n"))?;
    let mut command = Command::new("ndppd");
    command.arg("-c").arg(&config).arg("-p").arg(config.with_extension("pid"));
    let mut process = ns.spawn(command)?;
    // It has joined all groups once it listens.
    wait_until("ndppd listens", SOON, || {
        let shown = ns.check(&["ip", "-details", "link", "show", "dev", far]).ok()?;
        (shown.contains("allmulti 1") || shown.contains("ALLMULTI")).then_some(())
    })
    .with_context(|| process.last_words())?;
    ensure!(process.try_wait()?.is_none(), "ndppd has ended: {}", process.last_words());
    Ok(process)
}
