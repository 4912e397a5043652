//! The kernel networking that the agent sees and uses.
