//! sagad: one daemon that does all of it, or undoes all of it.

pub mod api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod cork;
pub mod daemon;
pub mod definition;
pub mod demo;
pub mod engine;
pub mod heap;
pub mod metrics;
pub mod participant;
pub mod proto;
pub mod saga;
pub mod store;
pub mod tasks;
pub mod telemetry;
