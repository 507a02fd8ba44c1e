//! RFC 3339 times of the hub as nanoseconds since 1970, the only form fanin compares them in.

/// Nanoseconds since 1970 of an RFC 3339 time; `None` when the text is not one, or lies before 1970.
pub(crate) fn parse_ns(text: &str) -> Option<u64> {
    let (date, rest) = text.split_once(['T', 't'])?;
    let mut parts = date.splitn(3, '-');
    let year: i64 = number(parts.next()?)?;
    let month: i64 = number(parts.next()?)?;
    let day: i64 = number(parts.next()?)?;
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }

    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = rest.split_at(zone_at);
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = whole.splitn(3, ':');
    let hour: i64 = number(parts.next()?)?;
    let minute: i64 = number(parts.next()?)?;
    let second: i64 = number(parts.next()?)?;
    if hour > 23 || minute > 59 || second > 60 || fraction.len() > 9 {
        return None;
    }
    let nanos = if fraction.is_empty() {
        0
    } else {
        number(&format!("{fraction:0<9}"))?
    };

    let offset_seconds = match zone.as_bytes().first()? {
        b'Z' | b'z' => 0,
        sign => {
            let (hours, minutes) = zone[1..].split_once(':')?;
            let seconds = number(hours)? * 3600 + number(minutes)? * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
    };

    let seconds =
        days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset_seconds;
    u64::try_from(seconds)
        .ok()?
        .checked_mul(1_000_000_000)?
        .checked_add(u64::try_from(nanos).ok()?)
}

fn number(digits: &str) -> Option<i64> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        None
    } else {
        digits.parse().ok()
    }
}

/// Days in the proleptic Gregorian calendar, with the year taken to begin in March so that the leap day comes last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    //! Goal: times of the hub become exact nanoseconds. Method: known instants and refused texts.
    use super::parse_ns;

    #[test]
    fn known_instants() {
        assert_eq!(parse_ns("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(parse_ns("2000-02-29T12:00:00Z"), Some(951_825_600_000_000_000));
        assert_eq!(
            parse_ns("2024-05-06T07:08:09.000000001Z"),
            Some(1_714_979_289_000_000_001)
        );
        assert_eq!(
            parse_ns("2024-05-06T09:08:09.1+02:00"),
            Some(1_714_979_289_100_000_000)
        );
        assert_eq!(
            parse_ns("2024-05-06T05:08:09-02:00"),
            Some(1_714_979_289_000_000_000)
        );
    }

    #[test]
    fn refused_texts() {
        for text in [
            "",
            "0001-01-01T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-05-06",
            "2024-05-06T07:08:09",
            "x-1-1T1:1:1Z",
        ] {
            assert_eq!(parse_ns(text), None, "{text}");
        }
    }
}
