//! Programs in a namespace: output in files, lines waited for, an end with the lab's.

use std::{
    fs::{self, File},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    cleanup,
    ns::NetNs,
    start::{Place, start},
    time::wait_until,
};

/// A running program. It is killed when this is dropped, and by the kernel if this process dies before.
#[derive(Debug)]
pub struct Process {
    child: SharedChild,
    pid: u32,
    shown: String,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// A child that is waited for by whoever comes first.
#[derive(Clone, Debug)]
pub(crate) struct SharedChild(Arc<Mutex<Child>>);

impl SharedChild {
    fn lock(&self) -> MutexGuard<'_, Child> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anybody else still has it.
    pub(crate) fn is_held(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Its end, once it has been killed.
    pub(crate) fn reap(&self) -> std::io::Result<ExitStatus> {
        let mut child = self.lock();
        let status = child.wait()?;
        cleanup::forget_process(child.id().cast_signed());
        Ok(status)
    }
}

/// What a finished program left.
#[derive(Clone, Debug)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// The exit code; `None` if a signal ended it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Itself, if the exit code is 0.
    ///
    /// # Errors
    ///
    /// Otherwise, with the command line and what it printed.
    pub fn ok(self) -> Result<Self> {
        if self.status.success() {
            return Ok(self);
        }
        bail!("{}: {}\n{}{}", self.command, self.status, self.stdout, self.stderr)
    }
}

impl Process {
    pub(crate) fn spawn(ns: &NetNs, place: Place, mut command: Command) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let program = Path::new(command.get_program()).file_name().unwrap_or_default();
        let name = format!("{}-{}", NUMBER.fetch_add(1, Ordering::Relaxed), program.to_string_lossy());
        let stdout = ns.logs().join(format!("{name}.out"));
        let stderr = ns.logs().join(format!("{name}.err"));
        let create = |path: &Path| File::create(path).with_context(|| format!("creating {}", path.display()));
        command.stdin(Stdio::null()).stdout(create(&stdout)?).stderr(create(&stderr)?);
        let shown = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|arg| arg.to_string_lossy())
            .collect::<Vec<_>>()
            .join(" ");
        let child = start(ns.file()?, place, command, ns.is_keepable())
            .with_context(|| format!("starting {shown}"))?;
        let pid = child.id();
        cleanup::add_process(pid.cast_signed());
        Ok(Self { child: SharedChild(Arc::new(Mutex::new(child))), pid, shown, stdout, stderr })
    }

    /// To be reaped together with the namespace that it was started in.
    pub(crate) fn shared(&self) -> SharedChild {
        self.child.clone()
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What it has written to standard output.
    #[must_use]
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// What it has written to standard error.
    #[must_use]
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// Where its standard output goes.
    #[must_use]
    pub fn stdout_path(&self) -> &Path {
        &self.stdout
    }

    /// Where its standard error goes.
    #[must_use]
    pub fn stderr_path(&self) -> &Path {
        &self.stderr
    }

    /// Sends a signal.
    ///
    /// # Errors
    ///
    /// If it has ended and been waited for.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.pid().cast_signed());
        kill(pid, signal).with_context(|| format!("sending {signal} to {} (pid {pid})", self.shown))
    }

    /// How it ended; `None` while it runs.
    ///
    /// # Errors
    ///
    /// If the kernel does not say.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        let status = self.child.lock().try_wait().with_context(|| format!("waiting for {}", self.shown))?;
        if status.is_some() {
            cleanup::forget_process(self.pid().cast_signed());
        }
        Ok(status)
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// If it still runs after `deadline`; it goes on running.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let what = format!("end of {}", self.shown);
        let ended = wait_until(&what, deadline, || self.try_wait().transpose());
        ended.and_then(|status| status).with_context(|| self.last_words())
    }

    /// Waits for its end and collects its output.
    ///
    /// # Errors
    ///
    /// If it still runs after `deadline`; it is killed.
    pub fn finish(mut self, deadline: Duration) -> Result<Output> {
        let status = self.wait(deadline)?;
        Ok(Output { command: self.shown.clone(), status, stdout: self.stdout(), stderr: self.stderr() })
    }

    /// Kills it (SIGKILL) and waits for its end.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.try_wait()? {
            return Ok(status);
        }
        self.child.lock().kill()?;
        Ok(self.child.reap()?)
    }

    /// Waits for a line on standard output or standard error that `matches`, and returns it.
    ///
    /// # Errors
    ///
    /// If none comes within `deadline` or the program ends before, with what it wrote.
    pub fn wait_line(&mut self, deadline: Duration, matches: impl Fn(&str) -> bool) -> Result<String> {
        let what = format!("a line of {}", self.shown);
        let found = wait_until(&what, deadline, || {
            let ended = self.try_wait();
            let text = self.stdout() + &self.stderr();
            match (text.lines().find(|line| matches(line)), ended) {
                (Some(line), _) => Some(Ok(line.to_owned())),
                (None, Ok(None)) => None,
                (None, Ok(Some(status))) => Some(Err(anyhow!("{} ended before: {status}", self.shown))),
                (None, Err(e)) => Some(Err(e)),
            }
        });
        found.and_then(|line| line).with_context(|| self.last_words())
    }

    /// The end of what it wrote, for messages.
    #[must_use]
    pub fn last_words(&self) -> String {
        let text = self.stdout() + &self.stderr();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(30)..].join("\n");
        format!("{} wrote:\n{last}", self.shown)
    }

    /// True if it was ended by a signal.
    #[must_use]
    pub fn was_killed(status: ExitStatus) -> bool {
        status.signal().is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if cleanup::stays() {
            return;
        }
        // A failure to kill means that it has ended, which is what is wanted.
        self.kill().ok();
        if thread::panicking() {
            eprintln!("--- {}", self.last_words());
        }
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
