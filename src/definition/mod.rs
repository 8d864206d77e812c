//! From a YAML file to a checked definition.
//!
//! ```text
//!  text ──yaml──► raw structs ──steps, calls──► steps and templates ──order──► plan
//!                  (places)                           │                        │
//!                                                     └────────── flow ◄───────┘
//!                                                who may read what, of whom
//! ```
//!
//! Everything that can be known to be wrong is found here, with line and column, and never at run
//! time. A file that does not read as YAML yields one problem; one that does yields all of them.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::saga::definition::Definition;
use crate::saga::ids::{Digest, Version};

mod build;
mod calls;
mod flow;
mod input_check;
mod located;
mod order;
mod problem;
mod raw;
mod steps;
mod yaml;

pub use input_check::{InputCheck, VIOLATIONS_MAX, Violation};
pub use problem::{Problem, render};
pub use steps::STEPS_MAX;
pub use yaml::SOURCE_MAX_BYTES;

/// A definition ready to run.
#[derive(Debug)]
pub struct Compiled {
    /// The definition.
    pub definition: Arc<Definition>,
    /// The check of a start's input, where the file has an `input_schema`.
    pub input_check: Option<InputCheck>,
    /// What is allowed and probably not meant, one line each.
    pub warnings: Vec<String>,
}

/// Reads and checks a definition. `file` is the name that problems are reported under.
///
/// # Errors
/// Everything found wrong, in file order; never empty.
pub fn compile(source: &str, file: Option<&str>, version: Version) -> Result<Compiled, Vec<Problem>> {
    build::build(source, file, version)
}

/// The identity of a source: the SHA-256 of its bytes.
#[must_use]
pub fn digest(source: &str) -> Digest {
    Digest(Sha256::digest(source.as_bytes()).into())
}

/// The JSON Schema of definition files, for editors: pretty-printed, ending in a newline.
#[must_use]
pub fn editor_schema() -> String {
    let schema = schemars::schema_for!(raw::RawDefinition);
    let mut text = serde_json::to_string_pretty(&schema).expect("a schema is plain JSON");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests;
