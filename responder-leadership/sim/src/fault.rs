//! What can go wrong.

/// A kind of fault. A schedule has a random subset of them: some holes show only where another fault does not cover
/// them up (Groce and others, "Swarm testing", 2012).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Fault {
    /// An agent is stopped for a while; its datapath goes on.
    Pause,
    /// An agent is stopped or dies between two effects of one decision.
    Interrupt,
    /// An agent dies; the next one finds its maps.
    Kill,
    /// The same at once: the successor waited.
    Replace,
    /// A host dies with its maps.
    Reboot,
    /// An agent is told to stop, and started again later.
    Restart,
    /// Requests and responses of a node are lost for a while, and its watch stands still.
    Cut,
    /// Requests only.
    CutOut,
    /// Responses only.
    CutBack,
    /// The watch only.
    CutWatch,
    /// The watch ends, and begins again with a list.
    BreakWatch,
    /// Requests of a node take up to twice the lease.
    SlowApi,
    /// The watch of a node is late.
    SlowWatch,
    /// Single requests are lost.
    LoseRequests,
    /// Single responses are lost.
    LoseResponses,
    /// Single writes are executed long after their client has given up.
    Late,
    /// Single writes are refused.
    Refuse,
    /// Single writes end with an error of the server, done or not.
    Fail,
    /// The watch tells old things again.
    Repeat,
    /// Another host has an agent with the same node name.
    Twin,
    /// Somebody edits a claim into nonsense.
    EditClaim,
    /// Somebody edits a session into nonsense.
    EditSession,
    /// Somebody deletes a claim.
    DeleteClaim,
    /// Somebody deletes a session.
    DeleteSession,
    /// Somebody deletes all Leases.
    DeleteAll,
    /// Somebody changes a Lease without changing what it says.
    Touch,
    /// Services change.
    Demand,
    /// What can be said of a node changes.
    Local,
    /// An administrator wants a group to move.
    Move,
    /// Clocks run at different rates.
    Skew,
    /// Nodes have different lease durations.
    MixedLeases,
    /// A node is expected that never comes.
    Expect,
    /// The wall clocks of hosts differ.
    Wall,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Self; 33] = [
        Self::Pause,
        Self::Interrupt,
        Self::Kill,
        Self::Replace,
        Self::Reboot,
        Self::Restart,
        Self::Cut,
        Self::CutOut,
        Self::CutBack,
        Self::CutWatch,
        Self::BreakWatch,
        Self::SlowApi,
        Self::SlowWatch,
        Self::LoseRequests,
        Self::LoseResponses,
        Self::Late,
        Self::Refuse,
        Self::Fail,
        Self::Repeat,
        Self::Twin,
        Self::EditClaim,
        Self::EditSession,
        Self::DeleteClaim,
        Self::DeleteSession,
        Self::DeleteAll,
        Self::Touch,
        Self::Demand,
        Self::Local,
        Self::Move,
        Self::Skew,
        Self::MixedLeases,
        Self::Expect,
        Self::Wall,
    ];

    /// Whether it happens at an instant, not to single messages and not for the whole schedule.
    pub(crate) const fn is_sudden(self) -> bool {
        match self {
            Self::Pause
            | Self::Kill
            | Self::Replace
            | Self::Reboot
            | Self::Restart
            | Self::Cut
            | Self::CutOut
            | Self::CutBack
            | Self::CutWatch
            | Self::BreakWatch
            | Self::SlowApi
            | Self::SlowWatch
            | Self::Twin
            | Self::EditClaim
            | Self::EditSession
            | Self::DeleteClaim
            | Self::DeleteSession
            | Self::DeleteAll
            | Self::Touch
            | Self::Demand
            | Self::Local
            | Self::Move => true,
            Self::Interrupt
            | Self::LoseRequests
            | Self::LoseResponses
            | Self::Late
            | Self::Refuse
            | Self::Fail
            | Self::Repeat
            | Self::Skew
            | Self::MixedLeases
            | Self::Expect
            | Self::Wall => false,
        }
    }
}

/// A set of kinds.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Faults(u64);

impl Faults {
    /// None.
    pub const NONE: Self = Self(0);

    /// These.
    #[must_use]
    pub const fn of(kinds: &[Fault]) -> Self {
        let mut set = 0;
        let mut i = 0;
        while i < kinds.len() {
            set |= 1 << kinds[i] as u64;
            i += 1;
        }
        Self(set)
    }

    /// All.
    pub const ALL: Self = Self::of(&Fault::ALL);

    /// Whether `kind` is in it.
    #[must_use]
    pub const fn has(self, kind: Fault) -> bool {
        self.0 & (1 << kind as u64) != 0
    }

    /// Those that are in one of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are in both.
    #[must_use]
    pub const fn only(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits & Self::ALL.0)
    }

    /// The kinds in it.
    pub fn kinds(self) -> impl Iterator<Item = Fault> {
        Fault::ALL.into_iter().filter(move |kind| self.has(*kind))
    }
}
