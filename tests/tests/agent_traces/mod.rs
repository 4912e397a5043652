//! What an agent leaves on a host.

use anyhow::Result;
use aya::programs::{SchedClassifier, TcAttachType};
use responder_lab::{Node, bpftool};
use serde_json::Value;

/// What there is of programs on a host's links, and of pins. Whose they are is not looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Traces {
    /// Links with XDP programs.
    pub(crate) xdp: Vec<String>,
    /// Names of programs that filter what eth0 and eth1 send, by clsact.
    pub(crate) filters: Vec<String>,
    /// The same by TCX.
    pub(crate) tcx: Vec<String>,
    /// Links with a clsact qdisc.
    pub(crate) clsact: Vec<String>,
    /// Whether the pin directory is there.
    pub(crate) pins: bool,
}

impl Traces {
    /// Looks.
    pub(crate) fn of(node: &Node) -> Result<Self> {
        let net = bpftool(node.ns(), &["net", "show"])?;
        let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or("").to_owned();
        let list = |key: &str| net[0][key].as_array().cloned().unwrap_or_default();
        // Newer versions of bpftool list TCX programs there, too.
        let filters = list("tc").into_iter().filter(|f| !text(f, "kind").starts_with("tcx"));
        let qdiscs: Value = serde_json::from_str(&node.ns().check(&["tc", "-j", "qdisc", "show"])?)?;
        let clsact = qdiscs.as_array().into_iter().flatten().filter(|q| q["kind"] == "clsact");
        let mut tcx = Vec::new();
        for nic in node.nics() {
            let query = || Ok(SchedClassifier::query_tcx(&nic.name, TcAttachType::Egress));
            let Ok((_, programs)) = node.ns().run(query)? else {
                continue; // a kernel without TCX
            };
            tcx.extend(programs.iter().map(|p| p.name_as_str().unwrap_or("").to_owned()));
        }
        Ok(Self {
            xdp: list("xdp").iter().map(|x| text(x, "devname")).collect(),
            filters: filters.map(|f| text(&f, "name")).collect(),
            tcx,
            clsact: clsact.map(|q| text(q, "dev")).collect(),
            pins: node.bpffs().exists(),
        })
    }

    /// No trace at all.
    pub(crate) fn none() -> Self {
        Self { xdp: vec![], filters: vec![], tcx: vec![], clsact: vec![], pins: false }
    }
}
