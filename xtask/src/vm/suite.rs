//! What runs in the machines.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use ebpf_build::target_dir;

use super::{initramfs::Files, kernel::Kernel, outside, report::COMMAND};
use crate::{
    build::{self, Executable, workspace},
    tools::{on_path, run},
};

/// Test programs that run in the machines, by the beginnings of their names.
const PROGRAMS: [&str; 16] = [
    "acceptance",
    "agent_attach",
    "agent_bursts",
    "agent_detach",
    "agent_environment",
    "agent_fence",
    "agent_groups",
    "agent_links",
    "agent_log",
    "agent_takeover",
    "coexist",
    "egress",
    "layout",
    "net_",
    "tools_kernel",
    "vm_",
];

/// Those of these need what is outside of the machines.
pub(super) const OUTSIDE: &str = "vm_cluster::";

/// The tests that are part of `cargo xtask test`: one of each kind.
pub(super) const SHORT: [&str; 11] = [
    "acceptance::deadlines",
    "acceptance::owned",
    "agent_attach::native_by_link",
    "agent_attach::generic_by_netlink",
    "agent_bursts::a_linux_neighbour_follows_at_once_even_within_its_locktime",
    "agent_environment::check_says_what_works_and_what_not",
    "agent_fence::a_stopped_agent_falls_silent_and_returns",
    "agent_log::there_is_no_line_for_a_packet",
    "agent_takeover::killed_and_followed_by_link",
    "egress::claims_leave_only_while_the_vip_is_owned",
    "vm_nic::virtio_native_by_link",
];

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

/// A test program and those of its tests that are wanted.
#[derive(Debug)]
pub(super) struct Chosen {
    name: String,
    path: PathBuf,
    package: PathBuf,
    /// Empty: all.
    only: Vec<String>,
    tests: Vec<String>,
}

/// Builds the lab's program, for outside of the machines, and returns where it is.
///
/// # Errors
///
/// It does not build.
pub(super) fn lab() -> Result<PathBuf> {
    let built = build::executables(&["build", "--package", "responder-lab", "--bins"])?;
    built.into_iter().map(|program| program.path).next().context("cargo built no lab")
}

/// Builds the test programs and chooses those tests whose names (`PROGRAM::TEST`) are `wanted`.
///
/// # Errors
///
/// They do not build.
pub(super) fn choose(wanted: impl Fn(&str) -> bool) -> Result<Vec<Chosen>> {
    let programs = build::tests(&["--package", "responder-tests"])?;
    let ours = |program: &&Executable| {
        program.integration && PROGRAMS.iter().any(|begin| program.target.starts_with(begin))
    };
    let mut chosen = Vec::new();
    for program in programs.iter().filter(ours) {
        let all = tests_of(&program.path)?;
        let tests: Vec<String> =
            all.iter().filter(|test| wanted(&format!("{}::{test}", program.target))).cloned().collect();
        if tests.is_empty() {
            continue;
        }
        chosen.push(Chosen {
            name: program.target.clone(),
            path: program.path.clone(),
            package: program.package.clone(),
            only: if tests.len() == all.len() { Vec::new() } else { tests.clone() },
            tests,
        });
    }
    chosen.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(chosen)
}

/// Those of [`SHORT`].
///
/// # Errors
///
/// They do not build, or one of them is not there any more.
pub(super) fn choose_short() -> Result<Vec<Chosen>> {
    let chosen = choose(|name| SHORT.contains(&name))?;
    let found: usize = chosen.iter().map(|program| program.tests.len()).sum();
    ensure!(found == SHORT.len(), "{found} of {} tests are there: {}", SHORT.len(), SHORT.join(", "));
    Ok(chosen)
}

fn tests_of(program: &Path) -> Result<Vec<String>> {
    let output = Command::new(program).args(["--list", "--format", "terse"]).output();
    let output = output.with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(output.status.success(), "{} does not list its tests", program.display());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// What a machine does.
#[derive(Debug)]
pub(super) enum Plan {
    /// Runs tests, each program for so many seconds at most.
    Tests(Vec<Chosen>, u64),
    /// Runs one command of a shell.
    Command(String, u64),
}

impl Plan {
    fn programs(&self) -> &[Chosen] {
        match self {
            Self::Tests(programs, _) => programs,
            Self::Command(..) => &[],
        }
    }

    /// The names of all tests in it: `PROGRAM::TEST`.
    pub(super) fn tests(&self) -> Vec<String> {
        let names = |program: &Chosen| {
            program.tests.iter().map(|test| format!("{}::{test}", program.name)).collect::<Vec<_>>()
        };
        self.programs().iter().flat_map(names).collect()
    }

    /// As the first process of a machine reads it: name, seconds, program and arguments, with tabs between them.
    fn text(&self) -> String {
        match self {
            Self::Command(command, limit) => format!("{COMMAND}\t{limit}\t/bin/sh\t-c\t{command}\n"),
            Self::Tests(programs, limit) => programs
                .iter()
                .map(|program| {
                    let only = match program.only.as_slice() {
                        [] => String::new(),
                        only => format!("\t--exact\t{}", only.join("\t")),
                    };
                    format!(
                        "{0}\t{limit}\t/vm/tests/{0}{only}\t--test-threads=1\t--show-output\n",
                        program.name
                    )
                })
                .collect(),
        }
    }
}

/// Everything in the machines; each finds what is its own by the series of its kernel.
///
/// # Errors
///
/// A part is missing or cannot be built.
pub(super) fn files(plan: &Plan, kernels: &[Kernel], agent: &Path, is_outside: bool) -> Result<Files> {
    let mut files = Files::new();
    let stripped = Stripped::new()?;
    let build = ["build", "--package", "responder-vm", "--package", "responder-lab", "--bins"];
    for program in build::executables(&build)? {
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
