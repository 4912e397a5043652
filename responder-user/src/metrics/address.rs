//! Where metrics and health are served.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use tokio::net::TcpListener;

/// The port in a cluster: free of what usually runs on a node, below the ports that the kernel gives away (32768) and
/// those of Services (30000).
pub const DEFAULT_PORT: u16 = 7490;

/// Where metrics and health are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// Nowhere.
    Nowhere,
    /// On this port of all addresses of the host.
    Everywhere(u16),
    /// There.
    At(SocketAddr),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::Nowhere);
        }
        let everywhere = text.strip_prefix(':').and_then(|port| port.parse().ok()).map(Self::Everywhere);
        everywhere.or_else(|| text.parse().ok().map(Self::At)).ok_or_else(|| {
            "write 127.0.0.1:7490 or [::1]:7490, :7490 for all addresses of the host, or nothing (\"\") for nowhere"
                .to_owned()
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nowhere => Ok(()),
            Self::Everywhere(port) => write!(f, ":{port}"),
            Self::At(address) => address.fmt(f),
        }
    }
}

impl Address {
    /// Listens there. `None`: nowhere.
    pub(super) async fn listen(self) -> io::Result<Option<TcpListener>> {
        let listener = match self {
            Self::Nowhere => return Ok(None),
            Self::At(address) => TcpListener::bind(address).await,
            Self::Everywhere(port) => match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
                // A host without IPv6.
                Err(e) if matches!(e.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) => {
                    TcpListener::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)).await
                }
                other => other,
            },
        };
        listener.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for (text, address) in [
            ("", Address::Nowhere),
            (":7490", Address::Everywhere(7490)),
            ("127.0.0.1:1", Address::At(([127, 0, 0, 1], 1).into())),
            ("[::1]:1", Address::At((Ipv6Addr::LOCALHOST, 1).into())),
        ] {
            assert_eq!(text.parse(), Ok(address));
            assert_eq!(address.to_string(), text);
        }
        for wrong in ["7490", "localhost:7490", "::1:", ":65536", "127.0.0.1"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }
}
