//! What is in the machines.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use ebpf_build::target_dir;

use super::{choice::Plan, initramfs::Files, kernel::Kernel, outside};
use crate::{
    build::{self, Executable, workspace},
    tools::{on_path, run},
};

/// Modules that a machine loads.
const MODULES: [&str; 33] = [
    "virtio_pci",
    "virtio_net",
    "vmxnet3",
    "veth",
    "bridge",
    "8021q",
    "bonding",
    "dummy",
    "team",
    "team_mode_activebackup",
    "team_mode_broadcast",
    "team_mode_loadbalance",
    "team_mode_roundrobin",
    "macvlan",
    "macvtap",
    "ipvlan",
    "openvswitch",
    "vrf",
    "ifb",
    "tun",
    "af_packet",
    "act_mirred",
    "act_vlan",
    "cls_bpf",
    "cls_u32",
    "cls_matchall",
    "sch_ingress",
    "sch_netem",
    "sch_fq_codel",
    "nf_tables",
    "nft_counter",
    "vxlan",
    "ipv6",
];

/// What keeps modules from making links that nobody asked for.
const PARAMETERS: [(&str, &str); 3] =
    [("bonding", "max_bonds=0"), ("dummy", "numdummies=0"), ("ifb", "numifbs=0")];

/// Where libxdp has its dispatcher.
const DISPATCHER: &str = "/usr/lib/x86_64-linux-gnu/bpf";

/// Programs that tests or people use, where this machine has them.
const TOOLS: [&str; 67] = [
    "arp-scan",
    "arping",
    "awk",
    "bash",
    "bpftool",
    "bridge",
    "cat",
    "chmod",
    "conntrack",
    "cp",
    "cut",
    "dmesg",
    "env",
    "ethtool",
    "find",
    "flock",
    "free",
    "grep",
    "head",
    "hostname",
    "id",
    "ip",
    "jq",
    "kill",
    "ln",
    "ls",
    "mausezahn",
    "mkdir",
    "mknod",
    "mount",
    "mv",
    "na6",
    "ndisc6",
    "nft",
    "ns6",
    "nsenter",
    "openssl",
    "ping",
    "ps",
    "rm",
    "script",
    "sed",
    "seq",
    "setpriv",
    "setsid",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "ss",
    "stat",
    "sysctl",
    "tail",
    "tc",
    "tcpdump",
    "teamnl",
    "timeout",
    "trafgen",
    "tr",
    "true",
    "umount",
    "uname",
    "uniq",
    "unshare",
    "wc",
    "xdp-filter",
    "xdp-loader",
];

/// The machines' first process and the lab's program.
fn ours() -> Result<Vec<Executable>> {
    build::executables(&["build", "--package", "responder-vm", "--package", "responder-lab", "--bins"])
}

/// Builds the lab's program, for outside of the machines, and returns where it is.
///
/// # Errors
///
/// It does not build.
pub(super) fn lab() -> Result<PathBuf> {
    let lab = ours()?.into_iter().find(|program| program.target == "responder-lab");
    Ok(lab.context("cargo built no lab")?.path)
}

/// Everything in the machines; each finds what is its own by the series of its kernel.
///
/// # Errors
///
/// A part is missing or cannot be built.
pub(super) fn files(plan: &Plan, kernels: &[Kernel], agent: &Path, is_outside: bool) -> Result<Files> {
    let mut files = Files::new();
    let stripped = Stripped::new()?;
    for program in ours()? {
        let place = match program.target.as_str() {
            "responder-init" => "init",
            "responder-lab" => "vm/responder-lab",
            _ => continue,
        };
        files.program(place, &stripped.of(&program.path)?)?;
    }
    files.program("usr/bin/responder", &stripped.of(agent)?)?;
    files.program("usr/bin/xtask", &stripped.of(&std::env::current_exe()?)?)?;
    for program in plan.programs() {
        files.program(&format!("vm/tests/{}", program.name), &stripped.of(&program.path)?)?;
        files.content(format!("{}/.keep", program.package.display()).trim_start_matches('/'), "");
    }
    for tool in TOOLS {
        if let Some(path) = on_path(tool) {
            files.program(&format!("usr/bin/{tool}"), &fs::canonicalize(path)?)?;
        }
    }
    for object in ["responder.o", "responder-log.o", "reference.o", "bench.o"] {
        files.copy(&format!("vm/bpf/{object}"), &target_dir(&workspace()).join("bpf").join(object))?;
    }
    files.copy_dir(&workspace().join("deploy"))?;
    let dispatcher = Path::new(DISPATCHER);
    if dispatcher.is_dir() {
        files.copy_dir(dispatcher)?;
    }
    for kernel in kernels {
        let dir = format!("vm/{}", kernel.series);
        let modules = kernel.modules(&MODULES)?;
        let mut list = String::new();
        for (name, content) in modules {
            let parameters = PARAMETERS.iter().find(|(module, _)| *module == name);
            writeln!(list, "/{dir}/{name}.ko {}", parameters.map_or("", |(_, text)| text))?;
            files.content(&format!("{dir}/{name}.ko"), content);
        }
        files.content(&format!("{dir}/modules"), list);
        files.content(&format!("{dir}/plan"), plan.text());
    }
    let mut environment = environment();
    if is_outside {
        writeln!(environment, "{}={}", outside::VARIABLE, outside::ADDRESS)?;
    }
    files.content("vm/environment", environment);
    files.content(
        "etc/passwd",
        "root:x:0:0::/root:/bin/sh\ntcpdump:x:100:100::/:/bin/false\nnobody:x:65534:65534::/:/bin/false\n",
    );
    files.content("etc/group", "root:x:0:\ntcpdump:x:100:\nnogroup:x:65534:\n");
    files.content("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n");
    Ok(files)
}

fn environment() -> String {
    let pairs = [
        ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", "/root"),
        ("TERM", "dumb"),
        ("RESPONDER_BIN", "/usr/bin/responder"),
        ("RESPONDER_BPF_DIR", "/vm/bpf"),
        ("RUST_BACKTRACE", "0"),
        // Software emulation is ten times slower, and other machines run beside it.
        ("RESPONDER_PATIENCE", "6"),
        // As the default of 10 s, where nothing else is asked for: an agent's start takes longer, too.
        ("RESPONDER_FENCE", "60s"),
    ];
    pairs.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
}

/// Programs without what only a debugger reads: a sixth of their size.
struct Stripped(PathBuf);

impl Stripped {
    fn new() -> Result<Self> {
        let dir = target_dir(&workspace()).join("vm/stripped");
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(Self(dir))
    }

    fn of(&self, program: &Path) -> Result<PathBuf> {
        let name = program.file_name().with_context(|| format!("{} is no file", program.display()))?;
        let place = self.0.join(name);
        let modified = |path: &Path| fs::metadata(path).and_then(|data| data.modified());
        let of_program = modified(program).with_context(|| format!("cannot read {}", program.display()))?;
        if modified(&place).is_ok_and(|of_copy| of_copy == of_program) {
            return Ok(place);
        }
        run(Command::new("strip")
            .arg("--strip-debug")
            .arg("--preserve-dates")
            .arg("-o")
            .arg(&place)
            .arg(program))?;
        Ok(place)
    }
}
