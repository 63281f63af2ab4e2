//! How a test says that it was skipped.

use std::io::Write;

/// Says why, past the test runner, which keeps what passing tests print.
pub fn skip(why: &str) {
    // Where standard error is closed, nobody listens.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}
