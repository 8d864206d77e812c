//! The public surface, asked by a client that knows nothing of what is behind it.

mod cancel_deadline;
mod cli;
mod data_flow;
mod definitions;
mod events;
mod fan_out;
mod filters;
mod forward;
mod isolation;
mod json_limits;
mod large;
mod lists;
mod locks;
mod outcomes;
mod overload;
mod parked;
mod pending;
mod pivot;
mod registry;
mod repair;
mod repair_limits;
mod restart;
mod server;
mod start;
mod undo;
mod watch_wait;
