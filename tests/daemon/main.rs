//! The real binary over real sockets: killed, cut off, damaged, and asked all its questions.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "tests print their figures and are their own daemon"
)]

mod api;
mod crash;
mod damage;
mod failing_disk;
mod powercut;
mod support;
