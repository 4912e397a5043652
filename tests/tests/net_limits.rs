//! Beyond what the system allows. Alone in its process, because it lowers the limit of open files.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod net_support;

use std::{collections::BTreeSet, fs, net::Ipv6Addr};

use net_support::{in_namespace, run, skip};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use responder_user::net::groups::Groups;

const NAME: &str = "all_multicast_beyond_the_limits";
/// Small enough for a handful of groups per socket.
const OPTMEM_MAX: &str = "600";

#[test]
fn all_multicast_beyond_the_limits() {
    in_namespace(NAME, || async {
        if fs::write("/proc/sys/net/core/optmem_max", OPTMEM_MAX).is_err() {
            return skip(NAME, "net.core.optmem_max belongs to the whole system before Linux 6.8");
        }
        for name in ["v0", "v1"] {
            run(&format!("ip link add {name} type veth peer name {name}-peer"));
        }
        let index =
            |name| run(&format!("ip -o link show {name}")).split(':').next().unwrap().parse().unwrap();
        let [crowded, quiet]: [u32; 2] = ["v0", "v1"].map(index);
        let all_multicast = |name| !run(&format!("ip -d link show {name}")).contains("allmulti 0");
        let group = |low| Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, low);

        let mut groups = Groups::new();
        assert_eq!(groups.sync(&BTreeSet::from([(quiet, group(1))])).joined, 1);
        let mut wanted: BTreeSet<_> = (0..500).map(|low| (crowded, group(low))).collect();
        wanted.insert((quiet, group(1)));

        let open = fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, open + 2, hard).unwrap();
        let limited = groups.sync(&wanted);
        let again = groups.sync(&wanted);
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();

        assert!(limited.joined < 100 && limited.sockets > 1, "{limited:?}");
        assert_eq!(limited, again, "trying again changes nothing and loses nothing");
        assert_eq!(limited.errors, []);
        assert_eq!(limited.all_multicast.len(), 1);
        let reason = &limited.all_multicast[&crowded];
        assert!(reason.contains("Too many open files"), "{reason}");
        assert!(all_multicast("v0") && !all_multicast("v1"));

        let report = groups.sync(&wanted);
        assert_eq!((report.joined, report.all_multicast.len()), (501, 0));
        assert!(!all_multicast("v0"), "the filter is exact again");

        fs::write("/proc/sys/net/core/optmem_max", "0").unwrap();
        wanted.insert((quiet, group(2)));
        let report = groups.sync(&wanted);
        assert!(report.all_multicast[&quiet].contains("optmem_max"), "{report:?}");
    });
}
