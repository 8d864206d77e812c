//! Damage of the files.
