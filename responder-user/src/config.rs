//! The static file: which addresses, on which interfaces.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use glob::Pattern;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// The most that is read of a static file, in bytes: a hundred times what the default number of addresses takes.
const MAX_BYTES: u64 = 256 << 20;

/// Why a static file cannot be used. The file as a whole is then without effect.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It does not say what it should.
    #[error("{path}:{line}: {reason}")]
    Content {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong, and what would be right.
        reason: String,
    },
}

/// What a static file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StaticConfig {
    /// Interfaces for the VIPs that name none; empty: that of the default route.
    pub interfaces: Vec<Pattern>,
    /// The addresses, in the file's order.
    pub vips: Vec<VipSpec>,
    /// Addresses that no host may announce, with the reason.
    pub refused: Vec<(VipSpec, String)>,
}

/// One address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipSpec {
    /// The address.
    pub ip: IpAddr,
    /// Interfaces; empty: those of the file.
    pub interfaces: Vec<Pattern>,
    /// Known here, but owned elsewhere: never answered, and the host kept silent.
    pub standby: bool,
    /// Line in the file.
    pub line: usize,
}

impl StaticConfig {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// If it cannot be read, is no TOML, or has anything in it that is not understood. Addresses that are
    /// understood but must not be announced are no error: they are listed as refused, and the others go on.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            read_regular(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::from_text(path, &text)
    }

    /// What a file with this text says; `path` is for messages.
    ///
    /// # Errors
    ///
    /// As [`StaticConfig::read`].
    pub fn from_text(path: &Path, text: &str) -> Result<Self, ConfigError> {
        Self::parse(text).map_err(|Problem { at, reason }| ConfigError::Content {
            path: path.to_owned(),
            line: Lines::of(text).at(at),
            reason,
        })
    }

    fn parse(text: &str) -> Result<Self, Problem> {
        let table = DeTable::parse(text)
            .map_err(|e| Problem { at: e.span().map_or(0, |s| s.start), reason: e.message().to_owned() })?;
        let mut config = Self::default();
        let mut specs = None;
        for (key, value) in table.get_ref() {
            match key.get_ref().as_ref() {
                "interfaces" => config.interfaces = patterns(value)?,
                "vips" => specs = Some(vips(&Lines::of(text), value)?),
                other => {
                    return Err(Problem::at(
                        key,
                        format!("unknown key {other:?}; a static file has `interfaces` and `vips`"),
                    ));
                }
            }
        }
        // A file that somebody is still writing must not take all addresses away.
        let specs = specs.ok_or_else(|| Problem {
            at: text.len(),
            reason: "there is no `vips`; write `vips = []` to announce nothing".to_owned(),
        })?;
        let mut seen: BTreeMap<IpAddr, Vec<VipSpec>> = BTreeMap::new();
        for spec in specs {
            let earlier = seen.entry(spec.ip).or_default();
            let duplicate = earlier.iter().find(|e| e.may_meet(&spec)).map(|e| e.line);
            if let Some(reason) = never_announced(spec.ip) {
                config.refused.push((spec, reason));
            } else if let Some(line) = duplicate {
                config.refused.push((spec, format!("is in line {line} already")));
            } else {
                earlier.push(spec.clone());
                config.vips.push(spec);
            }
        }
        Ok(config)
    }
}

impl VipSpec {
    /// Whether two entries for one address could name the same interface. Only entries that name their
    /// interfaces, all of them different and none a pattern, cannot.
    fn may_meet(&self, other: &Self) -> bool {
        let plain = |p: &Pattern| Pattern::escape(p.as_str()) == p.as_str();
        self.interfaces.is_empty()
            || other.interfaces.is_empty()
            || self.interfaces.iter().any(|a| {
                other.interfaces.iter().any(|b| {
                    a == b
                        || if plain(a) { b.matches(a.as_str()) } else { !plain(b) || a.matches(b.as_str()) }
                })
            })
    }
}

/// Reads a file, if it is one that ends: the agent must not wait for a pipe's writer while its deadline passes.
fn read_regular(path: &Path) -> io::Result<String> {
    // Opening a pipe waits, too, unless told otherwise.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    let invalid = |what: String| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    if !metadata.is_file() {
        return invalid("it is no regular file; name one, or a link to one".to_owned());
    }
    if metadata.len() > MAX_BYTES {
        return invalid(format!("it has {} bytes, and {MAX_BYTES} are the most", metadata.len()));
    }
    io::read_to_string(file)
}

/// Why an address can be announced on no link at all.
pub(crate) fn never_announced(ip: IpAddr) -> Option<String> {
    let reason = match ip {
        _ if ip.is_unspecified() => "is the unspecified address",
        _ if ip.is_loopback() => "is a loopback address",
        _ if ip.is_multicast() => "is a multicast address",
        IpAddr::V4(Ipv4Addr::BROADCAST) => "is the limited broadcast address",
        // ARP from these must always be broadcast (RFC 3927 section 2.5); answers are not.
        IpAddr::V4(v4) if v4.is_link_local() => "is an IPv4 link-local address (169.254.0.0/16)",
        IpAddr::V4(v4) if v4.octets()[0] == 0 => "is in 0.0.0.0/8, which no host can have",
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            "is an IPv4-mapped address; write it as an IPv4 address"
        }
        IpAddr::V4(_) | IpAddr::V6(_) => return None,
    };
    Some(reason.to_owned())
}

/// Something wrong at an offset of the text.
struct Problem {
    at: usize,
    reason: String,
}

impl Problem {
    fn at<T>(value: &Spanned<T>, reason: String) -> Self {
        Self { at: value.span().start, reason }
    }
}

/// Where lines end, in bytes.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at).collect())
    }

    /// The number of the line, from 1, that the byte at this offset is in.
    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|end| *end < offset) + 1
    }
}

fn array<'a, 'i>(value: &'a Spanned<DeValue<'i>>, what: &str) -> Result<&'a [Spanned<DeValue<'i>>], Problem> {
    let Some(array) = value.get_ref().as_array() else {
        return Err(Problem::at(value, format!("{what} must be an array, not {}", kind(value))));
    };
    Ok(array)
}

fn kind(value: &Spanned<DeValue<'_>>) -> String {
    match value.get_ref().as_str() {
        Some(text) => format!("the string {text:?}"),
        None => format!("a {}", value.get_ref().type_str()),
    }
}

fn patterns(value: &Spanned<DeValue<'_>>) -> Result<Vec<Pattern>, Problem> {
    let mut patterns = Vec::new();
    for item in array(value, "interfaces")? {
        let Some(text) = item.get_ref().as_str() else {
            return Err(Problem::at(
                item,
                format!("an interface is a name or a pattern like \"eth*\", not {}", kind(item)),
            ));
        };
        // IFNAMSIZ is 16 with the NUL; a pattern may be longer than the names that it matches.
        if text.is_empty() || text.contains(['/', ' ']) {
            return Err(Problem::at(item, format!("{text:?} cannot be the name of an interface")));
        }
        let pattern = Pattern::new(text)
            .map_err(|e| Problem::at(item, format!("{text:?} is no valid pattern: {e}")))?;
        patterns.push(pattern);
    }
    Ok(patterns)
}

fn vips(lines: &Lines, value: &Spanned<DeValue<'_>>) -> Result<Vec<VipSpec>, Problem> {
    let mut specs = Vec::new();
    for item in array(value, "vips")? {
        let line = lines.at(item.span().start);
        let spec = if let Some(text) = item.get_ref().as_str() {
            VipSpec { ip: address(item, text)?, interfaces: Vec::new(), standby: false, line }
        } else if let Some(table) = item.get_ref().as_table() {
            vip_table(item, table, line)?
        } else {
            let reason = format!("a VIP is an address or {{ address = …, … }}, not {}", kind(item));
            return Err(Problem::at(item, reason));
        };
        specs.push(spec);
    }
    Ok(specs)
}

fn vip_table(item: &Spanned<DeValue<'_>>, table: &DeTable<'_>, line: usize) -> Result<VipSpec, Problem> {
    let mut ip = None;
    let mut spec = VipSpec { ip: Ipv4Addr::UNSPECIFIED.into(), interfaces: Vec::new(), standby: false, line };
    for (key, value) in table {
        match key.get_ref().as_ref() {
            "address" => {
                let Some(text) = value.get_ref().as_str() else {
                    return Err(Problem::at(value, format!("`address` is a string, not {}", kind(value))));
                };
                ip = Some(address(value, text)?);
            }
            "interfaces" => spec.interfaces = patterns(value)?,
            "standby" => {
                let Some(standby) = value.get_ref().as_bool() else {
                    return Err(Problem::at(
                        value,
                        format!("`standby` is true or false, not {}", kind(value)),
                    ));
                };
                spec.standby = standby;
            }
            other => {
                return Err(Problem::at(
                    key,
                    format!("unknown key {other:?}; a VIP has `address`, `interfaces` and `standby`"),
                ));
            }
        }
    }
    spec.ip = ip.ok_or_else(|| Problem::at(item, "a VIP needs an `address`".to_owned()))?;
    Ok(spec)
}

fn address<T>(at: &Spanned<T>, text: &str) -> Result<IpAddr, Problem> {
    text.parse().map_err(|_no_detail| {
        let hint = if text.contains('/') { " (without a prefix length)" } else { "" };
        Problem::at(at, format!("{text:?} is no IPv4 or IPv6 address{hint}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> (usize, String) {
        let Problem { at, reason } = StaticConfig::parse(text).err().unwrap();
        (Lines::of(text).at(at), reason)
    }

    #[test]
    fn what_is_no_regular_file_is_not_waited_for() {
        let (reader, _writer) = io::pipe().unwrap();
        let pipe = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
        for path in ["/", &pipe, "/dev/zero"] {
            let error = StaticConfig::read(Path::new(path)).unwrap_err().to_string();
            assert!(error.contains("no regular file") && error.contains(path), "{error}");
        }
    }

    #[test]
    fn both_forms_of_a_vip() {
        let config = StaticConfig::parse(
            "interfaces = [\"eth0\", \"bond*\"]\nvips = [\n \"192.0.2.10\",\n {address = \"2001:db8::10\", \
             interfaces = [\"eth1\"], standby = true}\n]",
        )
        .ok()
        .unwrap();
        assert_eq!(config.interfaces.len(), 2);
        assert_eq!(config.vips[0].ip, IpAddr::from([192, 0, 2, 10]));
        assert_eq!(config.vips[0].line, 3);
        assert!(config.vips[1].standby);
        assert_eq!(config.vips[1].interfaces[0].as_str(), "eth1");
    }

    #[test]
    fn errors_name_line_and_way_out() {
        let cases = [
            ("vips = [\"192.0.2.10\",\n\"192.0.2.300\"]", 2, "\"192.0.2.300\" is no IPv4 or IPv6 address"),
            ("vips = [\"192.0.2.0/24\"]", 1, "without a prefix length"),
            ("\n\nvip = []", 3, "unknown key \"vip\""),
            ("vips = \"192.0.2.1\"", 1, "vips must be an array"),
            ("vips = [{interfaces = []}]", 1, "needs an `address`"),
            ("vips = [\n{address = \"192.0.2.1\",\nstanby = true}]", 3, "unknown key \"stanby\""),
            ("vips = [{address = \"192.0.2.1\", standby = 1}]", 1, "true or false"),
            ("interfaces = [\"eth0\", 3]", 1, "an interface is a name"),
            ("interfaces = [\"eth[\"]", 1, "no valid pattern"),
            ("interfaces = [\"\"]", 1, "cannot be the name"),
            ("vips = [", 1, ""),
            ("", 1, "`vips = []` to announce nothing"),
        ];
        for (text, line, reason) in cases {
            let (at, got) = error(text);
            assert!(got.contains(reason), "{text:?}: {got}");
            assert_eq!(at, line, "{text:?}: {got}");
        }
    }

    #[test]
    fn what_must_not_be_announced_is_refused_alone() {
        let bad = [
            "0.0.0.0",
            "::",
            "127.0.0.1",
            "::1",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "169.254.1.1",
            "0.1.2.3",
            "::ffff:192.0.2.1",
            "192.0.2.10",
        ];
        let mut text = String::from("vips = [\"192.0.2.10\", \"2001:db8::1\"");
        for ip in bad {
            text += &format!(", {ip:?}");
        }
        let config = StaticConfig::parse(&(text + "]")).ok().unwrap();
        assert_eq!(config.vips.len(), 2);
        assert_eq!(config.refused.len(), bad.len());
        assert_eq!(config.refused.last().unwrap().1, "is in line 1 already");
    }

    #[test]
    fn one_address_on_different_interfaces_is_no_duplicate() {
        let text = |a: &str, b: &str| {
            format!(
                "vips = [{{address=\"192.0.2.1\", interfaces=[{a}]}}, {{address=\"192.0.2.1\", interfaces=[{b}]}}]"
            )
        };
        let vips = |a, b| StaticConfig::parse(&text(a, b)).ok().unwrap().vips.len();
        assert_eq!(vips("\"eth0\"", "\"eth1\""), 2);
        assert_eq!(vips("\"eth0\"", "\"eth0\""), 1);
        assert_eq!(vips("\"eth0\"", "\"eth*\""), 1);
        assert_eq!(vips("\"bond*\"", "\"eth1\""), 2);
        assert_eq!(vips("\"bond*\"", "\"eth*\""), 1);
        assert_eq!(vips("", "\"eth0\""), 1);
    }
}
