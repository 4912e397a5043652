//! The kernel: what it can do, found out by trying, and what is used instead of what it cannot.

use std::path::Path;

use aya::programs::{ProgramError, SchedClassifier, Xdp};
use nix::sys::{resource::RLIM_INFINITY, utsname::uname};
use responder_common::layout::{EGRESS_PROGRAM, XDP_FRAGS_PROGRAM, XDP_PROGRAM};

use super::{
    Finding,
    Verdict::{Bad, Limited, Ok as Fine},
    host::explain_text,
};
use crate::datapath::{
    chain,
    object::{OBJECT, loader},
    probe::{self, Answer, Counted, Required},
};

/// What is there, as far as it says itself. Nothing is concluded from it.
pub(super) fn release() -> Finding {
    let Ok(name) = uname() else {
        return Finding::new("kernel", Limited, "uname fails, so its version is not known");
    };
    let text = format!("{} on {}", name.release().to_string_lossy(), name.machine().to_string_lossy());
    Finding::new("kernel", Fine, text)
}

pub(super) fn check() -> Vec<Finding> {
    let mut findings: Vec<_> = Required::ALL.into_iter().map(required).collect();
    findings.push(memory());
    findings.extend(load());
    findings.push(tcx());
    findings.push(btf());
    findings
}

fn tcx() -> Finding {
    let text = match probe::tcx() {
        Answer::Yes => "the egress program is attached by it",
        // As good, only older.
        Answer::No => "not there (Linux 6.6): the egress program is a filter of a clsact qdisc instead",
        Answer::Unknown(error) => return unknown("TCX", &error),
    };
    Finding::new("TCX", Fine, text)
}

/// Something that can be done without.
fn row(about: &str, answer: &Answer, with: &str, without: &str) -> Finding {
    match answer {
        Answer::Yes => Finding::new(about, Fine, with),
        Answer::No => Finding::new(about, Limited, without),
        Answer::Unknown(error) => unknown(about, error),
    }
}

fn unknown(about: &str, error: &str) -> Finding {
    Finding::new(about, Limited, format!("cannot be told: {}", explain_text(error)))
}

fn required(feature: Required) -> Finding {
    match feature.probe() {
        Answer::Yes => Finding::new(feature.about(), Fine, format!("there: {}", feature.purpose())),
        Answer::No => {
            let text =
                format!("not there ({}), and {}: the agent cannot run", feature.origin(), feature.purpose());
            Finding::new(feature.about(), Bad, text)
        }
        Answer::Unknown(error) => unknown(feature.about(), &error),
    }
}

fn memory() -> Finding {
    let about = "memory";
    match probe::memory() {
        Counted::Group => Finding::new(about, Fine, "maps count as memory of the control group"),
        Counted::Locked(RLIM_INFINITY) => {
            Finding::new(about, Fine, "maps count as locked memory, without a limit")
        }
        Counted::Locked(limit) => Finding::new(
            about,
            Limited,
            format!(
                "maps count as locked memory (before Linux 5.11), of which {} KiB are allowed, and that cannot be lifted \
                 without CAP_SYS_RESOURCE; the default --capacity takes some ten MiB: LimitMEMLOCK=infinity",
                limit / 1024
            ),
        ),
        Counted::Unknown(error) => unknown(about, &error),
    }
}

/// Really loads the programs, without attaching or pinning anything, and tries what needs a loaded one.
fn load() -> Vec<Finding> {
    match try_to_load() {
        Ok((xdp, links)) => vec![
            Finding::new("load", Fine, format!("the kernel accepts {xdp} and {EGRESS_PROGRAM}")),
            row(
                "multi-buffer XDP",
                &if xdp == XDP_FRAGS_PROGRAM { Answer::Yes } else { Answer::No },
                "there: where drivers have it, native mode at an MTU above a page",
                "not there (Linux 5.18): at an MTU above about 3500 drivers refuse native mode, and generic mode is \
                 used instead",
            ),
            row(
                "XDP links",
                &links,
                "programs are attached by pinned links",
                "not there (Linux 5.9): programs are attached by netlink instead, and stay until they are detached",
            ),
        ],
        Err(error) => vec![Finding::new("load", Bad, explain_text(&error))],
    }
}

/// The name of the XDP program that the kernel takes, and whether it can be attached by a link.
fn try_to_load() -> Result<(&'static str, Answer), String> {
    let mut ebpf = loader().load(OBJECT).map_err(|e| chain(&e))?;
    let missing = || "missing from the object".to_owned();
    let wrong = |e: ProgramError| chain(&e);
    let tx: &mut SchedClassifier =
        ebpf.program_mut(EGRESS_PROGRAM).ok_or_else(missing)?.try_into().map_err(wrong)?;
    tx.load().map_err(wrong)?;
    let mut xdp = |name: &'static str| -> Result<_, String> {
        let program: &mut Xdp = ebpf.program_mut(name).ok_or_else(missing)?.try_into().map_err(wrong)?;
        program.load().map_err(wrong)?;
        Ok((name, probe::xdp_links(program)))
    };
    xdp(XDP_FRAGS_PROGRAM).or_else(|_| xdp(XDP_PROGRAM))
}

fn btf() -> Finding {
    if Path::new("/sys/kernel/btf/vmlinux").exists() {
        Finding::new("BTF", Fine, "the kernel has type information; bpftool shows maps by field name")
    } else {
        Finding::new(
            "BTF",
            Limited,
            "the kernel has none (CONFIG_DEBUG_INFO_BTF): all works, but bpftool may show maps as bytes",
        )
    }
}
