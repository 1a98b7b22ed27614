//! Dates as HTTP writes them: `Sun, 06 Nov 1994 08:49:37 GMT` (IMF-fixdate, RFC 9110 §5.6.7).
//!
//! Seconds of the wall clock come in; who reads the clock formats once a second and keeps the text. The two obsolete formats are not
//! read: nothing sends them in the fields that the gateway looks at. Calendar arithmetic: Howard Hinnant, "chrono-compatible low-level date algorithms".

const DAYS: [&[u8; 3]; 7] = [b"Sun", b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat"];
const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
const DAY_SECONDS: u64 = 86_400;
/// 9999-12-31T23:59:59Z: the last second that four digits of a year can hold.
const SECONDS_MAX: u64 = 253_402_300_799;

/// The date of a `Date` header.
pub type HttpDate = [u8; 29];

/// `unix_seconds` (since 1970-01-01T00:00:00Z, up to the year 9999) as a date.
#[must_use]
pub fn format(unix_seconds: u64) -> HttpDate {
    let seconds = unix_seconds.min(SECONDS_MAX);
    let (days, time) = (seconds / DAY_SECONDS, seconds % DAY_SECONDS);
    let (year, month, day) = civil(days);
    let mut out = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    out[..3].copy_from_slice(DAYS[(days as usize + 4) % 7]);
    write_two(&mut out[5..7], day);
    out[8..11].copy_from_slice(MONTHS[month as usize - 1]);
    write_two(&mut out[12..14], year / 100);
    write_two(&mut out[14..16], year % 100);
    write_two(&mut out[17..19], time / 3600);
    write_two(&mut out[20..22], time / 60 % 60);
    write_two(&mut out[23..25], time % 60);
    out
}

/// The seconds since 1970 that `text` stands for; `None` unless it is a date of this form, 1970 or later.
#[must_use]
pub fn parse(text: &[u8]) -> Option<u64> {
    let text: &HttpDate = text.try_into().ok()?;
    let two = |at: usize| super::text::number(&text[at..at + 2], 99);
    let month = MONTHS.iter().position(|name| name[..] == text[8..11])? as u64 + 1;
    let year = two(12)? * 100 + two(14)?;
    let (day, hour, minute, second) = (two(5)?, two(17)?, two(20)?, two(23)?);
    if year < 1970 || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days_since_1970(year, month, day) * DAY_SECONDS + hour * 3600 + minute * 60 + second.min(59);
    // the weekday, the punctuation and the day of the month are right when it is written the same way again
    (format(seconds)[..23] == text[..23] && &text[25..] == b" GMT").then_some(seconds)
}

fn write_two(out: &mut [u8], value: u64) {
    out[0] = b'0' + (value / 10) as u8;
    out[1] = b'0' + (value % 10) as u8;
}

/// Year, month and day of a day since 1970: years begin in March, so that the leap day comes last.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468; // since 0000-03-01
    let era_day = shifted % 146_097;
    let era_year = (era_day - era_day / 1_460 + era_day / 36_524 - era_day / 146_096) / 365;
    let year_day = era_day - (365 * era_year + era_year / 4 - era_year / 100);
    let shifted_month = (5 * year_day + 2) / 153;
    let day = year_day - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era_year + shifted / 146_097 * 400 + u64::from(month <= 2);
    (year, month, day)
}

fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let (era, era_year) = (year / 400, year % 400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let year_day = (153 * shifted_month + 2) / 5 + day - 1;
    era * 146_097 + era_year * 365 + era_year / 4 - era_year / 100 + year_day - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates_are_written_and_read() {
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (SECONDS_MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(format(seconds), text.as_bytes(), "{text}");
            assert_eq!(parse(text.as_bytes()), Some(seconds), "{text}");
        }
    }

    #[test]
    fn every_day_of_a_thousand_years_is_read_back() {
        for day in 0..365_250 {
            let seconds = day * DAY_SECONDS + day % DAY_SECONDS;
            assert_eq!(parse(&format(seconds)), Some(seconds));
        }
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "0",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 nov 1994 08:49:37 GMT",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sat, 06 Nov 1904 08:49:37 GMT",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}
