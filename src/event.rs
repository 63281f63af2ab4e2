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

    /// Coordinate of an event that the view has put outside the model's sensor: its time still
    /// counts, its pixel does not.
    pub const OUTSIDE: u16 = u16::MAX;
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
        let number = |text: &str| text.parse::<u16>().ok().filter(|n| (1..u16::MAX).contains(n));
        text.split_once('x')
            .and_then(|(w, h)| Some(SensorSize { width: number(w)?, height: number(h)? }))
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
