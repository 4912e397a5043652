//! A program of the control plane, which may be killed, started again and frozen.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

use super::http::{Response, exchange};
use crate::{ns::NetNs, process::Process, time::wait_until};

/// How long a program of the control plane may take to be ready, on a busy machine.
const READY_DEADLINE: Duration = Duration::from_secs(90);
/// How long one question whether it is ready may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// What says that a program is ready by answering `200`.
#[derive(Clone, Debug)]
pub(super) enum Probe {
    /// It is ready as soon as it runs.
    None,
    /// A path at a TCP port of 127.0.0.1 in the program's namespace.
    Tcp(u16, &'static str),
    /// A path at a socket.
    Unix(PathBuf, &'static str),
}

/// A program of the control plane. Its data outlive it.
#[derive(Debug)]
pub struct Server {
    name: &'static str,
    ns: NetNs,
    argv: Vec<String>,
    probe: Probe,
    process: Mutex<Option<Process>>,
}

impl Server {
    /// One that does not run yet. `argv[0]` is the program's path.
    pub(super) fn new(name: &'static str, ns: &NetNs, argv: Vec<String>, probe: Probe) -> Self {
        Self { name, ns: ns.clone(), argv, probe, process: Mutex::new(None) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts it, without waiting.
    pub(super) fn spawn(&self) -> Result<()> {
        let mut process = self.lock();
        if process.is_some() {
            bail!("{} runs", self.name);
        }
        let (program, arguments) = self.argv.split_first().context("an empty command")?;
        let mut command = Command::new(program);
        command.args(arguments);
        *process = Some(self.ns.spawn(command)?);
        Ok(())
    }

    /// Starts it on the data that it had, and waits until it is ready.
    ///
    /// # Errors
    ///
    /// If it runs already, ends, or is not ready in time.
    pub fn start(&self) -> Result<()> {
        self.spawn()?;
        self.wait_ready()
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    ///
    /// If it is not in time, does not run, or ends; with what it wrote.
    pub fn wait_ready(&self) -> Result<()> {
        let ready = wait_until(&format!("{} ready", self.name), READY_DEADLINE, || {
            match self.lock().as_mut()?.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => return Some(Err(anyhow::anyhow!("{} ended: {status}", self.name))),
                Err(error) => return Some(Err(error)),
            }
            self.is_ready().then_some(Ok(()))
        });
        ready.and_then(|ready| ready).with_context(|| self.last_words())
    }

    fn is_ready(&self) -> bool {
        match &self.probe {
            Probe::None => true,
            Probe::Tcp(port, path) => get_local(&self.ns, *port, path).is_ok_and(|r| r.status == 200),
            Probe::Unix(socket, path) => {
                let answer = UnixStream::connect(socket).map_err(anyhow::Error::from).and_then(|stream| {
                    stream.set_read_timeout(Some(PROBE_TIMEOUT))?;
                    exchange(stream, ("GET", path), ("", ""))
                });
                answer.is_ok_and(|r| r.status == 200)
            }
        }
    }

    /// Its process id.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn pid(&self) -> Result<u32> {
        self.lock().as_ref().map(Process::pid).with_context(|| format!("{} does not run", self.name))
    }

    /// SIGKILL, and waits for the end.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn kill(&self) -> Result<()> {
        let mut process = self.lock().take().with_context(|| format!("{} does not run", self.name))?;
        process.kill()?;
        Ok(())
    }

    /// SIGSTOP.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let process = self.lock();
        process.as_ref().with_context(|| format!("{} does not run", self.name))?.signal(signal)
    }

    /// The end of what it wrote, for messages.
    #[must_use]
    pub fn last_words(&self) -> String {
        let process = self.lock();
        process.as_ref().map_or_else(|| format!("{} does not run", self.name), Process::last_words)
    }
}

/// `GET path` at a TCP port of 127.0.0.1 in a namespace.
pub(super) fn get_local(ns: &NetNs, port: u16, path: &str) -> Result<Response> {
    request_local(ns, port, ("GET", path), "")
}

/// A request with a JSON body at a TCP port of 127.0.0.1 in a namespace.
pub(super) fn request_local(ns: &NetNs, port: u16, what: (&str, &str), body: &str) -> Result<Response> {
    ns.run(|| {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = TcpStream::connect_timeout(&address, PROBE_TIMEOUT)?;
        stream.set_read_timeout(Some(PROBE_TIMEOUT))?;
        exchange(stream, what, ("application/json", body))
    })
}
