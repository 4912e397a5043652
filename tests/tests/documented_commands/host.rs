//! README's "Use it on a host".

use std::process::Command;

use responder_lab::{COMMAND_DEADLINE, Lab, root_or_skip, tools_or_skip};
use responder_tests::commands::Desk;

use super::{
    runner::Runner,
    tables::{Place, Stage},
};

/// A host's own BPF file system and `/run`, as long as it is there.
const MOUNTS: &str =
    "mount -t bpf bpf /sys/fs/bpf && mount -t tmpfs tmpfs /run && echo up && exec sleep infinity";

#[test]
fn documented_commands_on_a_host() {
    let test = "documented_commands_on_a_host";
    if !root_or_skip(test) || !tools_or_skip(test, &["bash", "bpftool", "nsenter", "unshare"]) {
        return;
    }
    let lab = Lab::builder().hosts(&["a"]).segments(2).build().unwrap();
    let host = lab.node("a").ns();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", MOUNTS]);
    let mut mounts = host.spawn(command).unwrap();
    mounts.wait_line(COMMAND_DEADLINE, |line| line == "up").unwrap();
    let of = format!("--mount=/proc/{}/ns/mnt", mounts.pid());

    let desk = Desk::create(&lab.dir().join("desk")).unwrap();
    let mut runner = Runner::new(desk, |place, command| {
        assert_eq!(place, Place::Node);
        host.spawn(within(&of, &command))
    });
    runner.stage(Stage::Host, &|| ());
    runner.finish();
}

/// The same command in another mount namespace.
fn within(mounts: &str, command: &Command) -> Command {
    let mut entered = Command::new("nsenter");
    entered.arg(mounts).arg("--").arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => entered.env(name, value),
            None => entered.env_remove(name),
        };
    }
    entered
}
