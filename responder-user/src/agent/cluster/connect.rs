//! The connections to the API server, and what comes from them.

use std::{net::IpAddr, sync::Arc};

use anyhow::Result;
use tokio::sync::{
    Notify,
    mpsc::{Receiver, Sender, UnboundedReceiver, UnboundedSender, channel, unbounded_channel},
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

/// Connections, set up before an agent's turn has come. What the cluster says is read after that: an agent may wait for
/// days, and must not decide by what was then.
pub(crate) struct Connections {
    lines: Lines,
    api_server: Option<IpAddr>,
}

/// What is held of them.
pub(crate) struct Connected {
    pub(super) lines: Lines,
    /// Addresses of the API server.
    pub(super) api_server: Option<IpAddr>,
    /// Asks for new terms.
    again: Arc<Notify>,
}

/// What the agents have agreed on, and what is done by it.
pub(crate) struct Terms {
    pub(super) agreed: Agreed,
    /// The watch of the Leases that has begun.
    pub(super) leases: Leases,
    pub(super) known: Known,
    /// Where answers to the machine's writes go.
    pub(super) tell: UnboundedSender<Arrival>,
}

/// What the API server tells.
pub(crate) enum Input {
    /// The terms on which this agent takes part.
    Agreed(Box<Terms>),
    /// A Lease, or the end of a write or read.
    Arrival(Arrival),
    /// A Service, an EndpointSlice or a Node.
    Object(ObjectChange),
}

/// Where inputs come from.
pub(crate) struct Inputs {
    terms: Receiver<(Terms, UnboundedReceiver<Arrival>)>,
    /// What comes on the present terms; what is on its way from earlier ones is not told.
    arrivals: Option<UnboundedReceiver<Arrival>>,
    objects: Receiver<ObjectChange>,
}

impl Inputs {
    /// Waits for inputs. The agreement comes before the Leases that are read by it.
    pub(in crate::agent) async fn next(&mut self) -> Vec<Input> {
        let first = tokio::select! {
            biased;
            Some((terms, arrivals)) = self.terms.recv() => {
                self.arrivals = Some(arrivals);
                return vec![Input::Agreed(Box::new(terms))];
            }
            Some(arrival) = receive(&mut self.arrivals) => Input::Arrival(arrival),
            Some(object) = self.objects.recv() => Input::Object(object),
            else => std::future::pending().await,
        };
        let mut inputs = vec![first];
        while inputs.len() < BATCH
            && let Some(arrivals) = &mut self.arrivals
            && let Ok(arrival) = arrivals.try_recv()
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

async fn receive(arrivals: &mut Option<UnboundedReceiver<Arrival>>) -> Option<Arrival> {
    arrivals.as_mut()?.recv().await
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
        let (agree, terms) = channel(1);
        let objects = objects::follow(&lines.objects);
        let again = Arc::new(Notify::new());
        tokio::spawn(come_to_terms(options.clone(), lines.clone(), Arc::clone(&again), agree));
        (Connected { lines, api_server, again }, Inputs { terms, arrivals: None, objects })
    }
}

impl Connected {
    /// What was agreed on is void: the agents agree anew.
    pub(super) fn agree_again(&self) {
        self.again.notify_one();
    }
}

/// Agrees with the other agents on the cluster's record, then follows the Leases; and that again whenever it is asked.
async fn come_to_terms(
    options: ClusterOptions,
    lines: Lines,
    again: Arc<Notify>,
    agree: Sender<(Terms, UnboundedReceiver<Arrival>)>,
) {
    let ClusterOptions { namespace, claims, times, .. } = options;
    loop {
        let agreed = record::agree_at_last(&lines.writes, &namespace, claims, times.lease_duration).await;
        if let Some(flag) = agreed.flag_differs {
            tracing::warn!(
                recorded = agreed.record.claims,
                flag,
                "this cluster has another number of claims than --claims says; the recorded one counts"
            );
        }
        let known = Known::default();
        let (tell, arrivals) = unbounded_channel();
        let line = Arc::clone(&lines.leases);
        let leases = Leases::follow(line, &namespace, agreed.record.claims, known.clone(), tell.clone());
        if agree.send((Terms { agreed, leases, known, tell }, arrivals)).await.is_err() {
            return; // the agent is ending
        }
        again.notified().await;
    }
}
