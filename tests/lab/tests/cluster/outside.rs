//! Who reaches a cluster from outside of its namespaces.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use responder_lab::cluster_or_skip;
use serde_json::Value;

use super::SHARED;

#[test]
fn the_api_server_is_reached_from_outside() {
    if !cluster_or_skip("the_api_server_is_reached_from_outside") {
        return;
    }
    let person = (4242, 4243);
    let (mut relay, kubeconfig) = SHARED.open_outside(Some(person)).unwrap();
    // What the file names is that person's, too, and nobody else's but root's.
    for path in [&kubeconfig, &kubeconfig.with_file_name("ca.crt")] {
        assert!(reads(person, path), "{}", path.display());
        assert!(!reads((4244, 4243), path), "{}", path.display());
    }
    let ask = || {
        let mut kubectl = Command::new(SHARED.kubectl_path());
        kubectl.arg("--kubeconfig").arg(&kubeconfig).args(["get", "nodes", "-o", "name"]).output().unwrap()
    };
    let output = ask();
    assert!(String::from_utf8_lossy(&output.stdout).contains("node/n1"), "{output:?}");
    relay.kill().unwrap();
    assert!(!ask().status.success());
}

/// Whether somebody can read a file.
fn reads((user, group): (u32, u32), path: &Path) -> bool {
    let mut cat = Command::new("cat");
    cat.arg(path).uid(user).gid(group).stdout(Stdio::null()).stderr(Stdio::null());
    cat.status().unwrap().success()
}

/// Regular files below a directory, without following links.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().flatten();
    let below = entries.flat_map(|entry| match entry.file_type().unwrap() {
        kind if kind.is_dir() => files(&entry.path()),
        kind if kind.is_file() => vec![entry.path()],
        _ => Vec::new(),
    });
    below.collect()
}

#[test]
fn nobody_but_root_becomes_the_administrator() {
    if !cluster_or_skip("nobody_but_root_becomes_the_administrator") {
        return;
    }
    let text = fs::read_to_string(SHARED.kubeconfig()).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    let token = config["users"][0]["user"]["token"].as_str().unwrap();
    assert!(
        token.len() >= 32 && token.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{token} can be guessed"
    );

    let ends = ["token", ".kubeconfig", ".key", "tokens.csv"];
    let mut secrets = files(SHARED.dir());
    secrets.retain(|path| ends.iter().any(|end| path.to_str().unwrap().ends_with(end)));
    assert!(secrets.len() > 9, "{secrets:#?}");
    let control = SHARED.kubeconfig().parent().unwrap().to_owned(); // has a socket that asks as the administrator, too
    for path in secrets.iter().chain([&control]) {
        let mode = fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}: {}", path.display());
    }
}
