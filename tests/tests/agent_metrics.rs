//! Metrics and health of a running agent, as a scraper and a kubelet see them.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod agent_support;

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use agent_support::{SOON, assert_answers, assert_silent, one_host, states, v4, v6};
use responder_lab::{Agent, HttpAnswer, Node, StaticFile, http_get, root_or_skip, tools_or_skip, wait_until};
use serde_json::Value;

const PORT: u16 = 7490;
const ON: [&str; 2] = ["--metrics-address", ":7490"];

fn address(node: &Node) -> SocketAddr {
    (node.nics()[0].v4, PORT).into()
}

fn get(node: &Node, client: &Node, path: &str) -> HttpAnswer {
    http_get(client.ns(), address(node), path).unwrap()
}

/// Waits for an answer that is as wanted.
fn wait(node: &Node, client: &Node, path: &str, wanted: impl Fn(&HttpAnswer) -> bool) -> HttpAnswer {
    let mut last = None;
    let found = wait_until(&format!("{path} as wanted"), SOON, || {
        let answer = http_get(client.ns(), address(node), path);
        let good = answer.as_ref().is_ok_and(&wanted);
        last = Some(answer);
        good.then_some(())
    });
    found.unwrap_or_else(|e| panic!("{e}: {last:?}"));
    last.unwrap().unwrap()
}

#[test]
fn counters_move_with_questions() {
    if !root_or_skip("counters_move_with_questions") {
        return;
    }
    let lab = one_host(1);
    let (a, c) = (lab.node("a"), lab.node("c"));
    let (own, other) = ([v4(10), v6(0x10)], [v4(11), v6(0x11)]);
    let file = StaticFile::on(&["eth0"]).own(&own).standby(&other);
    let options = [ON.as_slice(), &["--metrics-per-vip", "3"]].concat();
    let agent = Agent::start(a, &file, &options).unwrap();
    let before = wait(a, c, "/metrics", |answer| answer.code == 200);
    assert!(
        before.headers.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{}",
        before.headers
    );
    assert!(before.body.ends_with("# EOF\n"), "{}", before.body);

    own.iter().for_each(|vip| assert_answers(c, "eth0", *vip, a.mac()));
    other.iter().for_each(|vip| assert_silent(c, "eth0", *vip, (own[0], a.mac())));
    let frames = |verdict: &str, reason: &str| {
        format!("responder_received_frames_total{{verdict=\"{verdict}\",reason=\"{reason}\"}}")
    };
    let of_vip =
        |what: &str, vip: IpAddr| format!("responder_vip_{what}_frames_total{{vip=\"{vip}\",link=\"eth0\"}}");
    let moved = [
        frames("answered", "arp_answered"),
        frames("answered", "ns_answered"),
        frames("suppressed", "suppressed_standby"),
        of_vip("answered", own[0]),
        of_vip("suppressed", other[0]),
    ];
    let after = wait(a, c, "/metrics", |now| {
        moved
            .iter()
            .all(|series| now.metric(series) > before.metric(series) && before.metric(series).is_some())
    });
    for (series, value) in [
        ("responder_agent_up", 1.0),
        ("responder_owned_vips", 2.0),
        ("responder_vips{link=\"eth0\",state=\"answering\"}", 2.0),
        ("responder_vips{link=\"eth0\",state=\"standby\"}", 2.0),
        ("responder_vips_without_series", 1.0),
        ("responder_vip_changes_total{change=\"gained\"}", 2.0),
        ("responder_vip_changes_total{change=\"lost\"}", 0.0),
        ("responder_attachments_total{result=\"attached\"}", 1.0),
        ("responder_link_attached{link=\"eth0\"}", 1.0),
        ("responder_static_file_valid", 1.0),
        ("responder_lapses_total", 0.0),
    ] {
        assert_eq!(after.metric(series), Some(value), "{series} in\n{}", after.body);
    }
    assert!(after.metric("responder_deadline_left_seconds").unwrap() > 0.0);
    assert!(after.metric("responder_burst_frames_total").unwrap() > 0.0);
    assert!(after.metric(&of_vip("answered", other[1])).is_none(), "only the first three have series");

    assert_eq!(get(a, c, "/livez").code, 200);
    let ready = get(a, c, "/readyz");
    assert!(ready.code == 200 && ready.body.contains("[+] program attached: eth0\n"), "{ready:?}");
    let state: Value = serde_json::from_str(&get(a, c, "/state").body).unwrap();
    let status = agent.commands().status().unwrap();
    assert_eq!(states(&state), states(&status));
    assert_eq!(state["agent"]["pid"], status["agent"]["pid"]);
    assert_eq!(state.as_object().unwrap().len(), status.as_object().unwrap().len());

    // What was lost and gained is counted.
    agent.write(&StaticFile::on(&["eth0"]).own(&[own[0], v4(12)])).unwrap();
    wait(a, c, "/metrics", |now| {
        now.metric("responder_vip_changes_total{change=\"gained\"}") == Some(3.0)
            && now.metric("responder_vip_changes_total{change=\"lost\"}") == Some(1.0)
    });
    agent.commands().write("vips = [").unwrap();
    wait(a, c, "/metrics", |now| now.metric("responder_static_file_valid") == Some(0.0));
}

#[test]
fn not_ready_is_said_with_the_reason() {
    if !root_or_skip("not_ready_is_said_with_the_reason") {
        return;
    }
    let lab = one_host(1);
    let (a, c) = (lab.node("a"), lab.node("c"));
    let agent = Agent::start(a, &StaticFile::on(&["eth7"]).own(&[v4(10)]), &ON).unwrap();
    let waiting = wait(a, c, "/readyz", |answer| answer.code == 503);
    assert!(
        waiting.body.contains("[-] program attached: the program runs on no link: eth7: "),
        "{waiting:?}"
    );
    assert_eq!(get(a, c, "/livez").code, 200);
    agent.write(&StaticFile::on(&["eth0"]).own(&[v4(10)])).unwrap();
    wait(a, c, "/readyz", |answer| answer.code == 200);
}

#[test]
fn a_port_in_use_is_told_and_stops_nothing() {
    if !root_or_skip("a_port_in_use_is_told_and_stops_nothing") {
        return;
    }
    let lab = one_host(1);
    let (a, c) = (lab.node("a"), lab.node("c"));
    let other = a.ns().run(|| Ok(TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT))?)).unwrap();
    let mut agent = Agent::start(a, &StaticFile::on(&["eth0"]).own(&[v4(10)]), &ON).unwrap();
    assert_answers(c, "eth0", v4(10), a.mac());
    let line = agent.process().wait_line(SOON, |line| line.contains("--metrics-address")).unwrap();
    assert!(line.contains(":7490") && line.contains("Address already in use"), "{line}");
    drop(other);
    wait(a, c, "/livez", |answer| answer.code == 200);
    assert_answers(c, "eth0", v4(10), a.mac());
}

#[test]
fn clients_that_stay_silent_keep_nobody_out() {
    if !root_or_skip("clients_that_stay_silent_keep_nobody_out") {
        return;
    }
    let lab = one_host(1);
    let (a, c) = (lab.node("a"), lab.node("c"));
    let _agent = Agent::start(a, &StaticFile::on(&["eth0"]).own(&[v4(10)]), &ON).unwrap();
    wait(a, c, "/livez", |answer| answer.code == 200);
    let connect = || Ok((0..200).map(|_| TcpStream::connect(address(a))).collect::<Vec<_>>());
    let silent = c.ns().run(connect).unwrap();
    assert!(silent.iter().all(Result::is_ok), "{silent:?}");
    wait(a, c, "/livez", |answer| answer.code == 200);
    wait(a, c, "/metrics", |answer| answer.code == 200);
    assert_answers(c, "eth0", v4(10), a.mac());
    // Whoever ends it waits for nobody.
    drop(silent);
}

#[test]
fn without_a_cluster_nothing_is_served_unasked() {
    if !root_or_skip("without_a_cluster_nothing_is_served_unasked") {
        return;
    }
    let lab = one_host(1);
    let (a, c) = (lab.node("a"), lab.node("c"));
    let _agent = Agent::start(a, &StaticFile::on(&["eth0"]).own(&[v4(10)]), &[]).unwrap();
    let refused = c.ns().run(|| {
        let connected = TcpStream::connect_timeout(&address(a), Duration::from_secs(5));
        Ok(connected.unwrap_err().kind())
    });
    assert_eq!(refused.unwrap(), std::io::ErrorKind::ConnectionRefused);
}

/// Makes a certificate for `name`, signed by itself, in place of what is there.
fn certify(node: &Node, name: &str) -> [String; 2] {
    let files = ["cert.pem", "key.pem"].map(|file| node.dir().join(file).to_str().unwrap().to_owned());
    let new = files.clone().map(|file| format!("{file}.new"));
    let subject = format!("/CN={name}");
    let command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
        "-subj",
        &subject,
        "-out",
        &new[0],
        "-keyout",
        &new[1],
    ];
    node.ns().check(&command).unwrap();
    new.iter().zip(&files).for_each(|(new, file)| std::fs::rename(new, file).unwrap());
    files
}

/// What a client hears that speaks TLS: whose certificate it is, and the answer.
fn ask_by_tls(client: &Node, at: SocketAddr, path: &str) -> String {
    let script = format!(
        "printf 'GET {path} HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n' | openssl s_client -connect {at} -ign_eof 2>&1"
    );
    // Some versions write `CN = name`.
    let output = client.ns().output(&["sh", "-c", &script], SOON);
    output.map(|output| output.stdout.replace(" = ", "=")).unwrap_or_default()
}

#[test]
fn by_tls_and_never_in_the_clear() {
    let test = "by_tls_and_never_in_the_clear";
    if !root_or_skip(test) || !tools_or_skip(test, &["openssl"]) {
        return;
    }
    let lab = one_host(1);
    let (a, c) = (lab.node("a"), lab.node("c"));
    let [certificate, key] = certify(a, "first");
    let options = [ON.as_slice(), &["--metrics-tls-cert", &certificate, "--metrics-tls-key", &key]].concat();
    let _agent = Agent::start(a, &StaticFile::on(&["eth0"]).own(&[v4(10)]), &options).unwrap();
    let heard = |words: [&str; 2]| {
        let mut last = String::new();
        let found = wait_until(&format!("{words:?}"), SOON, || {
            last = ask_by_tls(c, address(a), "/livez");
            words.iter().all(|word| last.contains(word)).then_some(())
        });
        found.unwrap_or_else(|e| panic!("{e}: {last}"));
    };
    heard(["CN=first", "200 OK"]);
    // Whoever speaks no TLS hears no HTTP.
    assert!(http_get(c.ns(), address(a), "/metrics").is_err());

    // A certificate that is renewed needs no restart, and one that is damaged changes nothing.
    certify(a, "second");
    heard(["CN=second", "200 OK"]);
    std::fs::write(&certificate, "nonsense").unwrap();
    heard(["CN=second", "200 OK"]);
}
