//! Many changes at once.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    sync::Arc,
};

use responder_user::net::{link::NetState, watch::watch_with_buffer};
use tokio::sync::watch::Receiver;

use crate::{
    follow,
    net_support::{in_namespace, run},
    until,
};

/// Commands for `ip`, in one process.
fn batch(commands: &str) {
    let mut ip = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    ip.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
    assert!(ip.wait().unwrap().success());
}

/// The same whatever the order in which it became known.
fn settled(state: &NetState) -> NetState {
    let mut state = NetState { overruns: 0, ..state.clone() };
    for link in state.links.values_mut() {
        link.addrs.sort_by_key(|prefix| (prefix.ip, prefix.len));
    }
    state
}

/// Makes 200 pairs, and removes half of them.
fn burst() {
    let mut commands = String::new();
    for i in 0..200 {
        commands += &format!(
            "link add a{i} type veth peer name b{i}\nlink set a{i} up\naddr add 10.0.{i}.1/24 dev a{i}\n"
        );
        if i % 2 == 0 {
            commands += &format!("link del a{i}\n");
        }
    }
    batch(&commands);
}

async fn same_as_a_fresh_look(links: &mut Receiver<Arc<NetState>>) {
    let fresh = settled(&follow().await.borrow());
    assert_eq!(fresh.links.len(), 1 + 200);
    until(links, "the state of a fresh look", |s| settled(s) == fresh).await;
}

#[test]
fn burst_is_followed_to_its_end() {
    in_namespace("burst_is_followed_to_its_end", || async {
        let mut links = follow().await;
        burst();
        same_as_a_fresh_look(&mut links).await;
        assert_eq!(links.borrow().overruns, 0);
    });
}

#[test]
fn overrun_is_counted_and_repaired() {
    in_namespace("overrun_is_counted_and_repaired", || async {
        let (mut links, task) = watch_with_buffer(4096).await.unwrap();
        tokio::spawn(task);
        burst(); // in the only thread: nothing is read meanwhile
        until(&mut links, "overrun", |s| s.overruns > 0).await;
        same_as_a_fresh_look(&mut links).await;
        run("ip link set a1 name later");
        until(&mut links, "what comes later", |s| s.by_name("later").is_some()).await;
    });
}

#[test]
fn other_routes_cost_nothing() {
    in_namespace("other_routes_cost_nothing", || async {
        run("ip link add v0 type veth peer name v1");
        run("ip link set v0 up");
        let (mut links, task) = watch_with_buffer(4096).await.unwrap();
        tokio::spawn(task);
        let routes: String =
            (0..2000).map(|i| format!("route add 10.{}.{}.0/24 dev v0\n", i / 256, i % 256)).collect();
        batch(&routes);
        run("ip link set v0 name later");
        until(&mut links, "what comes later", |s| s.by_name("later").is_some()).await;
        assert_eq!(links.borrow().overruns, 0, "2000 routes do not fit in 4 KiB");
    });
}
