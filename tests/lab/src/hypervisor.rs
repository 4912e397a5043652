//! A virtual machine that has itself stopped: from inside, a request to whoever runs outside beside the emulator; outside,
//! what carries it out.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{
    cluster::{Api, Elsewhere},
    time::BootTime,
};

/// Changes of objects (merge patches) by their paths, so long after the machine has been stopped.
#[derive(Clone, Debug, Default)]
pub struct Meanwhile {
    /// How long after.
    pub after: Duration,
    /// Path and patch.
    pub patches: Vec<(String, Value)>,
}

/// How long a machine stood still, by the clocks outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Paused {
    /// From the emulator's answer that it has stopped to when it was told to go on, by CLOCK_BOOTTIME.
    pub for_boot: Duration,
    /// The same by CLOCK_REALTIME.
    pub for_real: Duration,
}

impl Elsewhere {
    /// Has this machine stopped for so long. Returns after it.
    ///
    /// # Errors
    ///
    /// If there is nobody who does that, or a patch is refused.
    pub fn pause(self, length: Duration, meanwhile: &Meanwhile) -> Result<Paused> {
        let request = json!({
            "length": millis(length), "after": millis(meanwhile.after), "patches": meanwhile.patches,
        });
        let mut stream =
            TcpStream::connect(self.hypervisor()).context("nobody is there to stop this machine")?;
        writeln!(stream, "{request}")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        let answer: Value = serde_json::from_str(&line).with_context(|| format!("the answer is {line:?}"))?;
        let time = |key: &str| answer[key].as_u64().map(Duration::from_nanos);
        match (time("boot"), time("real")) {
            (Some(for_boot), Some(for_real)) => Ok(Paused { for_boot, for_real }),
            _ => bail!("the machine was not stopped: {answer}"),
        }
    }
}

/// Carries out one request, which comes on standard input: the machine of this `monitor` (a socket for QMP) is stopped,
/// objects are changed by way of `requests` (a `kubectl proxy`), the machine goes on, whatever has happened.
///
/// # Errors
///
/// If nobody takes the answer.
pub fn serve_hypervisor(monitor: &Path, requests: &Path) -> Result<()> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let answer = carry_out(&line, monitor, requests).unwrap_or_else(|error| json!(format!("{error:#}")));
    println!("{answer}");
    Ok(())
}

fn carry_out(line: &str, monitor: &Path, requests: &Path) -> Result<Value> {
    let request: Value = serde_json::from_str(line).with_context(|| format!("{line:?} is no request"))?;
    let time = |key: &str| request[key].as_u64().map(Duration::from_millis).context("a time is missing");
    let (length, after) = (time("length")?, time("after")?);
    let patches: Vec<(String, Value)> = serde_json::from_value(request["patches"].clone())?;
    let api = Api::new(requests);
    let mut monitor = Monitor::connect(monitor)?;
    monitor.execute("stop")?;
    let (boot, real) = (BootTime::now(), SystemTime::now());
    thread::sleep(after.min(length));
    let patched: Result<Vec<Value>> = patches.iter().map(|(path, patch)| api.merge(path, patch)).collect();
    thread::sleep(length.saturating_sub(BootTime::now().since(boot)));
    let (boot, real) = (BootTime::now().since(boot), real.elapsed().unwrap_or_default());
    monitor.execute("cont")?;
    patched?;
    Ok(json!({ "boot": nanos(boot), "real": nanos(real) }))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// An emulator's monitor.
struct Monitor {
    lines: BufReader<UnixStream>,
}

impl Monitor {
    fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).with_context(|| format!("no {}", socket.display()))?;
        let mut monitor = Self { lines: BufReader::new(stream) };
        ensure!(monitor.line()?["QMP"].is_object(), "the emulator does not say that it has a monitor");
        monitor.execute("qmp_capabilities")?;
        Ok(monitor)
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("the emulator says {line:?}"))
    }

    /// Events may come before the answer.
    fn execute(&mut self, command: &str) -> Result<()> {
        writeln!(self.lines.get_mut(), "{}", json!({ "execute": command }))?;
        loop {
            let said = self.line()?;
            if said.get("return").is_some() {
                return Ok(());
            }
            ensure!(said.get("error").is_none(), "{command}: {said}");
        }
    }
}
