//! Names, numbers and points in time that are valid by construction.

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

/// Longest saga id a client may choose, in characters.
pub const SAGA_ID_MAX_CHARS: usize = 200;
/// Longest name of a definition, step, participant or action, in characters.
pub const NAME_MAX_CHARS: usize = 128;
/// Longest lock key after evaluation, in bytes.
pub const LOCK_KEY_MAX_BYTES: usize = 512;

/// A name that does not fit its form.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what} {given:?} is not valid: {rule}")]
pub struct InvalidName {
    /// The kind of name, such as `saga_id`.
    pub what: &'static str,
    /// What was given, cut to a readable length.
    pub given: String,
    /// The form it must have.
    pub rule: &'static str,
}

fn invalid(what: &'static str, given: &str, rule: &'static str) -> InvalidName {
    InvalidName { what, given: given.chars().take(64).collect(), rule }
}

/// Declares a cheap-to-clone text type whose only constructor checks its form.
macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` against the form and keeps it.
            ///
            /// # Errors
            /// [`InvalidName`] names the rule that `text` breaks.
            pub fn parse(text: &str) -> Result<Self, InvalidName> {
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok(Self(Arc::from(text))) } else { Err(invalid($what, text, $rule)) }
            }

            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

fn is_saga_id(text: &str) -> bool {
    (1..=SAGA_ID_MAX_CHARS).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:/-".contains(&b))
}

fn is_step_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=NAME_MAX_CHARS).contains(&bytes.len())
        && (bytes[0].is_ascii_lowercase() || bytes[0].is_ascii_digit())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(b))
}

fn is_plain_name(text: &str) -> bool {
    (1..=NAME_MAX_CHARS).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
}

fn is_action_name(text: &str) -> bool {
    (1..=NAME_MAX_CHARS).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}

name_type!(
    /// The identity of one saga, chosen by the client or made as a UUIDv7.
    SagaId, "saga_id", "1 to 200 characters of A-Z a-z 0-9 . _ : / -", is_saga_id
);
name_type!(
    /// The name of a saga definition.
    DefinitionName, "definition", "1 to 128 characters of A-Z a-z 0-9 _ -", is_plain_name
);
name_type!(
    /// The name of a step inside its definition.
    StepName, "step", "1 to 128 characters of a-z 0-9 _ -, the first a letter or a digit", is_step_name
);
name_type!(
    /// The name of a participant service: the part of `call` before the first dot.
    ParticipantName, "participant", "1 to 128 characters of A-Z a-z 0-9 _ -", is_plain_name
);
name_type!(
    /// The name of an action: the part of `call` after the first dot.
    ActionName, "action", "1 to 128 characters of A-Z a-z 0-9 _ - .", is_action_name
);
name_type!(
    /// One lock key after its expression was evaluated.
    LockKey, "lock key", "1 to 512 bytes of text", |text| (1..=LOCK_KEY_MAX_BYTES).contains(&text.len())
);

/// The number of a definition's version; the first is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The SHA-256 of a definition's source bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A point in time: milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The time from `earlier` to `self`; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;

    fn add(self, span: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Timestamp;

    fn sub(self, span: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }
}

/// The place of a step in its definition, counted from 0 in file order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepIx(pub u32);

impl StepIx {
    /// The same number, to index a slice with.
    #[must_use]
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

/// One step instance: the step, and the item's place for a `for_each` step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceRef {
    /// The step in its definition.
    pub step: StepIx,
    /// The item's place in the list; `None` for a step without `for_each`.
    pub item: Option<u32>,
}

impl InstanceRef {
    /// The place of this instance in its step's list of instances.
    #[must_use]
    pub fn slot(self) -> usize {
        self.item.unwrap_or(0) as usize
    }
}
