//! Settings of a link.

use std::{fs, io, path::Path};

/// True if the kernel forwards IPv6 packets that come in by the link `ifname`.
///
/// # Errors
///
/// `NotFound` if there is no such link or it has no IPv6; `InvalidInput` if no link can have that name.
pub fn ipv6_forwarding(ifname: &str) -> io::Result<bool> {
    // The rest of what the kernel refuses in names does no harm here. Dots are common (`eth0.100`), and a path,
    // unlike a sysctl key, needs no escape for them.
    if ifname.is_empty() || ifname == "." || ifname == ".." || ifname.contains('/') {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{ifname:?} cannot be the name of an interface"),
        ));
    }
    let path = Path::new("/proc/sys/net/ipv6/conf").join(ifname).join("forwarding");
    let value = fs::read_to_string(&path)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display())))?;
    Ok(value.trim() != "0")
}
