//! The thread that starts programs, and the namespaces that it starts them in.

use std::{
    fs::File,
    os::unix::process::CommandExt as _,
    process::{Child, Command},
    sync::{Arc, LazyLock, mpsc},
    thread,
};

use anyhow::{Context as _, Result};
use nix::{
    sched::{CloneFlags, setns, unshare},
    sys::{prctl, signal::Signal},
    unistd::setsid,
};

/// What a program gets besides its network namespace.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// The mounts, processes and host name of whoever starts it.
    Shared,
    /// Namespaces of its own for mounts, processes and the host name: it is their first process, and with it end all
    /// that run in them.
    Own,
    /// Those of a running first process.
    Of(Arc<Namespaces>),
}

/// The namespaces of a running first process, network aside.
#[derive(Debug)]
pub(crate) struct Namespaces {
    mounts: File,
    processes: File,
    host_name: File,
}

impl Namespaces {
    /// Those of a process that was started at [`Place::Own`].
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let open = |kind: &str| {
            let path = format!("/proc/{pid}/ns/{kind}");
            File::open(&path).with_context(|| format!("opening the namespace {path}"))
        };
        Ok(Self { mounts: open("mnt")?, processes: open("pid")?, host_name: open("uts")? })
    }
}

/// A request to the thread that starts programs.
struct Start {
    net: Option<File>,
    place: Place,
    command: Command,
    reply: mpsc::Sender<Result<Child>>,
}

/// Starts `command` in the network namespace `net` (by default this process's), and at `place` for the rest.
///
/// All programs are started by one thread that lives as long as this process, because the parent-death signal
/// comes at the end of the *thread* that forked.
pub(crate) fn start(net: Option<File>, place: Place, mut command: Command, keepable: bool) -> Result<Child> {
    static STARTER: LazyLock<mpsc::Sender<Start>> = LazyLock::new(|| {
        let (sender, requests) = mpsc::channel::<Start>();
        thread::spawn(move || {
            for Start { net, place, command, reply } in requests {
                // The one who asked waits for the answer.
                reply.send(start_here(net, place, command)).ok();
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
    STARTER.send(Start { net, place, command, reply })?;
    answer.recv().context("the thread that starts programs is gone")?
}

/// Forks from this thread, whose network and (for children) process namespaces decide about the child's. Mounts and
/// the host name are changed in the child alone: threads cannot have mounts of their own.
fn start_here(net: Option<File>, place: Place, mut command: Command) -> Result<Child> {
    if let Some(net) = net {
        setns(net, CloneFlags::CLONE_NEWNET).context("entering a network namespace")?;
    }
    if matches!(place, Place::Shared) {
        return Ok(command.spawn()?);
    }
    let home = File::open("/proc/thread-self/ns/pid").context("opening this process's own pid namespace")?;
    match &place {
        Place::Shared => {}
        Place::Own => unshare(CloneFlags::CLONE_NEWPID).context("making a pid namespace")?,
        Place::Of(of) => {
            setns(&of.processes, CloneFlags::CLONE_NEWPID).context("entering a pid namespace")?
        }
    }
    #[expect(unsafe_code, reason = "only the child may change its mounts")]
    // SAFETY: between fork and exec, only system calls are made, and nothing is allocated or locked; the files are
    // open as long as `command` lives.
    unsafe {
        command.pre_exec(move || {
            match &place {
                Place::Shared => {}
                Place::Own => unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)?,
                Place::Of(of) => {
                    setns(&of.mounts, CloneFlags::CLONE_NEWNS)?;
                    setns(&of.host_name, CloneFlags::CLONE_NEWUTS)?;
                }
            }
            Ok(())
        });
    }
    let child = command.spawn();
    // From a namespace whose first process is dead, nothing more could be started.
    setns(&home, CloneFlags::CLONE_NEWPID).context("going back to this process's own pid namespace")?;
    Ok(child?)
}
