//! Licences of what others have written, as their texts ask for.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::PathBuf};

use anyhow::{Context as _, Result};

use super::packages::{Linked, Packages};

/// What files with licences and notices begin with.
const NAMES: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];

/// What comes with the compiler and not from a registry.
const TOOLCHAIN: &str = include_str!("toolchain-licences.txt");

/// All texts, each once, with the crates that it is of.
///
/// # Errors
///
/// A file of a crate cannot be read.
pub(super) fn text(packages: &Packages) -> Result<String> {
    let mut texts: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut out = "This program contains the following, under the licences named.\n\n".to_owned();
    let mut silent = String::new();
    for (key, linked) in packages.third_party() {
        let files = files(linked)?;
        let package = &linked.package;
        writeln!(out, "{key}: {}", package.license.as_deref().unwrap_or("see below"))?;
        if files.is_empty() {
            let authors = package.authors.join(", ");
            let whose = if authors.is_empty() { "its contributors".to_owned() } else { authors };
            let declared = package.license.as_deref().unwrap_or("no licence");
            writeln!(silent, "{key}: {declared}, copyright {whose}")?;
        }
        for file in files {
            let text = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            // Some have the line ends of other systems.
            let text = String::from_utf8_lossy(&text).replace("\r\n", "\n").trim().to_owned();
            texts.entry(text).or_default().push(key);
        }
    }
    if !silent.is_empty() {
        writeln!(
            out,
            "\nThese declare a licence and come without its text; the texts of the same licences are below, or in \
             LICENSE-APACHE and LICENSE-MIT beside this file.\n\n{silent}"
        )?;
    }
    section(&mut out, "Rust's library, LLVM's libunwind and musl", TOOLCHAIN.trim())?;
    let mut texts: Vec<_> = texts.into_iter().collect();
    texts.sort_by(|(_, one), (_, other)| one.cmp(other));
    for (text, mut keys) in texts {
        keys.dedup();
        section(&mut out, &keys.join(", "), &text)?;
    }
    Ok(out)
}

fn section(out: &mut String, whose: &str, text: &str) -> Result<()> {
    writeln!(out, "\n{}\n{whose}\n\n{text}", "-".repeat(80))?;
    Ok(())
}

/// The files of a crate with licences and notices.
fn files(linked: &Linked) -> Result<Vec<PathBuf>> {
    let package = &linked.package;
    let dir = package.manifest_path.parent().context("a crate without a directory")?;
    let mut found: Vec<PathBuf> = package.license_file().into_iter().map(Into::into).collect();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {dir}"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().to_uppercase();
        if entry.file_type()?.is_file() && NAMES.iter().any(|begin| name.starts_with(begin)) {
            found.push(entry.path());
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::program::Arch;

    #[test]
    fn each_crate_is_named_and_each_text_is_there_once() {
        let packages = Packages::linked(Arch::X86_64).unwrap();
        let text = text(&packages).unwrap();
        for (key, _) in packages.third_party() {
            assert!(text.contains(&format!("\n{key}: ")), "{key}");
        }
        assert!(!text.contains("\nresponder-user "), "that is no third party");
        assert!(text.contains("Rich Felker") && text.contains("LLVM"), "the toolchain's");
        assert!(text.matches("Permission is hereby granted").count() > 20);
        let sections: Vec<_> = text.split(&"-".repeat(80)).skip(1).collect();
        let mut bodies: Vec<_> =
            sections.iter().map(|section| section.trim().split_once("\n\n").unwrap().1).collect();
        let all = bodies.len();
        bodies.sort_unstable();
        bodies.dedup();
        assert_eq!(bodies.len(), all, "a text is there twice");
    }
}
