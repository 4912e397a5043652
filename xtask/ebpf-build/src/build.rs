//! Runs cargo for the BPF target and puts the objects in their place.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::choose::Choice;

/// The objects, by the name of the binary that each is built from; the file has `.o` added.
pub const OBJECTS: [&str; 4] = ["responder", "responder-log", "reference", "bench"];

/// The byte order of the machine that the objects are for. BPF is the same instructions in either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endian {
    /// Like x86-64 and arm64.
    Little,
    /// Like s390x.
    Big,
}

impl Endian {
    /// What the objects are compiled for.
    #[must_use]
    pub const fn target(self) -> &'static str {
        match self {
            Self::Little => "bpfel-unknown-none",
            Self::Big => "bpfeb-unknown-none",
        }
    }

    /// Where they go in the target directory.
    const fn place(self) -> &'static str {
        match self {
            Self::Little => "bpf",
            Self::Big => "bpf-big-endian",
        }
    }
}

/// What to build, and where.
#[derive(Debug, Clone)]
pub struct Request {
    /// The directory of the workspace's `Cargo.toml`.
    pub workspace: PathBuf,
    /// For which machines.
    pub endian: Endian,
    /// Where the objects go.
    pub out: PathBuf,
    /// Whether cargo's own progress is shown; its errors always are.
    pub verbose: bool,
}

impl Request {
    /// For the machines that tests run on, into `bpf` in the target directory, the place that everything else looks in.
    #[must_use]
    pub fn new(workspace: &Path) -> Self {
        Self::of(workspace, Endian::Little)
    }

    /// For machines of this byte order, into a place of its own in the target directory.
    #[must_use]
    pub fn of(workspace: &Path, endian: Endian) -> Self {
        let out = target_dir(workspace).join(endian.place());
        Self { workspace: workspace.to_owned(), endian, out, verbose: true }
    }
}

/// The workspace's target directory: `CARGO_TARGET_DIR` (from the workspace, if relative), or `target`.
#[must_use]
pub fn target_dir(workspace: &Path) -> PathBuf {
    let set = env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty());
    workspace.join(set.unwrap_or_else(|| OsString::from("target")))
}

/// Builds all objects and returns the paths of those in `request.out`; files that would not change are left alone.
///
/// # Errors
///
/// Cargo fails (what it said is in the error unless it was shown), or a file cannot be written.
pub fn build(choice: &Choice, request: &Request) -> Result<Vec<PathBuf>> {
    // A directory of its own: the host's is locked while the agent's build script runs.
    let target_dir = target_dir(&request.workspace).join("ebpf");
    let mut command = cargo(choice, &request.workspace);
    command.args(["build", "--release", "--package", "responder-ebpf", "--bins"]);
    command.args(["-Z", "build-std=core", "--target", request.endian.target()]);
    command.arg("--target-dir").arg(&target_dir);
    if request.verbose {
        command.stdin(Stdio::null()).stdout(Stdio::inherit()).stderr(Stdio::inherit());
    }
    let output =
        command.output().with_context(|| format!("cannot run {}", choice.compiler.cargo().display()))?;
    if !output.status.success() {
        bail!(
            "building the eBPF objects with {} failed ({})\n{}",
            choice.compiler,
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    fs::create_dir_all(&request.out).with_context(|| format!("cannot create {}", request.out.display()))?;
    let built = target_dir.join(request.endian.target()).join("release");
    OBJECTS
        .iter()
        .map(|name| {
            let object = request.out.join(format!("{name}.o"));
            replace(&built.join(name), &object)?;
            Ok(object)
        })
        .collect()
}

/// A cargo command that compiles for BPF with this toolchain, whatever the surroundings say.
#[must_use]
pub fn cargo(choice: &Choice, workspace: &Path) -> Command {
    let mut command = Command::new(choice.compiler.cargo());
    command.current_dir(workspace);
    for (name, _) in env::vars_os() {
        if !inherited(&name) {
            command.env_remove(name);
        }
    }
    command.env("RUSTC", choice.compiler.rustc());
    // None; a wrapper in the user's configuration does not know this compiler.
    command.env("RUSTC_WRAPPER", "");
    if !choice.compiler.version.unstable_features() {
        command.env("RUSTC_BOOTSTRAP", "1");
    }
    let flags = [
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
        joined(&["-Clinker=".as_ref(), choice.linker.path.as_os_str()]),
        // The same object wherever the tree is, and short paths in the verifier's log.
        joined(&["--remap-path-prefix=".as_ref(), workspace.as_os_str(), "=.".as_ref()]),
    ];
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join(OsStr::new("\x1f")));
    command
}

fn joined(parts: &[&OsStr]) -> OsString {
    parts.iter().copied().collect()
}

/// Whether a variable may reach the inner cargo. What an outer cargo, a build script or a `rustup run` has
/// set would make it choose another compiler, other flags or another directory.
#[must_use]
pub fn inherited(name: &OsStr) -> bool {
    const KEPT: [&str; 8] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
        "RUSTUP_HOME",
        "RUST_BACKTRACE",
    ];
    const DROPPED: [&str; 3] = ["CARGO", "RUST", "DEP_"];
    const DROPPED_EXACTLY: [&str; 10] = [
        "TARGET",
        "HOST",
        "OUT_DIR",
        "OPT_LEVEL",
        "PROFILE",
        "DEBUG",
        "NUM_JOBS",
        "MAKEFLAGS",
        "MFLAGS",
        "LD_LIBRARY_PATH",
    ];
    let Some(name) = name.to_str() else { return true };
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    starts(&KEPT) || !(starts(&DROPPED) || DROPPED_EXACTLY.contains(&name))
}

/// Puts a copy of `from` at `to` in one step, unless it is there already.
fn replace(from: &Path, to: &Path) -> Result<()> {
    let new = fs::read(from).with_context(|| format!("cargo did not build {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    let temporary = to.with_extension(format!("o.{}", std::process::id()));
    fs::write(&temporary, new).with_context(|| format!("cannot write {}", temporary.display()))?;
    fs::rename(&temporary, to)
        .with_context(|| format!("cannot rename {} to {}", temporary.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surroundings() {
        for dropped in
            ["CARGO", "CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR", "CARGO_MAKEFLAGS", "CARGO_BUILD_TARGET"]
        {
            assert!(!inherited(dropped.as_ref()), "{dropped}");
        }
        for dropped in
            ["RUSTC", "RUSTC_WRAPPER", "RUSTFLAGS", "RUSTUP_TOOLCHAIN", "TARGET", "HOST", "OUT_DIR", "DEBUG"]
        {
            assert!(!inherited(dropped.as_ref()), "{dropped}");
        }
        for kept in
            ["PATH", "HOME", "HOSTNAME", "CARGO_HOME", "RUSTUP_HOME", "CARGO_TERM_COLOR", "CARGO_NET_OFFLINE"]
        {
            assert!(inherited(kept.as_ref()), "{kept}");
        }
    }

    #[test]
    fn replaces_only_what_changed() {
        let dir = env::temp_dir().join(format!("ebpf-build-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (from, to) = (dir.join("built"), dir.join("object.o"));
        fs::write(&from, "one").unwrap();
        replace(&from, &to).unwrap();
        let first = fs::metadata(&to).unwrap();
        replace(&from, &to).unwrap();
        // The same file, not a new one with the same content.
        assert_eq!(inode(&first), inode(&fs::metadata(&to).unwrap()));
        fs::write(&from, "two").unwrap();
        replace(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"two");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2, "no temporary file is left");
        fs::remove_dir_all(&dir).unwrap();
    }

    fn inode(metadata: &fs::Metadata) -> u64 {
        std::os::unix::fs::MetadataExt::ino(metadata)
    }
}
