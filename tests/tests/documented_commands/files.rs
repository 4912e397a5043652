//! Commands that need nothing but files, and the manifests that are shown.

use std::{env, fs, path::Path, process::Command};

use responder_lab::{Lab, cluster_or_skip, skip};
use responder_tests::commands::{Desk, documents, manifests};

use super::{runner::Runner, tables::Stage};

#[test]
fn documented_commands_on_files() {
    let test = "documented_commands_on_files";
    if !responder_lab::root_or_skip(test) {
        return;
    }
    let Some(promtool) = env::var_os("RESPONDER_PROMTOOL") else {
        return skip(test, "RESPONDER_PROMTOOL does not name promtool");
    };
    let lab = Lab::builder().hosts(&["a"]).build().unwrap();
    let desk = Desk::create(&lab.dir().join("desk")).unwrap();
    desk.link("bin/promtool", Path::new(&promtool)).unwrap();
    let mut runner = Runner::new(desk, |_, command| lab.node("a").ns().spawn(command));
    runner.stage(Stage::Files, &|| ());
    runner.finish();
}

#[test]
fn documented_overlays_are_rendered() {
    let test = "documented_overlays_are_rendered";
    if !cluster_or_skip(test) {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let desk = Desk::create(place.path()).unwrap();
    let kubectl = Path::new(&env::var_os("RESPONDER_KUBE_BIN").unwrap()).join("kubectl");
    let mut rendered = 0;
    for (path, text) in documents().unwrap() {
        for (index, manifest) in manifests(&text).into_iter().enumerate() {
            // As deep as the overlays are that there are.
            let dir = desk.dir().join(format!("deploy/overlays/yours-{rendered}"));
            fs::create_dir(&dir).unwrap();
            let manifest = manifest.replace("sha256:…", &format!("sha256:{}", "0".repeat(64)));
            fs::write(dir.join("kustomization.yaml"), &manifest).unwrap();
            let output = Command::new(&kubectl).arg("kustomize").arg(&dir).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success() && said.is_empty(),
                "{path}, manifest {index}: {said}\n{manifest}"
            );
            rendered += 1;
        }
    }
    assert!(rendered >= 2, "{rendered} manifests");
}
