//! Services, EndpointSlices and Nodes of the whole cluster.

use std::{collections::BTreeSet, fmt::Debug, sync::Arc};

use k8s_openapi::{
    ClusterResourceScope, NamespaceResourceScope,
    api::{
        core::v1::{Node, Service},
        discovery::v1::EndpointSlice,
    },
};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::{
    client::Line,
    follow::{Followed, Gone, Sink, Step, prune},
};

/// So many objects of a list at a time: about a megabyte.
const PAGE: u32 = 500;
/// So many objects may wait. Then nothing more is read, which the API server bears.
const WAITING: usize = 256;

/// An object's namespace (empty: it has none) and name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Key {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    fn of<K: Resource>(object: &K) -> Self {
        let metadata = object.meta();
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }
}

/// What happened to the objects of one kind.
#[derive(Clone, PartialEq, Debug)]
pub enum Change<K> {
    /// One came or changed.
    Is(Key, Box<K>),
    /// One went.
    Gone(Key),
    /// A list is complete: all that there is has been told, and the end of all that is not there any more.
    Synced,
}

/// Something that happened to the cluster's objects.
#[derive(Clone, PartialEq, Debug)]
pub enum ObjectChange {
    /// To the Services.
    Service(Change<Service>),
    /// To the EndpointSlices.
    Slice(Change<EndpointSlice>),
    /// To the Nodes.
    Node(Change<Node>),
}

/// Follows all three until the receiver is gone. Nothing is kept of the objects but their names.
#[must_use]
pub fn follow(line: &Arc<Line>) -> Receiver<ObjectChange> {
    let (tell, receiver) = channel(WAITING);
    spawn(line, "Services", all_namespaces, ObjectChange::Service, &tell);
    spawn(line, "EndpointSlices", all_namespaces, ObjectChange::Slice, &tell);
    spawn(line, "Nodes", everywhere, ObjectChange::Node, &tell);
    receiver
}

fn all_namespaces<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(client: Client) -> Api<K> {
    Api::all(client)
}

fn everywhere<K: Resource<DynamicType = (), Scope = ClusterResourceScope>>(client: Client) -> Api<K> {
    Api::all(client)
}

fn spawn<K>(
    line: &Arc<Line>,
    what: &'static str,
    api: fn(Client) -> Api<K>,
    wrap: fn(Change<K>) -> ObjectChange,
    tell: &Sender<ObjectChange>,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let followed = Followed {
        what,
        line: Arc::clone(line),
        api,
        labels: None,
        page: Some(PAGE),
        restart: Arc::default(),
    };
    let sink = ObjectSink { wrap, tell: tell.clone(), there: BTreeSet::new(), unlisted: BTreeSet::new() };
    tokio::spawn(followed.run(sink));
}

struct ObjectSink<K> {
    wrap: fn(Change<K>) -> ObjectChange,
    tell: Sender<ObjectChange>,
    /// What was told and has not gone.
    there: BTreeSet<Key>,
    /// What of that the list under way has not brought yet.
    unlisted: BTreeSet<Key>,
}

impl<K: Resource + Send + Sync> Sink<K> for ObjectSink<K> {
    async fn step(&mut self, step: Step<K>) -> Result<(), Gone> {
        match step {
            Step::Listing => {
                self.unlisted.clone_from(&self.there);
                Ok(())
            }
            Step::Listed(object) | Step::Applied(object) => self.is(object).await,
            Step::Deleted(object) => self.gone(Key::of(&object)).await,
            Step::Synced { .. } => {
                while let Some(key) = self.unlisted.first().cloned() {
                    self.gone(key).await?;
                }
                self.send(Change::Synced).await
            }
        }
    }
}

impl<K: Resource> ObjectSink<K> {
    async fn is(&mut self, mut object: K) -> Result<(), Gone> {
        prune(object.meta_mut());
        let key = Key::of(&object);
        self.unlisted.remove(&key);
        self.there.insert(key.clone());
        self.send(Change::Is(key, Box::new(object))).await
    }

    async fn gone(&mut self, key: Key) -> Result<(), Gone> {
        self.send(Change::Gone(key.clone())).await?;
        self.unlisted.remove(&key);
        self.there.remove(&key);
        Ok(())
    }

    async fn send(&self, change: Change<K>) -> Result<(), Gone> {
        self.tell.send((self.wrap)(change)).await.map_err(|_closed| Gone)
    }
}
