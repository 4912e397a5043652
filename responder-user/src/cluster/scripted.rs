//! An API server for tests that answers by a script.

use std::sync::Arc;

use kube::Config;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

use super::client::Line;

/// How a request is answered.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// With a status and a body.
    Whole(u16, String),
    /// With the lines of a watch, which then ends (or not).
    Watch { lines: Vec<String>, ends: bool },
    /// Not at all; the connection stays.
    Silence,
    /// By closing the connection.
    Close,
}

/// The server. Each request takes the next reply; after the last one nothing is answered.
pub(super) struct Scripted {
    pub(super) line: Arc<Line>,
    /// Requests as they come: the number of their connection, first line, body.
    requests: UnboundedReceiver<(usize, String, String)>,
    replies: UnboundedSender<Reply>,
}

impl Scripted {
    pub(super) async fn start(script: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let line = Arc::new(Line::new("test", Config::new(url.parse().unwrap())).unwrap());
        let (tell, requests) = unbounded_channel();
        let (replies, script_of) = unbounded_channel();
        for reply in script {
            replies.send(reply).unwrap();
        }
        let script_of = Arc::new(tokio::sync::Mutex::new(script_of));
        tokio::spawn(async move {
            for connection in 0.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                tokio::spawn(serve(stream, connection, tell.clone(), Arc::clone(&script_of)));
            }
        });
        Self { line, requests, replies }
    }

    /// The next request: connection, "GET /path?query", body.
    pub(super) async fn request(&mut self) -> (usize, String, String) {
        self.requests.recv().await.unwrap()
    }

    /// One more reply.
    pub(super) fn reply(&self, reply: Reply) {
        self.replies.send(reply).unwrap();
    }
}

async fn serve(
    mut stream: TcpStream,
    connection: usize,
    tell: UnboundedSender<(usize, String, String)>,
    replies: Arc<tokio::sync::Mutex<UnboundedReceiver<Reply>>>,
) {
    while let Some((first, body)) = read_request(&mut stream).await {
        // Of a connection that is set up for later.
        if first.starts_with("GET /version") {
            let version = r#"{"major":"1","minor":"36","gitVersion":"v1","gitCommit":"","gitTreeState":"","buildDate":"","goVersion":"","compiler":"","platform":""}"#;
            write_whole(&mut stream, 200, version).await;
            continue;
        }
        if tell.send((connection, first, body)).is_err() {
            return;
        }
        let Some(reply) = replies.lock().await.recv().await else { return };
        match reply {
            Reply::Whole(code, body) => write_whole(&mut stream, code, &body).await,
            Reply::Watch { lines, ends } => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.ok();
                for line in lines {
                    let chunk = format!("{:x}\r\n{line}\n\r\n", line.len() + 1);
                    stream.write_all(chunk.as_bytes()).await.ok();
                }
                if ends {
                    stream.write_all(b"0\r\n\r\n").await.ok();
                } else {
                    std::future::pending::<()>().await;
                }
            }
            Reply::Silence => std::future::pending::<()>().await,
            Reply::Close => return,
        }
    }
}

async fn write_whole(stream: &mut TcpStream, code: u16, body: &str) {
    let head = format!("HTTP/1.1 {code} X\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + body).as_bytes()).await.ok(); // the client may be gone
}

/// The first line without its version, and the body; `None` at the end.
async fn read_request(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    let mut end = None;
    while end.is_none() {
        bytes.push(stream.read_u8().await.ok()?);
        end = bytes.ends_with(b"\r\n\r\n").then_some(bytes.len());
    }
    let head = String::from_utf8(bytes).ok()?;
    let first = head.lines().next()?.trim_end_matches(" HTTP/1.1").to_owned();
    let header = |line: &str| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok();
    let length: usize = head.lines().find_map(header).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((first, String::from_utf8(body).ok()?))
}
