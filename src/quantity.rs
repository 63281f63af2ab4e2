//! Times and shares as people write them.
//!
//! Knows numbers and text; not what a time is for.

/// `250ms`, `1.5s` or `30us` in µs; `None` for anything else, negative, beyond 300,000
/// years, or with a part of a µs.
pub fn parse_time_us(text: &str) -> Option<u64> {
    let (number, unit_us) = if let Some(number) = text.strip_suffix("us") {
        (number, 1.0)
    } else if let Some(number) = text.strip_suffix("ms") {
        (number, 1e3)
    } else {
        (text.strip_suffix('s')?, 1e6)
    };
    let plain = number.bytes().all(|c| c.is_ascii_digit() || c == b'.');
    let t_us = number.parse::<f64>().ok().filter(|_| plain)? * unit_us;
    // What is more than a rounding of the product.
    let whole = (t_us - t_us.round()).abs() < 1e-3;
    (t_us.is_finite() && t_us < 9e18 && whole).then_some(t_us.round() as u64)
}

/// [`parse_time_us`] for people.
///
/// # Errors
/// What was expected.
pub fn parse_time(text: &str) -> Result<u64, String> {
    parse_time_us(text)
        .ok_or_else(|| "expected a time of whole microseconds, as 250ms, 1.5s or 500us".to_owned())
}

/// A share, from 0 to 1.
///
/// # Errors
/// What was expected, where it is none.
pub fn check_share(share: f32) -> Result<f32, String> {
    let within = (0.0..=1.0).contains(&share);
    within.then_some(share).ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

/// The shortest of `us`, `ms` and `s` that says it exactly.
pub fn format_time_us(t_us: u64) -> String {
    match t_us {
        0 => "0ms".to_string(),
        t if t.is_multiple_of(1_000_000) => format!("{}s", t / 1_000_000),
        t if t.is_multiple_of(1000) => format!("{}ms", t / 1000),
        t => format!("{t}us"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_back_what_they_write() {
        for (t_us, text) in [
            (0, "0ms"),
            (30, "30us"),
            (1500, "1500us"),
            (250_000, "250ms"),
            (1_500_000, "1500ms"),
            (3_600_000_000, "3600s"),
        ] {
            assert_eq!(format_time_us(t_us), text);
            assert_eq!(parse_time(text), Ok(t_us));
        }
        assert_eq!(parse_time("1.5s"), Ok(1_500_000));
        for text in ["", "5", "ms", "-1ms", "1e3ms", "infs", "1 ms", "0.5us", "9999999999999s"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_share_is_from_0_to_1() {
        assert_eq!((check_share(0.0), check_share(1.0)), (Ok(0.0), Ok(1.0)));
        for share in [-0.1, 1.1, f32::NAN, f32::INFINITY] {
            assert!(check_share(share).is_err(), "{share}");
        }
    }
}
