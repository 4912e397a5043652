//! Hardware addresses, kept apart from the code under test.

use std::{fmt, str::FromStr};

use anyhow::{Error, Result, bail};

/// A 48-bit Ethernet address, bytes in transmission order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// `00:00:00:00:00:00`.
    pub const ZERO: Self = Self([0; 6]);
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = Error;

    /// Six hexadecimal bytes with colons between them, upper or lower case, leading zeros optional (ndisc6
    /// prints `02:00…`, Habets's arping too, but arpwatch-like tools do not).
    fn from_str(s: &str) -> Result<Self> {
        let mut bytes = [0; 6];
        let mut parts = s.trim().split(':');
        for byte in &mut bytes {
            match parts.next().map(|p| u8::from_str_radix(p, 16)) {
                Some(Ok(b)) => *byte = b,
                Some(Err(_)) | None => bail!("{s:?} is not a hardware address"),
            }
        }
        if parts.next().is_some() {
            bail!("{s:?} is not a hardware address");
        }
        Ok(Self(bytes))
    }
}
