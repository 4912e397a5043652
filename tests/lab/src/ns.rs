//! One network namespace: created, entered, removed.

use std::{
    fs::{self, File},
    io::Write as _,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;

use crate::{
    cleanup,
    mac::Mac,
    process::{Output, Process},
    start::Place,
};

/// How long one short command may take, on a busy machine.
pub const COMMAND_DEADLINE: Duration = Duration::from_secs(20);

/// A named network namespace, removed when the last handle is dropped.
#[derive(Clone, Debug)]
pub struct NetNs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Empty: that of this process.
    name: String,
    logs: PathBuf,
    keepable: bool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.name.is_empty() {
            cleanup::remove_namespace(&self.name);
        }
    }
}

impl NetNs {
    /// Creates the namespace `name` (as `ip netns` shows it) with its loopback device up. Output of processes that
    /// run in it goes to files in `logs`. `keepable`: they may have to outlive this process.
    ///
    /// # Errors
    ///
    /// If `ip` cannot create it.
    pub(crate) fn create(name: String, logs: &Path, keepable: bool) -> Result<Self> {
        cleanup::add_namespace(&name);
        let ns = Self(Arc::new(Inner { name, logs: logs.to_owned(), keepable }));
        ip(&["netns", "add", ns.name()])?;
        ns.ip("link set lo up")?;
        Ok(ns)
    }

    /// That of this process, in which programs can be started without root. Not together with others, and not for `ip`.
    pub(crate) fn here(logs: &Path) -> Self {
        Self(Arc::new(Inner { name: String::new(), logs: logs.to_owned(), keepable: false }))
    }

    /// Its name, as `ip netns` shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The file that stands for it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(self.name())
    }

    pub(crate) fn logs(&self) -> &Path {
        &self.0.logs
    }

    pub(crate) fn is_keepable(&self) -> bool {
        self.0.keepable
    }

    /// What to enter; nothing if it is [`NetNs::here`].
    pub(crate) fn file(&self) -> Result<Option<File>> {
        if self.name().is_empty() {
            return Ok(None);
        }
        let path = self.path();
        File::open(&path).map(Some).with_context(|| format!("opening the namespace {}", path.display()))
    }

    /// Runs `work` on a thread that is in this namespace, and returns what it returned. Threads that `work` starts
    /// and sockets that it opens are in the namespace, too; mounts (bpffs) are those of the caller.
    ///
    /// # Errors
    ///
    /// If the namespace cannot be entered, or the error of `work`.
    ///
    /// # Panics
    ///
    /// If `work` panics.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let Some(file) = self.file()? else { return work() };
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("entering {}", self.name()))?;
                work()
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Starts a program in this namespace. See [`Process`].
    ///
    /// # Errors
    ///
    /// If it cannot be started; the message names it.
    pub fn spawn(&self, command: Command) -> Result<Process> {
        Process::spawn(self, Place::Shared, command)
    }

    /// Runs a program in this namespace to its end.
    ///
    /// # Errors
    ///
    /// If it cannot be started or runs for longer than `deadline`; not if its exit code is not 0.
    pub fn output(&self, argv: &[&str], deadline: Duration) -> Result<Output> {
        let (program, args) = argv.split_first().context("an empty command")?;
        let mut command = Command::new(program);
        command.args(args);
        self.spawn(command)?.finish(deadline)
    }

    /// Like [`NetNs::output`] with a common deadline, and an exit code other than 0 is an error. Returns stdout.
    ///
    /// # Errors
    ///
    /// See above.
    pub fn check(&self, argv: &[&str]) -> Result<String> {
        Ok(self.output(argv, COMMAND_DEADLINE)?.ok()?.stdout)
    }

    /// Runs lines of `ip` commands here, such as `link set eth0 down`.
    ///
    /// # Errors
    ///
    /// If one fails, with `ip`'s message; those after it are not run.
    pub fn ip(&self, lines: &str) -> Result<()> {
        let mut child = Command::new("ip")
            .args(["-n", self.name(), "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting ip (Debian package iproute2)")?;
        // Dropped at the end of the statement, so that `ip` sees the end of its input.
        child.stdin.take().context("stdin was piped")?.write_all(lines.as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "in namespace {}: ip failed: {}\n{lines}",
            self.name(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }

    /// What `ip -j ARGS` prints here.
    ///
    /// # Errors
    ///
    /// If it fails or does not print JSON.
    pub fn ip_json(&self, args: &str) -> Result<Value> {
        let mut argv = vec!["-n", self.name(), "-j"];
        argv.extend(args.split_whitespace());
        let text = ip(&argv)?;
        if text.trim().is_empty() {
            return Ok(Value::Array(Vec::new()));
        }
        serde_json::from_str(&text).with_context(|| format!("ip -j {args} printed {text:?}"))
    }

    /// Writes `/proc/sys/net/<key>` of this namespace, such as `ipv4/conf/all/arp_ignore`.
    ///
    /// # Errors
    ///
    /// If there is no such key or it refuses the value.
    pub fn set_sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys/net").join(key);
        self.run(|| {
            fs::write(&path, value).with_context(|| format!("writing {value:?} to {}", path.display()))
        })
    }

    /// Reads `/proc/sys/net/<key>` of this namespace.
    ///
    /// # Errors
    ///
    /// If there is no such key.
    pub fn sysctl(&self, key: &str) -> Result<String> {
        let path = Path::new("/proc/sys/net").join(key);
        let text =
            self.run(|| fs::read_to_string(&path).with_context(|| format!("reading {}", path.display())))?;
        Ok(text.trim().to_owned())
    }

    /// Index of the interface `name`.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn ifindex(&self, name: &str) -> Result<u32> {
        let links = self.ip_json(&format!("link show dev {name}"))?;
        let index = links.pointer("/0/ifindex").and_then(Value::as_u64);
        Ok(u32::try_from(index.with_context(|| format!("no index of {name} in {links}"))?)?)
    }

    /// Hardware address of the interface `name`.
    ///
    /// # Errors
    ///
    /// If there is no such interface.
    pub fn mac(&self, name: &str) -> Result<Mac> {
        let links = self.ip_json(&format!("link show dev {name}"))?;
        match links.pointer("/0/address").and_then(Value::as_str) {
            Some(mac) => mac.parse(),
            None => bail!("no address of {name} in {links}"),
        }
    }

    /// Adds an address (`nodad`, full prefix length), as on a host whose `lo` holds VIPs.
    ///
    /// # Errors
    ///
    /// If `ip` refuses.
    pub fn add_address(&self, interface: &str, address: IpAddr) -> Result<()> {
        match address {
            IpAddr::V4(a) => self.ip(&format!("addr add {a}/32 dev {interface}")),
            IpAddr::V6(a) => self.ip(&format!("addr add {a}/128 dev {interface} nodad")),
        }
    }
}

/// Runs `ip` outside of any namespace of ours and returns its stdout.
pub(crate) fn ip(args: &[&str]) -> Result<String> {
    let output = Command::new("ip")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .context("starting ip (Debian package iproute2)")?;
    ensure!(
        output.status.success(),
        "ip {} failed: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
