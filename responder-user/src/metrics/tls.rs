//! TLS for metrics and health.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::ring,
        pki_types::{
            CertificateDer, PrivateKeyDer,
            pem::{self, PemObject as _},
        },
    },
};

/// Where certificate and key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and what it is signed by, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

/// A certificate cannot be used.
#[derive(Debug, thiserror::Error)]
enum TlsError {
    #[error("{}: {source}", .path.display())]
    Pem { path: PathBuf, source: pem::Error },
    #[error("{} has no certificate", .0.display())]
    Empty(PathBuf),
    #[error("certificate and key: {0}")]
    Refused(#[from] rustls::Error),
}

/// What tells a file from the one that was there before: inode, length, and when it was written.
type Stamp = [Option<(u64, u64, i64, i64)>; 2];

/// The certificate as the files had it when they last changed.
#[derive(Debug)]
pub(super) struct Tls {
    files: TlsFiles,
    loaded: Mutex<Option<Loaded>>,
}

struct Loaded {
    stamp: Stamp,
    /// `None`: there never was one that can be used.
    acceptor: Option<TlsAcceptor>,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("stamp", &self.stamp).finish_non_exhaustive()
    }
}

impl Tls {
    pub(super) const fn new(files: TlsFiles) -> Self {
        Self { files, loaded: Mutex::new(None) }
    }

    /// What speaks TLS with the next client. Files that have changed are read again; while they cannot be used, the
    /// certificate before goes on. `None`: there is none.
    pub(super) fn acceptor(&self) -> Option<TlsAcceptor> {
        let stamp = [&self.files.certificate, &self.files.key].map(|path| stamp(path).ok());
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = loaded.as_ref().filter(|loaded| loaded.stamp == stamp) {
            return loaded.acceptor.clone();
        }
        let before = loaded.take().and_then(|loaded| loaded.acceptor);
        let acceptor = match load(&self.files) {
            Ok(acceptor) => {
                tracing::info!(certificate = %self.files.certificate.display(), "metrics are served by TLS");
                Some(acceptor)
            }
            Err(error) => {
                let goes_on = if before.is_some() { "the one before goes on" } else { "nobody is served" };
                tracing::error!(%error, "the certificate for metrics cannot be used (--metrics-tls-cert); {goes_on}");
                before
            }
        };
        *loaded = Some(Loaded { stamp, acceptor: acceptor.clone() });
        acceptor
    }
}

fn stamp(path: &Path) -> io::Result<(u64, u64, i64, i64)> {
    fs::metadata(path).map(|file| (file.ino(), file.len(), file.mtime(), file.mtime_nsec()))
}

fn load(files: &TlsFiles) -> Result<TlsAcceptor, TlsError> {
    let of = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Pem { path, source }
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect)
        .map_err(of(&files.certificate))?;
    if chain.is_empty() {
        return Err(TlsError::Empty(files.certificate.clone()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(of(&files.key))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
