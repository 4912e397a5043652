//! The crates that are in the program: those that it is linked from, and those that the eBPF objects in it are. What only
//! helps to build it (build scripts, procedural macros) is not.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::{Context as _, Result};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId, TargetKind};

use super::program::Arch;
use crate::build::{cargo, workspace};

/// What the program and the objects in it are built from.
const ORIGINS: [&str; 2] = ["responder-user", "responder-ebpf"];

/// A crate.
#[derive(Clone, Debug)]
pub(super) struct Linked {
    pub(super) package: Package,
    /// The crates that it uses, as `name version`.
    pub(super) uses: BTreeSet<String>,
    /// SHA-256 of its archive in the registry, in hexadecimal; crates of this workspace have none.
    pub(super) checksum: Option<String>,
}

/// Crates by `name version`.
#[derive(Clone, Debug)]
pub(super) struct Packages(pub(super) BTreeMap<String, Linked>);

impl Packages {
    /// What is linked for an architecture.
    ///
    /// # Errors
    ///
    /// Cargo cannot tell.
    pub(super) fn linked(arch: Arch) -> Result<Self> {
        let options = ["--locked".to_owned(), "--filter-platform".to_owned(), arch.target().to_owned()];
        let metadata = MetadataCommand::new()
            .cargo_path(cargo().get_program())
            .current_dir(workspace())
            .other_options(options)
            .exec()
            .context("`cargo metadata` does not tell what the agent is built from")?;
        let lock = fs::read_to_string(workspace().join("Cargo.lock")).context("cannot read Cargo.lock")?;
        Self::of(&metadata, &checksums(&lock)?)
    }

    fn of(metadata: &Metadata, checksums: &BTreeMap<String, String>) -> Result<Self> {
        let packages: BTreeMap<&PackageId, &Package> =
            metadata.packages.iter().map(|package| (&package.id, package)).collect();
        let resolve = metadata.resolve.as_ref().context("`cargo metadata` tells no dependencies")?;
        let uses: BTreeMap<&PackageId, Vec<&PackageId>> = resolve
            .nodes
            .iter()
            .map(|node| {
                let linked = node.deps.iter().filter(|dependency| {
                    let normal = dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal);
                    normal && packages.get(&dependency.pkg).is_some_and(|package| !is_macro(package))
                });
                (&node.id, linked.map(|dependency| &dependency.pkg).collect())
            })
            .collect();

        let origin = |package: &&&Package| ORIGINS.contains(&package.name.as_str());
        let mut waiting: Vec<&PackageId> =
            packages.values().filter(origin).map(|package| &package.id).collect();
        let mut found = BTreeMap::new();
        while let Some(id) = waiting.pop() {
            let package =
                packages.get(id).with_context(|| format!("`cargo metadata` does not tell of {id}"))?;
            if found.contains_key(&key(package)) {
                continue;
            }
            let used = uses.get(id).map(Vec::as_slice).unwrap_or_default();
            waiting.extend(used);
            let linked = Linked {
                package: Package::clone(package),
                uses: used.iter().filter_map(|id| packages.get(id)).map(|package| key(package)).collect(),
                checksum: checksums.get(&key(package)).cloned(),
            };
            found.insert(key(package), linked);
        }
        Ok(Self(found))
    }

    /// Those of others.
    pub(super) fn third_party(&self) -> impl Iterator<Item = (&String, &Linked)> {
        self.0.iter().filter(|(_, linked)| linked.package.source.is_some())
    }

    /// What the program and the objects in it are built from.
    pub(super) fn origins(&self) -> impl Iterator<Item = &String> {
        self.0
            .iter()
            .filter(|(_, linked)| ORIGINS.contains(&linked.package.name.as_str()))
            .map(|(key, _)| key)
    }
}

fn key(package: &Package) -> String {
    format!("{} {}", package.name, package.version)
}

fn is_macro(package: &Package) -> bool {
    package.targets.iter().any(|target| target.is_kind(TargetKind::ProcMacro))
}

fn checksums(lock: &str) -> Result<BTreeMap<String, String>> {
    let lock: toml::Table = lock.parse().context("Cargo.lock cannot be understood")?;
    let packages =
        lock.get("package").and_then(toml::Value::as_array).context("Cargo.lock has no packages")?;
    let text = |package: &toml::Value, name: &str| Some(package.get(name)?.as_str()?.to_owned());
    let entry = |package: &toml::Value| {
        let key = format!("{} {}", text(package, "name")?, text(package, "version")?);
        Some((key, text(package, "checksum")?))
    };
    Ok(packages.iter().filter_map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_and_nothing_else() {
        let packages = Packages::linked(Arch::X86_64).unwrap();
        let has = |name: &str| packages.0.values().any(|linked| linked.package.name.as_str() == name);
        for linked in
            ["responder-user", "responder-common", "responder-ebpf", "aya", "aya-ebpf", "kube", "ring"]
        {
            assert!(has(linked), "{linked}");
        }
        // A build script's, a macro, a test's, this program's.
        for not in ["ebpf-build", "serde_derive", "proptest", "tar"] {
            assert!(!has(not), "{not}");
        }
        assert_eq!(packages.origins().count(), 2);
        assert!(
            packages.third_party().all(|(_, linked)| linked.checksum.as_ref().is_some_and(|c| c.len() == 64))
        );
    }
}
