//! AEDAT 2.0: header lines, then a big-endian 32-bit address and 32-bit µs per event.
//!
//! Also what AEDAT 1.0 shares with it. Address bits of the chips come from jAER's event
//! extractors; x and y stay as stored. Must not know which sensor a model expects.

use super::carry::Carry;
use super::chips::{CHIPS, Chip, Layout};
use super::clock::Unwrap32;
use super::header::HeaderLines;
use super::records::not_kept;
use super::{
    Clock, Decoder, DecoderOptions, Encoder, EncoderOptions, Format, Match, Need, Patch, Tally,
};
use crate::error::{Error, Result, grouped};
use crate::event::{Event, Sensor, SensorSize};

/// Row of [`super::FORMATS`].
pub const FORMAT: Format = Format {
    name: NAME,
    title: "AEDAT 2.0 (jAER)",
    extensions: &["aedat", "aedat2"],
    probe,
    plausible: |_| false,
    decoder,
    encoder: Some(encoder),
    compressed: false,
    in_chip_order: true,
};

const NAME: &str = "aedat2";
const MARK: &[u8] = b"#!AER-DAT2";

fn probe(prefix: &[u8]) -> Match {
    probe_mark(prefix, MARK)
}

/// Looks for `mark` at the start of `prefix`.
pub(super) fn probe_mark(prefix: &[u8], mark: &[u8]) -> Match {
    if prefix.starts_with(mark) {
        Match::Yes
    } else if mark.starts_with(prefix) {
        Match::Short
    } else {
        Match::No
    }
}

fn decoder(_: &DecoderOptions) -> Box<dyn Decoder> {
    Box::new(JaerDecoder::<8>::new(NAME, '2'))
}

fn encoder(options: &EncoderOptions) -> Box<dyn Encoder> {
    Box::new(Writer { sensor: options.sensor, chip: None, clock: Unwrap32::new(), n_events: 0 })
}

/// Decodes records of an address and 32 bits of µs, `N` bytes together: 8 in AEDAT 2.0, 6 in 1.0.
pub(super) struct JaerDecoder<const N: usize> {
    format: &'static str,
    version: char,
    header: Option<HeaderLines>,
    layout: Layout,
    sensor: Sensor,
    chip_named: bool,
    clock: Unwrap32,
    tally: Tally,
    n_events: u64,
    /// Words with bits that no address of a DVS128 has.
    n_wide: u64,
    carry: Carry<N>,
    offset: u64,
}

impl<const N: usize> JaerDecoder<N> {
    pub(super) fn new(format: &'static str, version: char) -> Self {
        JaerDecoder {
            format,
            version,
            header: Some(HeaderLines::new(format)),
            layout: Layout::Dvs128,
            sensor: Sensor { size: None, mirrored_x: true, mirrored_y: true, on_is_zero: true },
            chip_named: false,
            clock: Unwrap32::new(),
            tally: Tally::default(),
            n_events: 0,
            n_wide: 0,
            carry: Carry::default(),
            offset: 0,
        }
    }

    /// One line of the header; true after the last.
    fn line(&mut self, line: &str) -> Result<bool> {
        let text = line.trim_start_matches('#').trim();
        if let Some(version) = line.strip_prefix("#!AER-DAT") {
            self.check_version(version)?;
        } else if let Some(class) = text.strip_prefix("AEChip:")
            && !self.chip_named
        {
            self.name_chip(class.trim())?;
        } else if let Some(words) = text.strip_prefix(SIZE_WORDS)
            && let Ok(size) = words.trim().parse()
        {
            self.sensor.size = Some(size);
        }
        // jAER of 2016 and later; before, the first line without '#' ends the header.
        Ok(text.to_ascii_lowercase().contains("end of ascii header"))
    }

    fn check_version(&self, version: &str) -> Result<()> {
        if version.starts_with(self.version) {
            return Ok(());
        }
        let what = format!(
            "the header says AEDAT {}, not {}: leave --format out, or name the right one",
            version.escape_default(),
            self.version
        );
        Err(Error::Malformed { format: self.format, offset: 0, what })
    }

    fn name_chip(&mut self, class: &str) -> Result<()> {
        let chip = Chip::of_class(class).ok_or_else(|| {
            Error::Unsupported(format!(
                "recordings of the chip `{}` are not read; known are DVS128, DAVIS240, DAVIS346 and DAVIS640",
                class.escape_default()
            ))
        })?;
        self.chip_named = true;
        self.layout = chip.layout;
        self.sensor.size = Some(chip.size);
        self.sensor.on_is_zero = chip.layout == Layout::Dvs128;
        Ok(())
    }

    fn data(&mut self, bytes: &[u8], out: &mut Vec<Event>) {
        let (begun, records) = self.carry.cut(bytes);
        self.records(begun.as_slice(), out);
        self.records(records, out);
    }

    fn records(&mut self, records: &[[u8; N]], out: &mut Vec<Event>) {
        let n_before = out.len();
        out.reserve(records.len());
        match self.layout {
            Layout::Dvs128 => self.runs(Layout::Dvs128, records, out),
            Layout::Davis => self.runs(Layout::Davis, records, out),
        }
        self.n_events += (out.len() - n_before) as u64;
    }

    /// Runs of plain events within one quarter of the clock; what ends a run is read by itself.
    #[inline(always)]
    fn runs(&mut self, layout: Layout, records: &[[u8; N]], out: &mut Vec<Event>) {
        let rare = u64::from(layout.aside()) << 32 | u64::from(Unwrap32::QUARTER);
        let mut rest = records;
        while !rest.is_empty() {
            let (last, round_us) = (u64::from(self.clock.last()), self.clock.round_us());
            let plain = rest.iter().map_while(|record| {
                let word = word(record);
                let event = layout.event((word >> 32) as u32, round_us | u64::from(word as u32));
                ((word ^ last) & rare == 0).then_some(event)
            });
            let n = out.len();
            out.extend(plain);
            let n = out.len() - n;
            let (done, after) = rest.split_at(n);
            if let Some(record) = done.last() {
                self.clock.unwrap(word(record) as u32);
            }
            rest = match after.split_first() {
                Some((record, after)) => {
                    self.one(layout, word(record), out);
                    after
                }
                None => after,
            };
        }
    }

    #[inline(always)]
    fn one(&mut self, layout: Layout, word: u64, out: &mut Vec<Event>) {
        let address = (word >> 32) as u32;
        if address & layout.aside() == 0 {
            out.push(layout.event(address, self.clock.unwrap(word as u32)));
        } else {
            self.set_aside(layout, address);
        }
    }

    fn set_aside(&mut self, layout: Layout, address: u32) {
        self.n_wide += u64::from(layout == Layout::Dvs128 && address & 0x7FFF_0000 != 0);
        let is_image_or_imu = layout == Layout::Davis && address >> 31 == 1;
        match (is_image_or_imu, (address >> 10) & 3) {
            (false, _) => self.tally.external += 1,
            (true, 3) => self.tally.imu += 1,
            (true, _) => self.tally.frames += 1,
        }
    }
}

/// Address in the upper, µs in the lower half.
#[inline(always)]
fn word<const N: usize>(record: &[u8; N]) -> u64 {
    let mut wide = [0; 8];
    wide[8 - N..].copy_from_slice(record);
    u64::from_be_bytes(wide)
}

impl<const N: usize> Decoder for JaerDecoder<N> {
    fn feed(&mut self, bytes: &[u8], out: &mut Vec<Event>) -> Result<Need> {
        self.offset += bytes.len() as u64;
        let Some(mut header) = self.header.take() else {
            self.data(bytes, out);
            return Ok(Need::More);
        };
        match header.feed(bytes, |line| self.line(line))? {
            None => self.header = Some(header),
            Some(rest) => {
                self.data(&header.take_data(), out);
                self.data(rest, out);
            }
        }
        Ok(Need::More)
    }

    fn clock(&self) -> Option<Clock> {
        Some(self.clock.save())
    }

    fn set_clock(&mut self, clock: Clock) {
        self.clock.restore(clock);
    }

    fn finish(&mut self, _: &mut Vec<Event>) -> Result<()> {
        if let Some(header) = &self.header {
            return header.finish();
        }
        self.carry.finish(self.format, self.offset)?;
        // A few words of another chip's layout look like a DVS128's.
        if !self.chip_named && self.n_wide > self.n_events {
            return Err(Error::Unsupported(
                "most addresses fit no DVS128, and the header names no other chip: \
                 add its line, such as `# AEChip: eu.seebetter.ini.chips.davis.DAVIS346`"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    fn has_begun(&self) -> bool {
        self.header.as_ref().is_none_or(HeaderLines::may_have_ended)
    }

    fn sensor(&self) -> Sensor {
        self.sensor
    }

    fn tally(&self) -> Tally {
        self.tally
    }
}

/// Comment line of our own, for sizes that no chip has; other readers pass over it.
const SIZE_WORDS: &str = "Sensor size:";

/// Writes AEDAT 2.0. Sizes of known chips get their layout and `AEChip` line; smaller ones than a
/// DVS128's get its layout, no chip and a comment; larger ones are refused.
struct Writer {
    sensor: Option<SensorSize>,
    /// Layout, once the header is written.
    chip: Option<Layout>,
    clock: Unwrap32,
    n_events: u64,
}

impl Writer {
    fn header(&self, out: &mut Vec<u8>) -> Result<Layout> {
        let chip = CHIPS.iter().find(|chip| Some(chip.size) == self.sensor);
        let mut lines = vec![
            "#!AER-DAT2.0".to_owned(),
            "# This is a raw AE data file - do not edit".to_owned(),
            "# Data format is int32 address, int32 timestamp (8 bytes total), repeated for each event"
                .to_owned(),
            "# Timestamps tick is 1 us".to_owned(),
        ];
        match (chip, self.sensor) {
            (Some(chip), _) => lines.push(format!("# AEChip: {}", chip.class)),
            (None, Some(size)) if size.width <= 128 && size.height <= 128 => {
                lines.push(format!("# {SIZE_WORDS} {size}"));
            }
            (None, Some(size)) => return Err(no_layout(size)),
            (None, None) => {}
        }
        lines.push("#End Of ASCII Header".to_owned());
        lines.iter().for_each(|line| out.extend_from_slice(format!("{line}\r\n").as_bytes()));
        Ok(chip.map_or(Layout::Dvs128, |chip| chip.layout))
    }
}

fn no_layout(size: SensorSize) -> Error {
    Error::Unsupported(format!(
        "AEDAT 2.0 has no address layout for a sensor of {size}, only for 240x180, 346x260, 640x480 \
         and up to 128x128: write AEDAT 4"
    ))
}

impl Encoder for Writer {
    fn encode(&mut self, events: &[Event], out: &mut Vec<u8>) -> Result<()> {
        let layout = match self.chip {
            Some(layout) => layout,
            None => *self.chip.insert(self.header(out)?),
        };
        out.reserve(8 * events.len());
        for event in events {
            let address = layout.address(event).ok_or_else(|| {
                Error::Unsupported(format!(
                    "event {} at ({}, {}) does not fit the addresses of {}: write AEDAT 4",
                    grouped(self.n_events),
                    event.x,
                    event.y,
                    if layout == Layout::Dvs128 {
                        "a DVS128 (128x128)"
                    } else {
                        "a DAVIS (1024x512)"
                    }
                ))
            })?;
            let low = event.t_us as u32;
            if self.clock.unwrap(low) != event.t_us {
                let which = format!("event {}", grouped(self.n_events));
                return Err(not_kept(&which, event, "AEDAT 2.0"));
            }
            out.extend_from_slice(&(u64::from(address) << 32 | u64::from(low)).to_be_bytes());
            self.n_events += 1;
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<Option<Patch>> {
        self.encode(&[], out)?;
        Ok(None)
    }
}
