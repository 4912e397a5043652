//! What a driver says it can do with XDP, by the netdev family of generic netlink (Linux 6.3).

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NlasIterator};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};

use super::netlink::{NetlinkError, messages, receive, refusal};

// linux/genetlink.h
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
/// `struct genlmsghdr`: command, version, reserved.
const HEADER: usize = 4;
// linux/netdev.h
const FAMILY: &[u8] = b"netdev\0";
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const NETDEV_XDP_ACT_BASIC: u64 = 1 << 0;
const NETDEV_XDP_ACT_RX_SG: u64 = 1 << 5;

/// What a driver can do with XDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpFeatures {
    /// It runs programs (native mode).
    pub native: bool,
    /// It gives them frames in several buffers.
    pub multi_buffer: bool,
}

/// Asks the kernel about a link.
///
/// # Errors
///
/// `ENOENT` before Linux 6.3, `ENODEV` if there is no such link.
pub fn xdp_features(ifindex: u32) -> Result<XdpFeatures, NetlinkError> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    let name = (CTRL_ATTR_FAMILY_NAME, FAMILY);
    let family = ask(&socket, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, name, CTRL_ATTR_FAMILY_ID, |value| {
        Some(u16::from_ne_bytes(value.try_into().ok()?))
    })?;
    let index = ifindex.to_ne_bytes();
    let link = (NETDEV_A_DEV_IFINDEX, &index[..]);
    let bits = ask(&socket, family, NETDEV_CMD_DEV_GET, link, NETDEV_A_DEV_XDP_FEATURES, |value| {
        Some(u64::from_ne_bytes(value.try_into().ok()?))
    })?;
    Ok(XdpFeatures {
        native: bits & NETDEV_XDP_ACT_BASIC != 0,
        multi_buffer: bits & NETDEV_XDP_ACT_RX_SG != 0,
    })
}

/// Sends a command with one attribute, and reads one attribute of the answer.
fn ask<T>(
    socket: &Socket,
    family: u16,
    command: u8,
    (kind, value): (u16, &[u8]),
    wanted: u16,
    read: impl Fn(&[u8]) -> Option<T>,
) -> Result<T, NetlinkError> {
    let mut body = vec![command, 1, 0, 0];
    body.extend(u16::try_from(4 + value.len()).map_err(io::Error::other)?.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
    let mut message = u32::try_from(16 + body.len()).map_err(io::Error::other)?.to_ne_bytes().to_vec();
    message.extend(family.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    message.extend([0; 8]); // sequence number and port: one question at a time
    message.extend(body);
    socket.send_to(&message, &SocketAddr::new(0, 0), 0)?;

    let (mut buffer, mut found) = (Vec::new(), None);
    loop {
        receive(socket, &mut buffer)?;
        for message in messages(&buffer) {
            if i32::from(message.message_type()) == libc::NLMSG_ERROR {
                refusal(&message)?;
                let missing =
                    || io::Error::new(io::ErrorKind::InvalidData, "an answer without what was asked for");
                return found.ok_or_else(|| missing().into());
            }
            let attributes = message.payload().get(HEADER..).unwrap_or_default();
            let attribute = NlasIterator::new(attributes).map_while(Result::ok).find(|a| a.kind() == wanted);
            found = found.or_else(|| read(attribute?.value()));
        }
    }
}
