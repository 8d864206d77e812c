//! The protocol's tests: the mapping by itself, and calls over real connections.

mod calls;
mod mapping;
mod refusals;
pub mod service;
