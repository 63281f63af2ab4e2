//! The table of packets that ends an AEDAT 4 file, for readers that seek to a time.
//!
//! Written only: this decoder reads packets in order. The schema crate has none for it, so its
//! fields stand here.

use flatbuffers::{FlatBufferBuilder, Push, TableFinishedWIPOffset, WIPOffset};

/// Identifier of the flatbuffer.
pub(super) const IDENTIFIER: &[u8] = b"FTAB";

/// One packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// Offset in the file of the payload, after the packet's header.
    pub(super) payload_at: u64,
    /// Bytes of the payload.
    pub(super) n_bytes: u32,
    /// Events in it.
    pub(super) n_events: u64,
    /// Least and greatest time of its events.
    pub(super) span_us: [u64; 2],
}

/// The stream and size of a packet, as a struct of the flatbuffer.
struct PacketInfo {
    stream_id: i32,
    n_bytes: u32,
}

impl Push for PacketInfo {
    /// For its size and alignment.
    type Output = [u32; 2];

    fn push(&self, bytes: &mut [u8], _rest: &[u8]) {
        let (stream_id, n_bytes) = bytes.split_at_mut(4);
        stream_id.copy_from_slice(&self.stream_id.to_le_bytes());
        n_bytes.copy_from_slice(&self.n_bytes.to_le_bytes());
    }
}

/// Field `k` of a table stands at vtable offset 4 + 2k.
const fn field(k: u16) -> u16 {
    4 + 2 * k
}

/// The size-prefixed table of packets of stream `stream_id`.
pub(super) fn build(stream_id: i32, rows: &[Row]) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::new();
    let rows: Vec<_> = rows.iter().map(|row| build_row(&mut builder, stream_id, row)).collect();
    let rows = builder.create_vector(&rows);
    let table = builder.start_table();
    builder.push_slot_always(field(0), rows);
    let table = builder.end_table(table);
    builder.finish_size_prefixed(table, std::str::from_utf8(IDENTIFIER).ok());
    builder.finished_data().to_vec()
}

fn build_row<'a>(
    builder: &mut FlatBufferBuilder<'a>,
    stream_id: i32,
    row: &Row,
) -> WIPOffset<TableFinishedWIPOffset> {
    let table = builder.start_table();
    builder.push_slot_always(field(4), row.span_us[1] as i64);
    builder.push_slot_always(field(3), row.span_us[0] as i64);
    builder.push_slot_always(field(2), row.n_events as i64);
    builder.push_slot_always(field(0), row.payload_at as i64);
    builder.push_slot_always(field(1), PacketInfo { stream_id, n_bytes: row.n_bytes });
    builder.end_table(table)
}
