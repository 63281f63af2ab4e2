//! AEDAT 3.0 and 3.1: header lines, then packets of one event type and source each.
//!
//! Polarity packets are decoded as they come in, all others passed over by their header. Must not
//! know which sensor a model expects.

use super::aedat2::probe_mark;
use super::carry::Carry;
use super::header::HeaderLines;
use super::{Decoder, DecoderOptions, Format, Match, Need, Tally, lose};
use crate::error::{Error, Result, grouped};
use crate::event::{Event, Polarity, Sensor, SensorSize};

/// Row of [`super::FORMATS`].
pub const FORMAT: Format = Format {
    name: NAME,
    title: "AEDAT 3 (cAER, libcaer)",
    extensions: &["aedat", "aedat3"],
    probe,
    plausible: |_| false,
    decoder,
    encoder: None,
    compressed: false,
    in_chip_order: false,
};

const NAME: &str = "aedat3";
const MARK: &str = "#!AER-DAT3";
const N_PACKET_HEADER: usize = 28;
const N_EVENT: usize = 8;
/// More sources than any file names; their lines are kept.
const MAX_SOURCES: usize = 64;

fn probe(prefix: &[u8]) -> Match {
    probe_mark(prefix, MARK.as_bytes())
}

fn decoder(options: &DecoderOptions) -> Box<dyn Decoder> {
    Box::new(Aedat3 {
        options: *options,
        state: State::Header(HeaderLines::new(NAME)),
        version_seen: false,
        sources: Vec::new(),
        source: options.stream_id,
        is_there: false,
        another: None,
        sensor: Sensor::default(),
        tally: Tally::default(),
        header: Carry::default(),
        events: Carry::default(),
        packet: Packet::default(),
        offset: 0,
    })
}

enum State {
    Header(HeaderLines),
    PacketHeader,
    /// So many bytes of polarity events are still to come.
    Events(u64),
    /// So many bytes are passed over.
    Skip(u64),
}

/// What is kept of a packet's header.
#[derive(Default)]
struct Packet {
    offset: u64,
    n_bytes: u64,
    /// Bits of time above the events' 31.
    base_us: u64,
    /// Bytes after the events: capacity that is not used.
    n_unused: u64,
}

struct Aedat3 {
    options: DecoderOptions,
    state: State,
    version_seen: bool,
    /// Sizes by source id, from the header's Source lines.
    sources: Vec<(i32, SensorSize)>,
    /// The source whose events are taken, once known.
    source: Option<i32>,
    /// Whether it sent any.
    is_there: bool,
    /// The latest source whose events were passed over.
    another: Option<i16>,
    sensor: Sensor,
    tally: Tally,
    header: Carry<N_PACKET_HEADER>,
    events: Carry<N_EVENT>,
    packet: Packet,
    /// Bytes taken or passed over so far.
    offset: u64,
}

impl Decoder for Aedat3 {
    fn feed(&mut self, bytes: &[u8], out: &mut Vec<Event>) -> Result<Need> {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = match self.state {
                State::Header(_) => self.header(rest, out)?,
                State::PacketHeader => self.packet_header(rest)?,
                State::Events(n) => self.events(rest, n, out),
                State::Skip(n) => {
                    let n_now = n.min(rest.len() as u64);
                    self.skipped(n_now);
                    rest.get(n_now as usize..).unwrap_or_default()
                }
            };
        }
        Ok(match self.state {
            State::Skip(n) => Need::Skip(n),
            _ => Need::More,
        })
    }

    fn skipped(&mut self, n: u64) {
        self.offset += n;
        if let State::Skip(left) = self.state {
            self.skip(left.saturating_sub(n));
        }
    }

    fn finish(&mut self, _: &mut Vec<Event>) -> Result<()> {
        let (offset, what) = match &self.state {
            State::Header(header) => return header.finish(),
            State::PacketHeader if self.header.n_held() == 0 => return self.check_source(),
            State::PacketHeader => {
                let n = self.header.n_held();
                let what = format!("a packet's header ends after {n} of {N_PACKET_HEADER} bytes");
                (self.offset - n as u64, what)
            }
            State::Events(_) | State::Skip(_) => (
                self.packet.offset,
                format!(
                    "the packet ends after {} of {} bytes",
                    grouped(self.offset - self.packet.offset),
                    grouped(self.packet.n_bytes)
                ),
            ),
        };
        Err(malformed(offset, what))
    }

    fn has_begun(&self) -> bool {
        !matches!(self.state, State::Header(_))
    }

    fn sensor(&self) -> Sensor {
        self.sensor
    }

    fn tally(&self) -> Tally {
        self.tally
    }
}

impl Aedat3 {
    fn header<'a>(&mut self, bytes: &'a [u8], out: &mut Vec<Event>) -> Result<&'a [u8]> {
        let State::Header(mut header) = std::mem::replace(&mut self.state, State::PacketHeader)
        else {
            return Ok(bytes);
        };
        let Some(rest) = header.feed(bytes, |line| self.line(line))? else {
            self.state = State::Header(header);
            return Ok(&[]);
        };
        let data = header.take_data();
        self.offset = header.n_bytes();
        if !self.version_seen {
            let what = format!("the recording does not begin with `{MARK}`");
            return Err(malformed(0, what));
        }
        self.settle_sensor();
        self.feed(&data, out)?;
        Ok(rest)
    }

    /// One line of the header; true after the last.
    fn line(&mut self, line: &str) -> Result<bool> {
        if let Some(version) = line.strip_prefix("#!AER-DAT") {
            if !version.starts_with('3') {
                let what = format!(
                    "the header says AEDAT {}, not 3: leave --format out, or name the right one",
                    version.escape_default()
                );
                return Err(malformed(0, what));
            }
            self.version_seen = true;
            self.sensor.mirrored_y = version.starts_with("3.0");
        } else if let Some(format) = line.strip_prefix("#Format:")
            && format.trim() != "RAW"
        {
            return Err(Error::Unsupported(format!(
                "AEDAT 3 with its packets stored as `{}` is not read, only RAW",
                format.trim().escape_default()
            )));
        } else if let Some(source) = line.strip_prefix("#Source ") {
            self.add_source(source);
        }
        Ok(line == "#!END-HEADER")
    }

    fn add_source(&mut self, text: &str) {
        if let Some((id, name)) = text.split_once(':')
            && let Ok(id) = id.trim().parse()
            && let Some(size) = size_of(name)
            && self.sources.len() < MAX_SOURCES
        {
            self.sources.push((id, size));
        }
    }

    /// Whether the source that was asked for is one of the recording's.
    fn check_source(&self) -> Result<()> {
        match (self.options.stream_id, self.another) {
            (Some(wanted), Some(another)) if !self.is_there => Err(Error::Usage(format!(
                "source {wanted} sent no events: --stream-id {another} takes those of source \
                 {another}"
            ))),
            _ => Ok(()),
        }
    }

    /// Before the first packet the size is that of the source asked for, or of the only one.
    fn settle_sensor(&mut self) {
        let source = self.source;
        let of_source =
            self.sources.iter().find(|(id, _)| source.is_none_or(|wanted| *id == wanted));
        self.sensor.size = of_source.map(|(_, size)| *size);
    }

    fn packet_header<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8]> {
        let n = bytes.len().min(N_PACKET_HEADER - self.header.n_held());
        let (head, rest) = bytes.split_at(n);
        self.offset += n as u64;
        let (begun, whole) = self.header.cut(head);
        if let Some(header) = begun.as_ref().or(whole.first()) {
            self.open_packet(header)?;
        }
        Ok(rest)
    }

    fn open_packet(&mut self, header: &[u8; N_PACKET_HEADER]) -> Result<()> {
        let offset = self.offset - N_PACKET_HEADER as u64;
        let [a, b, c, d, words @ ..] = header;
        let (kind, source) = (i16::from_le_bytes([*a, *b]), i16::from_le_bytes([*c, *d]));
        let (words, _) = words.as_chunks::<4>();
        let &[size, ts_offset, overflow, capacity, number, valid] = words else { return Ok(()) };
        let word = |bytes| i32::from_le_bytes(bytes);
        let counts = (word(size), word(capacity), word(number), word(valid));
        let (size, capacity, number) = self.check_counts(offset, counts)?;
        let n_events = number * size;
        self.packet = Packet {
            offset,
            n_bytes: N_PACKET_HEADER as u64 + capacity * size,
            base_us: 0,
            n_unused: (capacity - number) * size,
        };
        if kind != 1 {
            self.count(kind, number);
            self.skip(capacity * size);
            return Ok(());
        }
        if (size, word(ts_offset)) != (8, 4) {
            let what = format!(
                "polarity events of {size} bytes with their time at {}, expected 8 and 4",
                word(ts_offset)
            );
            return Err(malformed(offset, what));
        }
        let Ok(overflow) = u64::try_from(word(overflow)) else {
            let what = format!("a packet whose clock ran over {} times", word(overflow));
            return Err(malformed(offset, what));
        };
        self.packet.base_us = overflow << 31;
        if *self.source.get_or_insert(i32::from(source)) != i32::from(source) {
            self.tally.other += 1;
            self.another = Some(source);
            self.skip(capacity * size);
            return Ok(());
        }
        self.is_there = true;
        self.settle_sensor();
        self.open_events(n_events);
        Ok(())
    }

    /// Size of an event, capacity and number of events, of which nothing was believed before.
    fn check_counts(
        &self,
        offset: u64,
        (size, capacity, number, valid): (i32, i32, i32, i32),
    ) -> Result<(u64, u64, u64)> {
        let ordered = size > 0 && (0..=number).contains(&valid) && number <= capacity;
        if !ordered {
            let what = format!(
                "a packet of {number} events ({valid} valid, room for {capacity}) of {size} bytes: \
                 no packet starts here"
            );
            return Err(malformed(offset, what));
        }
        let (size, capacity, number) = (size as u64, capacity as u64, number as u64);
        let max = self.options.max_packet_bytes as u64;
        if size * capacity > max {
            let what = format!(
                "a packet of {} bytes, more than the {} allowed: --max-packet raises that",
                grouped(size * capacity),
                grouped(max)
            );
            return Err(Error::Limit { format: NAME, offset, what });
        }
        Ok((size, capacity, number))
    }

    fn count(&mut self, kind: i16, number: u64) {
        match kind {
            0 => self.tally.external += number,
            2 => self.tally.frames += number,
            3 | 4 => self.tally.imu += number,
            _ => self.tally.other += 1,
        }
    }

    fn skip(&mut self, n: u64) {
        self.state = if n == 0 { State::PacketHeader } else { State::Skip(n) };
    }

    fn open_events(&mut self, n_left: u64) {
        if n_left == 0 {
            self.skip(self.packet.n_unused);
        } else {
            self.state = State::Events(n_left);
        }
    }

    fn events<'a>(&mut self, bytes: &'a [u8], n_left: u64, out: &mut Vec<Event>) -> &'a [u8] {
        let n = n_left.min(bytes.len() as u64) as usize;
        let (now, rest) = bytes.split_at(n);
        self.offset += n as u64;
        let (begun, records) = self.events.cut(now);
        self.decode(begun.as_slice(), out);
        self.decode(records, out);
        self.open_events(n_left - n as u64);
        rest
    }

    fn decode(&mut self, records: &[[u8; N_EVENT]], out: &mut Vec<Event>) {
        out.reserve(records.len());
        for record in records {
            let word = u64::from_le_bytes(*record);
            let (bits, t) = (word as u32, (word >> 32) as u32);
            if bits & 1 == 0 {
                self.tally.invalid += 1;
            } else if t >> 31 == 1 {
                lose(&mut self.tally.malformed, out);
            } else {
                out.push(Event {
                    t_us: self.packet.base_us | u64::from(t),
                    x: (bits >> 17) as u16,
                    y: (bits >> 2) as u16 & 0x7FFF,
                    polarity: Polarity::from_on(bits & 2 != 0),
                });
            }
        }
    }
}

/// Size that a Source line names, as numbers or by its chip.
fn size_of(name: &str) -> Option<SensorSize> {
    const CHIPS: &[(&str, u16, u16)] = &[
        ("dvs128", 128, 128),
        ("davis128", 128, 128),
        ("davis208", 208, 192),
        ("davis240", 240, 180),
        ("davis346", 346, 260),
        ("davis640", 640, 480),
        ("davishet640", 640, 480),
        ("davisrgb", 640, 480),
    ];
    let lower = name.to_ascii_lowercase();
    let stated =
        lower.split(|c: char| !c.is_ascii_alphanumeric()).find_map(|word| word.parse().ok());
    let chip = CHIPS.iter().find(|(chip, ..)| lower.contains(chip));
    stated.or(chip.map(|&(_, width, height)| SensorSize { width, height }))
}

fn malformed(offset: u64, what: String) -> Error {
    Error::Malformed { format: NAME, offset, what }
}
