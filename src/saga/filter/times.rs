//! Spans (`1h30m`) and points in time (RFC 3339), read and written.

use std::fmt::Write as _;
use std::time::Duration;

use crate::saga::ids::Timestamp;

const DAY_MILLIS: i64 = 24 * 60 * 60 * 1_000;

/// The units of a span in milliseconds, largest first.
const UNITS: [(&str, u64); 6] =
    [("w", 7 * 86_400_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Numbers with units, such as `90s`, `10m`, `1h30m`; milliseconds are the finest.
pub(super) fn parse_span(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut millis = 0u64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == &rest[..letters])?;
        millis = millis.checked_add(number.checked_mul(*unit)?)?;
        rest = &rest[letters..];
    }
    let fits = !text.is_empty() && i64::try_from(millis).is_ok();
    fits.then(|| Duration::from_millis(millis))
}

/// The shortest text that [`parse_span`] reads as `span`.
pub(super) fn write_span(span: Duration) -> String {
    let mut millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (name, unit) in UNITS {
        if millis >= unit {
            let _ = write!(text, "{}{name}", millis / unit);
            millis %= unit;
        }
    }
    text
}

/// `2030-01-31T12:00:00.250+09:00`; what is finer than a millisecond is cut off.
pub(super) fn parse_time(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let part = text.get(range)?;
        part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())?
    };
    let is = |at: usize, allowed: &[u8]| bytes.get(at).is_some_and(|byte| allowed.contains(byte));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1..=12).contains(&month) || !(1..=days_in(year, month)).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = &text[19..];
    let mut millis = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return None;
        }
        let three: String = fraction[..digits].chars().chain("00".chars()).take(3).collect();
        millis = three.parse().ok()?;
        rest = &fraction[digits..];
    }
    let offset_minutes = offset(rest)?;
    let seconds = (hour * 60 + minute - offset_minutes) * 60 + second;
    Some(Timestamp(days_from_epoch(year, month, day) * DAY_MILLIS + seconds * 1_000 + millis))
}

/// `Z`, `+09:00`, `-03:30` in minutes.
fn offset(text: &str) -> Option<i64> {
    if text.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = text[1..].split_once(':')?;
    let two = |part: &str| -> Option<i64> {
        (part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit())).then(|| part.parse().ok())?
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 60 + minutes))
}

/// UTC with milliseconds.
pub(super) fn write_time(at: Timestamp) -> String {
    let (days, millis) = (at.0.div_euclid(DAY_MILLIS), at.0.rem_euclid(DAY_MILLIS));
    let (year, month, day) = date_of(days);
    let (seconds, millis) = (millis / 1_000, millis % 1_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the Gregorian calendar; years are counted from March, so that the leap
/// day is the last of its year (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days_from_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The date that is `days` after 1970-01-01.
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_to_the_millisecond_in_any_zone() {
        let table = [
            ("1970-01-01T00:00:00Z", 0),
            ("2024-02-29T23:59:59.999Z", 1_709_251_199_999),
            ("2024-01-01T09:00:00+09:00", 1_704_067_200_000),
            ("2023-12-31T20:30:00.5-03:30", 1_704_067_200_500),
            ("1969-12-31T23:59:59.001Z", -999),
            ("2024-01-01t00:00:00.1234567z", 1_704_067_200_123),
        ];
        for (text, millis) in table {
            assert_eq!(parse_time(text), Some(Timestamp(millis)), "{text}");
        }
        for text in [
            "2023-02-29T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-01-01",
            "2024-01-01T00:00:00",
            "24:00",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:00:00+9:00",
            "2024-01-01T00:00:00.Z",
            "+024-01-01T00:00:00Z",
            "é024-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    #[test]
    fn every_day_of_eight_centuries_is_written_as_it_is_read() {
        for day in -140_000..146_097 {
            let at = Timestamp(day * DAY_MILLIS + 12_345);
            assert_eq!(parse_time(&write_time(at)), Some(at));
        }
    }

    #[test]
    fn spans_add_up() {
        assert_eq!(parse_span("10m"), Some(Duration::from_mins(10)));
        assert_eq!(parse_span("1h30m5s20ms"), Some(Duration::from_millis(5_405_020)));
        assert_eq!(write_span(Duration::from_millis(5_405_020)), "1h30m5s20ms");
        for text in ["", "10", "m", "10 m", "-1s", "1.5h", "1y", "1M", "99999999999999999999w", "1é"] {
            assert_eq!(parse_span(text), None, "{text}");
        }
    }
}
