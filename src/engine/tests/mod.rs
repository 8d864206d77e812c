//! The engine as its clients see it, over a store in memory and participants of our own making.
//!
//! Time is tokio's paused clock: it moves on by itself whenever everything waits, so that hours
//! pass in milliseconds and nothing depends on the machine's speed.

mod faults;
mod following;
mod large;
mod lists;
mod operating;
mod overload;
mod resting;
mod running;
mod storm;
mod world;
