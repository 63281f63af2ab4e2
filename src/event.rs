//! The words of the event camera: event, polarity, sensor.
//!
//! Knows nothing of formats, windows or networks.

/// Sign of a brightness change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Polarity {
    /// The pixel became darker.
    Off = 0,
    /// The pixel became brighter.
    On = 1,
}

impl Polarity {
    /// `On` where `on` holds.
    pub fn from_on(on: bool) -> Self {
        if on { Polarity::On } else { Polarity::Off }
    }

    /// The other polarity.
    pub fn inverted(self) -> Self {
        Polarity::from_on(self == Polarity::Off)
    }
}

/// One change of brightness at one pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Event {
    /// Sensor time in µs; at most [`Event::MAX_T_US`], or it is malformed.
    pub t_us: u64,
    /// Column.
    pub x: u16,
    /// Row.
    pub y: u16,
    /// Sign of the change.
    pub polarity: Polarity,
}

impl Event {
    /// Latest time that any format can hold (signed 64 bits).
    pub const MAX_T_US: u64 = i64::MAX as u64;

    /// Stands in a stream where an event cannot be one, so that it is missed where it was.
    pub const MALFORMED: Event = Event { t_us: u64::MAX, x: 0, y: 0, polarity: Polarity::Off };

    /// Whether its time is one that none can have.
    #[inline]
    pub fn is_malformed(&self) -> bool {
        self.t_us > Event::MAX_T_US
    }

    /// Coordinate of an event that has no pixel, be it that a recording gives it one that no sensor
    /// has, or that the view has put it outside the model's: its time still counts.
    pub const OUTSIDE: u16 = u16::MAX;

    /// Whether any sensor could have its pixel.
    #[inline]
    pub fn has_pixel(&self) -> bool {
        self.x != Event::OUTSIDE && self.y != Event::OUTSIDE
    }
}

/// Width and height of a sensor in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct SensorSize {
    /// Columns, at least 1.
    pub width: u16,
    /// Rows, at least 1.
    pub height: u16,
}

impl SensorSize {
    /// Greatest side; [`Event::OUTSIDE`] is no sensor's.
    pub const MAX_SIDE: u16 = u16::MAX - 1;

    /// Whether each side has from 1 to [`SensorSize::MAX_SIDE`] pixels.
    pub fn is_possible(self) -> bool {
        [self.width, self.height].iter().all(|side| (1..=Self::MAX_SIDE).contains(side))
    }

    /// Number of pixels.
    pub fn pixels(self) -> usize {
        usize::from(self.width) * usize::from(self.height)
    }

    /// Number of addresses, that is of input neurons: both polarities of every pixel.
    pub fn addresses(self) -> usize {
        2 * self.pixels()
    }

    /// Address of an event, `p·height·width + y·width + x`, or `None` outside the sensor.
    #[inline]
    pub fn address(self, event: &Event) -> Option<u32> {
        let inside = event.x < self.width && event.y < self.height;
        let pixel = u32::from(event.y) * u32::from(self.width) + u32::from(event.x);
        inside.then(|| event.polarity as u32 * self.pixels() as u32 + pixel)
    }
}

impl std::str::FromStr for SensorSize {
    type Err = String;

    /// `35x35`.
    fn from_str(text: &str) -> Result<Self, String> {
        text.split_once('x')
            .and_then(|(w, h)| Some(SensorSize { width: w.parse().ok()?, height: h.parse().ok()? }))
            .filter(|size| size.is_possible())
            .ok_or_else(|| "expected WIDTHxHEIGHT in pixels, as 346x260".to_owned())
    }
}

impl std::fmt::Display for SensorSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// What a recording says of the sensor that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Sensor {
    /// Its size, where the recording names one.
    pub size: Option<SensorSize>,
    /// Stored columns run from right to left: `--orient upright` turns them.
    pub mirrored_x: bool,
    /// Stored rows run from the bottom up: `--orient upright` turns them.
    pub mirrored_y: bool,
    /// The stored polarity bit is 0 for `On`, as the decoder has read it.
    pub on_is_zero: bool,
}
