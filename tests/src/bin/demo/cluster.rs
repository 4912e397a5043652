//! Three real nodes of a Kubernetes cluster, a client and a router on one Ethernet segment.

mod announce;
mod moves;
mod partition;
mod watch;
mod world;

use std::path::Path;

use anyhow::Result;

pub(super) use self::world::World;
use crate::show::Show;

/// Plays all scenes with this image of the agent's and these objects to install. What is returned keeps everything running.
pub(super) fn play(show: &mut Show, image: &Path, deploy: &Path, keep: bool) -> Result<World> {
    let mut world = announce::cluster(show, image, deploy, keep)?;
    let played = scenes(&mut world, show);
    if played.is_err() || !show.holds() {
        show.say(&world.site.diagnosis());
    }
    played.map(|()| world)
}

fn scenes(world: &mut World, show: &mut Show) -> Result<()> {
    announce::agents(world, show)?;
    moves::crash(world, show)?;
    moves::drain(world, show)?;
    moves::rolling_update(world, show)?;
    partition::cut_off(world, show)
}

/// Leaves it running, and says how to look around.
pub(super) fn keep(world: &World, show: &Show) -> Result<()> {
    show.say(&format!("\n{}\nTo remove it all: cargo xtask demo --cleanup", world.site.keep()?));
    Ok(())
}
