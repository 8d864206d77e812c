//! What single components cost, each by itself: for a look at one of them while it is changed.
//! Whole sagas are measured by the bench beside this one.
//!
//! ```text
//! cargo bench --bench parts              # everything, under a minute
//! cargo bench --bench parts -- codec     # what has this in its name
//! ```

mod codec;
mod core;
mod dispatch;
mod expressions;
#[path = "../bench/records.rs"]
mod records;
mod store;

fn main() {
    divan::main();
}
