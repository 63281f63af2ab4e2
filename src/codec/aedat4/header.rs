//! The header of AEDAT 4: compression, position of the table, and the streams, listed in XML.
//!
//! Knows nothing of packets.

use crate::codec::Compression;
use crate::error::{Error, Result};
use crate::event::SensorSize;
use aedat::base::ioheader_generated as schema;
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event as Xml};

/// What the header says.
#[derive(Debug, Default)]
pub(super) struct Header {
    pub(super) compression: Compression,
    /// Offset in the file of the table of packets, where the writer came to write one.
    pub(super) table_at: Option<u64>,
    streams: Vec<Stream>,
}

/// One declared stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) id: i32,
    pub(super) kind: Kind,
    /// The four letters that name the kind.
    identifier: String,
    /// Size of the sensor, where it is given.
    pub(super) size: Option<SensorSize>,
}

/// What the packets of a stream hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Events,
    Frames,
    Imu,
    Triggers,
    Other,
}

/// Most streams that a header may declare.
const MAX_STREAMS: usize = 256;

/// Most rows and columns of a sensor, as coordinates are 16-bit signed.
pub(super) const MAX_EXTENT: u16 = 1 << 15;

/// Most letters of an identifier that are kept; the standard ones have four.
const IDENTIFIER_CHARS: usize = 16;

/// Multiple of the address at which the schema's accessor wants to find the header.
const ALIGNMENT: usize = 8;

/// Offset from the header's only table to its vtable. The schema's verifier negates it, which the
/// least of all numbers does not survive.
fn vtable_offset(prefixed: &[u8]) -> Option<i32> {
    let root = u32::from_le_bytes(*prefixed.get(4..)?.first_chunk()?);
    let table = usize::try_from(root).ok()?.checked_add(4)?;
    Some(i32::from_le_bytes(*prefixed.get(table..)?.first_chunk()?))
}

impl Header {
    /// Reads the header without its length field; the error says what is wrong with it.
    pub(super) fn parse(bytes: &[u8]) -> std::result::Result<Self, String> {
        let mut aligned: Vec<u8> = Vec::with_capacity(ALIGNMENT + 4 + bytes.len());
        let pad = aligned.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        aligned.resize(pad, 0);
        aligned.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        aligned.extend_from_slice(bytes);
        let prefixed = &aligned[pad..];
        if !prefixed.get(8..).is_some_and(|b| b.starts_with(schema::IOHEADER_IDENTIFIER.as_bytes()))
        {
            return Err("its identifier is not IOHE".into());
        }
        if vtable_offset(prefixed) == Some(i32::MIN) {
            return Err("its table names no vtable".into());
        }
        let table = schema::size_prefixed_root_as_ioheader(prefixed)
            .map_err(|error| first_line(&error.to_string()))?;
        Ok(Header {
            compression: compression(table.compression().0)?,
            table_at: match table.file_data_position() {
                -1 => None,
                at => {
                    Some(u64::try_from(at).map_err(|_| format!("it puts the table at byte {at}"))?)
                }
            },
            streams: streams(table.description().ok_or("it lists no streams")?)?,
        })
    }

    pub(super) fn stream(&self, id: i32) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.id == id)
    }

    /// The stream asked for, or the first of events.
    pub(super) fn choose(&self, id: Option<i32>) -> Result<&Stream> {
        let is_events = |stream: &&Stream| stream.kind == Kind::Events;
        let Some(id) = id else {
            return self.streams.iter().find(is_events).ok_or_else(|| {
                Error::Unsupported(format!(
                    "no stream of the recording holds events: it has {}",
                    self.list()
                ))
            });
        };
        self.stream(id).filter(is_events).ok_or_else(|| {
            let found = self.stream(id).map_or("no such stream", |_| "a stream without events");
            Error::Usage(format!("stream {id} is {found}: the recording has {}", self.list()))
        })
    }

    /// The streams for people: `stream 0 (EVTS), stream 1 (FRME)`.
    pub(super) fn list(&self) -> String {
        if self.streams.is_empty() {
            return "no streams".into();
        }
        let names: Vec<String> = self
            .streams
            .iter()
            .map(|stream| format!("stream {} ({})", stream.id, stream.identifier))
            .collect();
        names.join(", ")
    }
}

fn compression(code: i32) -> std::result::Result<Compression, String> {
    match code {
        0 => Ok(Compression::None),
        1 => Ok(Compression::Lz4),
        2 => Ok(Compression::Lz4High),
        3 => Ok(Compression::Zstd),
        4 => Ok(Compression::ZstdHigh),
        _ => Err(format!("it names compression {code}, known are 0 to 4")),
    }
}

/// Reads `node outInfo / node ID / attr typeIdentifier` and `… / node info / attr sizeX, sizeY`.
fn streams(xml: &str) -> std::result::Result<Vec<Stream>, String> {
    let mut reader = Reader::from_str(xml);
    let mut found = Found::default();
    loop {
        match reader.read_event().map_err(|error| first_line(&error.to_string()))? {
            Xml::Start(element) => found.open(&element)?,
            Xml::Empty(element) => {
                found.open(&element)?;
                found.close()?;
            }
            Xml::Text(text) => found.text.push_str(&text),
            Xml::End(_) => found.close()?,
            Xml::Eof => break,
            _ => {}
        }
    }
    Ok(found.streams)
}

/// Where the reader stands in the XML, and what it has found.
#[derive(Default)]
struct Found {
    /// Names of the open nodes, keys of the open attributes, empty for other elements.
    path: Vec<String>,
    text: String,
    streams: Vec<Stream>,
    size_x: Option<u16>,
    size_y: Option<u16>,
}

impl Found {
    fn open(&mut self, element: &BytesStart) -> std::result::Result<(), String> {
        let attribute = match element.name().as_ref() {
            "node" => "name",
            "attr" => "key",
            _ => "",
        };
        let name = element
            .attributes()
            .with_checks(false)
            .flatten()
            .find(|a| !attribute.is_empty() && a.key.as_ref() == attribute)
            .map(|a| a.value.into_owned());
        self.path.push(name.unwrap_or_default());
        self.text.clear();
        match self.path.as_slice() {
            [root, out_info, id] if root.is_empty() && out_info == "outInfo" => {
                let id = id.parse::<i32>().ok();
                id.map_or(Ok(()), |id| self.declare(id))
            }
            _ => Ok(()),
        }
    }

    fn declare(&mut self, id: i32) -> std::result::Result<(), String> {
        if self.streams.iter().any(|stream| stream.id == id) {
            return Err(format!("it declares stream {id} twice"));
        }
        if self.streams.len() == MAX_STREAMS {
            return Err(format!("it declares more than {MAX_STREAMS} streams"));
        }
        self.streams.push(Stream { id, kind: Kind::Other, identifier: "?".into(), size: None });
        (self.size_x, self.size_y) = (None, None);
        Ok(())
    }

    fn close(&mut self) -> std::result::Result<(), String> {
        let value = self.text.trim();
        if let [_, out_info, id, inner @ ..] = self.path.as_slice()
            && out_info == "outInfo"
            && let Some(stream) = self.streams.last_mut().filter(|s| id.parse() == Ok(s.id))
        {
            match inner {
                [key] if key == "typeIdentifier" => {
                    stream.kind = kind(value);
                    stream.identifier = printable(value);
                }
                [info, key] if info == "info" => match key.as_str() {
                    "sizeX" => self.size_x = Some(extent("sizeX", value)?),
                    "sizeY" => self.size_y = Some(extent("sizeY", value)?),
                    _ => {}
                },
                _ => {}
            }
            stream.size =
                self.size_x.zip(self.size_y).map(|(width, height)| SensorSize { width, height });
        }
        self.path.pop();
        self.text.clear();
        Ok(())
    }
}

fn kind(identifier: &str) -> Kind {
    match identifier {
        "EVTS" => Kind::Events,
        "FRME" => Kind::Frames,
        "IMUS" => Kind::Imu,
        "TRIG" => Kind::Triggers,
        _ => Kind::Other,
    }
}

fn extent(key: &str, value: &str) -> std::result::Result<u16, String> {
    value.parse::<u16>().ok().filter(|n| (1..=MAX_EXTENT).contains(n)).ok_or_else(|| {
        format!("its {key} is {:?}, not a number from 1 to {MAX_EXTENT}", printable(value))
    })
}

fn printable(text: &str) -> String {
    let is_plain = |c: &char| c.is_ascii_graphic();
    text.chars().filter(is_plain).take(IDENTIFIER_CHARS).collect()
}

/// Libraries explain over several lines; an error here is one.
fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(xml: &str) -> String {
        match streams(xml) {
            Err(what) => what,
            Ok(streams) => streams
                .iter()
                .map(|s| {
                    let size = s.size.map_or("-".into(), |size| size.to_string());
                    format!("{} {} {size}", s.id, s.identifier)
                })
                .collect::<Vec<_>>()
                .join("; "),
        }
    }

    fn wrapped(streams: &str) -> String {
        format!(r#"<dv version="2.0"><node name="outInfo" path="/outInfo/">{streams}</node></dv>"#)
    }

    #[test]
    fn streams_are_read_from_the_tree() {
        let kind = |k: &str| format!(r#"<attr key="typeIdentifier" type="string">{k}</attr>"#);
        let info = |x: &str, y: &str| {
            format!(
                r#"<node name="info"><attr key="sizeX">{x}</attr><attr key="sizeY">{y}</attr></node>"#
            )
        };
        let node = |id: &str, inner: &str| format!(r#"<node name="{id}">{inner}</node>"#);
        let events = kind("EVTS") + &info("346", "260");
        let cases = [
            (wrapped(&node("0", &events)), "0 EVTS 346x260"),
            (
                wrapped(&(node("7", &kind("FRME")) + &node("-3", &events))),
                "7 FRME -; -3 EVTS 346x260",
            ),
            (
                wrapped(&(node("0", &events) + &node("1", &kind("EVTS")))),
                "0 EVTS 346x260; 1 EVTS -",
            ),
            (wrapped(&node("0", &(info("1", "32768") + &kind("EVTS")))), "0 EVTS 1x32768"),
            (wrapped(r#"<node name="4"/>"#), "4 ? -"),
            (wrapped(&node("x", &events)), ""),
            (node("0", &events), ""),
            (wrapped(&(node("0", "") + &node("0", ""))), "it declares stream 0 twice"),
            (
                wrapped(&node("0", &info("0", "1"))),
                "its sizeX is \"0\", not a number from 1 to 32768",
            ),
            (
                wrapped(&node("0", &info("1", "70000"))),
                "its sizeY is \"70000\", not a number from 1 to 32768",
            ),
            (
                wrapped(&(0..300).map(|id| node(&id.to_string(), "")).collect::<String>()),
                "it declares more than 256 streams",
            ),
        ];
        for (xml, expected) in cases {
            assert_eq!(listed(&xml), expected, "{xml}");
        }
    }

    #[test]
    fn hostile_xml_ends_in_time() {
        let n = 1 << 16;
        let many_attributes = format!("<node {}/>", "a=\"\" ".repeat(n));
        let deep = "<node>".repeat(n) + &"</node>".repeat(n);
        for (xml, expected) in [
            ("<node>".repeat(n), ""),
            (many_attributes, ""),
            ("&a;".repeat(n), ""),
            (wrapped(&format!("<node name=\"1\">{deep}</node>")), "1 ? -"),
        ] {
            assert_eq!(listed(&xml), expected);
        }
        assert!(streams(&"<!--".repeat(n)).is_err());
    }
}
