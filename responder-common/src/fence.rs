//! From slot, fence and clock to "may this address be answered".

use crate::layout::{Fence, SlotState};

/// How this host stands to a known address at one instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Owned, deadline ahead: answer.
    Owned,
    /// Not owned here: be silent, and keep the host silent.
    Standby,
    /// Owned, but the deadline has passed: be silent, and keep the host silent.
    Expired,
    /// No agent for so long that even silence has ended: as if the address were unknown.
    Abandoned,
}

impl Standing {
    /// Judges at `now_ns`. Both limits of the fence are exclusive: at the deadline itself nothing is answered.
    ///
    /// `slot` is the raw [`SlotState`]; anything but [`SlotState::Owned`] counts as not owned.
    #[must_use]
    #[inline(always)]
    pub const fn judge(slot: u32, fence: Fence, now_ns: u64) -> Self {
        if slot == SlotState::Owned as u32 && now_ns < fence.deadline_ns {
            return Self::Owned;
        }
        if now_ns >= fence.suppress_until_ns {
            return Self::Abandoned;
        }
        if slot == SlotState::Owned as u32 { Self::Expired } else { Self::Standby }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FENCE: Fence = Fence { deadline_ns: 100, suppress_until_ns: 1000, heartbeat_ns: 0 };

    #[test]
    fn limits_are_exclusive() {
        let owned = SlotState::Owned as u32;
        assert_eq!(Standing::judge(owned, FENCE, 99), Standing::Owned);
        assert_eq!(Standing::judge(owned, FENCE, 100), Standing::Expired);
        assert_eq!(Standing::judge(owned, FENCE, 999), Standing::Expired);
        assert_eq!(Standing::judge(owned, FENCE, 1000), Standing::Abandoned);
    }

    #[test]
    fn whatever_is_not_owned_is_standby() {
        for slot in [0, 2, u32::MAX] {
            assert_eq!(Standing::judge(slot, FENCE, 0), Standing::Standby);
            assert_eq!(Standing::judge(slot, FENCE, 1000), Standing::Abandoned);
        }
    }

    #[test]
    fn a_deadline_of_zero_never_answers_and_the_last_instant_always_does() {
        let owned = SlotState::Owned as u32;
        let never = Fence { deadline_ns: 0, suppress_until_ns: u64::MAX, heartbeat_ns: 0 };
        assert_eq!(Standing::judge(owned, never, 0), Standing::Expired);
        let always = Fence { deadline_ns: u64::MAX, suppress_until_ns: u64::MAX, heartbeat_ns: 0 };
        assert_eq!(Standing::judge(owned, always, u64::MAX - 1), Standing::Owned);
    }
}
