//! Who cannot reach whom: rules in the namespaces of the management network and of the switch, where the nodes do not
//! see them, and links that lose their carrier.

use std::{collections::BTreeSet, fmt::Write as _, fs};

use anyhow::Result;

use super::{control::PORT, delay, node::management_v4};
use crate::{lab::Lab, ns::NetNs};

/// Something that does not get through. Several may be in force at once.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Cut {
    /// Nothing passes between a node and the API server; nobody is told.
    Api(String),
    /// What a node sends to the API server is lost, acknowledgements included; what it is sent arrives.
    Requests(String),
    /// What a node sends to the API server arrives; answers, watch events and acknowledgements are lost.
    Responses(String),
    /// This share (per cent) of the packets between a node and the management network is lost, both ways.
    Loss(String, u8),
    /// A node's link to the management network has no carrier.
    Management(String),
    /// A node's or client's link to the segment has no carrier.
    Segment(String),
    /// Frames between two nodes or clients are lost on the segment, both ways; nobody is told.
    Between(String, String),
}

impl Cut {
    /// [`Cut::Api`].
    #[must_use]
    pub fn api(node: &str) -> Self {
        Self::Api(node.to_owned())
    }

    /// [`Cut::Requests`].
    #[must_use]
    pub fn requests(node: &str) -> Self {
        Self::Requests(node.to_owned())
    }

    /// [`Cut::Responses`].
    #[must_use]
    pub fn responses(node: &str) -> Self {
        Self::Responses(node.to_owned())
    }

    /// [`Cut::Loss`].
    #[must_use]
    pub fn loss(node: &str, per_cent: u8) -> Self {
        Self::Loss(node.to_owned(), per_cent)
    }

    /// [`Cut::Management`].
    #[must_use]
    pub fn management(node: &str) -> Self {
        Self::Management(node.to_owned())
    }

    /// [`Cut::Segment`].
    #[must_use]
    pub fn segment(node: &str) -> Self {
        Self::Segment(node.to_owned())
    }

    /// [`Cut::Between`].
    #[must_use]
    pub fn between(one: &str, other: &str) -> Self {
        Self::Between(one.to_owned(), other.to_owned())
    }
}

/// Puts exactly these cuts in force, those with a carrier aside.
pub(super) fn enforce(lab: &Lab, management: &NetNs, cuts: &BTreeSet<Cut>) -> Result<()> {
    let api = format!("{{ {PORT}, {}-{} }}", delay::FIRST_PORT, delay::LAST_PORT);
    let (mut input, mut output, mut forward) = (String::new(), String::new(), String::new());
    for cut in cuts {
        let (Cut::Api(name) | Cut::Requests(name) | Cut::Responses(name) | Cut::Loss(name, _)) = cut else {
            if let Cut::Between(one, other) = cut {
                let port = |name: &str| Lab::port(lab.node(name), "eth0");
                let (one, other) = (port(one), port(other));
                writeln!(forward, "iifname \"{one}\" oifname \"{other}\" drop")?;
                writeln!(forward, "iifname \"{other}\" oifname \"{one}\" drop")?;
            }
            continue;
        };
        let address = management_v4(lab.host_number(name));
        if let Cut::Loss(_, per_cent) = cut {
            // "Less than 100" is no condition that nft takes.
            let some =
                if *per_cent < 100 { format!("numgen random mod 100 < {per_cent} ") } else { String::new() };
            writeln!(input, "ip saddr {address} {some}drop")?;
            writeln!(output, "ip daddr {address} {some}drop")?;
            continue;
        }
        if !matches!(cut, Cut::Responses(_)) {
            writeln!(input, "ip saddr {address} tcp dport {api} drop")?;
        }
        if !matches!(cut, Cut::Requests(_)) {
            writeln!(output, "ip daddr {address} tcp sport {api} drop")?;
        }
    }
    let chain = |hook: &str, rules: &str| {
        format!("chain {hook} {{\ntype filter hook {hook} priority 0;\n{rules}}}\n")
    };
    let inet = chain("input", &input) + &chain("output", &output);
    rules(lab, management, "inet", &inet)?;
    rules(lab, lab.switch(), "bridge", &chain("forward", &forward))
}

/// Replaces all rules of ours in a namespace, in one step.
fn rules(lab: &Lab, ns: &NetNs, family: &str, chains: &str) -> Result<()> {
    let file = lab.dir().join(format!("cuts.{family}"));
    let table = format!("table {family} cuts");
    fs::write(&file, format!("{table}\ndelete {table}\n{table} {{\n{chains}}}\n"))?;
    ns.check(&["nft", "-f", &file.display().to_string()])?;
    Ok(())
}
