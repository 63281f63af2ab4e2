//! The view: maps a recording's pixels onto the model's sensor, or says that they lie outside.
//!
//! Polarity, orientation, flips, crop and scale are part of what a network was trained on, so they
//! travel with the model. Knows events only; neither formats nor windows.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::event::{Event, Sensor, SensorSize};

/// Which value of the stored polarity bit means `On`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolarityBit {
    /// A stored 0 is `On`. The alias, as below, stands in older model files.
    #[serde(rename = "on-is-0", alias = "on-is0")]
    OnIs0,
    /// A stored 1 is `On`.
    #[serde(rename = "on-is-1", alias = "on-is1")]
    OnIs1,
}

/// Which way up the image is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Orient {
    /// Columns and rows as the recording stores them.
    #[default]
    Stored,
    /// The chip's origin turned to the image's upper left corner.
    Upright,
}

/// A rectangle of pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crop {
    /// First column.
    pub x: u16,
    /// First row.
    pub y: u16,
    /// Columns, at least 1.
    pub width: u16,
    /// Rows, at least 1.
    pub height: u16,
}

impl Crop {
    /// `none`, or `X,Y,W,H`.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> std::result::Result<Option<Self>, String> {
        (text != "none").then(|| text.parse()).transpose()
    }
}

impl std::str::FromStr for Crop {
    type Err = String;

    /// `X,Y,W,H`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let numbers: Option<Vec<u16>> = text.split(',').map(|n| n.trim().parse().ok()).collect();
        match numbers.as_deref() {
            Some([x, y, width, height]) if *width > 0 && *height > 0 => {
                Ok(Crop { x: *x, y: *y, width: *width, height: *height })
            }
            _ => Err("expected X,Y,WIDTH,HEIGHT in pixels, as 100,80,35,35".to_owned()),
        }
    }
}

/// What a user asks of a view; applied in the order of the fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ViewSpec {
    /// Size of the recording's sensor, in place of what the recording says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sensor: Option<SensorSize>,
    /// Size of the sensor where neither the recording nor the user names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unnamed_sensor: Option<SensorSize>,
    /// Meaning of the stored polarity bit; the format's own where none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub polarity: Option<PolarityBit>,
    /// Which way up.
    pub orient: Orient,
    /// Mirror the columns.
    pub flip_x: bool,
    /// Mirror the rows.
    pub flip_y: bool,
    /// Swap columns and rows.
    pub transpose: bool,
    /// Keep only this part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crop: Option<Crop>,
    /// Map what is left onto the model's sensor: x' = ⌊x·W_model / W⌋.
    pub scale: bool,
}

impl ViewSpec {
    /// The size of a recording's sensor, where it is known; `named` is what the recording says.
    pub fn size(&self, named: Option<SensorSize>) -> Option<SensorSize> {
        self.sensor.or(named).or(self.unnamed_sensor)
    }

    /// What the view leaves of a sensor before scaling, where that is known.
    pub fn seen(&self, named: Option<SensorSize>) -> Option<SensorSize> {
        match self.crop {
            Some(Crop { width, height, .. }) => Some(SensorSize { width, height }),
            None => self.size(named).map(|own| if self.transpose { transposed(own) } else { own }),
        }
    }

    /// The view as a model keeps it: the size that was asked for these recordings stands only for
    /// those that name none, so that another camera's is not taken for it.
    pub fn kept(self) -> Self {
        ViewSpec { sensor: None, unnamed_sensor: self.size(None), ..self }
    }
}

/// A view settled for one recording and one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    invert: bool,
    pixels: Option<Tables>,
}

/// Where each stored coordinate goes; [`Event::OUTSIDE`] where it has no place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tables {
    transpose: bool,
    columns: Vec<u16>,
    rows: Vec<u16>,
}

impl View {
    /// Settles what a user asked against what the recording says and the model needs. A recording
    /// that names no size is taken to have the model's, or to reach as far as the crop does.
    ///
    /// # Errors
    /// [`Error::Mismatch`] where the view's result has another size than the model's sensor, the
    /// crop lies outside the recording's, or what is mirrored before it has no known size.
    pub fn new(spec: &ViewSpec, sensor: &Sensor, model: SensorSize) -> Result<View> {
        let known = spec.size(sensor.size);
        let seen = match (known, spec.crop) {
            (Some(size), _) if spec.transpose => transposed(size),
            (Some(size), _) => size,
            (None, Some(crop)) => reached(crop),
            (None, None) => model,
        };
        let upright = spec.orient == Orient::Upright;
        let mut mirror_columns = (upright && sensor.mirrored_x) != spec.flip_x;
        let mut mirror_rows = (upright && sensor.mirrored_y) != spec.flip_y;
        if spec.transpose {
            std::mem::swap(&mut mirror_columns, &mut mirror_rows);
        }
        if known.is_none() && spec.crop.is_some() && (mirror_columns || mirror_rows) {
            return Err(Error::Mismatch(
                "the recording names no sensor size, without which it cannot be mirrored before \
                 --crop: give it with --sensor WxH"
                    .to_owned(),
            ));
        }
        let crop = settle_crop(spec.crop, seen)?;
        let size = SensorSize { width: crop.width, height: crop.height };
        let scale = spec.scale && (known.is_some() || spec.crop.is_some());
        if size != model && !scale {
            return Err(mismatch(spec, known, size, model));
        }
        let columns = Axis {
            stored: seen.width,
            mirror: mirror_columns,
            from: crop.x,
            kept: crop.width,
            onto: model.width,
        };
        let rows = Axis {
            stored: seen.height,
            mirror: mirror_rows,
            from: crop.y,
            kept: crop.height,
            onto: model.height,
        };
        let same = !spec.transpose && columns.is_identity() && rows.is_identity();
        let tables =
            || Tables { transpose: spec.transpose, columns: columns.table(), rows: rows.table() };
        let stored_bit = if sensor.on_is_zero { PolarityBit::OnIs0 } else { PolarityBit::OnIs1 };
        Ok(View {
            invert: spec.polarity.is_some_and(|bit| bit != stored_bit),
            pixels: (!same).then(tables),
        })
    }

    /// Maps events in place. One without a place on the model's sensor keeps its time and gets
    /// the coordinates [`Event::OUTSIDE`].
    pub fn apply(&self, events: &mut [Event]) {
        if self.invert {
            for event in events.iter_mut() {
                event.polarity = event.polarity.inverted();
            }
        }
        let Some(tables) = &self.pixels else { return };
        for event in events {
            let (x, y) = if tables.transpose { (event.y, event.x) } else { (event.x, event.y) };
            let place = |table: &[u16], k: u16| {
                table.get(usize::from(k)).copied().unwrap_or(Event::OUTSIDE)
            };
            (event.x, event.y) = (place(&tables.columns, x), place(&tables.rows, y));
        }
    }
}

/// One direction of the view, from the stored (or transposed) coordinate on.
struct Axis {
    stored: u16,
    mirror: bool,
    from: u16,
    kept: u16,
    onto: u16,
}

impl Axis {
    fn is_identity(&self) -> bool {
        !self.mirror && self.from == 0 && self.kept == self.stored && self.kept == self.onto
    }

    fn table(&self) -> Vec<u16> {
        let place = |stored: u16| {
            let turned = if self.mirror { self.stored - 1 - stored } else { stored };
            let cut = turned.checked_sub(self.from).filter(|k| *k < self.kept)?;
            Some((u32::from(cut) * u32::from(self.onto) / u32::from(self.kept)) as u16)
        };
        (0..self.stored).map(|k| place(k).unwrap_or(Event::OUTSIDE)).collect()
    }
}

fn transposed(size: SensorSize) -> SensorSize {
    SensorSize { width: size.height, height: size.width }
}

/// The smallest sensor that has all of the crop.
fn reached(crop: Crop) -> SensorSize {
    let Crop { x, y, width, height } = crop;
    SensorSize { width: x.saturating_add(width), height: y.saturating_add(height) }
}

fn settle_crop(crop: Option<Crop>, seen: SensorSize) -> Result<Crop> {
    let Some(crop) = crop else {
        return Ok(Crop { x: 0, y: 0, width: seen.width, height: seen.height });
    };
    let fits = |from: u16, kept: u16, of: u16| u32::from(from) + u32::from(kept) <= u32::from(of);
    if !(fits(crop.x, crop.width, seen.width) && fits(crop.y, crop.height, seen.height)) {
        return Err(Error::Mismatch(format!(
            "the crop {},{},{},{} reaches beyond the recording's sensor of {seen} pixels",
            crop.x, crop.y, crop.width, crop.height
        )));
    }
    Ok(crop)
}

fn mismatch(
    spec: &ViewSpec,
    known: Option<SensorSize>,
    left: SensorSize,
    model: SensorSize,
) -> Error {
    let what = match known {
        Some(size) if size == left => format!("the recording's sensor has {size} pixels"),
        _ => format!("the view leaves {left} pixels"),
    };
    let as_trained = spec.unnamed_sensor.filter(|size| Some(*size) != known);
    let as_trained = as_trained.map_or(String::new(), |size| {
        format!(
            ", or take it for the sensor of {size} that the model was trained with by --sensor \
             {size}"
        )
    });
    Error::Mismatch(format!(
        "{what}, the model's {model}: cut a part of that size out with \
         --crop X,Y,{},{}, or map all of it with --scale{as_trained}",
        model.width, model.height
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Polarity;

    const MODEL: SensorSize = SensorSize { width: 4, height: 3 };

    fn sensor(size: Option<(u16, u16)>) -> Sensor {
        Sensor {
            size: size.map(|(width, height)| SensorSize { width, height }),
            mirrored_x: true,
            mirrored_y: true,
            on_is_zero: true,
        }
    }

    type Case = ((u16, u16), Option<(u16, u16)>);

    fn check(spec: ViewSpec, size: Option<(u16, u16)>, cases: &[Case]) {
        let view = View::new(&spec, &sensor(size), MODEL).unwrap();
        for ((x, y), expected) in cases {
            let mut events = [Event { t_us: 1, x: *x, y: *y, polarity: Polarity::On }];
            view.apply(&mut events);
            let event = events[0];
            let inside = event.x < MODEL.width && event.y < MODEL.height;
            assert_eq!(inside.then_some((event.x, event.y)), *expected, "{spec:?} at {x},{y}");
            assert_eq!(event.t_us, 1);
        }
    }

    #[test]
    fn each_step_moves_pixels_where_it_says() {
        let none = ViewSpec::default();
        check(none, None, &[((0, 0), Some((0, 0))), ((3, 2), Some((3, 2))), ((4, 0), None)]);
        let upright = ViewSpec { orient: Orient::Upright, ..none };
        check(upright, None, &[((0, 0), Some((3, 2))), ((3, 1), Some((0, 1)))]);
        let unflipped = ViewSpec { orient: Orient::Upright, flip_x: true, ..none };
        check(unflipped, None, &[((0, 0), Some((0, 2)))]);
        let flip_y = ViewSpec { flip_y: true, ..none };
        check(flip_y, Some((4, 3)), &[((1, 0), Some((1, 2))), ((1, 3), None)]);
        let transpose = ViewSpec { transpose: true, ..none };
        check(transpose, Some((3, 4)), &[((2, 3), Some((3, 2))), ((0, 1), Some((1, 0)))]);
        let turned = ViewSpec { transpose: true, flip_x: true, ..none };
        check(turned, Some((3, 4)), &[((0, 3), Some((3, 2)))]);
        let crop = ViewSpec { crop: Some(Crop { x: 10, y: 5, width: 4, height: 3 }), ..none };
        check(crop, Some((20, 9)), &[((10, 5), Some((0, 0))), ((13, 7), Some((3, 2)))]);
        check(crop, Some((20, 9)), &[((9, 5), None), ((14, 5), None), ((10, 8), None)]);
    }

    #[test]
    fn a_sensor_of_unknown_size_is_as_large_as_the_crop_needs() {
        let crop = Crop { x: 10, y: 5, width: 4, height: 3 };
        let cut = ViewSpec { crop: Some(crop), ..ViewSpec::default() };
        check(cut, None, &[((10, 5), Some((0, 0))), ((13, 7), Some((3, 2))), ((9, 5), None)]);
        check(cut, None, &[((14, 5), None), ((10, 8), None), ((0, 0), None)]);
        let turned = ViewSpec { transpose: true, ..cut };
        check(turned, None, &[((5, 10), Some((0, 0))), ((7, 13), Some((3, 2)))]);
        for mirrored in [
            ViewSpec { flip_x: true, ..cut },
            ViewSpec { flip_y: true, ..cut },
            ViewSpec { orient: Orient::Upright, ..cut },
        ] {
            let refused = View::new(&mirrored, &sensor(None), MODEL).unwrap_err().to_string();
            assert!(refused.contains("--sensor WxH"), "{refused}");
            View::new(&mirrored, &sensor(Some((20, 9))), MODEL).unwrap();
        }
    }

    #[test]
    fn scale_is_the_floor_of_the_ratio() {
        let scale = ViewSpec { scale: true, ..ViewSpec::default() };
        check(scale, Some((10, 30)), &[((0, 0), Some((0, 0))), ((9, 29), Some((3, 2)))]);
        check(scale, Some((10, 30)), &[((2, 9), Some((0, 0))), ((3, 10), Some((1, 1)))]);
        check(scale, None, &[((3, 2), Some((3, 2))), ((9, 0), None)]);
    }

    #[test]
    fn polarity_inverts_only_against_the_stored_meaning() {
        for (bit, expected) in
            [(PolarityBit::OnIs0, Polarity::On), (PolarityBit::OnIs1, Polarity::Off)]
        {
            let spec = ViewSpec { polarity: Some(bit), ..ViewSpec::default() };
            let view = View::new(&spec, &sensor(None), MODEL).unwrap();
            let mut events = [Event { t_us: 0, x: 0, y: 0, polarity: Polarity::On }];
            view.apply(&mut events);
            assert_eq!(events[0].polarity, expected);
        }
    }

    #[test]
    fn polarity_is_written_as_on_the_command_line_and_read_in_either_spelling() {
        for (bit, text, older) in [
            (PolarityBit::OnIs0, "\"on-is-0\"", "\"on-is0\""),
            (PolarityBit::OnIs1, "\"on-is-1\"", "\"on-is1\""),
        ] {
            assert_eq!(serde_json::to_string(&bit).unwrap(), text);
            for text in [text, older] {
                assert_eq!(serde_json::from_str::<PolarityBit>(text).unwrap(), bit);
            }
        }
    }

    #[test]
    fn another_size_is_refused_with_both_sizes_and_the_way_out() {
        let error = View::new(&ViewSpec::default(), &sensor(Some((346, 260))), MODEL);
        let text = error.unwrap_err().to_string();
        for part in ["346x260", "4x3", "--crop X,Y,4,3", "--scale"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let crop = Crop { x: 340, y: 0, width: 10, height: 10 };
        let spec = ViewSpec { crop: Some(crop), scale: true, ..ViewSpec::default() };
        assert!(View::new(&spec, &sensor(Some((346, 260))), MODEL).is_err());
    }
}
