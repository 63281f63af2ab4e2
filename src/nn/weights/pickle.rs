//! Pickles as PyTorch writes them, read into a flat table of values.
//!
//! Knows the opcodes, nothing of tensors. Builds no object and calls nothing: a call is a value
//! like another. The table is flat, so that neither nesting nor repetition in the bytes can
//! exhaust stack or memory.

use std::collections::HashMap;

/// Longest pickle: descriptions of tensors, their numbers lie elsewhere.
pub(super) const MAX_PICKLE_BYTES: u64 = 4 << 20;

/// Index of a value in its pickle's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Value(usize);

/// A value, its parts by index.
#[derive(Debug)]
enum Node {
    /// None, a boolean or a float: nothing that describes a tensor.
    Other,
    Int(i64),
    Text(String),
    /// Module and name, a space between.
    Class(String),
    /// A tuple or a list.
    Items(Vec<Value>),
    Dictionary(Vec<(Value, Value)>),
    Call(Value, Value),
    Persistent(Value),
}

/// A pickle, read.
#[derive(Debug, Default)]
pub(super) struct Pickle {
    nodes: Vec<Node>,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
}

impl Pickle {
    /// Reads until the opcode that ends a pickle, or says what is wrong.
    pub fn read(bytes: &[u8]) -> Result<Pickle, String> {
        let mut pickle = Pickle::default();
        let mut bytes = Bytes { rest: bytes, at: 0 };
        loop {
            let at = bytes.at;
            let done = pickle.step(&mut bytes).map_err(|what| format!("{what} at byte {at}"))?;
            if done {
                break;
            }
        }
        if pickle.stack.is_empty() {
            return Err("it holds nothing".to_owned());
        }
        Ok(pickle)
    }

    /// What the pickle holds.
    pub fn top(&self) -> Value {
        self.stack.last().copied().unwrap_or(Value(usize::MAX))
    }

    /// A dictionary's keys and values.
    pub fn dictionary(&self, value: Value) -> Option<&[(Value, Value)]> {
        match self.nodes.get(value.0)? {
            Node::Dictionary(entries) => Some(entries),
            _ => None,
        }
    }

    /// The items of a tuple or a list.
    pub fn items(&self, value: Value) -> Option<&[Value]> {
        match self.nodes.get(value.0)? {
            Node::Items(items) => Some(items),
            _ => None,
        }
    }

    /// Function and arguments of a call.
    pub fn call(&self, value: Value) -> Option<(Value, Value)> {
        match self.nodes.get(value.0)? {
            Node::Call(function, arguments) => Some((*function, *arguments)),
            _ => None,
        }
    }

    /// What a persistent object is known by.
    pub fn persistent(&self, value: Value) -> Option<Value> {
        match self.nodes.get(value.0)? {
            Node::Persistent(id) => Some(*id),
            _ => None,
        }
    }

    /// `module name` of a class or function.
    pub fn class(&self, value: Value) -> Option<&str> {
        match self.nodes.get(value.0)? {
            Node::Class(class) => Some(class),
            _ => None,
        }
    }

    /// The class of what is called, where a value comes from a call.
    pub fn first_class(&self, value: Value) -> Option<&str> {
        self.class(self.call(value)?.0)
    }

    /// A string.
    pub fn text(&self, value: Value) -> Option<&str> {
        match self.nodes.get(value.0)? {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A number that is not negative.
    pub fn size(&self, value: Value) -> Option<usize> {
        match self.nodes.get(value.0)? {
            Node::Int(size) => usize::try_from(*size).ok(),
            _ => None,
        }
    }

    /// One opcode; whether it was the last. Names of opcodes as in Python's pickletools.
    fn step(&mut self, bytes: &mut Bytes<'_>) -> Result<bool, String> {
        match bytes.u8()? {
            b'.' => return Ok(true),
            0x80 => bytes.skip(1)?, // PROTO
            0x95 => bytes.skip(8)?, // FRAME
            b'(' => self.marks.push(self.stack.len()),
            b'N' | 0x88 | 0x89 => self.push(Node::Other),
            b'G' => {
                bytes.skip(8)?;
                self.push(Node::Other);
            }
            b'K' => self.integer(bytes, 1)?,
            b'M' => self.integer(bytes, 2)?,
            b'J' => self.integer(bytes, 4)?,
            0x8a => {
                let n = bytes.u8()?;
                self.integer(bytes, n.into())?; // LONG1
            }
            b'X' => {
                let n = bytes.u32()?;
                self.text_of(bytes, n as usize)?;
            }
            0x8c => {
                let n = bytes.u8()?;
                self.text_of(bytes, n.into())?; // SHORT_BINUNICODE
            }
            b'c' => {
                let class = format!("{} {}", bytes.line()?, bytes.line()?);
                self.push(Node::Class(class));
            }
            0x93 => self.stack_global()?,
            b'q' => {
                let key = bytes.u8()?;
                self.remember(key.into())?;
            }
            b'r' => {
                let key = bytes.u32()?;
                self.remember(key)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?, // MEMOIZE
            b'h' => {
                let key = bytes.u8()?;
                self.recall(key.into())?;
            }
            b'j' => {
                let key = bytes.u32()?;
                self.recall(key)?;
            }
            opcode => self.combine(opcode)?,
        }
        Ok(false)
    }

    /// The opcodes that make a value of others.
    fn combine(&mut self, opcode: u8) -> Result<(), String> {
        match opcode {
            b')' | b']' => self.push(Node::Items(Vec::new())),
            b'}' => self.push(Node::Dictionary(Vec::new())),
            b't' | b'l' => {
                let items = self.since_mark()?;
                self.push(Node::Items(items));
            }
            0x85..=0x87 => {
                let n = usize::from(opcode - 0x84); // TUPLE1 to TUPLE3
                let start = self.stack.len().checked_sub(n).ok_or("a tuple of too little")?;
                let items = self.stack.split_off(start);
                self.push(Node::Items(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item])?;
            }
            b'e' => {
                let items = self.since_mark()?;
                self.extend(items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.insert(&[key, value])?;
            }
            b'u' => {
                let entries = self.since_mark()?;
                self.insert(&entries)?;
            }
            b'd' => {
                let entries = self.since_mark()?;
                self.push(Node::Dictionary(Vec::new()));
                self.insert(&entries)?;
            }
            b'Q' => {
                let id = self.pop()?;
                self.push(Node::Persistent(id));
            }
            b'R' | 0x81 => {
                let arguments = self.pop()?;
                let function = self.pop()?;
                self.reduce(function, arguments);
            }
            // POP; BUILD: attributes, which no dictionary of tensors needs
            b'0' | b'b' => {
                self.pop()?;
            }
            unknown => return Err(format!("opcode {unknown:#04x}, which torch.save does not use")),
        }
        Ok(())
    }

    fn push(&mut self, node: Node) {
        self.stack.push(Value(self.nodes.len()));
        self.nodes.push(node);
    }

    fn pop(&mut self) -> Result<Value, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err("a value is missing".to_owned());
        }
        self.stack.pop().ok_or_else(|| "a value is missing".to_owned())
    }

    fn since_mark(&mut self) -> Result<Vec<Value>, String> {
        let mark = self.marks.pop().filter(|mark| *mark <= self.stack.len());
        Ok(self.stack.split_off(mark.ok_or("a mark is missing")?))
    }

    fn reduce(&mut self, function: Value, arguments: Value) {
        let call = match self.class(function) {
            Some("collections OrderedDict" | "collections defaultdict") => {
                Node::Dictionary(Vec::new())
            }
            _ => Node::Call(function, arguments),
        };
        self.push(call);
    }

    fn extend(&mut self, items: Vec<Value>) -> Result<(), String> {
        match self.stack.last().and_then(|list| self.nodes.get_mut(list.0)) {
            Some(Node::Items(list)) => list.extend(items),
            // Lists of subclasses, as modules keep them, are calls: their items do not matter.
            Some(Node::Call(..)) => (),
            _ => return Err("items without a list".to_owned()),
        }
        Ok(())
    }

    fn insert(&mut self, entries: &[Value]) -> Result<(), String> {
        let (pairs, odd) = entries.as_chunks::<2>();
        match self.stack.last().and_then(|dictionary| self.nodes.get_mut(dictionary.0)) {
            Some(Node::Dictionary(dictionary)) if odd.is_empty() => {
                dictionary.extend(pairs.iter().map(|[key, value]| (*key, *value)));
                Ok(())
            }
            Some(Node::Call(..)) => Ok(()),
            _ => Err("entries without a dictionary".to_owned()),
        }
    }

    fn stack_global(&mut self) -> Result<(), String> {
        let (name, module) = (self.pop()?, self.pop()?);
        let (Some(name), Some(module)) = (self.text(name), self.text(module)) else {
            return Err("a class without a name".to_owned());
        };
        let class = format!("{module} {name}");
        self.push(Node::Class(class));
        Ok(())
    }

    fn integer(&mut self, bytes: &mut Bytes<'_>, n: usize) -> Result<(), String> {
        let digits = bytes.take(n)?;
        let negative = n >= 4 && digits.last().is_some_and(|digit| digit & 0x80 != 0);
        let mut value = [if negative { 0xff } else { 0 }; 8];
        match value.get_mut(..n) {
            Some(low) => {
                low.copy_from_slice(digits);
                self.push(Node::Int(i64::from_le_bytes(value)));
            }
            None => self.push(Node::Other),
        }
        Ok(())
    }

    fn text_of(&mut self, bytes: &mut Bytes<'_>, n: usize) -> Result<(), String> {
        let text = String::from_utf8_lossy(bytes.take(n)?).into_owned();
        self.push(Node::Text(text));
        Ok(())
    }

    fn remember(&mut self, key: u32) -> Result<(), String> {
        let value = self.stack.last().ok_or("nothing to remember")?;
        self.memo.insert(key, *value);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), String> {
        let value = self.memo.get(&key).ok_or("a value that was never remembered")?;
        self.stack.push(*value);
        Ok(())
    }
}

/// The bytes that are left.
struct Bytes<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> Bytes<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self
            .rest
            .split_at_checked(n)
            .ok_or_else(|| format!("{n} bytes are expected, {} are left,", self.rest.len()))?;
        self.rest = rest;
        self.at += n;
        Ok(taken)
    }

    fn skip(&mut self, n: usize) -> Result<(), String> {
        self.take(n).map(|_| ())
    }

    fn u8(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?.first().copied().unwrap_or(0))
    }

    fn u32(&mut self) -> Result<u32, String> {
        let digits = self.take(4)?.first_chunk().copied().unwrap_or([0; 4]);
        Ok(u32::from_le_bytes(digits))
    }

    fn line(&mut self) -> Result<String, String> {
        let end = self.rest.iter().position(|byte| *byte == b'\n').ok_or("a line without end")?;
        let line = self.take(end + 1)?;
        Ok(String::from_utf8_lossy(&line[..end]).into_owned())
    }
}
