//! The chips that AEDAT 1.0 and 2.0 know: their address layouts and their sensors.
//!
//! Bits are those of jAER's event extractors. Knows nothing of headers or times.

use crate::event::{Event, Polarity, SensorSize};

/// Where a chip's address holds x, y and polarity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    Dvs128,
    Davis,
}

impl Layout {
    /// Address bits that only words beside polarity events have set. DVS128: the external bit
    /// and all that its 15 bits leave over. DAVIS: image or inertial word, external input.
    pub(super) const fn aside(self) -> u32 {
        match self {
            Layout::Dvs128 => 0xFFFF_8000,
            Layout::Davis => 0x8000_0400,
        }
    }

    #[inline(always)]
    pub(super) fn event(self, address: u32, t_us: u64) -> Event {
        let (x, y, on) = match self {
            Layout::Dvs128 => ((address >> 1) & 0x7F, (address >> 8) & 0x7F, address & 1 == 0),
            Layout::Davis => {
                ((address >> 12) & 0x3FF, (address >> 22) & 0x1FF, address & 0x800 != 0)
            }
        };
        Event { t_us, x: x as u16, y: y as u16, polarity: Polarity::from_on(on) }
    }

    pub(super) fn address(self, event: &Event) -> Option<u32> {
        let (x, y) = (u32::from(event.x), u32::from(event.y));
        let on = u32::from(event.polarity == Polarity::On);
        match self {
            Layout::Dvs128 if x < 128 && y < 128 => Some(y << 8 | x << 1 | (1 - on)),
            Layout::Davis if x < 1024 && y < 512 => Some(y << 22 | x << 12 | on << 11),
            _ => None,
        }
    }
}

/// A chip that a header may name.
pub(super) struct Chip {
    /// How the last part of its Java class begins, lower case.
    names: &'static [&'static str],
    pub(super) layout: Layout,
    pub(super) size: SensorSize,
    /// Class that the writer names.
    pub(super) class: &'static str,
}

const fn size(width: u16, height: u16) -> SensorSize {
    SensorSize { width, height }
}

pub(super) const CHIPS: &[Chip] = &[
    Chip {
        names: &["dvs128", "tmpdiff128"],
        layout: Layout::Dvs128,
        size: size(128, 128),
        class: "ch.unizh.ini.jaer.chip.retina.DVS128",
    },
    Chip {
        names: &["davis240", "sbret10", "sbret20"],
        layout: Layout::Davis,
        size: size(240, 180),
        class: "eu.seebetter.ini.chips.davis.DAVIS240C",
    },
    Chip {
        names: &["davis346"],
        layout: Layout::Davis,
        size: size(346, 260),
        class: "eu.seebetter.ini.chips.davis.Davis346blue",
    },
    Chip {
        names: &["davis640"],
        layout: Layout::Davis,
        size: size(640, 480),
        class: "eu.seebetter.ini.chips.davis.Davis640",
    },
];

impl Chip {
    /// The chip of this Java class.
    pub(super) fn of_class(class: &str) -> Option<&'static Chip> {
        let name = class.rsplit('.').next().unwrap_or(class).to_ascii_lowercase();
        CHIPS.iter().find(|chip| chip.names.iter().any(|known| name.starts_with(known)))
    }
}
