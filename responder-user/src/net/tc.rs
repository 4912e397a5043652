//! The clsact qdisc, the place of egress filters before TCX (6.6).

use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcHandle, TcMessage},
};
use nix::errno::Errno;

use super::netlink::{Connection, NetlinkError};

// linux/pkt_sched.h
const TC_H_CLSACT: TcHandle = TcHandle { major: 0xffff, minor: 0xfff1 };
const INGRESS: TcHandle = TcHandle { major: 0xffff, minor: 0xfff2 };
const EGRESS: TcHandle = TcHandle { major: 0xffff, minor: 0xfff3 };

/// Removes the clsact qdisc of a link unless it has filters.
///
/// # Errors
///
/// If the kernel refuses; not if there is no such qdisc or link.
pub fn remove_unused_clsact(ifindex: u32) -> Result<(), NetlinkError> {
    let mut connection = Connection::open()?;
    let message = |parent: TcHandle| {
        let mut message = TcMessage::with_index(ifindex.cast_signed());
        message.header.parent = parent;
        message
    };
    for parent in [INGRESS, EGRESS] {
        let mut filters = 0;
        match connection.list(RouteNetlinkMessage::GetTrafficFilter(message(parent)), |_, _| filters += 1) {
            Ok(()) => {}
            // No qdisc, or no link.
            Err(error) if matches!(error.errno, Errno::EINVAL | Errno::ENOENT | Errno::ENODEV) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        if filters > 0 {
            return Ok(());
        }
    }
    let mut qdisc = message(TC_H_CLSACT);
    qdisc.header.handle = TcHandle { major: 0xffff, minor: 0 };
    match connection.request(RouteNetlinkMessage::DelQueueDiscipline(qdisc), |_, _| {}) {
        Err(error) if matches!(error.errno, Errno::EINVAL | Errno::ENOENT | Errno::ENODEV) => Ok(()),
        other => other,
    }
}
