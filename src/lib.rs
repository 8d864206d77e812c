//! sagad: one daemon that does all of it, or undoes all of it.

pub mod api;
pub mod clock;
pub mod engine;
pub mod participant;
pub mod proto;
pub mod saga;
pub mod store;
pub mod tasks;
