//! What a machine reaches outside of itself, and nothing else: an API server of its own, and its own emulator.

use std::{
    ffi::OsString,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{kubernetes, tools::shown};

/// At which address a machine finds it; tests/lab knows the ports.
pub(super) const ADDRESS: &str = "10.0.2.100";
/// Names it to the tests.
pub(super) const VARIABLE: &str = "RESPONDER_ELSEWHERE";
/// By this address the machine's first process knows the NIC.
const NIC: &str = "02:00:00:00:0d:01";

/// What it takes to have that.
#[derive(Debug, Clone)]
pub(super) struct Outside {
    /// The lab's program.
    pub(super) lab: PathBuf,
    /// The directory of etcd and the API server.
    pub(super) programs: OsString,
}

/// A running control plane. It ends when this is dropped, and with this process.
#[derive(Debug)]
pub(super) struct Plane {
    child: Child,
    /// The API server's, at 127.0.0.1.
    port: u16,
    /// The administrator's.
    socket: PathBuf,
}

impl Outside {
    /// Starts a control plane and waits until it answers.
    ///
    /// # Errors
    ///
    /// If it does not come up; it has said why.
    pub(super) fn plane(&self, environment: &[(&'static str, OsString)]) -> Result<Plane> {
        let mut command = Command::new("setpriv");
        // What it has started and made goes with it.
        command.args(["--pdeathsig", "TERM"]).arg(&self.lab).arg("control-plane");
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        command.env(kubernetes::VARIABLE, &self.programs);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot run `{}`", shown(&command)))?;
        let mut line = String::new();
        let output = child.stdout.take().context("no pipe")?;
        // If it cannot be read, it is empty.
        BufReader::new(output).read_line(&mut line).ok();
        let mut words = line.split_whitespace();
        match (words.next(), words.next().and_then(|port| port.parse().ok()), words.next()) {
            (Some("ready"), Some(port), Some(socket)) => Ok(Plane { child, port, socket: socket.into() }),
            _ => {
                let status = child.wait()?;
                bail!("`{}` says {line:?}: {status}", shown(&command))
            }
        }
    }

    /// The emulator's options for a machine that reaches this.
    pub(super) fn options(&self, plane: &Plane) -> Vec<String> {
        let lab = quoted(&self.lab.display().to_string());
        // Where the emulator takes orders: nobody else enters that directory, and its path is short.
        let monitor = plane.socket.with_file_name("monitor").display().to_string();
        let socket = plane.socket.display().to_string();
        let way = |port: u16, arguments: &str| {
            format!("guestfwd=tcp:{ADDRESS}:{port}-cmd:{}", doubled(&format!("{lab} {arguments}")))
        };
        let ways = [
            way(6443, &format!("connect 127.0.0.1:{}", plane.port)),
            way(8001, &format!("connect {}", quoted(&socket))),
            way(9000, &format!("hypervisor {} {}", quoted(&monitor), quoted(&socket))),
        ];
        let net = format!("user,id=outside,restrict=on,ipv6=off,{}", ways.join(","));
        let device = format!("virtio-net-pci,netdev=outside,mac={NIC},romfile=");
        let monitor = format!("unix:{},server=on,wait=off", doubled(&monitor));
        ["-netdev", &net, "-device", &device, "-qmp", &monitor].map(str::to_owned).to_vec()
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        // It may have ended by itself.
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).ok();
        self.child.wait().ok();
    }
}

/// As one word of a shell's.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// As part of an option of the emulator's, whose parts are separated by commas.
fn doubled(text: &str) -> String {
    text.replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_path_will_do() {
        let outside = Outside { lab: "/a b/it's,here".into(), programs: OsString::new() };
        let child = Command::new("true").spawn().unwrap();
        let plane = Plane { child, port: 7, socket: "/m,n/s".into() };
        let options = outside.options(&plane);
        let net = r"user,id=outside,restrict=on,ipv6=off,guestfwd=tcp:10.0.2.100:6443-cmd:'/a b/it'\''s,,here' connect 127.0.0.1:7,";
        assert!(options[1].starts_with(net), "{}", options[1]);
        assert_eq!(options[5], "unix:/m,,n/monitor,server=on,wait=off");
    }
}
