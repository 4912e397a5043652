//! The connections to the API server, and what comes from them.

use std::{net::IpAddr, time::Duration};

use anyhow::Result;
use tokio::{
    sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender, channel, unbounded_channel},
    time::sleep,
};

use super::ClusterOptions;
use crate::cluster::{
    client::{Lines, config},
    known::Known,
    leases::{Arrival, Leases},
    objects::{self, ObjectChange},
    record::{self, Agreed},
};

/// So many inputs are taken at once, so that a storm of changes is one plan.
const BATCH: usize = 512;
/// Between attempts to read the cluster's record.
const PAUSE: Duration = Duration::from_millis(500);

/// Connections, set up before an agent's turn has come. What the cluster says is read after that: an agent may wait for
/// days, and must not decide by what was then.
pub(crate) struct Connections {
    lines: Lines,
    api_server: Option<IpAddr>,
}

/// What is held of them.
pub(crate) struct Connected {
    pub(super) lines: Lines,
    pub(super) known: Known,
    /// Where answers to the machine's writes go.
    pub(super) tell: UnboundedSender<Arrival>,
    /// Addresses of the API server.
    pub(super) api_server: Option<IpAddr>,
}

/// What the API server tells.
pub(crate) enum Input {
    /// What the agents agree on, and the watch of the Leases that has begun.
    Agreed(Box<(Agreed, Leases)>),
    /// A Lease, or the end of a write or read.
    Arrival(Arrival),
    /// A Service, an EndpointSlice or a Node.
    Object(ObjectChange),
}

/// Where inputs come from.
pub(crate) struct Inputs {
    agreed: Receiver<(Agreed, Leases)>,
    arrivals: UnboundedReceiver<Arrival>,
    objects: Receiver<ObjectChange>,
}

impl Inputs {
    /// Waits for inputs. The agreement comes before the Leases that are read by it.
    pub(in crate::agent) async fn next(&mut self) -> Vec<Input> {
        let first = tokio::select! {
            biased;
            Some(agreed) = self.agreed.recv() => Input::Agreed(Box::new(agreed)),
            Some(arrival) = self.arrivals.recv() => Input::Arrival(arrival),
            Some(object) = self.objects.recv() => Input::Object(object),
            else => std::future::pending().await,
        };
        let mut inputs = vec![first];
        while inputs.len() < BATCH
            && let Ok(arrival) = self.arrivals.try_recv()
        {
            inputs.push(Input::Arrival(arrival));
        }
        while inputs.len() < BATCH
            && let Ok(object) = self.objects.try_recv()
        {
            inputs.push(Input::Object(object));
        }
        inputs
    }
}

/// Sets up the connections.
///
/// # Errors
///
/// If no API server is known, or the credentials cannot be used. One that does not answer is tried for ever.
pub(crate) async fn connect(options: &ClusterOptions) -> Result<Connections> {
    let config = config(&options.access).await?;
    let api_server = config.cluster_url.host().and_then(|host| host.trim_matches(['[', ']']).parse().ok());
    let lines = Lines::new(&config)?;
    lines.renewals.warm_up();
    lines.writes.warm_up();
    Ok(Connections { lines, api_server })
}

impl Connections {
    /// Begins to follow the cluster. Nothing is written but the cluster's record.
    pub(in crate::agent) fn follow(self, options: &ClusterOptions) -> (Connected, Inputs) {
        let Self { lines, api_server } = self;
        let known = Known::default();
        let (tell, arrivals) = unbounded_channel();
        let (agree, agreed) = channel(1);
        let objects = objects::follow(&lines.objects);
        tokio::spawn(come_to_terms(options.clone(), lines.clone(), known.clone(), tell.clone(), agree));
        (Connected { lines, known, tell, api_server }, Inputs { agreed, arrivals, objects })
    }
}

/// Agrees with the other agents on the cluster's record, then follows the Leases.
async fn come_to_terms(
    options: ClusterOptions,
    lines: Lines,
    known: Known,
    tell: UnboundedSender<Arrival>,
    agreed: tokio::sync::mpsc::Sender<(Agreed, Leases)>,
) {
    let ClusterOptions { namespace, claims, times, .. } = options;
    let mut said = String::new();
    let terms = loop {
        match record::agree(&lines.writes, &namespace, claims, times.lease_duration).await {
            Ok(terms) => break terms,
            Err(error) => {
                let error = error.to_string();
                if error != said {
                    tracing::error!(%error, "no part is taken in the cluster yet; trying again");
                    said = error;
                }
                sleep(PAUSE).await;
            }
        }
    };
    if let Some(flag) = terms.flag_differs {
        tracing::warn!(
            recorded = terms.record.claims,
            flag,
            "this cluster has another number of claims than --claims says; the recorded one counts"
        );
    }
    let leases = Leases::follow(lines.leases, &namespace, terms.record.claims, known, tell);
    agreed.send((terms, leases)).await.ok(); // the agent may be ending
}
