//! The sample shop and the show behind `sagad demo` and `sagad dev`.
//!
//! ```text
//! sagad demo ─┬─ sagad serve            the daemon, on a fresh store
//!             ├─ sagad shop stock       one process per participant, each with a ledger
//!             ├─ sagad shop point …
//!             └─ customers              place orders, see them through, count the ledgers
//! ```

pub mod accounting;
mod acts;
pub mod book;
pub mod cast;
pub mod catalogue;
pub mod customers;
mod dev;
pub mod ledger;
pub mod processes;
mod registration;
pub mod shop;
mod show;
pub mod worker;

pub use acts::{DemoOptions, run};
pub use dev::{DevOptions, dev};
