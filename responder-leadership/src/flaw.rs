//! Faults that tests plant into the machine, to see that the checks find them.

/// A fault. Without the feature `flaws` none can be planted, and the compiler removes the questions for them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[cfg_attr(not(feature = "flaws"), expect(unreachable_pub, reason = "public with the feature"))]
pub enum Flaw {
    /// The deadline counts from the arrival of the response to a renewal.
    DeadlineFromArrival,
    /// The deadline lies a whole lease after the renewal.
    NoMargin,
    /// What an expired session holds is taken without revoking the session.
    TakeWithoutRevoke,
    /// After a write with unknown outcome answering resumes at once.
    ResumeAtOnce,
    /// After a write with unknown outcome answering resumes when a read shows the object unchanged.
    ResumeAfterRead,
    /// A session that is not seen is taken for dead.
    MissingIsDead,
    /// A session that is seen in an earlier incarnation is taken for dead.
    OtherIncarnationIsDead,
    /// The taker of a group forgets the exceptions.
    ForgetExceptions,
    /// A group is given away before answering has stopped.
    GiveBeforeSilence,
    /// A claim that is absent or cannot be understood is taken at once.
    TakeUnclearAtOnce,
    /// An object is written again without a change.
    IdenticalRewrite,
    /// A new incarnation starts at once where another datapath's session lives.
    StartOverOthers,
}
