//! codec/tests
