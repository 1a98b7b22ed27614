//! The commands, and what they share.

pub mod bench;
pub mod progress;
