//! Why a store is not opened, and what to do about it.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// A store that is not opened.
#[derive(Debug, Clone, Error)]
pub enum OpenError {
    /// Another process works on it. Trying again helps once that one has stopped.
    #[error("{}: another daemon has this store open; stop it first, or use another directory", dir.display())]
    Locked { dir: PathBuf },
    /// The operating system said no.
    #[error("{}: {operation} failed: {cause}; check the path, its permissions and the free space", path.display())]
    Io { path: PathBuf, operation: &'static str, cause: String },
    /// It was written by another version of the program. Trying again cannot help.
    #[error(
        "{}: the store was written in format {found}, and this version reads format {known}: use the \
         version that wrote it, or another directory",
        dir.display()
    )]
    Format { dir: PathBuf, found: u8, known: u8 },
    /// Something is not as it was written. Trying again cannot help.
    #[error(
        "{}: refused: {cause}. Keep a copy of the files, look at them with `sagad store verify --data {}`, \
         then put back a backup copy of the whole directory",
        file.display(), dir.display()
    )]
    Damaged { dir: PathBuf, file: PathBuf, cause: String },
}

impl OpenError {
    pub(super) fn io(path: &Path, operation: &'static str, cause: &impl ToString) -> Self {
        Self::Io { path: path.to_owned(), operation, cause: cause.to_string() }
    }

    pub(super) fn damaged(dir: &Path, file: &Path, cause: impl Into<String>) -> Self {
        Self::Damaged { dir: dir.to_owned(), file: file.to_owned(), cause: cause.into() }
    }
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without words".into())
}
