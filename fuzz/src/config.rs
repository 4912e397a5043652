//! The static file.

use std::{fmt::Write as _, net::IpAddr, path::Path, str};

use responder_user::config::{ConfigError, StaticConfig, VipSpec};

const PATH: &str = "vips.toml";

/// Both forms of a VIP, and what is refused.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    [
        "vips = []",
        "interfaces = [\"eth0\", \"bond*\"]\nvips = [\n \"192.0.2.10\",\n {address = \"2001:db8::10\", interfaces = \
         [\"eth1\"], standby = true}\n]",
        "vips = [\"0.0.0.0\", \"::1\", \"224.0.0.1\", \"169.254.1.1\", \"::ffff:192.0.2.1\", \"192.0.2.10\", \
         \"192.0.2.10\"]",
        "vips = [{address=\"192.0.2.1\", interfaces=[\"eth[01]\"]}, {address=\"192.0.2.1\", interfaces=[\"br?\"]}]",
        "[[vips]]\naddress = '192.0.2.1'\n[[vips]]\naddress = \"2001:db8::1\" # comment\nstandby = false\n",
        "vip = []",
        "vips = [\"192.0.2.0/24\", 3]",
        "vips = [{addresses = []}]",
        "interfaces = [\"a b\", \"\", 7, \"[\"]\nvips = [1979-05-27]",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// A file is understood as a whole, and says the same when it is written anew; or the error names a line of it.
///
/// # Panics
///
/// If not.
pub fn run(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    let config = match StaticConfig::from_text(Path::new(PATH), text) {
        Ok(config) => config,
        Err(ConfigError::Read { .. }) => panic!("nothing is read here"),
        Err(ConfigError::Content { line, reason, .. }) => {
            assert!((1..=lines(text)).contains(&line), "line {line} of {}: {reason}", lines(text));
            return;
        }
    };
    for VipSpec { ip, line, .. } in &config.vips {
        assert!((1..=lines(text)).contains(line), "{ip} in line {line} of {}", lines(text));
        let v4 = match ip {
            IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4.octets()[0] == 0,
            IpAddr::V6(v6) => v6.to_ipv4_mapped().is_some(),
        };
        let never = v4 || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast();
        assert!(!never, "{ip} is announced");
    }
    assert!(config.refused.iter().all(|(_, reason)| !reason.is_empty()));
    let again =
        StaticConfig::from_text(Path::new(PATH), &written(&config)).expect("what is written is valid");
    assert_eq!(again.interfaces, config.interfaces);
    let said = |spec: &VipSpec| (spec.ip, spec.interfaces.clone(), spec.standby);
    let all = |of: &StaticConfig| of.vips.iter().map(said).collect::<Vec<_>>();
    assert_eq!(all(&again), all(&config));
    assert_eq!(again.refused, []);
}

fn lines(text: &str) -> usize {
    text.bytes().filter(|b| *b == b'\n').count() + 1
}

/// A file with the same VIPs, without those that are refused.
fn written(config: &StaticConfig) -> String {
    let mut text = format!("interfaces = {}\nvips = [\n", patterns(&config.interfaces));
    for VipSpec { ip, interfaces, standby, line: _ } in &config.vips {
        let interfaces = patterns(interfaces);
        writeln!(text, "{{ address = \"{ip}\", interfaces = {interfaces}, standby = {standby} }},")
            .expect("strings take anything");
    }
    text + "]"
}

fn patterns<T: ToString>(patterns: &[T]) -> String {
    let quoted = patterns.iter().map(|pattern| quoted(&pattern.to_string())).collect::<Vec<_>>();
    format!("[{}]", quoted.join(", "))
}

fn quoted(text: &str) -> String {
    let escaped = text.chars().map(|c| match c {
        '"' | '\\' | '\x7f' | '\0'..='\x1f' => format!("\\u{:04x}", u32::from(c)),
        other => other.to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}
