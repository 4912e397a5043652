//! The rule that carries the list of what is dropped: a frame that Linux would answer about a known address is
//! never passed to it. Asked here: Linux itself, with the addresses on a TAP device of its own namespace.
#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

use std::{
    fs::{File, OpenOptions, write},
    io::{Read as _, Write as _},
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    process::Command,
};

use nix::sched::{CloneFlags, unshare};
use responder_tests::{
    build::Mac,
    frames::{self, OWN, SLOT, STANDBY4, STANDBY6, VIP4, VIP6, Verdict},
    model::{Host, expect},
    mutate::Mutator,
    skip::is_root,
};

/// A host that has all addresses on its link, and forwards as a Kubernetes node does.
struct Linux {
    tap: File,
}

impl Linux {
    /// In a namespace of the calling thread, which ends with it.
    fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let mut tap = OpenOptions::new();
        let tap = tap.read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun").unwrap();
        #[expect(unsafe_code, reason = "there is no safe way to make a TAP device")]
        // SAFETY: zero is a value of every field; the ioctl reads one `ifreq` and writes one.
        unsafe {
            let mut request: libc::ifreq = std::mem::zeroed();
            for (to, from) in request.ifr_name.iter_mut().zip(b"tap0") {
                *to = *from as libc::c_char;
            }
            request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
            assert_eq!(libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF, &raw mut request), 0, "TUNSETIFF");
        }
        for (key, value) in [
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv6/conf/tap0/forwarding", "1"),
            ("ipv6/conf/tap0/accept_dad", "0"),
            ("ipv4/conf/tap0/rp_filter", "0"),
        ] {
            write(format!("/proc/sys/net/{key}"), value).unwrap_or_else(|e| panic!("{key}: {e}"));
        }
        let mac = OWN.map(|b| format!("{b:02x}")).join(":");
        ip(&format!("link set tap0 address {mac}"));
        ip("link set tap0 up");
        for address in [VIP4, STANDBY4] {
            ip(&format!("addr add {address}/24 dev tap0"));
        }
        for address in [VIP6, STANDBY6] {
            ip(&format!("addr add {address}/64 dev tap0 nodad"));
        }
        ip("route add default via 192.0.2.1 dev tap0");
        ip("-6 route add default via 2001:db8::1 dev tap0");
        Self { tap }
    }

    /// Whether Linux sends an ARP reply or an advertisement for one of the addresses when it gets `frame`.
    fn answers(&mut self, frame: &[u8]) -> bool {
        self.drain();
        self.tap.write_all(frame).unwrap();
        self.drain()
    }

    /// Reads all that Linux has sent. It handles a frame before the write to the device returns.
    fn drain(&mut self) -> bool {
        let mut answered = false;
        let mut buffer = [0; 2048];
        while let Ok(length) = self.tap.read(&mut buffer) {
            answered |= is_answer(&buffer[..length]);
        }
        answered
    }
}

/// Not what it forwards: that has a smaller hop limit.
fn is_answer(frame: &[u8]) -> bool {
    let from: Option<Mac> = frame.get(6..12).and_then(|m| m.try_into().ok());
    let at = |range: std::ops::Range<usize>| frame.get(range).unwrap_or_default();
    let arp = at(12..14) == [8, 6] && at(20..22) == [0, 2];
    let advertisement = at(12..14) == [0x86, 0xdd] && at(20..22) == [58, 255] && at(54..55) == [136];
    from == Some(OWN)
        && (arp && [VIP4, STANDBY4].iter().any(|ip| at(28..32) == ip.octets())
            || advertisement && [VIP6, STANDBY6].iter().any(|ip| at(62..78) == ip.octets()))
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {error}");
}

/// The hosts that must stay silent, and the one that answers itself.
fn hosts() -> [Host; 2] {
    [Host::listed(), Host { owned: vec![], ..Host::listed() }]
}

#[test]
fn the_list_says_rightly_what_linux_answers() {
    if !is_root("the_list_says_rightly_what_linux_answers") {
        return;
    }
    let mut linux = Linux::new();
    let mut wrong = vec![];
    for case in frames::all() {
        // Without neighbours: an earlier frame may have made one, and then Linux does without the option.
        ip("neigh flush all");
        ip("-6 neigh flush all");
        let answers = linux.answers(&case.frame);
        if answers != case.linux_answers {
            wrong.push(format!("{}: Linux answers: {answers}", case.id));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_linux_answers_is_never_passed() {
    if !is_root("what_linux_answers_is_never_passed") {
        return;
    }
    let seed = std::env::var("RESPONDER_SEED").map_or(0x0011_2026, |s| s.parse().unwrap());
    println!("RESPONDER_SEED={seed}");
    let mut linux = Linux::new();
    let mut frames = Mutator::new(seed);
    let hosts = hosts();
    assert_eq!(hosts[0].owned, [SLOT]);
    let mut answered = 0;
    let mut wrong = vec![];
    for _ in 0..200_000 {
        let frame = frames.frame();
        if !linux.answers(&frame) {
            continue;
        }
        answered += 1;
        for host in &hosts {
            let expected = expect(host, &frame);
            if expected.verdict == Verdict::Pass && wrong.len() < 20 {
                wrong.push(format!("{:?}: {frame:02x?}", expected.outcome));
            }
        }
    }
    println!("Linux answered {answered} of 200000 frames");
    assert!(answered > 10_000, "Linux answered {answered} frames only: the test shows nothing");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
