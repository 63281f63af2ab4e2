//! The two layouts in which faery sends events over UDP, little endian, without header or sequence
//! number.
//!
//! `t64_x16_y16_on8`, 13 bytes: t (8), x (2), y (2), 1 for ON (1).
//! `t32_x16_y15_on1`, 8 bytes: low half of t (4), x (2), then bit 15 unused, y (14), 1 for ON (1).

use super::clock::Unwrap32;
use super::datagram::DatagramFormat;
use super::records::{Layout, RecordDecoder, RecordEncoder, plausible};
use super::{Format, Match};
use crate::event::{Event, Polarity};

/// Row of the longer layout in [`super::FORMATS`].
pub const T64: Format = Format {
    name: T64Layout::NAME,
    title: "faery t64_x16_y16_on8 (13 bytes an event)",
    extensions: &["faery-t64"],
    probe: |_| Match::No,
    plausible: |bytes| plausible::<T64Layout, 13>(bytes),
    decoder: |_| Box::new(RecordDecoder::<T64Layout, 13>::stream()),
    encoder: Some(|_| Box::new(RecordEncoder::<T64Layout, 13>::new())),
    compressed: false,
    in_chip_order: false,
};

/// Row of the shorter layout in [`super::FORMATS`].
pub const T32: Format = Format {
    name: T32Layout::NAME,
    title: "faery t32_x16_y15_on1 (8 bytes an event)",
    extensions: &["faery-t32"],
    probe: |_| Match::No,
    plausible: |bytes| plausible::<T32Layout, 8>(bytes),
    decoder: |_| Box::new(RecordDecoder::<T32Layout, 8>::stream()),
    encoder: Some(|_| Box::new(RecordEncoder::<T32Layout, 8>::new())),
    compressed: false,
    in_chip_order: false,
};

/// Row of the longer layout in [`super::DATAGRAMS`].
pub const T64_DATAGRAMS: DatagramFormat = DatagramFormat {
    name: T64.name,
    title: T64.title,
    decoder: |_| Box::new(RecordDecoder::<T64Layout, 13>::datagrams()),
    encoder: |_| Box::new(RecordEncoder::<T64Layout, 13>::new()),
};

/// Row of the shorter layout in [`super::DATAGRAMS`].
pub const T32_DATAGRAMS: DatagramFormat = DatagramFormat {
    name: T32.name,
    title: T32.title,
    decoder: |_| Box::new(RecordDecoder::<T32Layout, 8>::datagrams()),
    encoder: |_| Box::new(RecordEncoder::<T32Layout, 8>::new()),
};

struct T64Layout;

impl Layout<13> for T64Layout {
    const NAME: &'static str = "faery-t64";
    const BOUNDS: &'static str = "times go to 2^63 - 1 µs";
    const KEEPS_32_BITS: bool = false;

    #[inline]
    fn event(bytes: &[u8; 13], _: &mut Unwrap32) -> Option<Event> {
        let [t @ .., x0, x1, y0, y1, on] = *bytes;
        let t_us = u64::from_le_bytes(t);
        (t_us <= Event::MAX_T_US && on <= 1).then(|| Event {
            t_us,
            x: u16::from_le_bytes([x0, x1]),
            y: u16::from_le_bytes([y0, y1]),
            polarity: Polarity::from_on(on == 1),
        })
    }

    fn bytes(event: &Event) -> Option<[u8; 13]> {
        let mut bytes = [0; 13];
        bytes[..8].copy_from_slice(&event.t_us.to_le_bytes());
        bytes[8..10].copy_from_slice(&event.x.to_le_bytes());
        bytes[10..12].copy_from_slice(&event.y.to_le_bytes());
        bytes[12] = event.polarity as u8;
        (event.t_us <= Event::MAX_T_US).then_some(bytes)
    }
}

struct T32Layout;

impl Layout<8> for T32Layout {
    const NAME: &'static str = "faery-t32";
    const BOUNDS: &'static str = "y goes to 16383";
    const KEEPS_32_BITS: bool = true;

    #[inline]
    fn event(bytes: &[u8; 8], clock: &mut Unwrap32) -> Option<Event> {
        let [t @ .., x0, x1, y0, y1] = *bytes;
        let y_on = u16::from_le_bytes([y0, y1]);
        (y_on >> 15 == 0).then(|| Event {
            t_us: clock.unwrap(u32::from_le_bytes(t)),
            x: u16::from_le_bytes([x0, x1]),
            y: y_on >> 1,
            polarity: Polarity::from_on(y_on & 1 == 1),
        })
    }

    fn bytes(event: &Event) -> Option<[u8; 8]> {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&(event.t_us as u32).to_le_bytes());
        bytes[4..6].copy_from_slice(&event.x.to_le_bytes());
        let y_on = event.y.checked_mul(2)? | event.polarity as u16;
        bytes[6..].copy_from_slice(&y_on.to_le_bytes());
        (event.y < 1 << 14).then_some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: Event =
        Event { t_us: 1_589_163_147_368_868, x: 215, y: 164, polarity: Polarity::On };
    const T64_BYTES: [u8; 13] =
        [0xA4, 0x99, 0xE3, 0xE0, 0x55, 0xA5, 0x05, 0x00, 0xD7, 0x00, 0xA4, 0x00, 0x01];
    const T32_BYTES: [u8; 8] = [0xA4, 0x99, 0xE3, 0xE0, 0xD7, 0x00, 0x49, 0x01];

    #[test]
    fn an_event_lies_as_faery_lays_it() {
        let low = Event { t_us: EVENT.t_us & 0xFFFF_FFFF, ..EVENT };
        assert_eq!(T64Layout::event(&T64_BYTES, &mut Unwrap32::new()), Some(EVENT));
        assert_eq!(T32Layout::event(&T32_BYTES, &mut Unwrap32::new()), Some(low));
        assert_eq!(T64Layout::bytes(&EVENT), Some(T64_BYTES));
        assert_eq!(T32Layout::bytes(&EVENT), Some(T32_BYTES));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(T32Layout::bytes(&Event { y: 1 << 14, ..EVENT }), None);
        assert_eq!(T32Layout::bytes(&Event { y: u16::MAX, ..EVENT }), None);
        assert_eq!(T64Layout::bytes(&Event { t_us: 1 << 63, ..EVENT }), None);
    }

    #[test]
    fn what_is_no_event_is_counted() {
        let late = [[0xFF; 8].as_slice(), &[0, 0, 0, 0, 1]].concat();
        let odd = [&T64_BYTES[..12], &[2]].concat();
        let datagram = [&T64_BYTES, late.as_slice(), &odd, &T64_BYTES, &T64_BYTES[..5]].concat();
        let mut decoder = (T64_DATAGRAMS.decoder)(None);
        let mut events = Vec::new();
        decoder.feed(&datagram, &mut events).expect("datagrams never fail");
        decoder.feed(&T64_BYTES, &mut events).expect("datagrams never fail");
        assert_eq!(
            events,
            [EVENT, Event::MALFORMED, Event::MALFORMED, EVENT, Event::MALFORMED, EVENT]
        );
        assert_eq!(decoder.tally().malformed, 3);

        let mut decoder = (T32_DATAGRAMS.decoder)(None);
        let mut high = T32_BYTES;
        high[7] |= 0x80;
        decoder.feed(&[T32_BYTES, high].concat(), &mut events).expect("datagrams never fail");
        let low = Event { t_us: EVENT.t_us & 0xFFFF_FFFF, ..EVENT };
        assert_eq!(events[6..], [low, Event::MALFORMED]);
        assert_eq!(decoder.tally().malformed, 1);
    }
}
