//! The `Date` of an answer: IMF-fixdate, RFC 9110 section 5.6.7. Knows no clock, so that it is tested on given times.

use std::time::{SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Formats a time as `Sun, 06 Nov 1994 08:49:37 GMT`. A time before 1970 is taken for its beginning.
pub(crate) fn imf_fixdate(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        DAYS[(days % 7) as usize],
        MONTHS[month],
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// Year, month (from 0) and day (from 1) of the Gregorian calendar, of a number of days since 1970-01-01.
fn civil(mut days: u64) -> (u64, usize, u64) {
    let mut year = 1970;
    loop {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let lengths = [31, 28 + u64::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let year_length: u64 = lengths.iter().sum();
        if days >= year_length {
            days -= year_length;
            year += 1;
            continue;
        }
        for (month, length) in lengths.into_iter().enumerate() {
            if days < length {
                return (year, month, days + 1);
            }
            days -= length;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::imf_fixdate;
    use std::time::{Duration, UNIX_EPOCH};

    #[track_caller]
    fn at(seconds: u64, date: &str) {
        assert_eq!(imf_fixdate(UNIX_EPOCH + Duration::from_secs(seconds)), date);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        at(0, "Thu, 01 Jan 1970 00:00:00 GMT");
        at(784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"); // the RFC's own example
        at(951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT");
        at(951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT");
        at(4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"); // 2100 has no 29 February
    }

    #[test]
    fn a_clock_before_1970_does_no_harm() {
        assert_eq!(imf_fixdate(UNIX_EPOCH - Duration::from_secs(1)), "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
