//! `cargo xtask image`: the agent as an OCI image, made without a container daemon and without a base image.
//!
//! * `program`: a static program for an architecture.
//! * `packages`: which crates are in it; `licences` and `sbom` say so in the image.
//! * `roots`: certificates of public authorities.
//! * `tree`: the image's files, in a fixed order and without times.
//! * `archive`: layer, configuration, manifest, and the archive of them.

mod archive;
mod licences;
mod packages;
mod program;
mod roots;
mod sbom;
mod tree;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, ensure};
use ebpf_build::target_dir;

use self::{
    archive::{About, Archive},
    packages::Packages,
    program::Arch,
    tree::Tree,
};
use crate::{
    build::workspace,
    step::{say, step},
    tools::Consent,
};

/// What the manifests in `deploy` call the image. No registry has this name, so nobody else's image can come in its place.
const REPOSITORY: &str = "localhost/l2-responder/responder";

/// Where the program is in the image.
const PROGRAM: &str = "usr/bin/responder";
/// By this name kubectl finds it as a plugin.
const PLUGIN: &str = "usr/bin/kubectl-responder";
/// What programs look for certificates in.
const ROOTS: &str = "etc/ssl/certs/ca-certificates.crt";
/// What people look for licences in.
const DOCUMENTS: &str = "usr/share/doc/responder";

/// Build the agent's image as an archive: a static program, certificates, licences and a list of what is in it
///
/// The archive is an OCI layout that `ctr -n k8s.io images import`, `podman load`, `skopeo copy oci-archive:…` and `docker load`
/// take. The same sources and tools make the same bytes. Its files are also left in a directory, for
/// deploy/Containerfile.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What it is to run on; by default what this machine is
    #[arg(long, value_enum)]
    arch: Option<Arch>,
    /// Where the archive goes; by default target/image/responder-ARCH.tar
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Its name: a registry's host, a path and a tag; by default localhost/l2-responder/responder and the version
    #[arg(long, value_name = "HOST/PATH:TAG")]
    name: Option<String>,
    /// Puts this static program into it instead of building one
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Install what is missing without asking (as when the environment variable CI is set)
    #[arg(long)]
    yes: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    build(arguments).map(|_| ExitCode::SUCCESS)
}

/// Builds the image for this machine, by the name that `deploy` calls it, and returns its archive.
///
/// # Errors
///
/// As the command.
pub(crate) fn ensure(consent: Consent) -> Result<PathBuf> {
    let yes = consent == Consent::Given;
    build(&Arguments { arch: None, output: None, name: None, program: None, yes })
}

/// The agent in the image that was built last for this machine, for use outside of it.
///
/// # Errors
///
/// This machine is none that there are images for.
pub(crate) fn program() -> Result<PathBuf> {
    Ok(root_dir(Arch::here()?).join(PROGRAM))
}

/// The directory that the files of an image are left in.
fn root_dir(arch: Arch) -> PathBuf {
    target_dir(&workspace()).join("image").join(format!("root-{}", arch.name()))
}

fn build(arguments: &Arguments) -> Result<PathBuf> {
    let arch = match arguments.arch {
        Some(arch) => arch,
        None => Arch::here()?,
    };
    let name =
        arguments.name.clone().unwrap_or_else(|| format!("{REPOSITORY}:{}", env!("CARGO_PKG_VERSION")));
    check_name(&name)?;
    let place = target_dir(&workspace()).join("image");
    let output =
        arguments.output.clone().unwrap_or_else(|| place.join(format!("responder-{}.tar", arch.name())));

    let program = match &arguments.program {
        Some(program) => program.clone(),
        None => step("static program", || program::build(arch, Consent::new(arguments.yes)))?,
    };
    let program = fs::read(&program).with_context(|| format!("cannot read {}", program.display()))?;
    program::check(&program, arch)?;
    let tree = step("files", || files(program, arch))?;
    let root = root_dir(arch);
    tree.write(&root).with_context(|| format!("cannot write {}", root.display()))?;

    let about = About { name, arch, epoch: epoch()? };
    let archive = Archive::new(&tree, &about)?;
    if let Some(dir) = output.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    fs::write(&output, &archive.bytes).with_context(|| format!("cannot write {}", output.display()))?;
    tell(&tree, &archive, &about, &output, &root);
    Ok(output)
}

/// The image's files.
fn files(program: Vec<u8>, arch: Arch) -> Result<Tree> {
    let packages = Packages::linked(arch)?;
    let mut tree = Tree::default();
    tree.file(PROGRAM, program, true);
    tree.link(PLUGIN, "responder");
    tree.file(ROOTS, roots::pem().into_bytes(), false);
    for name in ["LICENSE.md", "LICENSE-APACHE", "LICENSE-MIT"] {
        let text = fs::read(workspace().join(name)).with_context(|| format!("cannot read {name}"))?;
        tree.file(&format!("{DOCUMENTS}/{name}"), text, false);
    }
    let third = licences::text(&packages)?;
    tree.file(&format!("{DOCUMENTS}/THIRD-PARTY.txt"), third.into_bytes(), false);
    let bom = sbom::json(&packages)?;
    tree.file(&format!("{DOCUMENTS}/sbom.cdx.json"), bom.into_bytes(), false);
    Ok(tree)
}

/// The time that everything in the image is said to be of, in seconds since 1970: `SOURCE_DATE_EPOCH`, or 0.
fn epoch() -> Result<u64> {
    match env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => {
            text.parse().with_context(|| format!("SOURCE_DATE_EPOCH={text:?} is no number of seconds"))
        }
        Err(_) => Ok(0),
    }
}

/// Without a host, tools add one each as they like.
fn check_name(name: &str) -> Result<()> {
    let host = name.split('/').next().filter(|_| name.contains('/')).unwrap_or_default();
    let tag = name.rsplit('/').next().and_then(|last| last.split_once(':'));
    ensure!(
        (host == "localhost" || host.contains(['.', ':'])) && tag.is_some_and(|(_, tag)| !tag.is_empty()),
        "--name {name}: write it with a registry's host and a tag, such as registry.example.com/net/responder:1.0"
    );
    Ok(())
}

fn tell(tree: &Tree, archive: &Archive, about: &About, output: &Path, root: &Path) {
    let size = |bytes: usize| format!("{:.1} MB", bytes as f64 / 1e6);
    let program = tree.size(PROGRAM).unwrap_or_default();
    say(format!(
        "{} for linux/{}\n{}\nprogram {}, files {}, compressed {}, archive {}",
        about.name,
        about.arch.oci(),
        archive.digest,
        size(program),
        size(tree.total()),
        size(archive.layer),
        size(archive.bytes.len()),
    ));
    say(format!("archive {}\nfiles   {}", output.display(), root.display()));
}

#[cfg(test)]
mod tests {
    use super::check_name;

    #[test]
    fn names_have_a_host_and_a_tag() {
        for good in ["localhost/a/b:1", "registry.example.com/responder:0.1.0", "10.0.0.1:5000/responder:x"] {
            check_name(good).unwrap();
        }
        for bad in ["responder:1", "l2/responder:1", "localhost/responder", "localhost/responder:", ""] {
            assert!(check_name(bad).unwrap_err().to_string().contains("registry's host"), "{bad}");
        }
    }
}
