//! Kernels: which, from where, and their modules.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail, ensure};
use ebpf_build::cache_dir;
use object::{Object as _, ObjectSection as _};

use super::fetch::Lists;
use crate::{kept::kept, step::say, tools::shown};

/// The series that are tested, and the suites that have them.
pub(super) const SERIES: [(&str, &str); 4] = [
    ("5.10", "bullseye-security"),
    ("6.1", "bookworm-security"),
    ("6.12", "trixie"),
    ("newest", "trixie-backports"),
];

/// The flavour for virtual machines: a quarter of the others' size, with all kinds of links in it.
const META: &str = "linux-image-cloud-amd64";

/// For so long a kernel is taken from the cache without asking whether there is a newer one in its series.
const FRESH: Duration = Duration::from_secs(14 * 24 * 3600);

/// A kernel that has been fetched.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    /// As in [`SERIES`].
    pub(super) series: &'static str,
    /// The version of Debian's package.
    pub(super) version: String,
    dir: PathBuf,
}

impl Kernel {
    /// The kernel itself, unpacked, which boots faster.
    pub(super) fn vmlinux(&self) -> PathBuf {
        self.dir.join("vmlinux")
    }

    /// `6.12.107`.
    pub(super) fn short_version(&self) -> &str {
        self.version.split('-').next().unwrap_or(&self.version)
    }

    /// These modules and all that they depend on, those first; what the kernel has built in, or has not, is left out.
    ///
    /// # Errors
    ///
    /// A module cannot be read.
    pub(super) fn modules(&self, names: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
        let mut files = BTreeMap::new();
        find_modules(&self.dir.join("modules"), &mut files)?;
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        for name in names {
            add_module(name, &files, &mut seen, &mut order)?;
        }
        Ok(order)
    }
}

fn find_modules(dir: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            find_modules(&path, files)?;
        } else if let Some((stem, _)) = name.split_once(".ko") {
            // `net/bridge/bridge.ko`, and no other's module of the same name.
            files.insert(stem.replace('-', "_"), path);
        }
    }
    Ok(())
}

fn add_module(
    name: &str,
    files: &BTreeMap<String, PathBuf>,
    seen: &mut BTreeSet<String>,
    order: &mut Vec<(String, Vec<u8>)>,
) -> Result<()> {
    let name = name.replace('-', "_");
    let Some(path) = files.get(&name).filter(|_| seen.insert(name.clone())) else {
        return Ok(());
    };
    let content = read_module(path)?;
    for dependency in depends(&content).with_context(|| format!("what {} depends on", path.display()))? {
        add_module(&dependency, files, seen, order)?;
    }
    order.push((name, content));
    Ok(())
}

fn read_module(path: &Path) -> Result<Vec<u8>> {
    let content = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    match path.extension().is_some_and(|extension| extension == "xz") {
        true => filter(Command::new("xz").arg("-dc"), content),
        false => Ok(content),
    }
}

/// From `depends=` in a module's `.modinfo`.
fn depends(module: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(module)?;
    let section = file.section_by_name(".modinfo").context("no .modinfo")?;
    let entries = section.data()?.split(|byte| *byte == 0);
    let list = entries.filter_map(|entry| entry.strip_prefix(b"depends=")).next().unwrap_or_default();
    let names = std::str::from_utf8(list)?.split(',').filter(|name| !name.is_empty());
    Ok(names.map(str::to_owned).collect())
}

/// What a program makes of its input.
fn filter(command: &mut Command, input: Vec<u8>) -> Result<Vec<u8>> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().with_context(|| format!("cannot run `{}`", shown(command)))?;
    let mut pipe = child.stdin.take().context("no pipe")?;
    // It may not want all of it.
    let writer = thread::spawn(move || pipe.write_all(&input).ok());
    let output = child.wait_with_output()?;
    ensure!(writer.join().is_ok() && !output.stdout.is_empty(), "`{}` made nothing", shown(command));
    Ok(output.stdout)
}

/// Fetches those kernels that are not in the tool cache, or are no longer the newest of their series.
///
/// # Errors
///
/// One is not there, and cannot be had.
pub(super) fn ensure_kernels(wanted: &[&'static str], update: bool) -> Result<Vec<Kernel>> {
    let mut lists = None;
    SERIES
        .iter()
        .filter(|(series, _)| wanted.contains(series))
        .map(|(series, suite)| {
            let known = recorded(series)?;
            if let Some((kernel, age)) = &known
                && !update
                && *age < FRESH
            {
                return Ok(kernel.clone());
            }
            match fetch(series, suite, &mut lists) {
                Ok(kernel) => Ok(kernel),
                Err(error) => match known {
                    Some((kernel, _)) => {
                        say(format!("going on with {}: {error:#}", kernel.version));
                        Ok(kernel)
                    }
                    None => Err(error.context(format!("kernel {series} of {suite}"))),
                },
            }
        })
        .collect()
}

fn record(series: &str) -> Result<PathBuf> {
    Ok(cache_dir()?.join(format!("vm-kernel-{series}.version")))
}

/// The kernel that was used last, and how long ago it was looked for.
fn recorded(series: &'static str) -> Result<Option<(Kernel, Duration)>> {
    let record = record(series)?;
    let Ok(version) = fs::read_to_string(&record) else {
        return Ok(None);
    };
    let version = version.trim().to_owned();
    let dir = cache_dir()?.join(format!("vm-kernel-{version}"));
    let age = SystemTime::now().duration_since(fs::metadata(record)?.modified()?).unwrap_or_default();
    Ok(dir.exists().then_some((Kernel { series, version, dir }, age)))
}

fn fetch(series: &'static str, suite: &str, lists: &mut Option<Lists>) -> Result<Kernel> {
    let lists = match lists {
        Some(lists) => lists,
        None => lists.insert(Lists::fetch("vm-kernel-lists", &SERIES.map(|(_, suite)| suite))?),
    };
    let version = lists.version(META, suite)?;
    let depends = lists.depends(META, &version)?;
    let image = depends.iter().find_map(|name| name.strip_prefix("linux-image-"));
    let release = image.with_context(|| format!("{META} {version} depends on no kernel"))?;
    let dir = kept(&format!("vm-kernel-{version}"), |temporary| {
        // Where the kernel and its modules come apart, linux-image-… has neither.
        let apart = ["linux-binary", "linux-modules"].map(|kind| format!("{kind}-{release}={version}"));
        let whole = [format!("linux-image-{release}={version}")];
        let is_apart = depends.iter().any(|name| name.starts_with("linux-modules-"));
        let root = temporary.join("root");
        lists.unpack(if is_apart { &apart } else { &whole }, &root)?;
        let made = temporary.join("made");
        fs::create_dir(&made)?;
        let modules = ["usr/lib/modules", "lib/modules"].map(|lib| root.join(lib).join(release));
        let modules = modules.iter().find(|dir| dir.is_dir()).context("the package has no modules")?;
        let images = [root.join(format!("boot/vmlinuz-{release}")), modules.join("vmlinuz")];
        let image = images.iter().find(|path| path.is_file()).context("the package has no kernel")?;
        fs::write(made.join("vmlinux"), vmlinux(&fs::read(image)?)?)?;
        fs::rename(modules.join("kernel"), made.join("modules"))?;
        Ok(made)
    })?;
    fs::write(record(series)?, &version)?;
    Ok(Kernel { series, version, dir })
}

/// The kernel in a bzImage: its header says where, its first bytes how it is compressed.
fn vmlinux(image: &[u8]) -> Result<Vec<u8>> {
    let word = |at: usize| -> Result<usize> {
        let bytes = image.get(at..at + 4).context("it is too short")?;
        Ok(u32::from_le_bytes(bytes.try_into()?) as usize)
    };
    ensure!(image.get(0x202..0x206).is_some() && &image[0x202..0x206] == b"HdrS", "it is no bzImage");
    let begin = (usize::from(image[0x1f1]) + 1) * 512 + word(0x248)?;
    // Its last four bytes are the size of what comes out, which not every decompressor likes.
    let payload = image.get(begin..begin + word(0x24c)? - 4).context("its payload is cut off")?;
    let mut command = match payload {
        [0x02, 0x21, 0x4c, 0x18, ..] => Command::new("lz4"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Command::new("zstd"),
        [0xfd, b'7', b'z', ..] => Command::new("xz"),
        [0x1f, 0x8b, ..] => Command::new("gzip"),
        other => bail!("its compression is unknown: {:02x?}", other.get(..4)),
    };
    let kernel = filter(command.arg("-dc"), payload.to_vec())?;
    ensure!(kernel.starts_with(b"\x7fELF"), "`{}` made no ELF file of it", shown(&command));
    Ok(kernel)
}
