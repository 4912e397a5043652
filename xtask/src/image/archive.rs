//! An image as an archive: an OCI layout, with Docker's own table of contents beside it.
//!
//! The documents are written as JSON values and not by a crate's types, whose annotations and labels are hash maps: they
//! would come in another order each time.

use std::io::Write as _;

use anyhow::Result;
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{PROGRAM, program::Arch, tree::Tree};

/// What is said of an image.
#[derive(Clone, Debug)]
pub(super) struct About {
    /// Host, path and tag.
    pub(super) name: String,
    pub(super) arch: Arch,
    /// The time of everything in it, in seconds since 1970.
    pub(super) epoch: u64,
}

/// Labels of the image; deploy/Containerfile has the same.
pub(super) const LABELS: [(&str, &str); 4] = [
    (
        "org.opencontainers.image.description",
        "Answers ARP and Neighbor Solicitations for Services in the NIC driver",
    ),
    ("org.opencontainers.image.licenses", "Apache-2.0 OR MIT"),
    ("org.opencontainers.image.title", "l2-responder"),
    ("org.opencontainers.image.version", env!("CARGO_PKG_VERSION")),
];

/// Environment, user and directory of the program; deploy/Containerfile has the same.
pub(super) const PATH: &str = "PATH=/usr/bin";
pub(super) const USER: &str = "0:0";

/// An archive.
#[derive(Clone, Debug)]
pub(super) struct Archive {
    pub(super) bytes: Vec<u8>,
    /// The digest of the manifest, which is the image's.
    pub(super) digest: String,
    /// The size of the compressed layer, in bytes.
    pub(super) layer: usize,
}

impl Archive {
    /// Makes it.
    ///
    /// # Errors
    ///
    /// A path is too long for it.
    pub(super) fn new(tree: &Tree, about: &About) -> Result<Self> {
        let files = tree.tar(about.epoch)?;
        let layer = compressed(&files)?;
        let config = config(about, &digest(&files)).to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &layer)],
        });
        let manifest = manifest.to_string().into_bytes();
        let mut listed = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
        let tag = about.name.rsplit(':').next().unwrap_or_default();
        listed["platform"] = json!({ "architecture": about.arch.oci(), "os": "linux" });
        listed["annotations"] = json!({
            // containerd takes the name from the first, others the tag from the second.
            "io.containerd.image.name": about.name,
            "org.opencontainers.image.ref.name": tag,
        });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [listed],
        });
        let contents = json!([{
            "Config": blob(&config),
            "RepoTags": [about.name],
            "Layers": [blob(&layer)],
        }]);

        let mut archive = Tree::default();
        let size = layer.len();
        let image = digest(&manifest);
        for content in [config, layer, manifest] {
            archive.file(&blob(&content), content, false);
        }
        archive.file("index.json", index.to_string().into_bytes(), false);
        archive.file("manifest.json", contents.to_string().into_bytes(), false);
        archive.file("oci-layout", json!({ "imageLayoutVersion": "1.0.0" }).to_string().into_bytes(), false);
        Ok(Self { bytes: archive.tar(about.epoch)?, digest: image, layer: size })
    }
}

fn config(about: &About, files: &str) -> Value {
    let created = humantime::format_rfc3339_seconds(
        std::time::UNIX_EPOCH + std::time::Duration::from_secs(about.epoch),
    )
    .to_string();
    let labels: serde_json::Map<_, _> =
        LABELS.map(|(name, text)| (name.to_owned(), json!(text))).into_iter().collect();
    json!({
        "architecture": about.arch.oci(),
        "os": "linux",
        "created": created,
        "config": {
            "User": USER,
            "Env": [PATH],
            "Entrypoint": [format!("/{PROGRAM}")],
            "WorkingDir": "/",
            "Labels": labels,
        },
        "rootfs": { "type": "layers", "diff_ids": [files] },
        "history": [{ "created": created, "created_by": "cargo xtask image" }],
    })
}

fn descriptor(kind: &str, content: &[u8]) -> Value {
    json!({ "mediaType": kind, "digest": digest(content), "size": content.len() })
}

fn digest(content: &[u8]) -> String {
    let hash = Sha256::digest(content);
    let hexadecimal: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hexadecimal}")
}

/// The path of a blob in the archive.
fn blob(content: &[u8]) -> String {
    format!("blobs/{}", digest(content).replace(':', "/"))
}

/// Without a time or a name in its header.
fn compressed(content: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    encoder.write_all(content)?;
    Ok(encoder.finish()?)
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
