//! The image of the lab's own pods, made without any tool for images.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::paths;

/// The image of pods of the lab's own: with the arguments `serve NAME PORT` a web server. Every pod's sandbox is of it, too.
pub const LAB: &str = "localhost/responder-lab:1";

/// Writes it into `dir`, in the form of `docker save`.
pub(super) fn lab(dir: &Path) -> Result<PathBuf> {
    let root = dir.join("root");
    for name in ["dev", "etc", "proc", "sys", "tmp"] {
        fs::create_dir_all(root.join(name)).with_context(|| format!("creating {}", root.display()))?;
    }
    let program = paths::lab()?;
    copy(&program, &root.join("lab"))?;
    for library in libraries(&program)? {
        copy(&library, &root.join(library.strip_prefix("/").unwrap_or(&library)))?;
    }
    let archive = dir.join("archive");
    fs::create_dir_all(&archive)?;
    tar(&root, &archive.join("layer.tar"))?;
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": { "Entrypoint": ["/lab"], "Cmd": ["pause"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", digest(&archive.join("layer.tar"))?)] },
    });
    fs::write(archive.join("config.json"), config.to_string())?;
    let manifest = json!([{ "Config": "config.json", "RepoTags": [LAB], "Layers": ["layer.tar"] }]);
    fs::write(archive.join("manifest.json"), manifest.to_string())?;
    let image = dir.join("lab.tar");
    tar(&archive, &image)?;
    Ok(image)
}

/// As images name this machine's.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().unwrap_or(to))?;
    fs::copy(from, to).map(|_| ()).with_context(|| format!("copying {} to {}", from.display(), to.display()))
}

/// What a program is linked with.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let text = output(Command::new("ldd").arg(program))?;
    let paths = text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    Ok(paths.map(PathBuf::from).collect())
}

fn tar(dir: &Path, to: &Path) -> Result<()> {
    let mut command = Command::new("tar");
    command
        .args(["--owner=0", "--group=0", "--numeric-owner", "--sort=name", "-C"])
        .arg(dir)
        .arg("-cf")
        .arg(to);
    output(command.arg(".")).map(|_| ())
}

/// SHA-256, in hexadecimal.
fn digest(file: &Path) -> Result<String> {
    let text = output(Command::new("sha256sum").arg(file))?;
    Ok(text.split_whitespace().next().context("sha256sum prints nothing")?.to_owned())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {:?}", command.get_program()))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
