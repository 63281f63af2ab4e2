//! The names that tables of events give to t, x, y and p.
//!
//! Knows no format.

/// Names of each field, lower case, in the order t, x, y, p.
const NAMES: [&[&str]; 4] = [
    &["t", "ts", "time", "timestamp", "timestamps"],
    &["x"],
    &["y"],
    &["p", "pol", "polarity", "on"],
];

/// Which of t, x, y, p (0 to 3) a column of this name holds, if any.
pub(super) fn field_of(name: &str) -> Option<usize> {
    let name = name.trim().to_ascii_lowercase();
    NAMES.iter().position(|names| names.contains(&name.as_str()))
}

/// Whether the name of a column may begin so.
pub(super) fn begins_a_name(start: &str) -> bool {
    let start = start.to_ascii_lowercase();
    NAMES.iter().flat_map(|names| names.iter()).any(|name| name.starts_with(&start))
}
