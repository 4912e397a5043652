use std::{collections::BTreeMap, fs, io::Read as _};

use flate2::read::GzDecoder;

use super::*;
use crate::{
    build::workspace,
    image::{PLUGIN, files},
};

fn about() -> About {
    About { name: "registry.example.com/net/responder:1.0".to_owned(), arch: Arch::X86_64, epoch: 0 }
}

fn unpacked(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (entry.path().unwrap().display().to_string(), content)
    });
    entries.collect()
}

#[test]
fn the_same_program_makes_the_same_image() {
    let image = || {
        let tree = files(b"a program".to_vec(), Arch::X86_64).unwrap();
        Archive::new(&tree, &about()).unwrap()
    };
    let (one, two) = (image(), image());
    assert_eq!(one.digest, two.digest);
    assert!(one.bytes == two.bytes, "the archives differ");

    let other = files(b"b program".to_vec(), Arch::X86_64).unwrap();
    assert_ne!(Archive::new(&other, &about()).unwrap().digest, one.digest);
}

/// Everything is found by its digest, from the index down to the files, and by Docker's table.
#[test]
fn the_archive_is_what_it_says() {
    let mut tree = Tree::default();
    tree.file(PROGRAM, b"a program".to_vec(), true);
    tree.link(PLUGIN, "responder");
    let archive = Archive::new(&tree, &About { epoch: 1_700_000_000, ..about() }).unwrap();
    let parts = unpacked(&archive.bytes);
    let read = |path: &str| serde_json::from_slice::<Value>(&parts[path]).unwrap();
    let found = |descriptor: &Value| {
        let path = format!("blobs/{}", descriptor["digest"].as_str().unwrap().replace(':', "/"));
        assert_eq!(descriptor["size"], parts[&path].len());
        assert_eq!(descriptor["digest"], digest(&parts[&path]));
        path
    };

    assert_eq!(read("oci-layout")["imageLayoutVersion"], "1.0.0");
    let listed = &read("index.json")["manifests"][0];
    assert_eq!(listed["digest"], archive.digest);
    assert_eq!(listed["annotations"]["io.containerd.image.name"], "registry.example.com/net/responder:1.0");
    assert_eq!(listed["annotations"]["org.opencontainers.image.ref.name"], "1.0");
    let manifest = read(&found(listed));
    let (config, layer) = (found(&manifest["config"]), found(&manifest["layers"][0]));
    assert_eq!(read("manifest.json")[0]["Config"], config);
    assert_eq!(read("manifest.json")[0]["Layers"][0], layer);

    let config = read(&config);
    assert_eq!(config["created"], "2023-11-14T22:13:20Z");
    assert_eq!((&config["architecture"], &config["os"]), (&json!("amd64"), &json!("linux")));
    assert_eq!(config["config"]["Entrypoint"], json!(["/usr/bin/responder"]));
    let mut files = Vec::new();
    GzDecoder::new(parts[&layer].as_slice()).read_to_end(&mut files).unwrap();
    assert_eq!(config["rootfs"]["diff_ids"][0], digest(&files));
    let files = unpacked(&files);
    assert_eq!(files[PROGRAM], b"a program");
    assert!(files.contains_key(PLUGIN));
}

/// Whoever builds it with a builder has the same.
#[test]
fn the_containerfile_says_the_same() {
    let text = fs::read_to_string(workspace().join("deploy/Containerfile")).unwrap();
    let has =
        |wanted: &str| assert!(text.lines().any(|line| line.trim() == wanted), "no {wanted:?} in {text}");
    has("FROM scratch");
    has(&format!("ENV {PATH}"));
    has(&format!("USER {USER}"));
    has(&format!("ENTRYPOINT [\"/{PROGRAM}\"]"));
    for (name, content) in LABELS {
        assert!(text.contains(&format!("{name}=\"{content}\"")), "no {name}={content:?} in {text}");
    }
}
