//! The clsact qdisc, the place of egress filters before TCX (6.6).

use netlink_packet_core::parse_u32;
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcHandle, TcMessage},
};
use nix::errno::Errno;

use super::{
    decode::attributes,
    netlink::{Connection, NetlinkError},
};

// linux/pkt_sched.h
const TC_H_CLSACT: TcHandle = TcHandle { major: 0xffff, minor: 0xfff1 };
const INGRESS: TcHandle = TcHandle { major: 0xffff, minor: 0xfff2 };
const EGRESS: TcHandle = TcHandle { major: 0xffff, minor: 0xfff3 };

// linux/rtnetlink.h, linux/pkt_cls.h
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_ID: u16 = 11;
/// `tcmsg`: family and padding, then interface, handle, parent, and priority with protocol, of 4 bytes each.
const HEADER: usize = 20;
const HANDLE_AT: usize = 8;
const INFO_AT: usize = 16;

/// The kernel id of the BPF program in the clsact egress filter at this place; 0 if it is a filter of another kind.
/// `None`: there is no filter.
///
/// # Errors
///
/// If the kernel refuses; not if there is no such qdisc or link.
pub fn egress_program(ifindex: u32, priority: u16, handle: u32) -> Result<Option<u32>, NetlinkError> {
    let mut message = TcMessage::with_index(ifindex.cast_signed());
    message.header.parent = EGRESS;
    let mut found = None;
    let listed = Connection::open()?.list(RouteNetlinkMessage::GetTrafficFilter(message), |_, body| {
        if let Some((at, program)) = filter(body)
            && at == (priority, handle)
        {
            found = Some(program);
        }
    });
    match listed {
        Err(error) if matches!(error.errno, Errno::EINVAL | Errno::ENOENT | Errno::ENODEV) => Ok(None),
        other => other.map(|()| found),
    }
}

/// Priority and handle of a filter, and its program's id. `None` for what stands for all filters of a priority,
/// which the kernel lists, too.
fn filter(body: &[u8]) -> Option<((u16, u32), u32)> {
    let word = |at: usize| parse_u32(body.get(at..at + 4)?).ok();
    let (handle, info) = (word(HANDLE_AT)?, word(INFO_AT)?);
    if handle == 0 {
        return None;
    }
    let options = attributes(body.get(HEADER..)?).find(|nla| nla.kind() == TCA_OPTIONS);
    let program = options.and_then(|options| {
        let id = attributes(options.value()).find(|nla| nla.kind() == TCA_BPF_ID)?;
        parse_u32(id.value()).ok()
    });
    Some((((info >> 16) as u16, handle), program.unwrap_or(0)))
}

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
