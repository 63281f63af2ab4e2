//! Makes AEDAT 4 files: good ones by the encoder, odd ones part by part.

use aedat::base::ioheader_generated as schema;
use dvs_stream::codec::aedat4::Aedat4Encoder;
use dvs_stream::codec::{Compression, Encoder, EncoderOptions};
use dvs_stream::event::{Event, Polarity, SensorSize};
use flatbuffers::FlatBufferBuilder;

pub const SENSOR: SensorSize = SensorSize { width: 346, height: 260 };

/// `n` different events in order of time.
pub fn events(n: usize) -> Vec<Event> {
    (0..n as u64)
        .map(|k| Event {
            t_us: 1_589_163_147_368_868 + 3 * k,
            x: (k * 7 % 346) as u16,
            y: (k * k % 260) as u16,
            polarity: Polarity::from_on(k % 3 == 0),
        })
        .collect()
}

/// A whole file; without `patched`, as an output that cannot seek would leave it.
pub fn encoded(events: &[Event], compression: Compression, patched: bool) -> Vec<u8> {
    let mut encoder = Aedat4Encoder::new(&EncoderOptions { sensor: Some(SENSOR), compression });
    let mut bytes = Vec::new();
    for part in events.chunks(1234) {
        encoder.encode(part, &mut bytes).unwrap();
    }
    let patch = encoder.finish(&mut bytes).unwrap().unwrap();
    if patched {
        bytes[patch.offset as usize..][..patch.bytes.len()].copy_from_slice(&patch.bytes);
    }
    bytes
}

/// One `node` of the header's list; without a size if `sensor` is `None`.
pub fn stream(id: i32, identifier: &str, sensor: Option<SensorSize>) -> String {
    let size = sensor.map_or(String::new(), |SensorSize { width, height }| {
        format!(
            r#"<node name="info"><attr key="sizeX">{width}</attr><attr key="sizeY">{height}</attr></node>"#
        )
    });
    format!(r#"<node name="{id}"><attr key="typeIdentifier">{identifier}</attr>{size}</node>"#)
}

/// Mark and header with these streams.
pub fn opening(compression: i32, table_at: i64, streams: &[String]) -> Vec<u8> {
    let xml = format!(r#"<dv version="2.0"><node name="outInfo">{}</node></dv>"#, streams.concat());
    let mut builder = FlatBufferBuilder::new();
    let description = Some(builder.create_string(&xml));
    let compression = schema::Compression(compression);
    let arguments = schema::IoheaderArgs { compression, file_data_position: table_at, description };
    let root = schema::Ioheader::create(&mut builder, &arguments);
    schema::finish_size_prefixed_ioheader_buffer(&mut builder, root);
    [b"#!AER-DAT4.0\r\n", builder.finished_data()].concat()
}

/// A packet with its header.
pub fn packet(id: i32, payload: &[u8]) -> Vec<u8> {
    [&id.to_le_bytes()[..], &(payload.len() as u32).to_le_bytes(), payload].concat()
}

/// An uncompressed payload, as the flatbuffer library lays it out.
pub fn payload(events: &[(i64, i16, i16, bool)]) -> Vec<u8> {
    use aedat::events_generated as schema;
    let events: Vec<_> =
        events.iter().map(|&(t, x, y, on)| schema::Event::new(t, x, y, on)).collect();
    let mut builder = FlatBufferBuilder::new();
    let elements = Some(builder.create_vector_direct(&events));
    let root = schema::EventPacket::create(&mut builder, &schema::EventPacketArgs { elements });
    schema::finish_size_prefixed_event_packet_buffer(&mut builder, root);
    builder.finished_data().to_vec()
}
