//! Packages of any of Debian's suites, fetched and unpacked but never installed: with lists of our own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use ebpf_build::cache_dir;

use crate::{
    step::say,
    tools::{on_path, run, shown},
};

/// What signs Debian's suites, and the package that has it.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Where Debian is to be had if this machine's own sources do not say.
const MIRROR: &str = "http://deb.debian.org/debian";

/// Lists of some suites.
pub(super) struct Lists {
    dir: PathBuf,
}

impl Lists {
    /// Fetches the lists of these suites, into a directory of this name in the tool cache.
    ///
    /// # Errors
    ///
    /// There is no apt, no key to check the lists with, or no network.
    pub(super) fn fetch(name: &str, suites: &[&str]) -> Result<Self> {
        ensure!(
            on_path("apt-get").is_some(),
            "kernels for virtual machines come from Debian's suites, and there is no apt-get here"
        );
        ensure!(Path::new(KEYRING).is_file(), "there is no {KEYRING}: install debian-archive-keyring");
        let lists = Self { dir: cache_dir()?.join(name) };
        fs::create_dir_all(lists.dir.join("lists/partial"))
            .with_context(|| format!("cannot create {}", lists.dir.display()))?;
        let mirrors = Mirrors::of_this_machine();
        let sources: String = suites.iter().map(|suite| mirrors.source(suite)).collect();
        fs::write(lists.sources(), sources)?;
        say(format!("lists of {}", suites.join(", ")));
        run(lists.apt("apt-get").args(["-qq", "update"]))?;
        Ok(lists)
    }

    fn sources(&self) -> PathBuf {
        self.dir.join("sources.list")
    }

    /// apt with these lists instead of the machine's.
    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let option = |name: &str, value: &Path| format!("{name}={}", value.display());
        for option in [
            option("Dir::Etc::sourcelist", &self.sources()),
            "Dir::Etc::sourceparts=-".to_owned(),
            // What this machine prefers is about what is installed.
            "Dir::Etc::preferences=/dev/null".to_owned(),
            option("Dir::Etc::preferencesparts", &self.dir.join("lists/partial")),
            option("Dir::State::lists", &self.dir.join("lists")),
            "Dir::Cache::pkgcache=".to_owned(),
            "Dir::Cache::srcpkgcache=".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            // apt's own user may not write here, and need not.
            "APT::Sandbox::User=root".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        command.env("LC_ALL", "C").stdin(Stdio::null());
        command
    }

    fn output(command: &mut Command) -> Result<String> {
        let output = command.output().with_context(|| format!("cannot run `{}`", shown(command)))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`{}` failed: {}", shown(command), said.trim());
        String::from_utf8(output.stdout).with_context(|| format!("`{}` says no UTF-8", shown(command)))
    }

    /// The version of a package that a suite has.
    ///
    /// # Errors
    ///
    /// It has none.
    pub(super) fn version(&self, package: &str, suite: &str) -> Result<String> {
        let table = Self::output(self.apt("apt-cache").args(["madison", package]))?;
        madison(&table, suite).with_context(|| format!("{suite} has no {package}"))
    }

    /// What a package depends on: name by name, without versions.
    ///
    /// # Errors
    ///
    /// There is no such package.
    pub(super) fn depends(&self, package: &str, version: &str) -> Result<Vec<String>> {
        let wanted = format!("{package}={version}");
        let text = Self::output(self.apt("apt-cache").args(["show", &wanted]))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Depends: ")).unwrap_or_default();
        let names = line.split([',', '|']).filter_map(|item| item.split_whitespace().next());
        Ok(names.map(str::to_owned).collect())
    }

    /// What would be installed for a package of a suite here, as `name=version`; `without` names what does not count as
    /// installed.
    ///
    /// # Errors
    ///
    /// It cannot be installed here.
    pub(super) fn needed(&self, package: &str, suite: &str, without: &str) -> Result<Vec<String>> {
        let installed = fs::read_to_string("/var/lib/dpkg/status").context("what is installed")?;
        let begin = format!("Package: {without}");
        let kept: Vec<&str> =
            installed.split_inclusive("\n\n").filter(|entry| !entry.starts_with(&begin)).collect();
        let status = self.dir.join("status");
        fs::write(&status, kept.concat())?;
        let mut command = self.apt("apt-get");
        command.args(["-o", &format!("Dir::State::status={}", status.display()), "-o", "Debug::NoLocking=1"]);
        command.args(["-s", "--no-install-recommends", "-t", suite, "install", package]);
        let text = Self::output(&mut command)?;
        let wanted: Vec<String> = text.lines().filter_map(simulated).collect();
        ensure!(!wanted.is_empty(), "apt would install nothing for {package}");
        Ok(wanted)
    }

    /// Downloads packages (`name=version`) and unpacks them into a directory.
    ///
    /// # Errors
    ///
    /// They cannot be had.
    pub(super) fn unpack(&self, packages: &[String], into: &Path) -> Result<()> {
        let archives = into.with_extension("debs");
        fs::create_dir_all(&archives)?;
        fs::create_dir_all(into)?;
        say(format!("fetching {}", packages.join(" ")));
        run(self.apt("apt-get").current_dir(&archives).args(["-qq", "download"]).args(packages))?;
        for entry in fs::read_dir(&archives)? {
            run(Command::new("dpkg-deb").arg("-x").arg(entry?.path()).arg(into))?;
        }
        Ok(fs::remove_dir_all(archives)?)
    }
}

/// From `apt-cache madison`: `package | version | address suite/component architecture Packages`.
fn madison(table: &str, suite: &str) -> Option<String> {
    table.lines().find_map(|line| {
        let mut columns = line.split('|').map(str::trim);
        let (_, version, source) = (columns.next()?, columns.next()?, columns.next()?);
        let place = source.split_whitespace().nth(1)?;
        (place.split('/').next() == Some(suite)).then(|| version.to_owned())
    })
}

/// From `apt-get -s install`: `Inst name [old] (version suite [architecture])`.
fn simulated(line: &str) -> Option<String> {
    let (name, rest) = line.strip_prefix("Inst ")?.split_once(' ')?;
    let version = rest.split_once('(')?.1.split(' ').next()?;
    Some(format!("{name}={version}"))
}

/// Where Debian and its security suites are.
#[derive(Debug, PartialEq, Eq)]
struct Mirrors {
    main: String,
    security: String,
}

impl Mirrors {
    /// Those that this machine's own sources name; otherwise Debian's.
    fn of_this_machine() -> Self {
        let mut command = Command::new("apt-get");
        command.args(["indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Identifier: Packages"]);
        Self::of(&Lists::output(&mut command).unwrap_or_default())
    }

    fn of(targets: &str) -> Self {
        let pairs: Vec<(&str, &str)> = targets.lines().filter_map(|line| line.split_once(' ')).collect();
        let find = |end: &str| {
            let found = pairs.iter().find(|(uri, _)| uri.trim_end_matches('/').ends_with(end));
            found.map(|(uri, _)| uri.trim_end_matches('/').to_owned())
        };
        let main = find("/debian").unwrap_or_else(|| MIRROR.to_owned());
        let security = find("/debian-security").unwrap_or_else(|| format!("{main}-security"));
        Self { main, security }
    }

    /// A line of apt's sources.
    fn source(&self, suite: &str) -> String {
        let mirror = if suite.ends_with("-security") { &self.security } else { &self.main };
        format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n")
    }
}

/// This Debian's code name.
///
/// # Errors
///
/// This is no Debian.
pub(super) fn codename() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    match (value("ID").as_deref(), value("VERSION_CODENAME")) {
        (Some("debian"), Some(name)) => Ok(name),
        (id, _) => bail!("this is {}, and no Debian", id.unwrap_or("some system")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_by_suite() {
        let table = " linux-image-cloud-amd64 |  7.3.4-1 | http://d/debian trixie-backports/main amd64 Packages\n \
            linux-image-cloud-amd64 | 6.12.107-1 | http://d/debian trixie/main amd64 Packages\n";
        assert_eq!(madison(table, "trixie").unwrap(), "6.12.107-1");
        assert_eq!(madison(table, "trixie-backports").unwrap(), "7.3.4-1");
        assert_eq!(madison(table, "bookworm"), None);
    }

    #[test]
    fn what_apt_would_install() {
        let line = "Inst qemu-system-x86 [1:7.2] (1:10.0.2+ds-2 Debian Backports:bookworm-backports [amd64])";
        assert_eq!(simulated(line).unwrap(), "qemu-system-x86=1:10.0.2+ds-2");
        assert_eq!(simulated("Inst libaio1 (0.3 Debian:12/oldstable [amd64])").unwrap(), "libaio1=0.3");
        assert_eq!(simulated("Conf libaio1 (0.3 Debian)"), None);
    }

    #[test]
    fn mirrors_are_the_machines() {
        let own =
            "http://mirror.example/debian bookworm\nhttp://s.example/debian-security/ bookworm-security\n";
        let mirrors = Mirrors::of(&format!("https://other.example/apt stable\n{own}"));
        assert_eq!(mirrors.main, "http://mirror.example/debian");
        assert!(
            mirrors.source("trixie-security").contains(" http://s.example/debian-security trixie-security ")
        );
        assert_eq!(Mirrors::of("").main, MIRROR);
    }
}
