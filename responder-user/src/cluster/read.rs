//! Everything read once, for the operator's commands.

use std::{fmt::Debug, time::Duration};

use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};
use kube::{Api, Client, Resource, api::ListParams};
use serde::de::DeserializeOwned;

use super::names::KIND;

/// A request must be answered by then.
const ANSWER: Duration = Duration::from_secs(5);
/// So many objects of a list at a time.
const PAGE: u32 = 500;

/// Something cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A right is missing.
    #[error("the right to `{verb}` is missing: {reason}")]
    Forbidden {
        /// Verb and resource, and where.
        verb: String,
        /// The API server's words.
        reason: String,
    },
    /// There is none.
    #[error("{what}: {reason}")]
    NotFound {
        /// What was to be read or written.
        what: String,
        /// The API server's words.
        reason: String,
    },
    /// The API server does not answer.
    #[error("{what} cannot be had: no answer of the API server within {ANSWER:?}")]
    Timeout {
        /// What was to be read or written.
        what: String,
    },
    /// Something else.
    #[error("{what} cannot be had: {}", reason(.source))]
    Failed {
        /// What was to be read or written.
        what: String,
        /// Why.
        source: Box<kube::Error>,
    },
}

fn reason(error: &kube::Error) -> String {
    crate::datapath::chain(error)
}

/// Waits for an answer; `what` and `verb` are for the error.
///
/// # Errors
///
/// See [`ReadError`].
pub async fn answer<T>(
    what: &str,
    verb: &str,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ReadError> {
    let what = what.to_owned();
    match tokio::time::timeout(ANSWER, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
            Err(ReadError::Forbidden { verb: verb.to_owned(), reason: status.message.clone() })
        }
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
            Err(ReadError::NotFound { what, reason: status.message.clone() })
        }
        Ok(Err(source)) => Err(ReadError::Failed { what, source: Box::new(source) }),
        Err(_) => Err(ReadError::Timeout { what }),
    }
}

/// Our Leases.
///
/// # Errors
///
/// See [`ReadError`].
pub async fn leases(client: &Client, namespace: &str) -> Result<Vec<Lease>, ReadError> {
    let api = Api::namespaced(client.clone(), namespace);
    let what = format!("the Leases of namespace {namespace}");
    all(&what, &format!("list leases in namespace {namespace}"), &api, Some(KIND)).await
}

/// All Services.
///
/// # Errors
///
/// See [`ReadError`].
pub async fn services(client: &Client) -> Result<Vec<Service>, ReadError> {
    all("the Services", "list services in all namespaces", &Api::all(client.clone()), None).await
}

/// All EndpointSlices.
///
/// # Errors
///
/// See [`ReadError`].
pub async fn slices(client: &Client) -> Result<Vec<EndpointSlice>, ReadError> {
    let verb = "list endpointslices.discovery.k8s.io in all namespaces";
    all("the EndpointSlices", verb, &Api::all(client.clone()), None).await
}

/// All Nodes.
///
/// # Errors
///
/// See [`ReadError`].
pub async fn nodes(client: &Client) -> Result<Vec<Node>, ReadError> {
    all("the Nodes", "list nodes", &Api::all(client.clone()), None).await
}

async fn all<K>(what: &str, verb: &str, api: &Api<K>, labels: Option<&str>) -> Result<Vec<K>, ReadError>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let mut params = ListParams::default().limit(PAGE);
    params.label_selector = labels.map(str::to_owned);
    let mut items = Vec::new();
    loop {
        let page = answer(what, verb, api.list(&params)).await?;
        items.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(items),
        }
    }
}
