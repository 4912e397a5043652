//! One virtual machine: started, listened to, ended.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::Sender,
    thread,
};

use anyhow::{Context as _, Result};

use super::{fleet::Fleet, kernel::Kernel, outside::Plane, qemu::Accelerator};
use crate::tools::shown;

/// What a machine has, in MiB and processors.
const MEMORY: u32 = 1280;
const PROCESSORS: u32 = 2;

/// NICs in pairs, both on one wire: their model and the ends of their addresses. vmxnet3 takes VLAN tags out of frames, which
/// can be switched off; virtio-net never does.
const NICS: [(&str, [&str; 2]); 3] = [
    ("virtio-net-pci,ctrl_vlan=off", ["0f01", "0f02"]),
    ("virtio-net-pci,ctrl_vlan=off", ["0f03", "0f04"]),
    ("vmxnet3", ["0e01", "0e02"]),
];

/// What a kernel says on its console when something is wrong with it.
const COMPLAINTS: [&str; 9] = [
    "Kernel panic",
    "Oops:",
    "BUG:",
    "WARNING:",
    "general protection fault",
    "Call Trace:",
    "unregister_netdevice: waiting",
    "blocked for more than",
    "responder-init:",
];

/// A running machine. It ends when this is dropped, and with this process.
pub(super) struct Machine {
    child: Child,
    console: PathBuf,
}

/// What is heard of a machine.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A line of its report: the fields.
    Line(Vec<String>),
    /// Nothing more comes.
    End,
}

impl Machine {
    /// Starts it; what it reports is sent with `index`. Its console goes into the file `console`.
    ///
    /// # Errors
    ///
    /// The emulator cannot be started.
    pub(super) fn start(
        fleet: &Fleet<'_>,
        kernel: &Kernel,
        accelerator: Accelerator,
        console: &Path,
        plane: Option<&Plane>,
        (index, heard): (usize, Sender<(usize, Heard)>),
    ) -> Result<Self> {
        fs::write(console, "").with_context(|| format!("cannot write {}", console.display()))?;
        let mut inner = arguments(fleet, kernel, accelerator, console);
        if let (Some(outside), Some(plane)) = (fleet.outside, plane) {
            inner.args(outside.options(plane));
        }
        // Not outliving this process, however that ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(inner.get_program()).args(inner.get_args());
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.envs(fleet.environment.iter().map(|(name, value)| (name, value)));
        // What it has to say of its options; a hub without the host's network is what is wanted.
        let log = fs::File::create(console.with_extension("qemu"))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().with_context(|| format!("cannot run `{}`", shown(&command)))?;
        let output = child.stdout.take().context("no pipe")?;
        thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n') {
                let Ok(line) = line else { break };
                let line = String::from_utf8_lossy(&line);
                let fields = line.trim_end().split('\t').map(str::to_owned).collect();
                if heard.send((index, Heard::Line(fields))).is_err() {
                    return;
                }
            }
            heard.send((index, Heard::End)).ok();
        });
        Ok(Self { child, console: console.to_owned() })
    }

    /// Ends it at once.
    pub(super) fn kill(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// What the kernel complained of, with the lines around the first complaint.
    pub(super) fn complaint(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&fs::read(&self.console).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let first =
            lines.iter().position(|line| COMPLAINTS.iter().any(|complaint| line.contains(complaint)))?;
        Some(lines.iter().skip(first).take(40).map(|line| line.trim_end()).collect::<Vec<_>>().join("\n"))
    }

    /// The end of its console, for who wants to know why it died.
    pub(super) fn last_words(&self) -> String {
        let text = String::from_utf8_lossy(&fs::read(&self.console).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
    }
}

fn arguments(fleet: &Fleet<'_>, kernel: &Kernel, accelerator: Accelerator, console: &Path) -> Command {
    let mut command = fleet.qemu.command();
    command.args(["-M", "q35", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.args(fleet.qemu.options(accelerator));
    command.args(["-smp", &PROCESSORS.to_string(), "-m", &MEMORY.to_string()]);
    // ttyS0 is the console, ttyS1 the report.
    command.args(["-chardev", &format!("file,id=console,path={}", console.display())]);
    command.args(["-serial", "chardev:console", "-chardev", "stdio,id=report,signal=off"]);
    command.args(["-serial", "chardev:report"]);
    for (wire, (model, macs)) in NICS.iter().enumerate() {
        for mac in macs {
            command.args(["-netdev", &format!("hubport,id=n{mac},hubid={wire}")]);
            command.args([
                "-device",
                &format!("{model},netdev=n{mac},mac=02:00:00:00:{},romfile=", colons(mac)),
            ]);
        }
    }
    command.arg("-kernel").arg(kernel.vmlinux()).arg("-initrd").arg(fleet.initramfs);
    let line = format!(
        "console=ttyS0 loglevel=5 panic=-1 oops=panic mitigations=off audit=0 rdinit=/init vm.series={}",
        kernel.series
    );
    command.args(["-append", &line]);
    command
}

/// `0f01` as `0f:01`.
fn colons(mac: &str) -> String {
    let (first, second) = mac.split_at(2);
    format!("{first}:{second}")
}
