//! Two hosts and a client on one Ethernet segment, without Kubernetes: the datapath alone.

mod failures;
mod scenes;
mod world;

use std::{env, path::Path};

use anyhow::Result;
use responder_lab::{Lab, traffic};

pub(super) use self::world::World;
use super::show::Show;

/// Is one of the hosts' servers.
pub(super) fn serve(text: &str) -> Result<()> {
    println!("listening");
    traffic::serve(text, world::PORT)
}

/// Plays all scenes. What is returned keeps everything running.
pub(super) fn play(show: &mut Show, keep: bool) -> Result<World> {
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

/// Leaves it running, and says how to look around.
pub(super) fn keep(world: &World, show: &Show) -> Result<()> {
    world.lab.keep()?;
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
         # host a's maps\n{sudo}bpftool map dump pinned {}/v3/VIPS4\n\n\
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
    Ok(())
}
