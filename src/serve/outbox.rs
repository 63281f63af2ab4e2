//! What waits to be written to a client: bounded, the newest kept, what was missed counted.
//!
//! Lines only; knows no socket.

/// What a line that counts dropped ones begins with.
const MISSED: &[u8] = b"{\"type\":\"missed\"";

/// Whole lines in order; the oldest go when there is no room.
#[derive(Debug)]
pub struct Outbox {
    bytes: Vec<u8>,
    /// So many of them are written.
    written: usize,
    /// The last byte written lies within a line.
    partly: bool,
    limit: usize,
    stream: String,
    missed: u64,
}

impl Outbox {
    /// An outbox of `stream` that holds about `limit` bytes.
    pub fn new(limit: usize, stream: &str) -> Self {
        Outbox {
            bytes: Vec::new(),
            written: 0,
            partly: false,
            limit,
            stream: stream.to_owned(),
            missed: 0,
        }
    }

    /// The stream has got its name.
    pub fn rename(&mut self, stream: &str) {
        stream.clone_into(&mut self.stream);
    }

    /// Where whole lines are appended; [`Outbox::trim`] follows.
    pub fn lines(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Bytes that it holds, about.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes to be written next.
    pub fn waiting(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// So many bytes were written.
    pub fn wrote(&mut self, n: usize) {
        self.written += n;
        if n > 0 {
            self.partly = self.bytes[self.written - 1] != b'\n';
        }
        if self.written == self.bytes.len() {
            self.bytes.clear();
            self.written = 0;
        } else if self.written > self.limit {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
    }

    /// All that waits, to be written next.
    pub fn take(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.drain(..std::mem::take(&mut self.written));
        self.partly = false;
        bytes
    }

    /// Whether more than half of the room is taken: time to take no more in.
    pub fn is_filling(&self) -> bool {
        self.waiting().len() > self.limit / 2
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Drops the oldest whole lines beyond the limit, down to half of it, so that dropping is
    /// rare; a line that is partly written stays. In their place stands a line with the number
    /// of all lines dropped so far. Gives how many were dropped now.
    pub fn trim(&mut self) -> u64 {
        self.trim_to(self.limit)
    }

    /// As [`Outbox::trim`], with another limit.
    pub fn trim_to(&mut self, limit: usize) -> u64 {
        if self.waiting().len() <= limit {
            return 0;
        }
        let begun = if self.partly { self.line_end(self.written) } else { self.written };
        let mut end = self.line_end((self.bytes.len() - limit / 2).max(begun));
        // The last line stays, however long.
        if end == self.bytes.len() {
            let before = &self.bytes[begun..end.saturating_sub(1).max(begun)];
            end = before.iter().rposition(|byte| *byte == b'\n').map_or(begun, |at| begun + at + 1);
        }
        if end <= begun {
            return 0;
        }
        let missed = counted(&self.bytes[begun..end]);
        self.missed += missed;
        let stream = serde_json::Value::from(self.stream.as_str());
        let marker =
            format!("{{\"type\":\"missed\",\"stream\":{stream},\"records\":{}}}\n", self.missed);
        self.bytes.splice(begun..end, marker.into_bytes());
        self.bytes.drain(..self.written);
        self.written = 0;
        missed
    }

    /// Drops all that waits. Gives how many lines are not told whole.
    pub fn give_up(&mut self) -> u64 {
        let missed = counted(self.waiting());
        self.take();
        missed
    }

    fn line_end(&self, from: usize) -> usize {
        let found = self.bytes[from..].iter().position(|byte| *byte == b'\n');
        found.map_or(self.bytes.len(), |at| from + at + 1)
    }
}

/// Number of lines, without those that count dropped ones.
pub fn counted(lines: &[u8]) -> u64 {
    let lines = lines.split_inclusive(|byte| *byte == b'\n');
    lines.filter(|line| !line.starts_with(MISSED)).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of 10 bytes: `000000001`, …
    fn lines(range: std::ops::Range<u32>) -> Vec<u8> {
        range.flat_map(|k| format!("{k:09}\n").into_bytes()).collect()
    }

    #[test]
    fn the_newest_whole_lines_stay_and_the_others_are_counted() {
        for written in [0, 4, 10, 14, 30] {
            let mut outbox = Outbox::new(200, "a\"b");
            outbox.lines().extend(lines(0..10));
            outbox.wrote(written);
            let mut told = lines(0..10)[..written].to_vec();
            for k in 10..200 {
                outbox.lines().extend(lines(k..k + 1));
                outbox.trim();
                assert!(outbox.waiting().len() <= 200);
                if k % 50 == 0 {
                    told.extend_from_slice(&outbox.waiting()[..written]);
                    outbox.wrote(written);
                }
            }
            told.extend_from_slice(outbox.waiting());
            let told = String::from_utf8(told).unwrap();
            let (marks, kept): (Vec<&str>, Vec<&str>) =
                told.lines().partition(|line| line.starts_with('{'));
            let mark = marks.last().unwrap();
            let mark: serde_json::Value = serde_json::from_str(mark).unwrap();
            assert_eq!(mark["stream"], "a\"b");
            assert_eq!(kept.len() as u64 + mark["records"].as_u64().unwrap(), 200, "{written}");
            assert!(kept.is_sorted() && kept.iter().all(|line| line.len() == 9));
            assert_eq!(kept.last(), Some(&"000000199"));
        }
    }

    #[test]
    fn who_reads_slowly_and_never_all_takes_no_more_room() {
        let mut outbox = Outbox::new(100, "");
        outbox.lines().extend(lines(0..5));
        let mut told = Vec::new();
        for k in 5..1000 {
            outbox.lines().extend(lines(k..k + 1));
            assert_eq!(outbox.trim(), 0);
            told.extend_from_slice(&outbox.waiting()[..10]);
            outbox.wrote(10);
            assert!(outbox.bytes.len() < 200);
        }
        assert_eq!(told, lines(0..995));
    }

    #[test]
    fn what_is_given_up_is_counted_once() {
        let mut outbox = Outbox::new(100, "");
        outbox.lines().extend(lines(0..9));
        outbox.wrote(14);
        assert_eq!(outbox.trim_to(0), 6);
        assert_eq!(outbox.waiting()[..6], lines(1..2)[4..]);
        assert!(outbox.waiting().ends_with(&lines(8..9)));
        outbox.wrote(6);
        // The line that counts those that were dropped is none of them.
        assert_eq!(outbox.give_up(), 1);
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_line_longer_than_the_room_is_kept() {
        let mut outbox = Outbox::new(10, "");
        outbox.lines().extend(lines(0..1));
        outbox.lines().extend([b'x'; 50]);
        outbox.lines().push(b'\n');
        outbox.trim();
        assert_eq!(outbox.missed, 1);
        assert!(outbox.waiting().ends_with(b"xxx\n"));
    }
}
