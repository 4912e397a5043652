//! Programs in a namespace: output in files, lines waited for, an end with the lab's.

use std::{
    fs::{self, File},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::{
    sched::{CloneFlags, setns},
    sys::{
        prctl,
        signal::{Signal, kill},
    },
    unistd::{Pid, setsid},
};

use crate::{cleanup, ns::NetNs, time::wait_until};

/// A running program. It is killed when this is dropped, and by the kernel if this process dies before.
#[derive(Debug)]
pub struct Process {
    child: Child,
    shown: String,
    stdout: PathBuf,
    stderr: PathBuf,
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
    pub(crate) fn spawn(ns: &NetNs, mut command: Command) -> Result<Self> {
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
        let child =
            start(ns.file()?, command, ns.is_keepable()).with_context(|| format!("starting {shown}"))?;
        cleanup::add_process(child.id().cast_signed());
        Ok(Self { child, shown, stdout, stderr })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
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
        let status = self.child.try_wait().with_context(|| format!("waiting for {}", self.shown))?;
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
        self.child.kill()?;
        let status = self.child.wait()?;
        cleanup::forget_process(self.pid().cast_signed());
        Ok(status)
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

/// A request to the thread that starts programs.
struct Start {
    ns: File,
    command: Command,
    reply: mpsc::Sender<Result<Child>>,
}

/// Starts `command` in the namespace `ns`.
///
/// All programs are started by one thread that lives as long as this process, because the parent-death signal
/// comes at the end of the *thread* that forked.
fn start(ns: File, mut command: Command, keepable: bool) -> Result<Child> {
    static STARTER: LazyLock<mpsc::Sender<Start>> = LazyLock::new(|| {
        let (sender, requests) = mpsc::channel::<Start>();
        thread::spawn(move || {
            for Start { ns, mut command, reply } in requests {
                let child = setns(ns, CloneFlags::CLONE_NEWNET)
                    .map_err(anyhow::Error::from)
                    .and_then(|()| Ok(command.spawn()?));
                // The one who asked waits for the answer.
                reply.send(child).ok();
            }
        });
        sender
    });
    #[expect(unsafe_code, reason = "the only way to ask for a parent-death signal before the program runs")]
    // SAFETY: between fork and exec, only two system calls are made, and nothing is allocated or locked.
    unsafe {
        command.pre_exec(move || {
            if keepable {
                // Away from the terminal, whose Ctrl-C is not meant for what is kept.
                setsid()?;
            } else {
                prctl::set_pdeathsig(Signal::SIGKILL)?;
            }
            Ok(())
        });
    }
    let (reply, answer) = mpsc::channel();
    STARTER.send(Start { ns, command, reply })?;
    answer.recv().context("the thread that starts programs is gone")?
}
