//! Writes AEDAT 4.0 of one event stream: files, and what goes out live.
//!
//! Packets of files are as long and laid out as dv-processing makes them. Never seeks: the header is
//! written without the table's position, which a patch puts in at the end.

use super::header::MAX_EXTENT;
use super::table::{self, Row};
use super::{MARK, PACKET_HEADER_BYTES, packet};
use crate::codec::{Compression, Encoder, EncoderOptions, Patch};
use crate::error::{Error, Result, grouped};
use crate::event::{Event, SensorSize};
use aedat::base::ioheader_generated as schema;
use flatbuffers::FlatBufferBuilder;
use lzzzz::lz4f;

/// Events in a full packet.
pub const PACKET_EVENTS: usize = 10_000;

const STREAM_ID: i32 = 0;
const LZ4_HIGH_LEVEL: i32 = 9;
const ZSTD_LEVEL: i32 = 3;
const ZSTD_HIGH_LEVEL: i32 = 12;

/// A size-prefixed event packet up to its events; the size and the count are filled in at the end.
const PACKET_OPENING: [u8; 32] = [
    0, 0, 0, 0, // size of what follows
    16, 0, 0, 0, b'E', b'V', b'T', b'S', // the table's offset, the identifier
    0, 0, 6, 0, 8, 0, 4, 0, // padding, vtable: its size, the table's, offset of field 0
    6, 0, 0, 0, 4, 0, 0, 0, // table: back to the vtable, on to the vector
    0, 0, 0, 0, // count of events
];

/// Encoder of AEDAT 4.0.
pub struct Aedat4Encoder {
    options: EncoderOptions,
    /// What the header follows.
    mark: &'static [u8],
    /// Packets end with each call, and there is no table.
    is_live: bool,
    /// Bytes written so far; 0 before the header.
    n_written: u64,
    /// Offset of the header's field for the table's position.
    table_field_at: u64,
    packet: Vec<u8>,
    span_us: [u64; 2],
    rows: Vec<Row>,
    compressor: Compressor,
}

impl Aedat4Encoder {
    /// For a file. Every encoder needs a sensor size, which it asks for with the first call.
    pub fn new(options: &EncoderOptions) -> Self {
        Aedat4Encoder {
            options: *options,
            mark: MARK,
            is_live: false,
            n_written: 0,
            table_field_at: 0,
            packet: PACKET_OPENING.to_vec(),
            span_us: [u64::MAX, 0],
            rows: Vec::new(),
            compressor: Compressor::new(options.compression),
        }
    }

    /// For a file that is read while it is written: each call's events are whole packets, and no
    /// table ends it.
    pub fn live(options: &EncoderOptions) -> Self {
        Aedat4Encoder { is_live: true, ..Aedat4Encoder::new(options) }
    }

    /// For the clients of a DV server: a live file without its opening line.
    pub fn network(options: &EncoderOptions) -> Self {
        Aedat4Encoder { mark: &[], ..Aedat4Encoder::live(options) }
    }

    fn begin(&mut self, out: &mut Vec<u8>) -> Result<()> {
        if self.n_written > 0 {
            return Ok(());
        }
        let sensor = self.options.sensor.ok_or_else(|| {
            Error::Unsupported("an AEDAT 4 file names its sensor size: give --sensor WxH".into())
        })?;
        if sensor.width.max(sensor.height) > MAX_EXTENT {
            return Err(Error::Unsupported(format!(
                "a sensor of {sensor} pixels does not fit AEDAT 4: it goes to {MAX_EXTENT}x{MAX_EXTENT}"
            )));
        }
        let (header, field_at) = header(sensor, self.options.compression);
        self.table_field_at = (self.mark.len() + field_at) as u64;
        self.n_written = (self.mark.len() + header.len()) as u64;
        out.extend_from_slice(self.mark);
        out.extend_from_slice(&header);
        Ok(())
    }

    fn n_pending(&self) -> usize {
        (self.packet.len() - PACKET_OPENING.len()) / packet::EVENT_BYTES
    }

    fn push(&mut self, event: &Event) {
        let [from, to] = self.span_us;
        self.span_us = [from.min(event.t_us), to.max(event.t_us)];
        let pixel = u64::from(event.x) | u64::from(event.y) << 16 | (event.polarity as u64) << 32;
        self.packet.extend_from_slice(&event.t_us.to_le_bytes());
        self.packet.extend_from_slice(&pixel.to_le_bytes());
    }

    fn end_packet(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let n_events = self.n_pending();
        if n_events == 0 {
            return Ok(());
        }
        let size = (self.packet.len() - 4) as u32;
        self.packet[..4].copy_from_slice(&size.to_le_bytes());
        self.packet[28..32].copy_from_slice(&(n_events as u32).to_le_bytes());
        let header_at = out.len();
        out.extend_from_slice(&STREAM_ID.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        self.compressor.append(&self.packet, out)?;
        let n_bytes = (out.len() - header_at - PACKET_HEADER_BYTES) as u32;
        out[header_at + 4..][..4].copy_from_slice(&n_bytes.to_le_bytes());
        let payload_at = self.n_written + PACKET_HEADER_BYTES as u64;
        if !self.is_live {
            let n_events = n_events as u64;
            self.rows.push(Row { payload_at, n_bytes, n_events, span_us: self.span_us });
        }
        self.n_written = payload_at + u64::from(n_bytes);
        self.packet.truncate(PACKET_OPENING.len());
        self.span_us = [u64::MAX, 0];
        Ok(())
    }
}

impl Encoder for Aedat4Encoder {
    fn encode(&mut self, events: &[Event], out: &mut Vec<u8>) -> Result<()> {
        check(events)?;
        self.begin(out)?;
        let mut rest = events;
        while !rest.is_empty() {
            let n = (PACKET_EVENTS - self.n_pending()).min(rest.len());
            let (now, later) = rest.split_at(n);
            now.iter().for_each(|event| self.push(event));
            rest = later;
            if self.n_pending() == PACKET_EVENTS {
                self.end_packet(out)?;
            }
        }
        if self.is_live { self.end_packet(out) } else { Ok(()) }
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<Option<Patch>> {
        self.begin(out)?;
        self.end_packet(out)?;
        if self.is_live {
            return Ok(None);
        }
        self.compressor.append(&table::build(STREAM_ID, &self.rows), out)?;
        let bytes = self.n_written.to_le_bytes().to_vec();
        Ok(Some(Patch { offset: self.table_field_at, bytes }))
    }
}

/// Times and coordinates are signed in the file.
fn check(events: &[Event]) -> Result<()> {
    let fits = |e: &Event| e.t_us <= Event::MAX_T_US && e.x.max(e.y) <= i16::MAX as u16;
    let Some(event) = events.iter().find(|event| !fits(event)) else { return Ok(()) };
    Err(Error::Unsupported(format!(
        "the event at {} µs, pixel {},{} does not fit AEDAT 4: times go to {} µs, pixels to 32767",
        grouped(event.t_us),
        event.x,
        event.y,
        grouped(Event::MAX_T_US)
    )))
}

/// The size-prefixed header, and where in it the table's position stands.
fn header(sensor: SensorSize, compression: Compression) -> (Vec<u8>, usize) {
    let mut builder = FlatBufferBuilder::new();
    // a default would not be stored, and could not be patched
    builder.force_defaults(true);
    let description = builder.create_string(&description(sensor, compression));
    let arguments = schema::IoheaderArgs {
        compression: schema::Compression(compression as i32),
        file_data_position: -1,
        description: Some(description),
    };
    let root = schema::Ioheader::create(&mut builder, &arguments);
    schema::finish_size_prefixed_ioheader_buffer(&mut builder, root);
    let bytes = builder.finished_data().to_vec();
    let field_at = schema::size_prefixed_root_as_ioheader(&bytes).map_or(0, |root| {
        let field = root._tab.vtable().get(schema::Ioheader::VT_FILE_DATA_POSITION);
        root._tab.loc + usize::from(field)
    });
    (bytes, field_at)
}

fn description(sensor: SensorSize, compression: Compression) -> String {
    let SensorSize { width, height } = sensor;
    let compression = match compression {
        Compression::None => "NONE",
        Compression::Lz4 => "LZ4",
        Compression::Lz4High => "LZ4_HIGH",
        Compression::Zstd => "ZSTD",
        Compression::ZstdHigh => "ZSTD_HIGH",
    };
    format!(
        r#"<dv version="2.0">
    <node name="outInfo" path="/outInfo/">
        <node name="{STREAM_ID}" path="/outInfo/{STREAM_ID}/">
            <attr key="compression" type="string">{compression}</attr>
            <attr key="originalModuleName" type="string">dvs-stream</attr>
            <attr key="originalOutputName" type="string">events</attr>
            <attr key="typeDescription" type="string">Array of events (polarity ON/OFF).</attr>
            <attr key="typeIdentifier" type="string">EVTS</attr>
            <node name="info" path="/outInfo/{STREAM_ID}/info/">
                <attr key="sizeX" type="int">{width}</attr>
                <attr key="sizeY" type="int">{height}</attr>
                <attr key="source" type="string">dvs-stream</attr>
            </node>
        </node>
    </node>
</dv>
"#
    )
}

/// Compresses a packet as one frame.
struct Compressor {
    compression: Compression,
    zstd: Option<zstd::bulk::Compressor<'static>>,
    frame: Vec<u8>,
}

impl Compressor {
    fn new(compression: Compression) -> Self {
        Compressor { compression, zstd: None, frame: Vec::new() }
    }

    fn append(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        match self.compression {
            Compression::None => out.extend_from_slice(plain),
            Compression::Lz4 => append_lz4(plain, lz4f::CLEVEL_DEFAULT, out)?,
            Compression::Lz4High => append_lz4(plain, LZ4_HIGH_LEVEL, out)?,
            Compression::Zstd => self.append_zstd(plain, ZSTD_LEVEL, out)?,
            Compression::ZstdHigh => self.append_zstd(plain, ZSTD_HIGH_LEVEL, out)?,
        }
        Ok(())
    }

    fn append_zstd(&mut self, plain: &[u8], level: i32, out: &mut Vec<u8>) -> Result<()> {
        let compressor = match &mut self.zstd {
            Some(compressor) => compressor,
            none => none.insert(zstd::bulk::Compressor::new(level).map_err(failed)?),
        };
        self.frame.clear();
        self.frame.reserve(zstd::zstd_safe::compress_bound(plain.len()));
        compressor.compress_to_buffer(plain, &mut self.frame).map_err(failed)?;
        out.extend_from_slice(&self.frame);
        Ok(())
    }
}

fn append_lz4(plain: &[u8], level: i32, out: &mut Vec<u8>) -> Result<()> {
    let preferences = lz4f::PreferencesBuilder::new().compression_level(level).build();
    lz4f::compress_to_vec(plain, out, &preferences).map_err(|error| failed(error.into()))?;
    Ok(())
}

fn failed(source: std::io::Error) -> Error {
    Error::Io { what: "a packet cannot be compressed".into(), source }
}
