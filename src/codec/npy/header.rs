//! The header of a NumPy `.npy` file: a Python dictionary of type, order and shape.
//!
//! Reads literals and nothing more of Python; knows nothing of events.

/// Longest list, tuple or dictionary: structured types have a handful of fields.
const MAX_ITEMS: usize = 64;
/// Deepest nesting: dictionary, list of fields, field, shape of a field.
const MAX_DEPTH: usize = 6;

/// What the header says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NpyHeader {
    pub(super) columns: Columns,
    pub(super) fortran_order: bool,
    pub(super) shape: Vec<u64>,
}

/// The type of one item.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Columns {
    /// One number, such as `<i8`.
    Plain(String),
    /// A structure: names and types of its fields.
    Fields(Vec<(String, String)>),
}

/// Parses the text of a header, or says what is wrong with it.
pub(super) fn parse(text: &[u8]) -> Result<NpyHeader, String> {
    let mut parser = Parser { text, at: 0 };
    let value = parser.value(0)?;
    parser.skip_space();
    if parser.at != text.len() {
        return Err(parser.unexpected("the end of the header"));
    }
    let Value::Dict(items) = value else { return Err("the header is no dictionary".to_owned()) };
    let mut header = NpyHeader {
        columns: Columns::Plain(String::new()),
        fortran_order: false,
        shape: Vec::new(),
    };
    let mut seen = [false; 3];
    for (key, value) in items {
        let index = match (key.as_str(), value) {
            ("descr", value) => {
                header.columns = columns(value)?;
                0
            }
            ("fortran_order", Value::Bool(fortran_order)) => {
                header.fortran_order = fortran_order;
                1
            }
            ("shape", Value::List(sides)) => {
                header.shape = sides.into_iter().map(side).collect::<Result<_, _>>()?;
                2
            }
            (key, _) => {
                return Err(format!(
                    "the header's `{}` is not as NumPy writes it",
                    key.escape_default()
                ));
            }
        };
        seen[index] = true;
    }
    if seen != [true; 3] {
        return Err("the header lacks one of descr, fortran_order and shape".to_owned());
    }
    Ok(header)
}

fn columns(value: Value) -> Result<Columns, String> {
    match value {
        Value::Text(kind) => Ok(Columns::Plain(kind)),
        Value::List(fields) => {
            fields.into_iter().map(field).collect::<Result<_, _>>().map(Columns::Fields)
        }
        _ => Err("the header's type is neither a name nor a list of fields".to_owned()),
    }
}

fn field(value: Value) -> Result<(String, String), String> {
    let Value::List(parts) = value else {
        return Err("a field of the header's type is no tuple".to_owned());
    };
    match <[Value; 2]>::try_from(parts) {
        Ok([Value::Text(name), Value::Text(kind)]) => Ok((name, kind)),
        _ => Err("a field of the header's type is not a name and a number's type".to_owned()),
    }
}

fn side(value: Value) -> Result<u64, String> {
    match value {
        Value::Number(side) => Ok(side),
        _ => Err("the header's shape holds more than numbers".to_owned()),
    }
}

enum Value {
    Text(String),
    Number(u64),
    Bool(bool),
    /// A list or a tuple: the format does not tell them apart.
    List(Vec<Value>),
    Dict(Vec<(String, Value)>),
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn value(&mut self, depth: usize) -> Result<Value, String> {
        if depth > MAX_DEPTH {
            return Err("the header is nested too deep".to_owned());
        }
        self.skip_space();
        match self.peek() {
            Some(b'\'' | b'"') => self.string().map(Value::Text),
            Some(b'0'..=b'9') => self.number().map(Value::Number),
            Some(b'[') => self.list(b']', depth).map(Value::List),
            Some(b'(') => self.list(b')', depth).map(Value::List),
            Some(b'{') => self.dict(depth).map(Value::Dict),
            _ if self.word(b"True") => Ok(Value::Bool(true)),
            _ if self.word(b"False") => Ok(Value::Bool(false)),
            _ => Err(self.unexpected("a value")),
        }
    }

    fn list(&mut self, close: u8, depth: usize) -> Result<Vec<Value>, String> {
        let mut items = Vec::new();
        self.at += 1;
        while !self.closes(close)? {
            self.check_count(items.len())?;
            items.push(self.value(depth + 1)?);
            self.comma(close)?;
        }
        Ok(items)
    }

    fn dict(&mut self, depth: usize) -> Result<Vec<(String, Value)>, String> {
        let mut items = Vec::new();
        self.at += 1;
        while !self.closes(b'}')? {
            self.check_count(items.len())?;
            let key = self.string()?;
            self.skip_space();
            if self.peek() != Some(b':') {
                return Err(self.unexpected("`:`"));
            }
            self.at += 1;
            items.push((key, self.value(depth + 1)?));
            self.comma(b'}')?;
        }
        Ok(items)
    }

    fn check_count(&self, n_items: usize) -> Result<(), String> {
        if n_items < MAX_ITEMS {
            return Ok(());
        }
        Err(format!("the header holds a list of more than {MAX_ITEMS} items"))
    }

    /// Passes over `close`, if it stands next.
    fn closes(&mut self, close: u8) -> Result<bool, String> {
        self.skip_space();
        match self.peek() {
            Some(byte) if byte == close => {
                self.at += 1;
                Ok(true)
            }
            Some(_) => Ok(false),
            None => Err(self.unexpected("a closing bracket")),
        }
    }

    fn comma(&mut self, close: u8) -> Result<(), String> {
        self.skip_space();
        match self.peek() {
            Some(b',') => self.at += 1,
            Some(byte) if byte == close => {}
            _ => return Err(self.unexpected("`,` or a closing bracket")),
        }
        Ok(())
    }

    fn string(&mut self) -> Result<String, String> {
        let quote = match self.peek() {
            Some(quote @ (b'\'' | b'"')) => quote,
            _ => return Err(self.unexpected("a quoted name")),
        };
        let rest = self.text.get(self.at + 1..).unwrap_or_default();
        let n = rest
            .iter()
            .take_while(|&&byte| byte != quote && byte != b'\\' && byte != b'\n')
            .count();
        self.at += 1 + n;
        if self.peek() != Some(quote) {
            return Err(self.unexpected("a closing quote"));
        }
        self.at += 1;
        Ok(String::from_utf8_lossy(rest.get(..n).unwrap_or_default()).into_owned())
    }

    fn number(&mut self) -> Result<u64, String> {
        let mut number = 0_u64;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            let next = number.checked_mul(10).and_then(|n| n.checked_add(u64::from(digit - b'0')));
            number = next.ok_or_else(|| "a number in the header exceeds 64 bits".to_owned())?;
            self.at += 1;
        }
        // Python 2 wrote shapes as (12L, 4L).
        self.word(b"L");
        Ok(number)
    }

    fn word(&mut self, word: &[u8]) -> bool {
        let found = self.text.get(self.at..).is_some_and(|rest| rest.starts_with(word));
        self.at += if found { word.len() } else { 0 };
        found
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    fn unexpected(&self, wanted: &str) -> String {
        match self.peek() {
            Some(byte) => {
                let found = char::from(byte).escape_default();
                format!("the header holds `{found}` at its byte {} where {wanted} belongs", self.at)
            }
            None => format!("the header ends where {wanted} belongs"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Columns, parse};

    #[test]
    fn headers_as_numpy_writes_them() {
        let header =
            parse(b"{'descr': '<i8', 'fortran_order': False, 'shape': (3136, 4), }      \n")
                .unwrap();
        assert_eq!(header.columns, Columns::Plain("<i8".to_owned()));
        assert_eq!((header.fortran_order, header.shape), (false, vec![3136, 4]));
        let header = parse(
            b"{'descr': [('t', '<i8'), ('p', '|b1')], 'fortran_order': True, 'shape': (7L,), }",
        )
        .unwrap();
        let fields = [("t", "<i8"), ("p", "|b1")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(header.columns, Columns::Fields(fields.to_vec()));
        assert_eq!((header.fortran_order, header.shape), (true, vec![7]));
    }

    #[test]
    fn all_else_is_refused() {
        let deep = [b"{'descr': ".as_slice(), &[b'['; 5000]].concat();
        let long = format!("{{'shape': ({})}}", "1,".repeat(5000));
        let cases: &[&[u8]] = &[
            b"",
            b"{",
            b"{}",
            b"[]",
            b"{'descr'",
            b"{'descr': '<i8}",
            b"{'descr': '<i8', 'fortran_order': False}",
            b"{'descr': '<i8', 'fortran_order': False, 'shape': (99999999999999999999,)}",
            b"{'descr': '<i8', 'fortran_order': False, 'shape': (-1,)}",
            b"{'descr': '<i8', 'fortran_order': False, 'shape': (1,)} import os",
            b"{'descr': '<i8', 'fortran_order': 0, 'shape': (1,)}",
            b"{'descr': [('x', '<i2', (2,))], 'fortran_order': False, 'shape': (1,)}",
            b"{'descr': __import__('os'), 'fortran_order': False, 'shape': (1,)}",
            &deep,
            long.as_bytes(),
        ];
        for text in cases {
            assert!(parse(text).is_err(), "{}", String::from_utf8_lossy(text));
        }
    }
}
