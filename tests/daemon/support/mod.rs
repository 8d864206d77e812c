//! What the tests of the real binary share.

pub mod chance;
pub mod daemon;
pub mod participant;
pub mod play;
pub mod shared;
pub mod wire;
pub mod worker;
pub mod world;
