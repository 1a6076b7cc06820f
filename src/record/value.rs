//! One value at a time: from PostgreSQL's text to the API's, or the code of what is wrong.
//!
//! No floating-point numbers: amounts stay decimal text from end to end, because a `numeric` does not fit a float and
//! an amount must arrive as it was typed.

use super::fault::FaultCode;

const MONEY_DIGITS: usize = 10;

pub(super) fn text(value: &str, max: usize) -> Result<String, FaultCode> {
    if value.chars().count() > max { Err(FaultCode::TooLong) } else { Ok(value.to_owned()) }
}

/// An ISO date that is one. PostgreSQL's dates also hold `infinity`, years BC and years after 9999.
pub(super) fn date(value: &str) -> Result<String, FaultCode> {
    let real = || {
        let (year, rest) = value.split_once('-')?;
        let (month, day) = rest.split_once('-')?;
        let sized = year.len() == 4 && month.len() == 2 && day.len() == 2;
        if !sized || ![year, month, day].iter().all(|part| is_digits(part)) {
            return None;
        }
        let year: i16 = year.parse().ok()?;
        // ISO 8601 has a year 0, PostgreSQL and the API's readers do not.
        jiff::civil::Date::new(year, month.parse().ok()?, day.parse().ok()?).ok().filter(|_| year > 0)
    };
    real().map(|_| value.to_owned()).ok_or(FaultCode::Format)
}

pub(super) fn national_insurance(value: &str) -> Result<String, FaultCode> {
    let number: String =
        value.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_ascii_uppercase()).collect();
    let good = number.chars().count() == 9
        && number.chars().enumerate().all(|(place, c)| match place {
            0 | 1 => c.is_ascii_uppercase(),
            8 => ('A'..='D').contains(&c),
            _ => c.is_ascii_digit(),
        });
    if good { Ok(number) } else { Err(FaultCode::Format) }
}

/// `^[^@\s]+@[^@\s]+\.[^@\s]+$`, and no control characters, which some dialects count as space.
pub(super) fn email(value: &str, max: usize) -> Result<String, FaultCode> {
    let blank = |c: char| c.is_whitespace() || c.is_control() || c == '\u{feff}';
    let good = value.split_once('@').is_some_and(|(name, domain)| {
        // The pattern's last dot: something must stand on both sides of it.
        let dotted = domain.rsplit_once('.').is_some_and(|(host, top)| !host.is_empty() && !top.is_empty());
        !name.is_empty() && !domain.contains('@') && dotted
    });
    if !good || value.contains(blank) {
        return Err(FaultCode::Format);
    }
    text(value, max)
}

pub(super) fn letters(value: &str, count: usize) -> Result<String, FaultCode> {
    let code = value.to_ascii_uppercase();
    let good = code.len() == count && code.bytes().all(|byte| byte.is_ascii_uppercase());
    if good { Ok(code) } else { Err(FaultCode::Format) }
}

/// An amount with two places, `^\d{1,10}\.\d{2}$`.
pub(super) fn money(value: &str) -> Result<String, FaultCode> {
    let (whole, fraction) = decimal(value)?;
    if fraction.len() > 2 {
        return Err(FaultCode::Format);
    }
    if whole.len() > MONEY_DIGITS {
        return Err(FaultCode::OutOfRange);
    }
    Ok(format!("{whole}.{fraction:0<2}"))
}

/// A decimal of at most `scale` places that is not above `most` before the point, without needless zeros.
pub(super) fn number(value: &str, most: u32, scale: usize) -> Result<String, FaultCode> {
    let (whole, fraction) = decimal(value)?;
    if fraction.len() > scale {
        return Err(FaultCode::Format);
    }
    if whole.parse::<u32>().map_or(true, |whole| whole > most) {
        return Err(FaultCode::OutOfRange);
    }
    Ok(if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") })
}

/// The digits before the point without leading zeros (at least one), and those after it without trailing ones.
fn decimal(value: &str) -> Result<(&str, &str), FaultCode> {
    let (negative, digits) = value.strip_prefix('-').map_or((false, value), |digits| (true, digits));
    let (whole, fraction) = match digits.split_once('.') {
        Some((whole, fraction)) if is_digits(fraction) => (whole, fraction),
        Some(_) => return Err(FaultCode::Format),
        None => (digits, ""),
    };
    if !is_digits(whole) {
        return Err(FaultCode::Format);
    }
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        significant => significant,
    };
    let fraction = fraction.trim_end_matches('0');
    // A minus before nothing but zeros is no negative number.
    if negative && !(whole == "0" && fraction.is_empty()) {
        return Err(FaultCode::OutOfRange);
    }
    Ok((whole, fraction))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_amount_has_two_places_whatever_hr_stores() {
        for (stored, sent) in [
            ("31250", "31250.00"),
            ("31250.5", "31250.50"),
            ("31250.50", "31250.50"),
            ("31250.500000", "31250.50"),
            ("0", "0.00"),
            ("-0.00", "0.00"),
            ("0007.10", "7.10"),
            ("9999999999.99", "9999999999.99"),
        ] {
            assert_eq!(money(stored).as_deref(), Ok(sent), "{stored}");
        }
    }

    #[test]
    fn an_amount_that_would_have_to_be_rounded_or_guessed_is_refused() {
        for (stored, code) in [
            ("31250.505", FaultCode::Format),
            ("NaN", FaultCode::Format),
            ("Infinity", FaultCode::Format),
            ("-Infinity", FaultCode::Format),
            ("1e5", FaultCode::Format),
            ("£31,250.00", FaultCode::Format),
            ("31250.", FaultCode::Format),
            (".5", FaultCode::Format),
            ("-", FaultCode::Format),
            ("٣", FaultCode::Format),
            ("-1", FaultCode::OutOfRange),
            ("10000000000", FaultCode::OutOfRange),
        ] {
            assert_eq!(money(stored), Err(code), "{stored}");
        }
    }

    #[test]
    fn hours_and_fte_lose_needless_zeros_only() {
        assert_eq!(number("37.50", 999, 2).as_deref(), Ok("37.5"));
        assert_eq!(number("40.00", 999, 2).as_deref(), Ok("40"));
        assert_eq!(number("100", 999, 2).as_deref(), Ok("100"));
        assert_eq!(number("1.0000", 1, 4).as_deref(), Ok("1"));
        assert_eq!(number("0.3333", 1, 4).as_deref(), Ok("0.3333"));
        assert_eq!(number("0.33333", 1, 4), Err(FaultCode::Format));
        assert_eq!(number("2", 1, 4), Err(FaultCode::OutOfRange));
        assert_eq!(number("-0.5", 1, 4), Err(FaultCode::OutOfRange));
        assert_eq!(number("99999999999", 999, 2), Err(FaultCode::OutOfRange));
    }

    #[test]
    fn a_date_is_a_real_one() {
        for good in ["2024-02-29", "0001-01-01", "9999-12-31", "2000-02-29"] {
            assert_eq!(date(good).as_deref(), Ok(good));
        }
        for bad in [
            "2023-02-29",
            "1900-02-29",
            "2024-13-01",
            "2024-04-31",
            "infinity",
            "-infinity",
            "0044-03-15 BC",
            "10000-01-01",
            "0000-01-01",
            "2024-1-1",
            "01/02/2024",
            "2024-01-01 00:00:00",
            "+024-01-01",
        ] {
            assert_eq!(date(bad), Err(FaultCode::Format), "{bad}");
        }
    }

    #[test]
    fn a_national_insurance_number_is_tidied_and_checked() {
        assert_eq!(national_insurance("qq 12 34 56 c").as_deref(), Ok("QQ123456C"));
        for bad in ["QQ123456E", "Q1234567C", "QQ12345C", "QQ1234567C", "ÄQ123456C"] {
            assert_eq!(national_insurance(bad), Err(FaultCode::Format), "{bad}");
        }
    }

    #[test]
    fn an_email_follows_the_platforms_pattern() {
        for good in ["a@b.c", "a.b+c@d.e.f", "ü@bücher.example", "a@b..c"] {
            assert_eq!(email(good, 200).as_deref(), Ok(good));
        }
        for bad in
            ["", "a", "a@b", "@b.c", "a@.c", "a@b.", "a@b@c.d", "a b@c.d", "a@b.c\u{a0}d", "a@b.c\u{1f}d"]
        {
            assert_eq!(email(bad, 200), Err(FaultCode::Format), "{bad}");
        }
        assert_eq!(email(&format!("{}@b.c", "x".repeat(200)), 200), Err(FaultCode::TooLong));
    }

    #[test]
    fn lengths_are_counted_in_characters() {
        assert!(text(&"é".repeat(20), 20).is_ok());
        assert_eq!(text(&"é".repeat(21), 20), Err(FaultCode::TooLong));
    }

    #[test]
    fn letter_codes_become_capitals() {
        assert_eq!(letters("gb", 2).as_deref(), Ok("GB"));
        assert_eq!(letters("GBR", 2), Err(FaultCode::Format));
        assert_eq!(letters("ß", 2), Err(FaultCode::Format));
    }

    proptest! {
        #[test]
        fn an_accepted_amount_is_the_same_number(pounds in 0u64..10_000_000_000, pence in 0u64..100, zeros in 0usize..6) {
            let stored = format!("{}{pounds}.{pence:02}{}", "0".repeat(zeros), "0".repeat(zeros));
            prop_assert_eq!(money(&stored), Ok(format!("{pounds}.{pence:02}")));
        }

        #[test]
        fn an_accepted_number_is_accepted_unchanged(stored in "[0-9]{1,4}(\\.[0-9]{1,5})?") {
            if let Ok(sent) = number(&stored, 999, 2) {
                prop_assert_eq!(number(&sent, 999, 2), Ok(sent));
            }
        }

        #[test]
        fn no_text_makes_a_check_panic(any in "\\PC*") {
            let checks = [money(&any), number(&any, 1, 4), date(&any), email(&any, 9), national_insurance(&any)];
            prop_assert!(checks.iter().flatten().all(|accepted| !accepted.is_empty()));
        }
    }
}
