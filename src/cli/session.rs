//! What all verbs share: where the daemon is, and in which form answers are written.

use std::io::{self, IsTerminal as _, Write as _};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::client::Daemon;
use super::render::{Page, document};
use super::trouble::Trouble;

/// Options that every verb takes.
#[derive(Debug, Args)]
pub struct Global {
    /// Where the daemon listens
    #[arg(
        long,
        global = true,
        env = "SAGAD_ADDR",
        default_value = "http://127.0.0.1:7420",
        value_name = "URL"
    )]
    addr: String,
    /// In which form to write answers
    // `--output` is left free: `resolve` takes a step's output by that name.
    #[arg(
        short = 'o',
        long = "format",
        global = true,
        value_enum,
        default_value = "table",
        value_name = "FORM"
    )]
    form: Form,
    /// Write ids and numbers only, or nothing where there is none
    #[arg(short, long, global = true)]
    quiet: bool,
}

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For people
    Table,
    /// For programs: fields are only ever added
    Json,
    /// The same as YAML
    Yaml,
}

/// One run of the program.
#[derive(Debug)]
pub struct Session {
    addr: String,
    form: Form,
    quiet: bool,
}

impl Session {
    /// As the command line asks for.
    #[must_use]
    pub fn new(global: Global) -> Self {
        Self { addr: global.addr, form: global.form, quiet: global.quiet }
    }

    /// Connects to the daemon.
    ///
    /// # Errors
    /// As [`Daemon::connect`].
    pub async fn daemon(&self) -> Result<Daemon, Trouble> {
        Daemon::connect(&self.addr).await
    }

    /// What texts are laid out for, as of now: a command may have waited since it began.
    #[must_use]
    pub fn page(&self) -> Page {
        Page::here()
    }

    /// In which form answers are written.
    #[must_use]
    pub fn form(&self) -> Form {
        self.form
    }

    /// Writes one answer: `view` for programs, `table` for people, `brief` for people who want
    /// the id or number only.
    ///
    /// # Errors
    /// [`Trouble`] when the output cannot be written.
    pub fn answer(
        &self,
        view: &impl Serialize,
        table: impl FnOnce(&Page) -> String,
        brief: impl FnOnce() -> String,
    ) -> Result<(), Trouble> {
        match self.form {
            Form::Json => write(&document::json(view)),
            Form::Yaml => write(&document::yaml(view)),
            Form::Table if self.quiet => write(&brief()),
            Form::Table => write(&table(&self.page())),
        }
    }

    /// Writes one entry of a stream as soon as it is there.
    ///
    /// # Errors
    /// [`Trouble`] when the output cannot be written.
    pub fn entry(&self, view: &impl Serialize, line: impl FnOnce() -> String) -> Result<(), Trouble> {
        match self.form {
            Form::Json => write(&document::json_line(view)),
            Form::Yaml => write(&format!("---\n{}", document::yaml(view))),
            Form::Table if self.quiet => Ok(()),
            Form::Table => write(&line()),
        }
    }

    /// Writes a remark for people beside the answer, unless they asked for quiet.
    pub fn remark(&self, text: &str) {
        if !self.quiet {
            // A remark that nobody can read changes nothing about the answer.
            let _ = writeln!(anstream::stderr(), "{text}");
        }
    }
}

/// Writes `text` to the standard output without touching a byte: for scripts and sources.
///
/// # Errors
/// [`Trouble`] when the output cannot be written.
pub fn write_exactly(text: &[u8]) -> Result<(), Trouble> {
    let mut out = io::stdout().lock();
    out.write_all(text).and_then(|()| out.flush()).map_err(Trouble::writing)
}

/// Writes `text` to the standard output, its colours only where they can be seen.
///
/// # Errors
/// [`Trouble`] when the output cannot be written.
pub fn write(text: &str) -> Result<(), Trouble> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Trouble::writing)
}

/// Whether there is a person to ask.
#[must_use]
pub fn somebody_is_there() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Shows `plan` and asks for a yes; anything else is a no.
///
/// # Errors
/// [`Trouble`] when the question cannot be asked or the answer not read.
pub fn asks(plan: &str, question: &str) -> Result<bool, Trouble> {
    let mut err = anstream::stderr().lock();
    write!(err, "{plan}{question} [y/N] ").and_then(|()| err.flush()).map_err(Trouble::writing)?;
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .map_err(|source| Trouble::Local { what: "read the answer".to_owned(), source })?;
    Ok(is_yes(&answer))
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_yes_is_a_yes() {
        for yes in ["y\n", "Yes\n", " YES "] {
            assert!(is_yes(yes), "{yes:?}");
        }
        for no in ["", "\n", "n\n", "yep\n", "y y"] {
            assert!(!is_yes(no), "{no:?}");
        }
    }
}
