//! A node's own state, asked for from elsewhere: through the API server, which reaches nodes, or straight from its
//! metrics address.

use std::{cell::RefCell, time::Duration};

use bytes::Bytes;
use futures_util::future::{LocalBoxFuture, select_ok};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use k8s_openapi::api::core::v1::Node;
use responder_leadership::id::NodeName;
use tokio::time::timeout;

use super::facts::HostState;
use crate::{
    cluster::read::{ReadError, answer},
    operator::Operator,
};

/// For a node to answer by itself.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest state that is read, in bytes: that of tens of thousands of addresses.
const LONGEST: usize = 64 << 20;

/// Asks in every way at once, because each may take its time to fail. The error is a reason in words.
pub(super) async fn state(
    operator: &Operator,
    nodes: &[Node],
    node: &NodeName,
    port: u16,
) -> Result<HostState, String> {
    let addresses = nodes
        .iter()
        .filter(|object| object.metadata.name.as_deref() == Some(node.as_str()))
        .filter_map(|object| object.status.as_ref()?.addresses.as_ref())
        .flatten()
        .filter(|address| matches!(address.type_.as_str(), "InternalIP" | "ExternalIP"))
        .map(|address| address.address.as_str());
    let through = async {
        let answer = through_api_server(operator, node, port).await;
        answer.map_err(|error| format!("through the API server: {error}"))
    };
    let mut ways: Vec<LocalBoxFuture<'_, Result<Vec<u8>, String>>> = vec![Box::pin(through)];
    for address in addresses {
        ways.push(Box::pin(async move {
            let answer = straight(address, port).await;
            answer.map_err(|reason| format!("at {address} port {port}: {reason}"))
        }));
    }
    let reasons = RefCell::new(Vec::new());
    let noted = ways.into_iter().map(|way| {
        let reasons = &reasons;
        Box::pin(async move { way.await.map_err(|reason| reasons.borrow_mut().push(reason)) })
    });
    match select_ok(noted).await {
        Ok((text, _slower)) => parse(&text),
        Err(()) => Err(reasons.take().join("; ")),
    }
}

fn parse(text: &[u8]) -> Result<HostState, String> {
    serde_json::from_slice(text).map_err(|error| {
        format!(
            "its state cannot be understood ({error}); is it an agent of another version, or another program?"
        )
    })
}

/// Needs the right to `get nodes/proxy`.
async fn through_api_server(operator: &Operator, node: &NodeName, port: u16) -> Result<Vec<u8>, ReadError> {
    let what = format!("the state of {node}");
    let path = format!("/api/v1/nodes/{node}:{port}/proxy/state");
    let request = Request::get(path).body(Vec::new()).map_err(|error| ReadError::Failed {
        what: what.clone(),
        source: Box::new(kube::Error::HttpError(error)),
    })?;
    let asked = operator.client.request_text(request);
    answer(&what, "get nodes/proxy", asked).await.map(String::into_bytes)
}

async fn straight(address: &str, port: u16) -> Result<Vec<u8>, String> {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(PATIENCE));
    let client: HttpClient<_, Empty<Bytes>> = HttpClient::builder(TokioExecutor::new()).build(connector);
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let uri = format!("http://{host}:{port}/state")
        .parse()
        .map_err(|error: http::uri::InvalidUri| error.to_string())?;
    let asked = async {
        let response = client.get(uri).await.map_err(|error| crate::datapath::chain(&error))?;
        if response.status() != StatusCode::OK {
            return Err(format!("HTTP {}", response.status()));
        }
        let body = Limited::new(response.into_body(), LONGEST).collect().await;
        body.map(|body| body.to_bytes().to_vec()).map_err(|error| error.to_string())
    };
    timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")))
}
