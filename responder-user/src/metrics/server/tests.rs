use std::path::Path;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpSocket,
    sync::mpsc,
};

use super::*;
use crate::{
    control::{AgentStatus, StatusRequest},
    datapath::pins::Pins,
    metrics::Address,
};

/// A server without maps, and what it asks the agent.
async fn server() -> (std::net::SocketAddr, mpsc::Receiver<StatusRequest>) {
    let (requests, asked) = mpsc::channel(16);
    let options = Options { address: Address::Nowhere, tls: None, per_vip: 0 };
    let pins = Pins::unchecked(Path::new("/nonexistent/responder"));
    let (snapshots, counts) = (Snapshots::new(pins, requests), Arc::new(Counts::new(true)));
    let server = Server { options, tls: None, snapshots, counts };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // All of 127.0.0.0/8 is this host's; here only what comes from the server's own address.
    tokio::spawn(serve(listener, Arc::new(server), |peer, local| peer == local));
    (address, asked)
}

/// An agent that answers for ever.
fn agent(mut asked: mpsc::Receiver<StatusRequest>) {
    tokio::spawn(async move {
        while let Some(reply) = asked.recv().await {
            reply.send(AgentStatus::default()).ok();
        }
    });
}

async fn ask(address: std::net::SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn paths_and_methods() {
    let (address, asked) = server().await;
    agent(asked);
    for (request, code, words) in [
        ("GET /livez", "200 OK", "ok\n"),
        ("HEAD /livez", "200 OK", ""),
        ("GET /", "404 Not Found", "/metrics, /livez, /readyz, /state"),
        ("POST /livez", "405 Method Not Allowed", "allow: GET, HEAD"),
        ("GET /metrics", "503 Service Unavailable", "the maps cannot be read"),
        ("GET /readyz", "503 Service Unavailable", "the maps cannot be read"),
        ("GET /state", "503 Service Unavailable", "the maps cannot be read"),
    ] {
        let answer = ask(address, request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {code}\r\n")), "{request}: {answer}");
        assert!(answer.contains(words), "{request}: {answer}");
        assert!(answer.contains("connection: close"), "{request}: {answer}");
    }
}

#[tokio::test]
async fn clients_that_say_nothing_keep_nobody_out() {
    let (address, asked) = server().await;
    agent(asked);
    let mut silent = Vec::new();
    for _ in 0..2 * CONNECTIONS {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    assert!(ask(address, "GET /livez").await.starts_with("HTTP/1.1 200"));
    // The first ones were given up for those that came later.
    let mut rest = Vec::new();
    silent[0].read_to_end(&mut rest).await.ok(); // a reset will do
    assert!(rest.is_empty());
}

/// Others get as many as they like of each other's places, and none of this host's own.
#[tokio::test]
async fn others_do_not_end_the_probes() {
    let (address, asked) = server().await;
    agent(asked);
    let mut probe = TcpStream::connect(address).await.unwrap();
    probe.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
    let mut flood = Vec::new();
    for _ in 0..4 * CONNECTIONS {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        flood.push(socket.connect(address).await.unwrap());
    }
    let mut rest = Vec::new();
    flood[0].read_to_end(&mut rest).await.ok(); // given up for a later one
    probe.write_all(b"Host: a\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    probe.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn what_comes_from_this_host() {
    let is = |peer: &str, local: &str| is_own(peer.parse().unwrap(), local.parse().unwrap());
    assert!(is("127.0.0.1", "127.0.0.1") && is("::1", "::1"));
    assert!(is("::ffff:192.0.2.1", "::ffff:192.0.2.1"), "a kubelet that asks the node's address");
    assert!(is("::ffff:127.0.0.1", "::ffff:127.0.0.1"));
    assert!(!is("192.0.2.2", "192.0.2.1") && !is("2001:db8::2", "2001:db8::1"));
}

#[tokio::test]
async fn a_loop_that_does_not_answer_is_not_alive() {
    let (address, _asked) = server().await;
    let answer = ask(address, "GET /livez").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("loop does not answer"), "{answer}");
}

#[tokio::test]
async fn many_clients_are_few_questions() {
    const CLIENTS: usize = 200;
    let (requests, mut asked) = mpsc::channel::<StatusRequest>(16);
    let snapshots = Snapshots::new(Pins::unchecked(Path::new("/nonexistent")), requests);
    let clients = async {
        for _ in 0..CLIENTS {
            assert!(snapshots.agent().await.is_some());
        }
    };
    let mut questions = 0;
    let agent = async {
        while let Some(reply) = asked.recv().await {
            questions += 1;
            reply.send(AgentStatus::default()).ok();
        }
    };
    tokio::select! {
        () = clients => {}
        () = agent => panic!("the server does not ask any more"),
    }
    assert!((1..CLIENTS).contains(&questions), "{questions} questions");
}
