//! Requests to the kernel over rtnetlink.

use std::{fmt, io};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator, parse_i32, parse_string,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;

/// Larger than any message or part of a dump that the kernel makes (32 KiB).
const BUFFER: usize = 64 * 1024;
/// The fixed header of every message.
const HEADER: usize = 16;
/// `NLMSGERR_ATTR_MSG`: the kernel's explanation.
const EXTACK_MSG: u16 = 1;
/// A dump that others keep interrupting is taken as it is after so many tries: the events tell the rest.
const DUMP_TRIES: u32 = 10;

/// The kernel refused a netlink request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetlinkError {
    /// Error number.
    pub errno: Errno,
    /// The kernel's own words (extended acknowledgement), where it gave any.
    pub extack: Option<String>,
}

impl fmt::Display for NetlinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.errno.desc(), self.errno)?;
        match &self.extack {
            Some(text) => write!(f, ": {text}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for NetlinkError {}

impl From<io::Error> for NetlinkError {
    fn from(error: io::Error) -> Self {
        let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        Self { errno, extack: None }
    }
}

/// A socket for requests, one at a time.
pub(super) struct Connection {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Connection {
    /// Opens a socket in the network namespace of this thread.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        // Both came with 4.12 and 4.3; without them errors are only numbers.
        socket.set_ext_ack(true).and_then(|()| socket.set_cap_ack(true)).ok();
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(BUFFER) })
    }

    /// Sends `message` and waits for its end. `each` gets the type and body of every message of the reply.
    pub(super) fn request(
        &mut self,
        message: RouteNetlinkMessage,
        mut each: impl FnMut(u16, &[u8]),
    ) -> Result<(), NetlinkError> {
        self.send(message, NLM_F_ACK)?;
        while !self.receive(&mut false, &mut each)? {}
        Ok(())
    }

    /// Lists what `message` asks for at once. `each` gets the type and body of every message.
    pub(super) fn list(
        &mut self,
        message: RouteNetlinkMessage,
        mut each: impl FnMut(u16, &[u8]),
    ) -> Result<(), NetlinkError> {
        self.send(message, NLM_F_DUMP)?;
        while !self.receive(&mut false, &mut each)? {}
        Ok(())
    }

    /// Lists what `message` asks for, letting other tasks run between the parts of a long answer (the parts
    /// themselves are made in the system call: waiting for readiness would not make it asynchronous).
    ///
    /// `start` is called before every attempt: a list that changed meanwhile is asked for again.
    pub(super) async fn dump<S>(
        &mut self,
        message: RouteNetlinkMessage,
        state: &mut S,
        start: impl Fn(&mut S),
        each: impl Fn(&mut S, &[u8]),
    ) -> Result<(), NetlinkError> {
        for _ in 0..DUMP_TRIES {
            start(state);
            self.send(message.clone(), NLM_F_DUMP)?;
            let mut interrupted = false;
            while !self.receive(&mut interrupted, &mut |_, body| each(state, body))? {
                tokio::task::yield_now().await;
            }
            if !interrupted {
                break;
            }
        }
        Ok(())
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<(), NetlinkError> {
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(message));
        self.sequence = self.sequence.wrapping_add(1);
        message.header.sequence_number = self.sequence;
        message.header.flags = NLM_F_REQUEST | flags;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
        Ok(())
    }

    /// Reads a part of the reply; true if it was the last. Sets `interrupted` if what is listed changed meanwhile.
    fn receive(
        &mut self,
        interrupted: &mut bool,
        each: &mut impl FnMut(u16, &[u8]),
    ) -> Result<bool, NetlinkError> {
        if !receive(&self.socket, &mut self.buffer)? {
            return Err(NetlinkError { errno: Errno::EMSGSIZE, extack: None });
        }
        for message in messages(&self.buffer) {
            if message.sequence_number() != self.sequence {
                continue; // of an earlier request that was given up
            }
            *interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
            match i32::from(message.message_type()) {
                libc::NLMSG_ERROR | libc::NLMSG_DONE => return refusal(&message).map(|()| true),
                _ => each(message.message_type(), message.payload()),
            }
        }
        Ok(false)
    }
}

/// Reads one datagram of the kernel into `buffer`. False if it was larger than that.
pub(super) fn receive(socket: &Socket, buffer: &mut Vec<u8>) -> io::Result<bool> {
    buffer.clear();
    buffer.reserve(BUFFER);
    let (len, from) = socket.recv_from(buffer, libc::MSG_TRUNC)?;
    if from.port_number() != 0 {
        buffer.clear(); // another process pretends to be the kernel
        return Ok(true);
    }
    Ok(len <= buffer.len())
}

/// The messages in a datagram.
pub(super) fn messages(mut rest: &[u8]) -> impl Iterator<Item = NetlinkBuffer<&[u8]>> {
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(rest).ok()?;
        let end = usize::try_from(message.length()).ok()?.next_multiple_of(4);
        rest = rest.get(end..).unwrap_or_default();
        Some(message)
    })
}

/// What an `NLMSG_ERROR` or `NLMSG_DONE` reports, with the kernel's explanation.
pub(super) fn refusal(message: &NetlinkBuffer<&[u8]>) -> Result<(), NetlinkError> {
    let payload = message.payload();
    let code = payload.get(..4).and_then(|code| parse_i32(code).ok()).unwrap_or(0);
    if code == 0 {
        return Ok(());
    }
    // An error carries the request that it is about, or only its header, before the attributes.
    let about = match i32::from(message.message_type()) {
        libc::NLMSG_DONE => 0,
        _ if message.flags() & NLM_F_CAPPED != 0 => HEADER,
        _ => payload
            .get(4..8)
            .and_then(|len| netlink_packet_core::parse_u32(len).ok())
            .and_then(|len| usize::try_from(len).ok())
            .map_or(HEADER, |len| len.next_multiple_of(4)),
    };
    let attributes = match message.flags() & NLM_F_ACK_TLVS {
        0 => &[],
        _ => payload.get(4 + about..).unwrap_or_default(),
    };
    let extack = NlasIterator::new(attributes)
        .map_while(Result::ok)
        .find(|nla| nla.kind() == EXTACK_MSG)
        .and_then(|nla| parse_string(nla.value()).ok());
    Err(NetlinkError { errno: Errno::from_raw(code.wrapping_neg()), extack })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A whole `NLMSG_ERROR` with the reason as an attribute behind `about` bytes of the request.
    fn error(flags: u16, about: &[u8], reason: &str) -> Vec<u8> {
        let mut payload = (-libc::EBUSY).to_ne_bytes().to_vec();
        payload.extend(about);
        payload.extend(u16::try_from(4 + reason.len()).unwrap().to_ne_bytes());
        payload.extend(EXTACK_MSG.to_ne_bytes());
        payload.extend(reason.as_bytes());
        payload.resize(payload.len().next_multiple_of(4), 0);
        let mut message = u32::try_from(HEADER + payload.len()).unwrap().to_ne_bytes().to_vec();
        message.extend(u16::try_from(libc::NLMSG_ERROR).unwrap().to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend([0; 8]);
        message.extend(payload);
        message
    }

    fn reason(bytes: &[u8]) -> Option<String> {
        let error = refusal(&messages(bytes).next().unwrap()).unwrap_err();
        assert_eq!(error.errno, Errno::EBUSY);
        error.extack
    }

    #[test]
    fn reason_is_found_behind_the_request() {
        let mut request = 24u32.to_ne_bytes().to_vec();
        request.resize(24, 7);
        let words = Some("it is so".to_owned());
        assert_eq!(reason(&error(NLM_F_ACK_TLVS, &request, "it is so")), words);
        assert_eq!(reason(&error(NLM_F_ACK_TLVS | NLM_F_CAPPED, &request[..HEADER], "it is so")), words);
        assert_eq!(reason(&error(0, &request, "it is so")), None);
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..100), len in 0u32..120, kind in 0u16..5) {
            let mut bytes = bytes;
            for (to, from) in bytes.iter_mut().zip(len.to_ne_bytes().into_iter().chain(kind.to_ne_bytes())) {
                *to = from;
            }
            for message in messages(&bytes) {
                refusal(&message).ok();
            }
        }
    }
}
