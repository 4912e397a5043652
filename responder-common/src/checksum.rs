//! The ICMPv6 checksum.

use crate::{
    ndp::NEXT_ICMPV6,
    wire::{Be16, Ip6, Ipv6Header, NdHeader, NdMessage, NdUnit},
};

/// The Internet checksum (RFC 1071) over 16-bit words as they lie in memory.
#[derive(Default)]
pub(crate) struct Sum(u32);

impl Sum {
    #[inline(always)]
    fn word(&mut self, raw: u16) {
        self.0 += u32::from(raw);
    }

    #[inline(always)]
    fn address(&mut self, ip: &Ip6) {
        let [a, b, c, d, e, f, g, h] = ip.raw();
        for raw in [a, b, c, d, e, f, g, h] {
            self.word(raw);
        }
    }

    /// RFC 8200 section 8.1.
    #[inline(always)]
    pub(crate) fn pseudo_header(&mut self, ip: &Ipv6Header) {
        self.address(&ip.src);
        self.address(&ip.dst);
        self.word(ip.payload_len.raw());
        self.word(Be16::new(NEXT_ICMPV6).raw());
    }

    #[inline(always)]
    pub(crate) fn message(&mut self, m: &NdMessage) {
        let NdHeader { type_code, checksum, flags, reserved } = m.header;
        for raw in [type_code, checksum, flags, reserved] {
            self.word(raw.raw());
        }
        self.address(&m.target);
    }

    #[inline(always)]
    pub(crate) fn unit(&mut self, unit: &NdUnit) {
        self.word(unit.type_len.raw());
        let [a, b, c, d, e, f] = unit.mac.octets();
        for pair in [[a, b], [c, d], [e, f]] {
            self.word(u16::from_ne_bytes(pair));
        }
    }

    /// The ones' complement sum.
    #[inline(always)]
    pub(crate) fn fold(&self) -> u16 {
        // At most 16 + 2 + 12 + 4 * MAX_UNITS words were added: two rounds carry everything.
        let once = (self.0 & 0xffff) + (self.0 >> 16);
        ((once & 0xffff) + (once >> 16)) as u16
    }
}
