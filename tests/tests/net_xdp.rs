//! XDP programs by netlink: attached, replaced and detached only as asked, and with the kernel's own words.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod net_support;

use std::{os::fd::AsFd as _, path::PathBuf, time::Duration};

use aya::{
    Ebpf,
    programs::{ProgramFd, Xdp},
};
use net_support::{in_namespace, run};
use nix::errno::Errno;
use responder_user::net::{
    NetlinkError,
    link::{XdpMode, XdpOnLink},
    watch::watch,
    xdp::{self, Mode},
};

/// Two programs, their ids, and what keeps them.
struct Programs {
    pass: ProgramFd,
    pass_id: u32,
    drop: ProgramFd,
    drop_id: u32,
    object: Ebpf,
}

fn programs() -> Programs {
    let workspace = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let folder = std::env::var_os("RESPONDER_BPF_DIR")
        .map_or_else(|| PathBuf::from(workspace).join("target/bpf"), PathBuf::from);
    let file = folder.join("reference.o");
    let mut object = Ebpf::load_file(&file)
        .unwrap_or_else(|error| panic!("{}: {error}; `cargo xtask build-ebpf` makes it", file.display()));
    let mut load = |name: &str| {
        let program: &mut Xdp = object.program_mut(name).unwrap().try_into().unwrap();
        program.load().unwrap();
        (program.fd().unwrap().try_clone().unwrap(), program.info().unwrap().id())
    };
    let ((pass, pass_id), (drop, drop_id)) = (load("pass"), load("drop"));
    Programs { pass, pass_id, drop, drop_id, object }
}

/// A veth pair in this namespace; the index of one end.
fn pair() -> u32 {
    run("ip link add v0 type veth peer name v1");
    index("v0")
}

fn index(name: &str) -> u32 {
    run(&format!("ip -o link show {name}")).split(':').next().unwrap().parse().unwrap()
}

fn refused(result: Result<(), NetlinkError>, errno: Errno, words: &str) {
    let error = result.expect_err(words);
    assert_eq!(error.errno, errno, "{error}");
    let extack = error.extack.as_deref().unwrap_or("");
    assert!(extack.contains(words), "{error}: should contain {words:?}");
    assert!(error.to_string().contains(words) && error.to_string().contains(errno.desc()));
}

fn life_cycle(mode: Mode, seen_as: XdpMode) {
    let programs = programs();
    let (pass, drop) = (programs.pass.as_fd(), programs.drop.as_fd());
    let link = pair();
    let attached = || xdp::query(link).unwrap();
    let running = |prog_id| Some(XdpOnLink { mode: seen_as, prog_id });
    assert_eq!(attached(), None);
    xdp::detach(link, mode, None).unwrap();

    xdp::attach(link, pass, mode, None).unwrap();
    assert_eq!(attached(), running(programs.pass_id));

    // Somebody else's program is not touched.
    let foreign = xdp::attach(link, drop, mode, None);
    refused(foreign, Errno::EBUSY, "XDP program already attached");
    let foreign = xdp::attach(link, drop, mode, Some(drop));
    refused(foreign, Errno::EEXIST, "Active program does not match expected");
    let foreign = xdp::detach(link, mode, Some(drop));
    refused(foreign, Errno::EEXIST, "Active program does not match expected");
    let foreign = xdp::overwrite(link, Some(drop), mode, drop);
    refused(foreign, Errno::EEXIST, &format!("program {} is attached", programs.pass_id));
    assert_eq!(attached(), running(programs.pass_id));

    xdp::attach(link, drop, mode, Some(pass)).unwrap();
    assert_eq!(attached(), running(programs.drop_id));
    xdp::overwrite(link, Some(pass), mode, drop).unwrap();
    assert_eq!(attached(), running(programs.pass_id));
    xdp::overwrite(link, None, mode, pass).unwrap();
    assert_eq!(attached(), None);
    let nothing = xdp::overwrite(link, None, mode, pass);
    refused(nothing, Errno::EEXIST, "no program is attached");

    xdp::attach(link, drop, mode, None).unwrap();
    xdp::detach(link, mode, Some(drop)).unwrap();
    assert_eq!(attached(), None);
    xdp::attach(link, drop, mode, None).unwrap();
    xdp::detach(link, mode, None).unwrap();
    assert_eq!(attached(), None);
}

#[test]
fn life_cycle_native() {
    in_namespace("life_cycle_native", || async { life_cycle(Mode::Native, XdpMode::Native) });
}

#[test]
fn life_cycle_generic() {
    in_namespace("life_cycle_generic", || async { life_cycle(Mode::Generic, XdpMode::Generic) });
}

#[test]
fn driver_and_kernel_are_quoted() {
    in_namespace("driver_and_kernel_are_quoted", || async {
        let mut programs = programs();
        let link = pair();
        let pass = programs.pass.as_fd();

        run("ip link set v1 mtu 9000");
        let too_large = xdp::attach(link, pass, Mode::Native, None);
        refused(too_large, Errno::ERANGE, "Peer MTU is too large to set XDP");
        run("ip link set v1 mtu 1500");

        run("ip link add br0 type bridge");
        let no_driver = xdp::attach(index("br0"), pass, Mode::Native, None);
        refused(no_driver, Errno::EOPNOTSUPP, "Underlying driver does not support XDP in native mode");
        xdp::attach(index("br0"), pass, Mode::Generic, None).unwrap();

        xdp::attach(link, pass, Mode::Generic, None).unwrap();
        let both = xdp::attach(link, programs.drop.as_fd(), Mode::Native, None);
        refused(both, Errno::EEXIST, "Native and generic XDP can't be active at the same time");
        xdp::detach(link, Mode::Generic, None).unwrap();

        run("ip link del br0");
        assert_eq!(xdp::attach(999_999, pass, Mode::Native, None).unwrap_err().errno, Errno::ENODEV);
        assert_eq!(xdp::query(999_999).unwrap_err().errno, Errno::ENODEV);

        // A program of a `bpf_link` is seen, and is not to be had by netlink.
        let program: &mut Xdp = programs.object.program_mut("drop").unwrap().try_into().unwrap();
        program.attach("v0", aya::programs::XdpMode::Driver).unwrap();
        let attached = xdp::query(link).unwrap();
        assert_eq!(attached, Some(XdpOnLink { mode: XdpMode::Native, prog_id: programs.drop_id }));
        let held = xdp::attach(link, programs.pass.as_fd(), Mode::Native, Some(programs.drop.as_fd()));
        refused(held, Errno::EBUSY, "Can't replace active BPF XDP link");
        let held = xdp::detach(link, Mode::Native, None);
        refused(held, Errno::EBUSY, "Can't replace active BPF XDP link");
    });
}

#[test]
fn program_is_seen_with_its_link() {
    in_namespace("program_is_seen_with_its_link", || async {
        let programs = programs();
        let link = pair();
        run("ip link set v0 up");
        xdp::attach(link, programs.pass.as_fd(), Mode::Native, None).unwrap();
        let (mut links, task) = watch().await.unwrap();
        tokio::spawn(task);
        assert_eq!(links.borrow().links[&link].xdp.map(|xdp| xdp.prog_id), Some(programs.pass_id));
        xdp::detach(link, Mode::Native, None).unwrap();
        let gone = links.wait_for(|state| state.links[&link].xdp.is_none());
        tokio::time::timeout(Duration::from_secs(10), gone)
            .await
            .expect("no event about the program")
            .unwrap();
    });
}
