//! Keys and certificates of a control plane.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

/// The files.
#[derive(Clone, Debug)]
pub(super) struct Pki {
    /// Certificate of the authority that clients trust.
    pub(super) ca: PathBuf,
    /// The API server's certificate.
    pub(super) certificate: PathBuf,
    /// Its key.
    pub(super) key: PathBuf,
    /// The key that signs ServiceAccount tokens.
    pub(super) accounts: PathBuf,
    /// A certificate with the public half of it.
    pub(super) accounts_public: PathBuf,
}

/// How `openssl` is to make a key: elliptic curves take no time to find.
const KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

impl Pki {
    /// Makes them in `dir`, the API server's certificate for `addresses`.
    pub(super) fn create(dir: &Path, addresses: &[&str]) -> Result<Self> {
        let names: Vec<String> = addresses.iter().map(|address| format!("IP:{address}")).collect();
        let config = dir.join("openssl.cnf");
        let text = format!(
            "[req]\ndistinguished_name = name\n[name]\n\
             [ca]\nbasicConstraints = critical,CA:TRUE\nkeyUsage = critical,keyCertSign\n\
             [server]\nbasicConstraints = CA:FALSE\nextendedKeyUsage = serverAuth\n\
             subjectAltName = DNS:kubernetes.default.svc,{}\n",
            names.join(",")
        );
        fs::write(&config, text).with_context(|| format!("writing {}", config.display()))?;
        let pki = Self {
            ca: dir.join("ca.crt"),
            certificate: dir.join("api.crt"),
            key: dir.join("api.key"),
            accounts: dir.join("accounts.key"),
            accounts_public: dir.join("accounts.crt"),
        };
        let ca_key = dir.join("ca.key");
        openssl(&config, "ca", "/CN=cluster CA", (&ca_key, &pki.ca), |_| {})?;
        openssl(&config, "server", "/CN=kube-apiserver", (&pki.key, &pki.certificate), |command| {
            command.arg("-CA").arg(&pki.ca).arg("-CAkey").arg(&ca_key);
        })?;
        openssl(&config, "ca", "/CN=accounts", (&pki.accounts, &pki.accounts_public), |_| {})?;
        Ok(pki)
    }
}

/// Makes a key and a certificate, signed by that key unless `more` says otherwise.
fn openssl(
    config: &Path,
    extensions: &str,
    subject: &str,
    (key, certificate): (&Path, &Path),
    more: impl FnOnce(&mut Command),
) -> Result<()> {
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-days", "30", "-subj", subject, "-extensions", extensions]).args(KEY);
    command.arg("-config").arg(config).arg("-keyout").arg(key).arg("-out").arg(certificate);
    more(&mut command);
    let output = command.output().context("starting openssl (Debian package openssl)")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "openssl could not make {}: {error}", certificate.display());
    Ok(())
}
