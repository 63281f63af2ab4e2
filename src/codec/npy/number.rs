//! Numbers as NumPy stores them, of any width and byte order.
//!
//! Knows nothing of events: a number is whole, a fraction, or beyond 64 bits.

use crate::error::{Error, Result};

/// A number's type and byte order.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    big_endian: bool,
    scalar: Scalar,
}

#[derive(Clone, Copy)]
enum Scalar {
    Signed(usize),
    Unsigned(usize),
    Float32,
    Float64,
}

/// A number as an event may need it.
#[derive(Clone, Copy)]
pub(super) enum Number {
    Whole(i64),
    /// Beyond 64 bits, infinite or no number.
    Beyond,
    Fraction(f64),
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Number::Whole(n) => n.fmt(f),
            Number::Beyond => "beyond all bounds".fmt(f),
            Number::Fraction(n) => n.fmt(f),
        }
    }
}

impl Kind {
    pub(super) fn parse(text: &str) -> Result<Kind> {
        let scalar = match text.trim_start_matches(['<', '>', '|', '=']) {
            "b1" | "?" | "u1" => Scalar::Unsigned(1),
            "u2" => Scalar::Unsigned(2),
            "u4" => Scalar::Unsigned(4),
            "u8" => Scalar::Unsigned(8),
            "i1" => Scalar::Signed(1),
            "i2" => Scalar::Signed(2),
            "i4" => Scalar::Signed(4),
            "i8" => Scalar::Signed(8),
            "f4" => Scalar::Float32,
            "f8" => Scalar::Float64,
            _ => {
                return Err(Error::Unsupported(format!(
                    "numbers of the type `{}`; read are bool, integers of 8 to 64 bits, float32 and float64",
                    text.escape_default()
                )));
            }
        };
        Ok(Kind { big_endian: text.starts_with('>'), scalar })
    }

    pub(super) fn n_bytes(self) -> usize {
        match self.scalar {
            Scalar::Signed(n) | Scalar::Unsigned(n) => n,
            Scalar::Float32 => 4,
            Scalar::Float64 => 8,
        }
    }

    /// The number at the start of `bytes`.
    #[inline]
    pub(super) fn read(self, bytes: &[u8]) -> Number {
        let n = self.n_bytes();
        let mut wide = [0; 8];
        match (wide.get_mut(..n), bytes.get(..n)) {
            (Some(wide), Some(bytes)) => wide.copy_from_slice(bytes),
            _ => return Number::Beyond,
        }
        if self.big_endian {
            wide[..n].reverse();
        }
        let bits = u64::from_le_bytes(wide);
        match self.scalar {
            Scalar::Unsigned(_) => i64::try_from(bits).map_or(Number::Beyond, Number::Whole),
            Scalar::Signed(_) => {
                let shift = 64 - 8 * n as u32;
                Number::Whole((bits << shift) as i64 >> shift)
            }
            Scalar::Float32 => whole(f64::from(f32::from_bits(bits as u32))),
            Scalar::Float64 => whole(f64::from_bits(bits)),
        }
    }
}

impl Kind {
    /// Reads a number each `stride` bytes into `out`; false where one is missing or not whole.
    pub(super) fn read_column(self, bytes: &[u8], stride: usize, out: &mut [i64]) -> bool {
        let big = self.big_endian;
        macro_rules! column {
            ($number:ty, $whole:expr) => {
                each(bytes, stride, out, |bytes| {
                    let whole: fn($number) -> Option<i64> = $whole;
                    whole(if big {
                        <$number>::from_be_bytes(bytes)
                    } else {
                        <$number>::from_le_bytes(bytes)
                    })
                })
            };
        }
        match self.scalar {
            Scalar::Unsigned(1) => column!(u8, |n| Some(n.into())),
            Scalar::Unsigned(2) => column!(u16, |n| Some(n.into())),
            Scalar::Unsigned(4) => column!(u32, |n| Some(n.into())),
            Scalar::Unsigned(_) => column!(u64, |n| n.try_into().ok()),
            Scalar::Signed(1) => column!(i8, |n| Some(n.into())),
            Scalar::Signed(2) => column!(i16, |n| Some(n.into())),
            Scalar::Signed(4) => column!(i32, |n| Some(n.into())),
            Scalar::Signed(_) => column!(i64, Some),
            Scalar::Float32 => column!(f32, |n| exact(n.into())),
            Scalar::Float64 => column!(f64, exact),
        }
    }
}

#[inline(always)]
fn each<const N: usize>(
    bytes: &[u8],
    stride: usize,
    out: &mut [i64],
    whole: impl Fn([u8; N]) -> Option<i64>,
) -> bool {
    let mut items = bytes.chunks(stride);
    out.iter_mut().all(|out| {
        let number =
            items.next().and_then(|item| item.first_chunk::<N>()).and_then(|item| whole(*item));
        *out = number.unwrap_or(0);
        number.is_some()
    })
}

fn exact(number: f64) -> Option<i64> {
    let whole = number as i64;
    // The cast saturates: i64::MAX stands for all that lies beyond.
    (whole as f64 == number && whole != i64::MAX).then_some(whole)
}

fn whole(number: f64) -> Number {
    const LIMIT: f64 = i64::MAX as f64;
    if !number.is_finite() || number.abs() >= LIMIT {
        Number::Beyond
    } else if number.fract() != 0.0 {
        Number::Fraction(number)
    } else {
        Number::Whole(number as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, Number};

    #[test]
    fn widths_signs_and_byte_orders() {
        let cases: &[(&str, &[u8], &str)] = &[
            ("|b1", &[1], "1"),
            ("|u1", &[255], "255"),
            ("|i1", &[255], "-1"),
            ("<i2", &[0xFE, 0xFF], "-2"),
            (">i2", &[0x01, 0x02], "258"),
            ("<u4", &[0xFF, 0xFF, 0xFF, 0xFF], "4294967295"),
            ("<i4", &[0xFF, 0xFF, 0xFF, 0xFF], "-1"),
            (">i8", &[0, 0, 0, 0, 0, 0, 1, 0], "256"),
            ("<u8", &[255; 8], "beyond all bounds"),
            ("<f4", &[0, 0, 0x80, 0x3F], "1"),
            (">f8", &[0x3F, 0xF8, 0, 0, 0, 0, 0, 0], "1.5"),
            ("<f8", &[0, 0, 0, 0, 0, 0, 0xF8, 0x7F], "beyond all bounds"),
            ("<f8", &[0, 0, 0, 0, 0, 0, 0xE0, 0x43], "beyond all bounds"),
            ("<i4", &[1], "beyond all bounds"),
        ];
        for (kind, bytes, expected) in cases {
            let number: Number = Kind::parse(kind).unwrap().read(bytes);
            assert_eq!(number.to_string(), *expected, "{kind} {bytes:?}");
        }
        for (kind, bytes, expected) in cases {
            let mut number = [0];
            let is_whole = Kind::parse(kind).unwrap().read_column(bytes, 8, &mut number);
            let plain = expected.parse() == Ok(number[0]);
            assert_eq!(is_whole, plain && !expected.contains('.'), "{kind} {bytes:?}");
        }
        for kind in ["", "<f2", "<c8", "|O", "<M8[us]", "<i16"] {
            assert!(Kind::parse(kind).is_err(), "{kind}");
        }
    }
}
