//! What a server in the lab says over HTTP, and metrics in it.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::ns::NetNs;

/// How long a server may take to accept, and for each part of its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// An answer.
#[derive(Clone, Debug)]
pub struct HttpAnswer {
    /// Its status code.
    pub code: u16,
    /// Its headers, in lower case.
    pub headers: String,
    /// Its body.
    pub body: String,
}

impl HttpAnswer {
    /// The value of a series of OpenMetrics text, such as `name{label="value"}`. `None`: there is no such series.
    #[must_use]
    pub fn metric(&self, series: &str) -> Option<f64> {
        let mut lines = self.body.lines();
        lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }
}

/// Asks for `path` at `address`, from a namespace.
///
/// # Errors
///
/// If nobody listens there, or what comes is no HTTP.
pub fn http_get(from: &NetNs, address: SocketAddr, path: &str) -> Result<HttpAnswer> {
    let asked = from.run(|| {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes(),
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    });
    let text = asked.with_context(|| format!("asking {address} for {path}"))?;
    let parts = || {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let code = head.split(' ').nth(1)?.parse().ok()?;
        Some(HttpAnswer { code, headers: head.to_lowercase(), body: body.to_owned() })
    };
    parts().with_context(|| format!("{address} said {text:?}"))
}
