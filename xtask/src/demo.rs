//! `cargo xtask demo`

mod failures;
mod scenes;
mod show;
mod world;

use std::{env, path::Path, process::ExitCode};

use anyhow::{Context as _, Result};
use ebpf_build::{Request, Wanted};
use responder_lab::{Lab, cleanup_kept, traffic};

use self::{show::Show, world::World};
use crate::{
    build::{self, workspace},
    ebpf, root,
    step::step,
    tools::{Consent, install},
};

/// Debian packages of the tools that the demo runs.
const PACKAGES: [&str; 4] = ["bpftool", "iproute2", "iputils-arping", "ndisc6"];

/// Show it all in network namespaces: two hosts and a client on one Ethernet segment
///
/// Builds what is needed, then shows and checks: who answers ARP and NDP for two addresses that both hosts
/// have; that data follows; a restart without an unanswered question; the fence; a hand-over. Takes less than
/// a minute once built, needs root (or sudo), and removes everything it made, also when interrupted.
///
/// Exits with 1 if anything that it claims did not hold.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Leave everything running at the end, and say how to look around
    #[arg(long)]
    keep: bool,
    /// Remove what an earlier --keep has left
    #[arg(long, conflicts_with = "keep")]
    cleanup: bool,
    /// Install what is missing without asking (as when the environment variable CI is set)
    #[arg(long)]
    yes: bool,
    /// All is built: this is the part that runs as root
    #[arg(long, hide = true)]
    built: bool,
    /// Be a server that answers every TCP connection with this text
    #[arg(long, hide = true, value_name = "TEXT")]
    serve: Option<String>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if let Some(text) = &arguments.serve {
        println!("listening");
        traffic::serve(text, world::PORT)?;
    }
    if !arguments.built && !arguments.cleanup {
        let consent = match Consent::new(arguments.yes) {
            // Setting all up is what this command says it does.
            Consent::Withheld => Consent::Given,
            given @ (Consent::Given | Consent::Ask) => given,
        };
        prepare(consent)?;
    }
    if !root::is_root() {
        return as_root(arguments);
    }
    if arguments.cleanup {
        let removed = cleanup_kept();
        println!("removed {} namespaces and directories", removed.len());
        return Ok(ExitCode::SUCCESS);
    }
    root::ensure_bpffs()?;
    let mut show = Show::new();
    let world = play(&mut show, arguments.keep)?;
    let holds = show.close();
    if arguments.keep {
        world.lab.keep()?;
        how_to_look_around(&world, &show);
    }
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Toolchain, packages, eBPF objects, agent.
fn prepare(consent: Consent) -> Result<()> {
    step("tools", || install(&PACKAGES, consent))?;
    ebpf::build(Wanted::Auto, consent, &Request::new(&workspace()))?;
    step("agent", build::agent)?;
    Ok(())
}

/// The rest of the demo in a process of root's.
fn as_root(arguments: &Arguments) -> Result<ExitCode> {
    let program = env::current_exe().context("this program's path")?;
    // Administrators' tools are not on everybody's path.
    let mut path = env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/sbin:/sbin");
    let no_color = env::var_os("NO_COLOR").unwrap_or_default();
    let mut command = root::command(program, &[("PATH", &path), ("NO_COLOR", &no_color)])?;
    command.args(["demo", "--built"]);
    for (flag, set) in [("--keep", arguments.keep), ("--cleanup", arguments.cleanup)] {
        command.args(set.then_some(flag));
    }
    println!("==> network namespaces and eBPF need root: going on through sudo");
    let status = command.status().context("running sudo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn play(show: &mut Show, keep: bool) -> Result<World> {
    let lab = world::build(keep)?;
    show.say(&picture(&lab));
    scenes::without_agent(&lab, show)?;

    show.scene("With the agent: host a owns the addresses, host b stands by");
    let mut world = World::start(lab, show)?;
    scenes::resolution(&world, show)?;

    show.scene("Data follows the answer");
    scenes::data(&world, show, "host a")?;
    scenes::maps(&world, show)?;
    world = failures::restart(world, show)?;
    failures::fence(&world, show)?;
    failures::hand_over(&mut world, show)?;
    scenes::data(&world, show, "host b")?;
    Ok(world)
}

fn picture(lab: &Lab) -> String {
    let (a, b, c) = (lab.node("a"), lab.node("b"), lab.node("c"));
    let vips = format!("{} and {}", world::VIP4, world::VIP6);
    format!(
        "\n     host a               host b               client\n\
         {a:>17}    {b:>17}    {c:>17}\n\
         \x20       |                    |                    |\n\
         \x20   ----+--------------------+--------------------+---- Ethernet\n\n\
         Both hosts have the addresses {vips} on lo.",
        a = a.mac().to_string(),
        b = b.mac().to_string(),
        c = c.mac().to_string(),
    )
}

fn how_to_look_around(world: &World, show: &Show) {
    let sudo = if env::var_os("SUDO_USER").is_some() { "sudo " } else { "" };
    let (a, b, c) = (world.lab.node("a"), world.lab.node("b"), world.lab.node("c"));
    let enter = |path: &Path| format!("{sudo}nsenter --net={}", path.display());
    let responder = world.agent_a.commands().command("status");
    let responder = Path::new(responder.get_program()).display();
    let run_dir = world.agent_b.commands().run_dir();
    let (bpffs, file) = (b.bpffs().display(), world.agent_b.commands().file().display());
    show.say(&format!(
        "\nEverything is still running (servers: pids {:?}). To look around:\n\n\
         # who owns the addresses now\n{} {responder} status --bpffs {bpffs} --run-dir {}\n\
         # ask as the client\n{} arping -I eth0 -c 3 {}\n{} ndisc6 {} eth0\n\
         # give the addresses away: set standby = true, and watch\n{sudo}$EDITOR {file}\n\
         # host a's maps\n{sudo}bpftool map dump pinned {}/v2/VIPS4\n\n\
         To remove it all: cargo xtask demo --cleanup",
        world.server_pids(),
        enter(&b.ns().path()),
        run_dir.display(),
        enter(&c.ns().path()),
        world::VIP4,
        enter(&c.ns().path()),
        world::VIP6,
        a.bpffs().display(),
    ));
}
