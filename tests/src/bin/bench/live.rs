//! The generator: live frames of `BPF_PROG_TEST_RUN`, which costs the least that Linux has.

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::PerCpuArray,
    programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode},
};
use responder_lab::NetNs;
use responder_tests::run::object;

/// Frames that the generator makes at a time; a veth's ring has 256 places.
const BATCH: u32 = 64;

/// Loads some programs of an object.
pub(crate) fn load(name: &str, programs: &[&str]) -> Result<Ebpf> {
    let mut ebpf = Ebpf::load(&object(name)?)?;
    for name in programs {
        let program: &mut Xdp = ebpf.program_mut(name).context((*name).to_owned())?.try_into()?;
        program.load().with_context(|| format!("cannot load {name}"))?;
    }
    Ok(ebpf)
}

/// Attaches a program to an interface of this thread's namespace, for as long as its object is there.
pub(crate) fn attach(ebpf: &mut Ebpf, program: &str, interface: &str, mode: XdpMode) -> Result<()> {
    let xdp: &mut Xdp =
        ebpf.program_mut(program).with_context(|| format!("no program {program}"))?.try_into()?;
    if xdp.fd().is_err() {
        xdp.load()?;
    }
    xdp.attach(interface, mode).with_context(|| format!("cannot attach {program} to {interface}"))?;
    Ok(())
}

/// Attaches programs to a spare pair, so that the kernel has them in its dispatcher of XDP programs. Otherwise it
/// rewrites that, at milliseconds, for each call of [`send`].
pub(crate) fn keep_at_hand(ns: &NetNs, ebpf: &mut Ebpf, programs: &[&str]) -> Result<()> {
    for program in programs {
        let name = format!("x-{program}").replace('_', "-");
        ns.ip(&format!("link add {name} type veth peer name {name}-p"))?;
        attach(ebpf, program, &name, XdpMode::Driver)?;
    }
    Ok(())
}

/// Runs a program over so many frames that it sends from, or hands to, an interface of this thread's namespace.
pub(crate) fn send(ebpf: &Ebpf, program: &str, frame: &[u8], ifindex: u32, frames: u32) -> Result<()> {
    // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let context = [0, u32::try_from(frame.len())?, 0, ifindex, 0, 0];
    let context: Vec<u8> = context.iter().flat_map(|word: &u32| word.to_ne_bytes()).collect();
    let send: &Xdp = ebpf.program(program).with_context(|| format!("no program {program}"))?.try_into()?;
    send.test_run(TestRunOptions {
        data_in: Some(frame),
        ctx_in: Some(&context),
        repeat: frames,
        attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
        ..TestRunOptions::new()
    })
    .context("live frames need kernel 5.18 or later")?;
    Ok(())
}

/// Frames that the program `count` has seen on all CPUs.
pub(crate) fn counted(ebpf: &Ebpf) -> Result<u64> {
    let map = ebpf.map("COUNT").context("no map COUNT")?;
    let count: PerCpuArray<_, u64> = map.try_into()?;
    Ok(count.get(&0, 0)?.iter().sum())
}
