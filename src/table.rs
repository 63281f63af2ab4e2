//! Small tables in text: lines of fields, as spreadsheets write them.
//!
//! Knows text; neither files nor what the fields mean.

/// What separates fields; a line's are separated by the first of these that it has outside of
/// quotes, else by blanks.
const SEPARATORS: [char; 3] = [',', ';', '\t'];
/// Most characters of a line that an error shows.
const SHOWN: usize = 80;

/// A line that is not empty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line<'a> {
    /// Counted from 1.
    pub number: usize,
    /// What stands there, without blanks around it.
    pub text: &'a str,
}

/// A file's bytes as text.
///
/// # Errors
/// Names the line where they are none.
pub fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let number = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        format!("line {number} is not UTF-8: save the file in that encoding")
    })
}

/// The lines of a text; a byte order mark before them is passed over.
pub fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().map(str::trim).zip(1..).map(|(text, number)| Line { number, text });
    lines.filter(|line| !line.text.is_empty())
}

impl Line<'_> {
    /// The line's fields without blanks around them. One in quotes may hold a separator, and a
    /// quote that stands there twice.
    ///
    /// # Errors
    /// Names the line, where a quote is not closed or something follows one that is.
    pub fn fields(&self) -> Result<Vec<String>, String> {
        let separator = SEPARATORS.into_iter().find(|own| self.has_outside_quotes(*own));
        let separates = |c: char| separator.map_or(c.is_whitespace(), |own| own == c);
        let (mut fields, mut rest) = (Vec::new(), self.text);
        loop {
            rest = rest.trim_start_matches(|c: char| c.is_whitespace() && Some(c) != separator);
            let field = match rest.strip_prefix('"') {
                Some(inner) => {
                    let (field, after) = unquoted(inner)
                        .ok_or_else(|| self.refused("a quote is opened that is not closed"))?;
                    rest = after;
                    field
                }
                None => {
                    let (field, after) = rest.split_at(rest.find(separates).unwrap_or(rest.len()));
                    rest = after;
                    field.trim_end().to_owned()
                }
            };
            fields.push(field);
            let end = rest.find(separates).unwrap_or(rest.len());
            if !rest[..end].trim().is_empty() {
                return Err(self.refused("something follows a closed quote"));
            }
            let mut after = rest[end..].chars();
            if after.next().is_none() {
                return Ok(fields);
            }
            rest = after.as_str();
        }
    }

    /// A quote opens where a field may begin, and where one was just closed: that one stands twice.
    fn has_outside_quotes(&self, separator: char) -> bool {
        let (mut quoted, mut opens) = (false, true);
        self.text.chars().any(|c| {
            let found = !quoted && c == separator;
            if c == '"' && (quoted || opens) {
                quoted = !quoted;
                opens = true;
            } else {
                opens = c.is_whitespace() || SEPARATORS.contains(&c);
            }
            found
        })
    }

    /// What is wrong with the line, by its number.
    pub fn refused(&self, what: &str) -> String {
        format!("line {}: {what}", self.number)
    }

    /// The line's beginning.
    pub fn shown(&self) -> String {
        self.text.chars().take(SHOWN).collect()
    }
}

/// The field up to its closing quote, and what follows that.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let (mut field, mut rest) = (String::new(), text);
    loop {
        let (before, after) = rest.split_once('"')?;
        field.push_str(before);
        match after.strip_prefix('"') {
            Some(more) => {
                field.push('"');
                rest = more;
            }
            None => return Some((field, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_in_every_spelling() {
        for (text, expected) in [
            ("a,b", &["a", "b"][..]),
            (" a , b ,", &["a", "b", ""]),
            ("a;;b", &["a", "", "b"]),
            ("a\t b\tc d", &["a", "b", "c d"]),
            ("a   b c", &["a", "b", "c"]),
            ("\"hand, left\";ab", &["hand, left", "ab"]),
            ("one.aedat,\"hand, left\"", &["one.aedat", "hand, left"]),
            ("\"a\"\"b\" , c", &["a\"b", "c"]),
            ("\"\",x", &["", "x"]),
            ("5\" disk,x", &["5\" disk", "x"]),
            ("\"a b\" c", &["a b", "c"]),
            ("\"a\tb\"\tc", &["a\tb", "c"]),
            ("a", &["a"]),
        ] {
            assert_eq!(lines(text).next().unwrap().fields().unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn lines_are_counted_and_empty_ones_passed_over() {
        let found: Vec<_> = lines("\u{feff}a,b\r\n\r\n c\n").map(|l| (l.number, l.text)).collect();
        assert_eq!(found, [(1, "a,b"), (3, "c")]);
        for (text, part) in [
            ("\n\"a,b", "line 2: a quote"),
            ("\"a\"b,c", "line 1: something"),
            ("\"a, b\";c,d", "line 1: something"),
        ] {
            let error = lines(text).next().unwrap().fields().unwrap_err();
            assert!(error.starts_with(part), "{error}");
        }
    }
}
