//! Pieces of text: ages, times, safe strings, colours.

use std::time::Duration;

use owo_colors::OwoColorize as _;

use crate::saga::ids::Timestamp;

/// What is written where there is no value.
pub const NONE: &str = "-";

/// How a piece of text is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Nothing special.
    Plain,
    /// It went well.
    Good,
    /// It wants a person, or ended badly.
    Bad,
    /// It is being undone, or nobody knows.
    Wary,
    /// Of lesser weight.
    Faint,
    /// A heading.
    Strong,
}

/// Colours `text` by its meaning.
#[must_use]
pub fn paint(text: &str, tone: Tone) -> String {
    match tone {
        Tone::Plain => text.to_owned(),
        Tone::Good => text.green().to_string(),
        Tone::Bad => text.red().to_string(),
        Tone::Wary => text.yellow().to_string(),
        Tone::Faint => text.dimmed().to_string(),
        Tone::Strong => text.bold().to_string(),
    }
}

/// Text from outside on one line, unable to command the terminal: white space becomes a blank,
/// every other control or direction-changing character is shown as `\u{…}`.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_whitespace() {
            safe.push(' ');
        } else if is_unsafe(c) {
            safe.extend(c.escape_unicode());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// The same, line by line.
#[must_use]
pub fn printable_lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

fn is_unsafe(c: char) -> bool {
    // Besides control characters: marks that reorder or hide what is written next to them.
    c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `text`, or a dash where it is empty.
#[must_use]
pub fn or_none(text: &str) -> String {
    if text.is_empty() { NONE.to_owned() } else { printable(text) }
}

/// Cuts `text` to `columns` characters, the last of them an ellipsis.
#[must_use]
pub fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(columns.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// A span of time in at most two units: `850ms`, `12s`, `5m12s`, `3h5m`, `2d4h`.
#[must_use]
pub fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match seconds {
        0 => format!("{}ms", span.as_millis()),
        1..=9 => format!("{}.{}s", seconds, span.subsec_millis() / 100),
        10..60 => format!("{seconds}s"),
        60..3_600 => format!("{minutes}m{}s", seconds % 60),
        3_600..86_400 => format!("{hours}h{minutes}m"),
        86_400.. => format!("{days}d{hours}h"),
    }
}

/// Texts from outside, a line each.
pub fn a_line_each<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> String {
    let mut told = String::new();
    for text in texts {
        told.push_str(&printable(text.as_ref()));
        told.push('\n');
    }
    told
}

/// The time of a message in our own measure; `None` when it is not set.
#[must_use]
pub fn instant(at: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
    at.map(|at| Timestamp(at.seconds.saturating_mul(1_000).saturating_add(i64::from(at.nanos / 1_000_000))))
}

/// How long ago `at` was, or a dash.
#[must_use]
pub fn age(at: Option<&prost_types::Timestamp>, now: Timestamp) -> String {
    instant(at).map_or_else(|| NONE.to_owned(), |at| span(now.since(at)))
}

/// How long it is until `at`: `in 12s`, `now` when it has passed, or a dash.
#[must_use]
pub fn until(at: Option<&prost_types::Timestamp>, now: Timestamp) -> String {
    match instant(at) {
        None => NONE.to_owned(),
        Some(at) if at <= now => "now".to_owned(),
        Some(at) => format!("in {}", span(at.since(now))),
    }
}

/// The time as RFC 3339 in UTC; `None` when it is not set.
#[must_use]
pub fn rfc3339(at: Option<&prost_types::Timestamp>) -> Option<String> {
    at.map(ToString::to_string)
}

/// `3 sagas`, `1 saga`: a count with its noun, whose plural takes an s.
#[must_use]
pub fn counted(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_told_in_at_most_two_units() {
        let table = [
            (0, "0ms"),
            (850, "850ms"),
            (1_250, "1.2s"),
            (12_900, "12s"),
            (312_000, "5m12s"),
            (11_100_000, "3h5m"),
            (187_200_000, "2d4h"),
        ];
        for (millis, expected) in table {
            assert_eq!(span(Duration::from_millis(millis)), expected);
        }
    }

    #[test]
    fn text_from_outside_cannot_command_the_terminal() {
        assert_eq!(printable("no\nstock\u{1b}[2J\u{202e}"), "no stock\\u{1b}[2J\\u{202e}");
    }

    #[test]
    fn a_cut_text_says_that_it_was_cut() {
        assert_eq!(cut("재고 부족", 4), "재고 …");
        assert_eq!(cut("short", 5), "short");
    }

    #[test]
    fn a_time_that_has_passed_is_now() {
        let at = prost_types::Timestamp { seconds: 10, nanos: 0 };
        assert_eq!(until(Some(&at), Timestamp(9_000)), "in 1.0s");
        assert_eq!(until(Some(&at), Timestamp(11_000)), "now");
        assert_eq!(until(None, Timestamp(11_000)), "-");
    }
}
