//! As much of HTTP as it takes to ask a server that closes the connection after its answer.

use std::io::{Read, Write};

use anyhow::{Context as _, Result};

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Response {
    /// The status code.
    pub(super) status: u16,
    /// The body.
    pub(super) body: String,
}

/// Sends one request and reads the answer to its end. HTTP/1.0: a server may neither keep the connection nor send
/// the body in chunks.
pub(super) fn exchange(
    mut stream: impl Read + Write,
    (method, path): (&str, &str),
    (kind, body): (&str, &str),
) -> Result<Response> {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(&String::from_utf8_lossy(&answer)).with_context(|| format!("the answer to {method} {path}"))
}

fn parse(answer: &str) -> Result<Response> {
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no HTTP: {answer:?}"))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(Response { status: status.with_context(|| format!("no status: {head:?}"))?, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let found = parse("HTTP/1.0 404 Not Found\r\nA: b\r\n\r\nno\r\n\r\nsuch").unwrap();
        assert_eq!(found, Response { status: 404, body: "no\r\n\r\nsuch".to_owned() });
        assert!(parse("").is_err());
        assert!(parse("HTTP/1.0\r\n\r\n").is_err());
    }
}
