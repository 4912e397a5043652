//! What a node with a kubelet has besides processes and links: files that outlive a crash, and the machine's settings
//! as its kubelet wants them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// What a kubelet would write into `/proc/sys` of the whole machine. It finds these values there instead.
const SYSCTLS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Makes it in `dir`: `lib` and `log` for `/var`, `sysctl` for `/proc/sys`, and `cgroup`, which stays empty.
pub(super) fn create(dir: &Path) -> Result<PathBuf> {
    let disk = dir.join("disk");
    for name in ["cgroup", "lib", "log"] {
        let path = disk.join(name);
        fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
    }
    for (key, value) in SYSCTLS {
        let path = disk.join("sysctl").join(key);
        fs::create_dir_all(path.parent().unwrap_or(&disk))?;
        fs::write(&path, format!("{value}\n")).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(disk)
}
