//! What comes before the agent's loop.

use anyhow::{Context as _, Result};
use tokio::task::JoinError;

use super::{
    Agent, From, Options,
    cluster::{Cluster, ClusterOptions, connect},
    file::FileWatch,
    signals::Signals,
    source::{Changes, Source, StaticSource},
};
use crate::{
    check::ShiftedClock,
    config::StaticConfig,
    control::Server,
    datapath::{
        object::{LoadOptions, Prepared},
        pins::{Lock, Pins, PinsError},
    },
    net::boot,
};

/// Runs until a signal ends it.
///
/// # Errors
///
/// If it cannot start: the static file is bad, the host is not fit, or other programs hold all interfaces.
pub async fn run(options: Options) -> Result<()> {
    // Before a long wait, so that what is wrong is told at once, and what takes time is done.
    let mut connected = match &options.from {
        From::File(file) => {
            StaticConfig::read(file)?;
            None
        }
        From::Cluster(cluster) => Some(connect(cluster).await?),
    };
    let offset = boot::namespace_offset();
    if offset != 0 {
        return Err(ShiftedClock(offset).into());
    }
    let pins = Pins::create(&options.bpffs)?;
    let mut signals = Signals::new()?;
    let Some((lock, prepared)) = take_lock(&pins, &mut signals, options.load()).await? else {
        return Ok(()); // told to end while waiting
    };
    let fresh = !pins.in_use();
    let started = async {
        // What may fail comes before what others could see.
        let (source, changes) = match (&options.from, connected.take()) {
            (From::File(path), _) => {
                let file = FileWatch::new(path)?;
                // As it is now: addresses may have been given away during the wait for the lock.
                let config = StaticConfig::read(path)?;
                let source = StaticSource { path: path.clone(), config, error: None };
                (Source::File(source), Changes::File(file))
            }
            (From::Cluster(options), Some(connections)) => {
                let (connected, inputs) = connections.follow(options);
                let cluster = Cluster::new(ClusterOptions::clone(options), connected);
                (Source::Cluster(Box::new(cluster)), Changes::Cluster(inputs))
            }
            (From::Cluster(_), None) => anyhow::bail!("not connected"),
        };
        let server = Server::bind(&options.run_dir)
            .with_context(|| format!("cannot listen in {} (--run-dir)", options.run_dir.display()))?;
        let (mut net, follower) = crate::net::watch::watch().await.context("cannot follow the links")?;
        let state = net.borrow_and_update().clone();
        let mut agent = Agent::new(options, (pins.clone(), prepared), source, state)?;
        agent.start()?;
        anyhow::Ok((agent, changes, server, net, follower))
    };
    let (agent, changes, server, net, follower) = match started.await {
        Ok(started) => started,
        Err(error) => {
            // Where nothing of ours was, nothing stays.
            if fresh && let Err(left) = pins.remove() {
                tracing::warn!(error = %left, "left behind");
            }
            return Err(error);
        }
    };
    agent.run(signals, changes, server, net, follower).await?;
    drop(lock);
    Ok(())
}

/// Takes the agent's lock, waiting for another agent to end, with programs loaded meanwhile. `None`: told to end before.
async fn take_lock(
    pins: &Pins,
    signals: &mut Signals,
    load: LoadOptions,
) -> Result<Option<(Lock, Option<Prepared>)>> {
    let mut prepared = None;
    loop {
        let lock = match pins.try_lock() {
            Err(PinsError::Locked { .. }) => {
                // Before it is announced that somebody waits: an agent whose programs are refused here must not go for this one.
                prepared = Prepared::beside(pins, load)?;
                wait_for_lock(pins, signals).await
            }
            other => other.map(Some),
        };
        match lock {
            Ok(None) => return Ok(None),
            Ok(Some(lock)) if pins.is_locked_by(&lock) => return Ok(Some((lock, prepared))),
            Err(error) if !error.is_not_found() => return Err(error.into()),
            // Who had it before has removed the directory.
            Ok(Some(_)) | Err(_) => drop(Pins::create(pins.root())?),
        }
    }
}

async fn wait_for_lock(pins: &Pins, signals: &mut Signals) -> Result<Option<Lock>, PinsError> {
    let announced = pins.announce_successor()?;
    tracing::info!(
        bpffs = %pins.root().display(),
        "another agent runs here; waiting for its end to take over"
    );
    let waiting = pins.clone();
    let wait = tokio::task::spawn_blocking(move || waiting.wait_for_lock());
    tokio::select! {
        ended = wait => {
            drop(announced);
            let failed = |error: JoinError| PinsError::Io {
                action: "wait for the lock of",
                path: pins.root().to_owned(),
                source: error.into(),
            };
            ended.map_err(failed)?.map(Some)
        }
        () = signals.end.recv() => {
            // The thread that waits cannot be told; it ends with the process.
            std::process::exit(0);
        }
    }
}
