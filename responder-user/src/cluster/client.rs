//! Where the API server is, and connections to it.
//!
//! kube speaks HTTP/1.1: each request under way has a connection to itself. Every [`Line`] has a pool of its own, so
//! that a list of thousands of Services is never before a renewal.
//!
//! A token's file is read again by kube before it is 50 s old, and here at once when the API server says 401. The
//! cluster's CA (in a pod) is read again every minute.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use k8s_openapi::apimachinery::pkg::version::Info;
use kube::{
    Client, Config,
    client::{Body, ClientBuilder, ConfigExt as _},
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use tower::{BoxError, ServiceBuilder};

/// How long to wait for a connection that nothing waits for.
const WARM_UP: Duration = Duration::from_secs(3);
/// A connection that is silent for so long is asked whether it lives, …
const KEEPALIVE: Duration = Duration::from_secs(5);
/// … every so often, …
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// … so many times.
const KEEPALIVE_RETRIES: u32 = 5;
/// An idle connection is closed after this, before the API server does it (90 s) just when a request is sent.
const IDLE: Duration = Duration::from_secs(60);
/// What is sent must be acknowledged by then.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// Where the API server is said to be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Access {
    /// `--kubeconfig`.
    pub kubeconfig: Option<PathBuf>,
    /// `--context`.
    pub context: Option<String>,
}

/// The API server cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A kubeconfig cannot be used.
    #[error("the kubeconfig {path}{} cannot be used: {source}", of(.context.as_deref()))]
    Kubeconfig {
        /// Which.
        path: String,
        /// The context asked for.
        context: Option<String>,
        /// Why.
        source: Box<KubeconfigError>,
    },
    /// In a pod, but without what it needs.
    #[error(
        "this pod cannot use the API server: {0}; its ServiceAccount's token must be mounted \
         (automountServiceAccountToken), or give --kubeconfig FILE"
    )]
    InCluster(#[source] Box<InClusterError>),
    /// Nowhere.
    #[error(
        "no API server is known: this is no pod (KUBERNETES_SERVICE_HOST is not set), and there is neither \
         --kubeconfig, nor KUBECONFIG, nor {0}; give --kubeconfig FILE, or run without a cluster by --static FILE"
    )]
    Nowhere(String),
    /// No connection can be set up.
    #[error("no connection to {url} can be set up: {source}")]
    Connection {
        /// The API server.
        url: String,
        /// Why.
        source: Box<kube::Error>,
    },
}

fn of(context: Option<&str>) -> String {
    context.map(|context| format!(" (context {context:?})")).unwrap_or_default()
}

/// Finds the API server: `--kubeconfig`, else the pod's own, else kubectl's.
///
/// # Errors
///
/// With what is missing.
pub async fn config(access: &Access) -> Result<Config, AccessError> {
    let mut config = match (&access.kubeconfig, std::env::var_os("KUBERNETES_SERVICE_HOST")) {
        (None, Some(_)) => Config::incluster().map_err(|error| AccessError::InCluster(Box::new(error)))?,
        (path, _) => from_kubeconfig(path.clone(), access.context.clone()).await?,
    };
    // A renewal counts from the moment at which it was first sent. Nobody may send it again later.
    config.default_retry = false;
    Ok(config)
}

async fn from_kubeconfig(path: Option<PathBuf>, context: Option<String>) -> Result<Config, AccessError> {
    let from_env = std::env::var_os("KUBECONFIG").filter(|text| !text.is_empty());
    let shown = match (&path, &from_env) {
        (Some(path), _) => path.display().to_string(),
        (None, Some(files)) => files.to_string_lossy().into_owned(),
        (None, None) => {
            let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
            let default = home.join(".kube/config");
            if !default.exists() {
                return Err(AccessError::Nowhere(default.display().to_string()));
            }
            default.display().to_string()
        }
    };
    let read = path.map_or_else(Kubeconfig::read, Kubeconfig::read_from);
    let options = KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
    let config = match read {
        Ok(kubeconfig) => Config::from_custom_kubeconfig(kubeconfig, &options).await,
        Err(error) => Err(error),
    };
    config.map_err(|source| AccessError::Kubeconfig { path: shown, context, source: Box::new(source) })
}

/// Lines to the API server, each with connections of its own.
#[derive(Clone)]
pub struct Lines {
    /// For renewals.
    pub renewals: Arc<Line>,
    /// For other writes, and reads of single objects.
    pub writes: Arc<Line>,
    /// For the watch of the Leases.
    pub leases: Arc<Line>,
    /// For Services, EndpointSlices and Nodes.
    pub objects: Arc<Line>,
}

impl Lines {
    /// Sets them up; nothing is sent.
    ///
    /// # Errors
    ///
    /// If certificates or credentials cannot be used.
    pub fn new(config: &Config) -> Result<Self, AccessError> {
        let line = |name| Line::new(name, config.clone()).map(Arc::new);
        Ok(Self {
            renewals: line("renewals")?,
            writes: line("writes")?,
            leases: line("leases")?,
            objects: line("objects")?,
        })
    }
}

/// A client that can be replaced when its connections or its credentials are of no use any more.
pub struct Line {
    name: &'static str,
    config: Config,
    client: Mutex<(Client, u64)>,
    /// A connection is being set up in the background.
    warming: Arc<AtomicBool>,
}

impl Line {
    /// Sets it up; nothing is sent.
    ///
    /// # Errors
    ///
    /// If certificates or credentials cannot be used.
    pub fn new(name: &'static str, config: Config) -> Result<Self, AccessError> {
        let client = Mutex::new((client(&config)?, 0));
        Ok(Self { name, config, client, warming: Arc::default() })
    }

    fn lock(&self) -> MutexGuard<'_, (Client, u64)> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client, and its number for [`Line::replace`].
    pub fn client(&self) -> (Client, u64) {
        self.lock().clone()
    }

    /// Replaces the client of this number by one with new connections and credentials as they are now, unless that
    /// has been done already, or a connection is being set up.
    ///
    /// A connection is set up in the background: where a request's timeout is too short for that, none would ever
    /// succeed again.
    pub fn replace(&self, number: u64) {
        {
            let mut current = self.lock();
            if current.1 != number || self.warming.load(Ordering::Relaxed) {
                return;
            }
            match client(&self.config) {
                Ok(client) => *current = (client, number + 1),
                Err(error) => {
                    tracing::warn!(line = self.name, %error, "the old connections are kept");
                    return;
                }
            }
        }
        self.warm_up();
    }

    /// Sets up a connection in the background.
    pub fn warm_up(&self) {
        if self.warming.swap(true, Ordering::Relaxed) {
            return;
        }
        let (client, _) = self.client();
        let (name, warming) = (self.name, Arc::clone(&self.warming));
        tokio::spawn(async move {
            match tokio::time::timeout(WARM_UP, client.apiserver_version()).await {
                Ok(Ok(Info { git_version, .. })) => tracing::debug!(line = name, %git_version, "connected"),
                Ok(Err(error)) => tracing::debug!(line = name, error = %text(&error), "no connection"),
                Err(_) => tracing::debug!(line = name, "no connection within {WARM_UP:?}"),
            }
            warming.store(false, Ordering::Relaxed);
        });
    }
}

/// A client with connections of its own.
///
/// # Errors
///
/// If certificates or credentials cannot be used.
pub fn client(config: &Config) -> Result<Client, AccessError> {
    build(config).map_err(|source| AccessError::Connection {
        url: config.cluster_url.to_string(),
        source: Box::new(source),
    })
}

fn build(config: &Config) -> Result<Client, kube::Error> {
    if config.proxy_url.is_some() {
        // What matters below is between the proxy and the API server here.
        return Ok(ClientBuilder::try_from(config.clone())?.build());
    }
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_keepalive(Some(KEEPALIVE));
    connector.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    connector.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    connector.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    let connector = config.rustls_https_connector_with_connector(connector)?;
    // What is sent again by itself was not begun before (its connection had been closed).
    let http: legacy::Client<_, Body> = legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace.clone()))
}

/// An error with its causes: kube's own text ends at "client error (Connect)".
#[must_use]
pub fn text(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return format!("{} (HTTP {})", status.message, status.code);
    }
    let mut text = String::new();
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = next {
        let one = error.to_string();
        // Some repeat their cause.
        if text.is_empty() {
            text = one;
        } else if !text.contains(&one) {
            text = format!("{text}: {one}");
        }
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_missing_is_named() {
        let access = Access { kubeconfig: Some("/nowhere/config".into()), context: Some("x".to_owned()) };
        let error = config(&access).await.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("/nowhere/config (context \"x\")"), "{error}");
    }

    #[tokio::test]
    async fn causes_are_shown() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let line = Line::new("test", Config::new(url.parse().unwrap())).unwrap();
        let error = line.client().0.apiserver_version().await.map(|_| ()).unwrap_err();
        assert!(text(&error).contains("refused"), "{}", text(&error));
    }

    #[tokio::test]
    async fn a_client_is_replaced_once_and_not_while_a_connection_is_set_up() {
        let line = Line::new("test", Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
        let number = || line.client().1;
        line.replace(1);
        assert_eq!(number(), 0, "that client is not the current one");
        line.replace(0);
        assert_eq!(number(), 1);
        line.replace(1);
        assert_eq!(number(), 1, "its connection is being set up");
        while line.warming.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
        line.replace(0);
        assert_eq!(number(), 1, "done already");
        line.replace(1);
        assert_eq!(number(), 2);
    }
}
