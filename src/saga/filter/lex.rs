//! The words of a filter.

use super::FilterError;

/// Reads a filter from left to right.
pub(super) struct Lexer<'a> {
    text: &'a str,
    /// Bytes read so far.
    at: usize,
}

/// A word and where it starts (in bytes).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) quoted: bool,
    pub(super) at: usize,
}

/// Longest first, so that `<=` is not read as `<`.
const OPERATORS: [&str; 7] = ["!=", "<=", ">=", "=", "<", ">", ":"];

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub(super) fn error(&self, at: usize, message: impl Into<String>) -> FilterError {
        FilterError { position: self.text[..at].chars().count() + 1, message: message.into() }
    }

    /// Where the next word starts.
    pub(super) fn here(&mut self) -> usize {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
        self.at
    }

    pub(super) fn is_at_end(&mut self) -> bool {
        self.here() == self.text.len()
    }

    /// Reads `symbol` if it comes next.
    pub(super) fn take(&mut self, symbol: char) -> bool {
        let here = self.here();
        let found = self.text[here..].starts_with(symbol);
        if found {
            self.at += symbol.len_utf8();
        }
        found
    }

    /// Reads the keyword if it comes next as a word of its own.
    pub(super) fn take_keyword(&mut self, keyword: &str) -> bool {
        let here = self.here();
        let found = self.text[here..]
            .strip_prefix(keyword)
            .is_some_and(|rest| rest.chars().next().is_none_or(|c| c.is_whitespace() || "()\"".contains(c)));
        if found {
            self.at += keyword.len();
        }
        found
    }

    /// Reads a field's name; `label."odd name"` gives `label.odd name`.
    pub(super) fn field(&mut self) -> Result<Word, FilterError> {
        let at = self.here();
        let text = self.run(|c| !c.is_whitespace() && !"()\"=!<>:".contains(c));
        if text == "label." && self.text[self.at..].starts_with('"') {
            let name = self.quoted()?;
            return Ok(Word { text: format!("label.{name}"), quoted: false, at });
        }
        if text.is_empty() {
            return Err(self.unexpected(at, "a field"));
        }
        Ok(Word { text: text.to_owned(), quoted: false, at })
    }

    pub(super) fn operator(&mut self) -> Result<(&'static str, usize), FilterError> {
        let at = self.here();
        match OPERATORS.into_iter().find(|operator| self.text[at..].starts_with(operator)) {
            Some(operator) => {
                self.at += operator.len();
                Ok((operator, at))
            }
            None => Err(self.unexpected(at, "one of = != < <= > >= :")),
        }
    }

    /// Reads a bare or quoted value. A bare one may hold `:`, as times and ids do.
    pub(super) fn value(&mut self) -> Result<Word, FilterError> {
        let at = self.here();
        if self.text[at..].starts_with('"') {
            return Ok(Word { text: self.quoted()?, quoted: true, at });
        }
        let text = self.run(|c| !c.is_whitespace() && !"()\"".contains(c)).to_owned();
        if text.is_empty() || ["AND", "OR", "NOT"].contains(&text.as_str()) {
            return Err(self.unexpected(at, "a value"));
        }
        if let Some(odd) = text.find(['=', '!', '<', '>']) {
            return Err(self.error(at + odd, format!("the value {text} must stand in double quotes")));
        }
        Ok(Word { text, quoted: false, at })
    }

    /// What stands at `at` instead of what was expected.
    pub(super) fn unexpected(&self, at: usize, expected: &str) -> FilterError {
        let found: String = self.text[at..].chars().take_while(|c| !c.is_whitespace()).take(20).collect();
        let message = if found.is_empty() {
            format!("the filter ends where {expected} is expected")
        } else if ["AND", "OR", "NOT"].contains(&found.to_uppercase().as_str())
            && found != found.to_uppercase()
        {
            format!("{expected} is expected, not `{found}`; keywords are written in upper case")
        } else {
            format!("{expected} is expected, not `{found}`")
        };
        self.error(at, message)
    }

    fn run(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let rest = &self.text[self.at..];
        let length = rest.find(|c| !belongs(c)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    /// Reads a text in double quotes; `\"` and `\\` stand for `"` and `\`.
    fn quoted(&mut self) -> Result<String, FilterError> {
        let start = self.at;
        let mut text = String::new();
        let mut chars = self.text[start..].char_indices().skip(1);
        while let Some((offset, c)) = chars.next() {
            match c {
                '"' => {
                    self.at = start + offset + 1;
                    return Ok(text);
                }
                '\\' => match chars.next() {
                    Some((_, escaped @ ('"' | '\\'))) => text.push(escaped),
                    _ => return Err(self.error(start + offset, "`\\` stands only before `\"` or `\\`")),
                },
                other => text.push(other),
            }
        }
        Err(self.error(start, "the text in double quotes does not end"))
    }
}
