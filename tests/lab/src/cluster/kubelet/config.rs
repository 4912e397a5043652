//! What containerd, the kubelet and the CNI plugins of a node are told.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::image;
use crate::cluster::node::{pod_network_v4, pod_network_v6};

/// containerd's socket, on the node.
pub(super) const SOCKET: &str = "/run/containerd/containerd.sock";
/// Where Debian has the CNI plugins, and where others do.
const PLUGINS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];

/// What this machine has to run containers with.
#[derive(Clone, Debug)]
pub(super) struct Runtime {
    major: u32,
    plugins: PathBuf,
    snapshotter: &'static str,
}

impl Runtime {
    /// Looks at what is installed, and tries the file system that `dir` is on.
    ///
    /// # Errors
    ///
    /// With what is missing.
    pub(super) fn find(dir: &Path) -> Result<Self> {
        let plugins = plugins()?;
        let output = Command::new("containerd").arg("--version").output();
        let output = output.context("starting containerd (Debian package containerd)")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let major = major(&text).with_context(|| format!("containerd --version printed {text:?}"))?;
        Ok(Self { major, plugins, snapshotter: if has_overlay(dir)? { "overlayfs" } else { "native" } })
    }

    /// As containerd calls it.
    pub(super) fn snapshotter(&self) -> &'static str {
        self.snapshotter
    }

    /// containerd's configuration; `cni` is the directory of [`network`].
    pub(super) fn containerd(&self, cni: &Path) -> String {
        let (plugins, snapshotter, pause) = (self.plugins.display(), self.snapshotter, image::LAB);
        let cni = cni.display();
        // To lower a score is a right that root may lack; profiles of AppArmor are the whole machine's, and so is /opt,
        // where that plugin makes a directory.
        let common = "restrict_oom_score_adj = true\ndisable_apparmor = true\n";
        let version = if self.major < 2 { 2 } else { 3 };
        let head = format!(
            "version = {version}\noom_score = 0\ndisabled_plugins = ['io.containerd.internal.v1.opt']\n"
        );
        if self.major < 2 {
            let cri = "plugins.'io.containerd.grpc.v1.cri'";
            return format!(
                "{head}[{cri}]\n{common}sandbox_image = '{pause}'\n\
                 [{cri}.containerd]\nsnapshotter = '{snapshotter}'\n\
                 [{cri}.cni]\nbin_dir = '{plugins}'\nconf_dir = '{cni}'\n"
            );
        }
        let (images, runtime) =
            ("plugins.'io.containerd.cri.v1.images'", "plugins.'io.containerd.cri.v1.runtime'");
        format!(
            "{head}[{images}]\nsnapshotter = '{snapshotter}'\n\
             [{images}.pinned_images]\nsandbox = '{pause}'\n\
             [{runtime}]\n{common}\
             [{runtime}.cni]\nbin_dirs = ['{plugins}']\nconf_dir = '{cni}'\n"
        )
    }
}

/// Where the CNI plugins are.
///
/// # Errors
///
/// If they are not there.
pub(super) fn plugins() -> Result<PathBuf> {
    let found = PLUGINS.map(PathBuf::from).into_iter().find(|dir| dir.join("bridge").is_file());
    found.with_context(|| {
        format!("no CNI plugins in {} (Debian package containernetworking-plugins)", PLUGINS.join(" and "))
    })
}

/// The number before the first dot of the version.
fn major(text: &str) -> Option<u32> {
    let version = text
        .split_whitespace()
        .map(|word| word.trim_start_matches('v'))
        .find(|word| word.starts_with(|first: char| first.is_ascii_digit()) && word.contains('.'));
    version?.split('.').next()?.parse().ok()
}

/// Whether layers can be put over one another here; below a container, they often cannot.
fn has_overlay(dir: &Path) -> Result<bool> {
    let trial = "cd \"$1\" && mkdir -p lower upper work both && mount -t overlay overlay \
        -o lowerdir=lower,upperdir=upper,workdir=work both && touch both/file";
    let output = Command::new("unshare").args(["--mount", "sh", "-c", trial, "trial"]).arg(dir).output();
    Ok(output.context("starting unshare (Debian package util-linux)")?.status.success())
}

/// The pods' network of a node: a bridge, and addresses by number, forgotten when the node crashes.
pub(super) fn network(number: u8) -> Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [{
            "type": "bridge",
            "bridge": super::BRIDGE,
            "isGateway": true,
            "ipam": {
                "type": "host-local",
                "dataDir": "/run/cni-ipam",
                "ranges": [[{ "subnet": pod_network_v4(number) }], [{ "subnet": pod_network_v6(number) }]],
                "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
            },
        }],
    })
}

/// The kubelet's configuration.
pub(super) fn kubelet(cgroup: &str) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": format!("unix://{SOCKET}"),
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "enforceNodeAllocatable": [],
        "oomScoreAdj": 0,
        "failSwapOn": false,
        "makeIPTablesUtilChains": false,
        "resolvConf": "",
        "volumePluginDir": "/var/lib/kubelet/volumeplugins",
        // Nobody from outside gets here.
        "authentication": { "anonymous": { "enabled": true }, "webhook": { "enabled": false } },
        "authorization": { "mode": "AlwaysAllow" },
        // Together with the controller manager's grace period: a node is lost after some seconds, not 40.
        "nodeStatusUpdateFrequency": "4s",
        "nodeLeaseDurationSeconds": 10,
        // The machine's disk may be as full as it likes.
        "evictionHard": {
            "memory.available": "0%", "nodefs.available": "0%", "imagefs.available": "0%",
            "nodefs.inodesFree": "0%", "imagefs.inodesFree": "0%",
        },
        "imageGCHighThresholdPercent": 100,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_containerd() {
        assert_eq!(
            major("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u2"),
            Some(1)
        );
        assert_eq!(
            major(
                "containerd github.com/containerd/containerd/v2 v2.1.3 c787fb98911740dd3ff2d0e45ce88cdf01410486"
            ),
            Some(2)
        );
        assert_eq!(major("containerd"), None);
    }
}
