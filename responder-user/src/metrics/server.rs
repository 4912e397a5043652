//! Connections and paths.

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    net::IpAddr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use bytes::Bytes;
use http::{
    Method, Request, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE},
};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::AbortHandle,
    time::{sleep, timeout},
};

use super::{Counts, Options, encode, health::Readiness, snapshot::Snapshots, tls::Tls};

/// Connections at a time, of this host itself and of others each. One more ends the oldest: whoever holds many must not keep
/// the others out, and nobody from outside the kubelet's probes, which come from the node's own address.
const CONNECTIONS: usize = 32;
/// For a connection, from its beginning to the last byte of its one answer.
const LIMIT: Duration = Duration::from_secs(10);
/// For a request to arrive.
const HEADERS: Duration = Duration::from_secs(5);
/// What a request may have, in bytes.
const BUFFER: usize = 16 * 1024;
/// Between attempts to listen. The agent before this one may still have the port for a moment, so a first failure is
/// not told.
const AGAIN: Duration = Duration::from_secs(1);
/// Before connections are accepted again after the system had no room for one.
const PAUSE: Duration = Duration::from_millis(200);

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Ends the server when it is dropped.
#[derive(Debug)]
pub(crate) struct Serving {
    _ended: oneshot::Sender<Infallible>,
}

struct Server {
    options: Options,
    tls: Option<Tls>,
    snapshots: Snapshots,
    counts: Arc<Counts>,
}

/// Serves in a thread of its own until what is returned is dropped. An address that cannot be listened at is told in
/// the log, and tried again for ever.
///
/// # Errors
///
/// If the thread cannot be started.
pub(crate) fn start(options: Options, snapshots: Snapshots, counts: Arc<Counts>) -> io::Result<Serving> {
    let (serving, mut ended) = oneshot::channel();
    let tls = options.tls.clone().map(Tls::new);
    let server = Arc::new(Server { options, tls, snapshots, counts });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("metrics".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                () = run(server) => {}
                _ = &mut ended => {}
            }
        });
        // Not waiting for a read of the maps.
        runtime.shutdown_background();
    })?;
    Ok(Serving { _ended: serving })
}

async fn run(server: Arc<Server>) {
    if let Some(listener) = listen(&server.options).await {
        serve(listener, server, is_own).await;
    }
}

/// Whether a connection comes from this host, by the addresses of its two ends.
fn is_own(peer: IpAddr, local: IpAddr) -> bool {
    let (peer, local) = (peer.to_canonical(), local.to_canonical());
    peer.is_loopback() || peer == local
}

async fn serve(listener: TcpListener, server: Arc<Server>, is_own: fn(IpAddr, IpAddr) -> bool) {
    let [mut own, mut others]: [VecDeque<AbortHandle>; 2] = Default::default();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let is_own = stream.local_addr().is_ok_and(|local| is_own(peer.ip(), local.ip()));
                let connections = if is_own { &mut own } else { &mut others };
                connections.retain(|connection| !connection.is_finished());
                if connections.len() >= CONNECTIONS
                    && let Some(oldest) = connections.pop_front()
                {
                    oldest.abort();
                }
                let serve = timeout(LIMIT, connection(stream, Arc::clone(&server)));
                connections.push_back(tokio::spawn(serve).abort_handle());
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection for metrics now");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn listen(options: &Options) -> Option<TcpListener> {
    let address = options.address;
    let began = Instant::now();
    let mut told = false;
    loop {
        match address.listen().await {
            Ok(None) => return None,
            Ok(Some(listener)) => {
                let at = listener.local_addr().map_or_else(|_| address.to_string(), |at| at.to_string());
                tracing::info!(address = %at, "metrics and health are served");
                return Some(listener);
            }
            Err(error) => {
                if !told && began.elapsed() >= AGAIN {
                    told = true;
                    tracing::error!(
                        %address, %error,
                        "metrics and health cannot be served there (--metrics-address); all else goes on, and it is \
                         tried again"
                    );
                }
                sleep(AGAIN).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, server: Arc<Server>) {
    let Some(tls) = &server.tls else {
        return speak(stream, server).await;
    };
    // Never in the clear instead.
    let Some(acceptor) = tls.acceptor() else {
        return;
    };
    match acceptor.accept(stream).await {
        Ok(stream) => speak(stream, server).await,
        Err(error) => tracing::debug!(%error, "a client for metrics, by TLS"),
    }
}

async fn speak<S>(stream: S, server: Arc<Server>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let service = service_fn(|request| {
        let server = Arc::clone(&server);
        async move { Ok::<_, Infallible>(server.answer(&request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .keep_alive(false)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "a client for metrics");
    }
}

impl Server {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET and HEAD only\n".into());
            refusal.headers_mut().insert(ALLOW, http::HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        let answer = match request.uri().path() {
            "/metrics" => self.metrics().await,
            "/livez" => Ok(self.livez().await),
            "/readyz" => self.readyz().await,
            "/state" => self.state().await,
            path => {
                let text = format!("no {path} here: /metrics, /livez, /readyz, /state\n");
                Ok(response(StatusCode::NOT_FOUND, TEXT, text))
            }
        };
        answer.unwrap_or_else(|error| {
            response(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("the maps cannot be read: {error:#}\n"))
        })
    }

    async fn metrics(&self) -> Result<Response<Full<Bytes>>> {
        let text = encode(&self.snapshots.take().await?, &self.counts, self.options.per_vip)?;
        Ok(response(StatusCode::OK, OPENMETRICS, text))
    }

    async fn livez(&self) -> Response<Full<Bytes>> {
        match self.snapshots.agent().await {
            Some(_) => response(StatusCode::OK, TEXT, "ok\n".into()),
            None => {
                response(StatusCode::SERVICE_UNAVAILABLE, TEXT, "the agent's loop does not answer\n".into())
            }
        }
    }

    async fn readyz(&self) -> Result<Response<Full<Bytes>>> {
        let readiness = Readiness::of(&*self.snapshots.take().await?);
        let code = if readiness.is_good() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        Ok(response(code, TEXT, readiness.text()))
    }

    /// What `responder status --local --json` prints.
    async fn state(&self) -> Result<Response<Full<Bytes>>> {
        let mut json = serde_json::to_string_pretty(&*self.snapshots.take().await?)?;
        json.push('\n');
        Ok(response(StatusCode::OK, JSON, json))
    }
}

fn response(code: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    response
}
