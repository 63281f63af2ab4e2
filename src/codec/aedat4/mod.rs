//! AEDAT 4.0: a mark, a flatbuffer header, packets of several streams, a table of them at the end.
//!
//! Here the bytes are cut into these parts; what stands in a part is its own file's business.
//! The table is for readers that seek to a time, so it is never read; nothing may follow it.

mod encode;
mod header;
mod lz4;
mod packet;
mod plain;
mod table;
mod tail;

pub use encode::Aedat4Encoder;

use super::{Compression, Decoder, DecoderOptions, ENOUGH_EVENTS, Format, Match, Need, Tally};
use crate::error::{Error, Result, grouped};
use crate::event::{Event, Sensor};
use header::{Header, Kind};
use packet::{Damage, Unpacker};
use plain::PlainPacket;
use tail::Tail;

/// The row of AEDAT 4.0 in [`super::FORMATS`].
pub const FORMAT: Format = Format {
    name: NAME,
    title: "AEDAT 4.0",
    extensions: &["aedat4"],
    probe,
    plausible: |_| false,
    decoder: |options| Box::new(Aedat4Decoder::file(options)),
    encoder: Some(|options| Box::new(Aedat4Encoder::new(options))),
    compressed: true,
    in_chip_order: false,
};

/// The row of what a DV server sends in [`super::FORMATS`]: AEDAT 4.0 without the opening line and
/// without the table.
pub const DV: Format = Format {
    name: "dv",
    title: "DV network stream",
    extensions: &[],
    probe: probe_network,
    plausible: |_| false,
    decoder: |options| Box::new(Aedat4Decoder::network(options)),
    encoder: Some(|options| Box::new(Aedat4Encoder::network(options))),
    compressed: true,
    in_chip_order: false,
};

/// Greatest length of the header; real ones have 0.8 to 4 KiB.
pub const MAX_HEADER_BYTES: usize = 1 << 20;

const NAME: &str = "aedat4";
const MARK: &[u8] = b"#!AER-DAT4.0\r\n";
const PACKET_HEADER_BYTES: usize = 8;

fn probe(prefix: &[u8]) -> Match {
    match prefix.len() {
        n if n >= MARK.len() && prefix.starts_with(MARK) => Match::Yes,
        n if n < MARK.len() && MARK.starts_with(prefix) => Match::Short,
        _ => Match::No,
    }
}

/// The mark is the header's identifier, which follows its length and the root's offset.
fn probe_network(prefix: &[u8]) -> Match {
    let (length, identifier) = (packet::u32_at(prefix, 0), prefix.get(8..).unwrap_or_default());
    let is_header = length.is_some_and(|n_bytes| n_bytes as usize <= MAX_HEADER_BYTES);
    match identifier.len() {
        n if n >= 4 && is_header && identifier.starts_with(b"IOHE") => Match::Yes,
        1..4 if is_header && b"IOHE".starts_with(identifier) => Match::Short,
        _ => Match::No,
    }
}

/// Decoder of AEDAT 4.0 files and of the packets of a DV server.
pub struct Aedat4Decoder {
    options: DecoderOptions,
    stage: Stage,
    /// Offset of the part that the stage waits for.
    offset: u64,
    /// What came so far of that part, if it came in pieces.
    pieces: Vec<u8>,
    header: Header,
    /// The stream whose events come out.
    chosen_id: i32,
    unpacker: Unpacker,
    plain: PlainPacket,
    tail: Tail,
    sensor: Sensor,
    tally: Tally,
}

/// The part that comes next.
#[derive(Clone, Copy)]
enum Stage {
    Mark,
    HeaderLength,
    Header {
        n_bytes: usize,
    },
    PacketHeader,
    /// Where a packet header, `head`, declares no stream: the mark of a table that the header does
    /// not know of.
    TableMark {
        head: [u8; PACKET_HEADER_BYTES],
    },
    /// `is_joined`: its pieces are joined before it is read.
    Payload {
        n_bytes: usize,
        is_joined: bool,
    },
    /// An uncompressed payload whose events are decoded as they come.
    Plain {
        n_bytes: usize,
    },
    /// A payload that holds none of the chosen events.
    Passing {
        n_bytes: u64,
        left: u64,
    },
    /// The opening of the table that the header puts here.
    TableOpening {
        n_bytes: usize,
    },
    Table,
}

impl Stage {
    /// Length of a part that is looked at whole.
    fn wanted(self) -> usize {
        match self {
            Stage::Mark => MARK.len(),
            Stage::HeaderLength | Stage::TableMark { .. } => 4,
            Stage::Header { n_bytes }
            | Stage::Payload { n_bytes, .. }
            | Stage::TableOpening { n_bytes } => n_bytes,
            Stage::PacketHeader => PACKET_HEADER_BYTES,
            Stage::Plain { .. } | Stage::Passing { .. } | Stage::Table => 0,
        }
    }
}

impl Aedat4Decoder {
    /// For a file, which opens with the line `#!AER-DAT4.0`.
    pub fn file(options: &DecoderOptions) -> Self {
        Aedat4Decoder {
            options: *options,
            stage: Stage::Mark,
            offset: 0,
            pieces: Vec::new(),
            header: Header::default(),
            chosen_id: 0,
            unpacker: Unpacker::new(Compression::None, options.max_packet_bytes),
            plain: PlainPacket::default(),
            tail: Tail::default(),
            sensor: Sensor::default(),
            tally: Tally::default(),
        }
    }

    /// For what a DV server sends: the same bytes without the first line.
    pub fn network(options: &DecoderOptions) -> Self {
        Aedat4Decoder { stage: Stage::HeaderLength, ..Aedat4Decoder::file(options) }
    }

    /// Takes all of `rest`, or as much as fills `out` to `enough` events.
    fn steps(&mut self, rest: &mut &[u8], enough: usize, out: &mut Vec<Event>) -> Result<Need> {
        loop {
            if let Some(need) = self.step(rest, out)? {
                return Ok(need);
            }
            if out.len() >= enough && !rest.is_empty() {
                return Ok(Need::More);
            }
        }
    }

    /// Takes some of `rest`; returns what is needed once there is not enough of it.
    fn step(&mut self, rest: &mut &[u8], out: &mut Vec<Event>) -> Result<Option<Need>> {
        match self.stage {
            Stage::Table => self.table(rest).map(Some),
            Stage::Passing { left, .. } => {
                let n = left.min(rest.len() as u64);
                *rest = &rest[n as usize..];
                self.skipped(n);
                Ok((n < left).then_some(Need::Skip(left - n)))
            }
            Stage::Payload { n_bytes, is_joined: false }
                if rest.len() < n_bytes || !self.pieces.is_empty() =>
            {
                *rest = &rest[self.begin_plain(n_bytes, rest, out)..];
                let is_short = matches!(self.stage, Stage::Payload { is_joined: false, .. });
                Ok(is_short.then_some(Need::More))
            }
            Stage::Plain { n_bytes } => {
                *rest = &rest[self.plain_events(n_bytes, rest, out)..];
                let is_short = matches!(self.stage, Stage::Plain { .. });
                Ok(is_short.then_some(Need::More))
            }
            _ => self.step_whole(rest, out),
        }
    }

    /// The step of a part that is looked at whole.
    fn step_whole(&mut self, rest: &mut &[u8], out: &mut Vec<Event>) -> Result<Option<Need>> {
        let wanted = self.stage.wanted();
        if self.pieces.is_empty() && rest.len() >= wanted {
            let (part, after) = rest.split_at(wanted);
            *rest = after;
            return self.part(part, out).map(|()| None);
        }
        let (now, after) = rest.split_at((wanted - self.pieces.len()).min(rest.len()));
        *rest = after;
        extend_towards(&mut self.pieces, now, wanted);
        if self.pieces.len() < wanted {
            return Ok(Some(Need::More));
        }
        let mut pieces = std::mem::take(&mut self.pieces);
        let outcome = self.part(&pieces, out);
        pieces.clear();
        self.pieces = pieces;
        outcome.map(|()| None)
    }

    fn part(&mut self, part: &[u8], out: &mut Vec<Event>) -> Result<()> {
        let at = self.offset;
        self.offset += part.len() as u64;
        match self.stage {
            Stage::Mark if part != MARK => {
                Err(malformed(at, "the file does not open with #!AER-DAT4.0".into()))
            }
            Stage::Mark => {
                self.stage = Stage::HeaderLength;
                Ok(())
            }
            Stage::HeaderLength => self.header_length(part, at),
            Stage::Header { .. } => self.header(part, at),
            Stage::PacketHeader => self.packet_header(part, at),
            Stage::TableMark { head } if part != table::IDENTIFIER => {
                Err(self.undeclared(&head, at - PACKET_HEADER_BYTES as u64))
            }
            Stage::TableOpening { .. } if !part.ends_with(self.table_opening()) => {
                let what = format!(
                    "the header is damaged: it puts the table at byte {}, where there is none; \
                     what follows is not read",
                    grouped(at)
                );
                Err(malformed(at, what))
            }
            Stage::TableMark { head } => {
                self.begin_table(&[&head[..], part].concat());
                Ok(())
            }
            Stage::TableOpening { .. }
            | Stage::Table
            | Stage::Passing { .. }
            | Stage::Plain { .. } => {
                self.begin_table(part);
                Ok(())
            }
            Stage::Payload { .. } => self.payload(part, at - PACKET_HEADER_BYTES as u64, out),
        }
    }

    fn header_length(&mut self, part: &[u8], at: u64) -> Result<()> {
        let n_bytes = packet::u32_at(part, 0).unwrap_or(0) as usize;
        if n_bytes > MAX_HEADER_BYTES {
            let what = format!(
                "the header claims {} bytes, more than the {} that a header may have",
                grouped(n_bytes as u64),
                grouped(MAX_HEADER_BYTES as u64)
            );
            return Err(Error::Limit { format: NAME, offset: at, what });
        }
        self.stage = Stage::Header { n_bytes };
        Ok(())
    }

    fn header(&mut self, part: &[u8], at: u64) -> Result<()> {
        self.header = Header::parse(part)
            .map_err(|what| malformed(at, format!("the header is damaged: {what}")))?;
        if let Some(table_at) = self.header.table_at.filter(|table_at| *table_at < self.offset) {
            let what = format!(
                "the header is damaged: it puts the table at byte {}, before its own end at {}",
                grouped(table_at),
                grouped(self.offset)
            );
            return Err(malformed(at, what));
        }
        let chosen = self.header.choose(self.options.stream_id)?;
        self.chosen_id = chosen.id;
        self.sensor = Sensor { size: chosen.size, ..Sensor::default() };
        self.unpacker = Unpacker::new(self.header.compression, self.options.max_packet_bytes);
        self.next_packet();
        Ok(())
    }

    fn next_packet(&mut self) {
        self.stage = if self.header.table_at != Some(self.offset) {
            Stage::PacketHeader
        } else if self.header.compression == Compression::None {
            // Its length and the root's offset come first.
            Stage::TableOpening { n_bytes: 8 + table::IDENTIFIER.len() }
        } else {
            Stage::TableOpening { n_bytes: self.table_opening().len() }
        };
    }

    /// What tells a table from a packet, whose stream's id would stand there.
    fn table_opening(&self) -> &'static [u8] {
        match self.header.compression {
            Compression::None => table::IDENTIFIER,
            Compression::Lz4 | Compression::Lz4High => &lz4::MAGIC,
            Compression::Zstd | Compression::ZstdHigh => &packet::ZSTD_MAGIC,
        }
    }

    fn packet_header(&mut self, part: &[u8], at: u64) -> Result<()> {
        let id = packet::u32_at(part, 0).unwrap_or(0) as i32;
        let size = packet::u32_at(part, 4).unwrap_or(0) as i32;
        let Some(kind) = self.header.stream(id).map(|stream| stream.kind) else {
            return self.table_or_damage(part, at);
        };
        let Ok(n_bytes) = u32::try_from(size) else {
            let what = format!("the packet at byte {} claims {size} bytes", grouped(at));
            return Err(malformed(at, what));
        };
        if let Some(table_at) =
            self.header.table_at.filter(|t| self.offset + u64::from(n_bytes) > *t)
        {
            let what = format!(
                "the packet at byte {} claims {} bytes, which reach past the table at byte {}",
                grouped(at),
                grouped(n_bytes.into()),
                grouped(table_at)
            );
            return Err(malformed(at, what));
        }
        if id == self.chosen_id {
            return self.begin_payload(n_bytes as usize, at);
        }
        self.count_passed(kind);
        self.stage = Stage::Passing { n_bytes: n_bytes.into(), left: n_bytes.into() };
        self.skipped(0);
        Ok(())
    }

    fn begin_payload(&mut self, n_bytes: usize, at: u64) -> Result<()> {
        if n_bytes > self.options.max_packet_bytes {
            return Err(self.located(packet::too_large(n_bytes, self.options.max_packet_bytes), at));
        }
        let is_joined = !self.unpacker.is_plain() || n_bytes < plain::HEAD_BYTES;
        self.stage = Stage::Payload { n_bytes, is_joined };
        Ok(())
    }

    fn count_passed(&mut self, kind: Kind) {
        match kind {
            Kind::Frames => self.tally.frames += 1,
            Kind::Imu => self.tally.imu += 1,
            Kind::Triggers => self.tally.external += 1,
            Kind::Events | Kind::Other => self.tally.other += 1,
        }
    }

    /// An output that could not seek has its table after the packets without a word in the header.
    fn table_or_damage(&mut self, part: &[u8], at: u64) -> Result<()> {
        match (self.header.compression, part.first_chunk()) {
            _ if self.header.table_at.is_some() => return Err(self.undeclared(part, at)),
            (Compression::None, Some(head)) => self.stage = Stage::TableMark { head: *head },
            _ if part.starts_with(self.table_opening()) => self.begin_table(part),
            _ => return Err(self.undeclared(part, at)),
        }
        Ok(())
    }

    fn begin_table(&mut self, mut opening: &[u8]) {
        self.tail = Tail::new(self.header.compression);
        self.tail.take(&mut opening);
        self.stage = Stage::Table;
    }

    /// Passes over the table.
    fn table(&mut self, rest: &mut &[u8]) -> Result<Need> {
        let n_before = rest.len();
        self.tail.take(rest);
        self.offset += (n_before - rest.len()) as u64;
        match self.tail.left() {
            _ if !rest.is_empty() => {
                let what = format!(
                    "more follows the table, which ends at byte {}: that is not read, one recording \
                     is one file or connection",
                    grouped(self.offset)
                );
                Err(malformed(self.offset, what))
            }
            0 => Ok(Need::More),
            left => Ok(Need::Skip(left)),
        }
    }

    fn undeclared(&self, head: &[u8], at: u64) -> Error {
        let id = packet::u32_at(head, 0).unwrap_or(0) as i32;
        let what = format!(
            "the packet at byte {} is damaged: it names stream {id}, the header declares {}",
            grouped(at),
            self.header.list()
        );
        malformed(at, what)
    }

    fn payload(&mut self, payload: &[u8], at: u64, out: &mut Vec<Event>) -> Result<()> {
        match self.unpacker.append_events(payload, out) {
            Ok(n_malformed) => self.tally.malformed += n_malformed,
            Err(damage) => return Err(self.located(damage, at)),
        }
        self.next_packet();
        Ok(())
    }

    /// Goes over from joining a payload to decoding it as it comes, if that can be done.
    fn begin_plain(&mut self, n_bytes: usize, rest: &[u8], out: &mut Vec<Event>) -> usize {
        let n_head = plain::HEAD_BYTES.saturating_sub(self.pieces.len()).min(rest.len());
        extend_towards(&mut self.pieces, &rest[..n_head], n_bytes);
        if self.pieces.len() >= plain::HEAD_BYTES {
            self.stage = Stage::Payload { n_bytes, is_joined: true };
            if let Some(start) = self.plain.begin(&self.pieces, n_bytes) {
                self.tally.malformed += self.plain.take(&self.pieces[start..], out);
                self.pieces.clear();
                self.stage = Stage::Plain { n_bytes };
            }
        }
        n_head
    }

    /// Takes what `rest` has of the payload; returns how much that was.
    fn plain_events(&mut self, n_bytes: usize, rest: &[u8], out: &mut Vec<Event>) -> usize {
        let n = self.plain.n_left().min(rest.len());
        self.tally.malformed += self.plain.take(&rest[..n], out);
        if self.plain.n_left() == 0 {
            self.offset += n_bytes as u64;
            self.next_packet();
        }
        n
    }

    fn located(&self, damage: Damage, at: u64) -> Error {
        let at_text = grouped(at);
        match damage {
            Damage::Malformed(what) => {
                malformed(at, format!("the packet at byte {at_text} is damaged: {what}"))
            }
            Damage::Limit(what) => {
                let what = format!("the packet at byte {at_text} {what}");
                Error::Limit { format: NAME, offset: at, what }
            }
        }
    }

    fn truncated(&self) -> Option<Error> {
        let n_pieces = match self.stage {
            Stage::Plain { n_bytes } => n_bytes - self.plain.n_left(),
            _ => self.pieces.len(),
        } as u64;
        let header_bytes = PACKET_HEADER_BYTES as u64;
        let (what, at, have, of) = match self.stage {
            Stage::Mark => ("the opening line", 0, n_pieces, MARK.len() as u64),
            Stage::HeaderLength => ("the header", self.offset, n_pieces, 4),
            Stage::Header { n_bytes } => {
                ("the header", self.offset - 4, n_pieces + 4, n_bytes as u64 + 4)
            }
            Stage::PacketHeader if n_pieces > 0 => {
                ("the packet header", self.offset, n_pieces, header_bytes)
            }
            Stage::PacketHeader => return self.missing_table(),
            Stage::TableMark { head } => {
                return Some(self.undeclared(&head, self.offset - header_bytes));
            }
            Stage::Payload { n_bytes, .. } | Stage::Plain { n_bytes } => {
                let at = self.offset - header_bytes;
                ("the packet", at, n_pieces + header_bytes, n_bytes as u64 + header_bytes)
            }
            Stage::Passing { n_bytes, left } => {
                let passed = n_bytes - left + header_bytes;
                ("the packet", self.offset - passed, passed, n_bytes + header_bytes)
            }
            // All events came before it.
            Stage::TableOpening { .. } | Stage::Table => return None,
        };
        let (at_text, have, of) = (grouped(at), grouped(have), grouped(of));
        Some(malformed(at, format!("{what} at byte {at_text} ends after {have} of {of} bytes")))
    }

    fn missing_table(&self) -> Option<Error> {
        let table_at = self.header.table_at?;
        let what = format!(
            "the recording ends at byte {}, before its table at byte {}: packets are missing",
            grouped(self.offset),
            grouped(table_at)
        );
        Some(malformed(self.offset, what))
    }
}

impl Decoder for Aedat4Decoder {
    fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<Event>) -> Result<Need> {
        self.steps(&mut bytes, usize::MAX, out)
    }

    fn feed_some(&mut self, bytes: &mut &[u8], out: &mut Vec<Event>) -> Result<Need> {
        self.steps(bytes, out.len() + ENOUGH_EVENTS, out)
    }

    fn skipped(&mut self, n: u64) {
        if matches!(self.stage, Stage::Table) {
            self.offset += n;
            self.tail.skipped(n);
        } else if let Stage::Passing { n_bytes, left } = self.stage {
            let left = left.saturating_sub(n);
            self.offset += n;
            self.stage = Stage::Passing { n_bytes, left };
            if left == 0 {
                self.next_packet();
            }
        }
    }

    fn finish(&mut self, _out: &mut Vec<Event>) -> Result<()> {
        self.truncated().map_or(Ok(()), Err)
    }

    fn has_begun(&self) -> bool {
        !matches!(self.stage, Stage::Mark | Stage::HeaderLength | Stage::Header { .. })
    }

    fn sensor(&self) -> Sensor {
        self.sensor
    }

    fn tally(&self) -> Tally {
        self.tally
    }
}

/// Appends `bytes`, growing with what has come, never beyond `wanted`.
fn extend_towards(pieces: &mut Vec<u8>, bytes: &[u8], wanted: usize) {
    let needed = pieces.len() + bytes.len();
    if needed > pieces.capacity() {
        let capacity = needed.max(2 * pieces.capacity()).min(wanted);
        pieces.reserve_exact(capacity - pieces.len());
    }
    pieces.extend_from_slice(bytes);
}

fn malformed(offset: u64, what: String) -> Error {
    Error::Malformed { format: NAME, offset, what }
}
