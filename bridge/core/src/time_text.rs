//! Times as people read them. The core has no dependencies, so this is written by hand.

use core::fmt;

const SECOND_NS: i64 = 1_000_000_000;
const DAY_S: i64 = 86_400;

/// A time in nanoseconds since the Unix epoch, shown as RFC 3339 in UTC with nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct TimeText(pub i64);

impl fmt::Display for TimeText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, ns) = (self.0.div_euclid(SECOND_NS), self.0.rem_euclid(SECOND_NS));
        let (days, second) = (seconds.div_euclid(DAY_S), seconds.rem_euclid(DAY_S));
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ns:09}Z"
        )
    }
}

/// The date of a day counted from 1970-01-01. Eras of 400 years begin on a first of March, so that leap days come last.
fn civil(days: i64) -> (i64, i64, i64) {
    const ERA_DAYS: i64 = 146_097;
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    //! Goal: the texts are the times. Method: known times, ends of months and leap years, both signs.
    use super::*;

    #[test]
    fn known_times() {
        for (ns, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
            (951_782_399 * SECOND_NS, "2000-02-28T23:59:59.000000000Z"),
            (951_782_400 * SECOND_NS, "2000-02-29T00:00:00.000000000Z"),
            (951_868_800 * SECOND_NS, "2000-03-01T00:00:00.000000000Z"),
            (1_700_000_000_000_000_005, "2023-11-14T22:13:20.000000005Z"),
            (-8_515_238_400 * SECOND_NS, "1700-03-01T00:00:00.000000000Z"),
            (-2_203_977_600 * SECOND_NS, "1900-02-28T00:00:00.000000000Z"),
            (4_107_542_400 * SECOND_NS, "2100-03-01T00:00:00.000000000Z"),
            (i64::MAX, "2262-04-11T23:47:16.854775807Z"),
            (i64::MIN, "1677-09-21T00:12:43.145224192Z"),
        ] {
            assert_eq!(TimeText(ns).to_string(), text);
        }
    }
}
