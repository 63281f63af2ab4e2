//! The camera: pixels that follow the brightness and fire when it has changed enough.
//!
//! Knows the poses of pip and crop, not how they came about. Brightness is logarithmic.

use super::Spark;
use super::draw::Draw;
use super::motion::{Pose, STEP_MS};
use super::shape::Shape;
use crate::event::Polarity;

/// Brightness of a wholly covered pixel against white.
const DARK: f32 = -1.15;
/// Changes that make a pixel fire.
const ON: f32 = 0.40;
const OFF: f32 = 0.60;
/// Median time constant of a white pixel in ms, and the spread of its logarithm.
const TAU_MS: (f64, f64) = (0.12, 0.75);
/// Rows beyond crop and pip that are followed too, so that a pixel has settled before it is left.
const MARGIN: i32 = 4;
/// Half the height of the largest pip.
const REACH: i32 = 15;

/// Exposes a sensor to the moving shape. Sparks stand in the crop's coordinates, also those that
/// lie outside it.
pub(super) fn expose(shape: &Shape, poses: &[Pose], draw: &mut Draw) -> Vec<Spark> {
    let Some(first) = poses.first() else { return Vec::new() };
    let mut canvas = Canvas::new(poses, draw);
    canvas.settle(shape, first, draw);
    let mut sparks = Vec::new();
    for (k, pose) in poses.iter().enumerate() {
        canvas.step(k, shape, pose, draw, &mut sparks);
    }
    sparks
}

/// One pixel of the sensor.
struct Pixel {
    tau_ms: f32,
    /// Factor on both thresholds: this pixel's own, and the one that holds now.
    own: f32,
    factor: f32,
    /// Low-passed brightness, and its value at the last event.
    value: f32,
    reference: f32,
}

impl Pixel {
    fn draw(draw: &mut Draw) -> Self {
        let tau_ms = (TAU_MS.0 * draw.factor(TAU_MS.1)) as f32;
        let own = draw.normal(1.0, 0.2).max(0.3) as f32;
        Pixel { tau_ms, own, factor: own, value: 0.0, reference: 0.0 }
    }

    /// Each event draws the thresholds anew; before its first one a pixel has its own.
    fn rearm(&mut self, draw: &mut Draw) {
        self.factor = self.own * draw.normal(1.0, 0.3).max(0.05) as f32;
    }

    /// Follows the light for one step; what it fires, if it fires.
    #[inline]
    fn follow(&mut self, coverage: f32, brightening: f32) -> Option<Polarity> {
        let step_ms = STEP_MS as f32;
        let light = DARK * coverage + brightening;
        let tau_ms = self.tau_ms * (1.0 + 1.5 * coverage);
        self.value += (light - self.value) * (step_ms / (tau_ms + step_ms));
        let change = self.value - self.reference;
        if change > ON * self.factor {
            Some(Polarity::On)
        } else if change < -OFF * self.factor {
            Some(Polarity::Off)
        } else {
            None
        }
    }
}

/// The part of the sensor that the crop visits.
struct Canvas {
    left: i32,
    top: i32,
    width: usize,
    pixels: Vec<Pixel>,
}

impl Canvas {
    fn new(poses: &[Pose], draw: &mut Draw) -> Self {
        let reach = super::CROP.end() - super::CENTRE;
        let columns = || poses.iter().map(|pose| pose.crop_x);
        let rows = || poses.iter().map(|pose| pose.crop_y);
        let left = columns().min().unwrap_or(0) - reach;
        let top = rows().min().unwrap_or(0) - reach;
        let width = (columns().max().unwrap_or(0) + reach - left + 1) as usize;
        let height = (rows().max().unwrap_or(0) + reach - top + 1) as usize;
        let pixels = (0..width * height).map(|_| Pixel::draw(draw)).collect();
        Canvas { left, top, width, pixels }
    }

    /// Every pixel has seen the first pose for long; its last event lies further back.
    fn settle(&mut self, shape: &Shape, pose: &Pose, draw: &mut Draw) {
        let view = View::new(shape, pose);
        for (k, pixel) in self.pixels.iter_mut().enumerate() {
            let x = self.left + (k % self.width) as i32;
            let y = self.top + (k / self.width) as i32;
            pixel.value = DARK * view.row(y, self.left).coverage(x - self.left);
            pixel.reference = pixel.value + draw.uniform(-0.25, 0.25) as f32;
        }
    }

    fn step(
        &mut self,
        k: usize,
        shape: &Shape,
        pose: &Pose,
        draw: &mut Draw,
        out: &mut Vec<Spark>,
    ) {
        let view = View::new(shape, pose);
        let bells = view.bells(self.left, self.width);
        let (from, to) = rows_in_sight(pose);
        let from = (from - self.top).max(0) as usize;
        let to = (to - self.top + 1).max(0) as usize;
        let rows = self.pixels.chunks_exact_mut(self.width).enumerate();
        for (row, pixels) in rows.take(to).skip(from) {
            let y = self.top + row as i32;
            let covered = view.row(y, self.left);
            let ramp = view.ramp(y);
            for (column, pixel) in pixels.iter_mut().enumerate() {
                let brightening = if ramp > 0.0 { ramp * bells[column] } else { 0.0 };
                let fired = pixel.follow(covered.coverage(column as i32), brightening);
                if let Some(polarity) = fired {
                    pixel.reference = pixel.value;
                    pixel.rearm(draw);
                    let t_ms = (k as f64 + draw.unit()) * STEP_MS + draw.normal(0.0, 0.03);
                    let x = self.left + column as i32 - pose.crop_x + super::CENTRE;
                    let y = y - pose.crop_y + super::CENTRE;
                    out.push(Spark { t_ms, x, y, polarity });
                }
            }
        }
    }
}

/// First and last row that can change: those of crop and pip, and a margin.
fn rows_in_sight(pose: &Pose) -> (i32, i32) {
    let crop = super::CROP.end() - super::CENTRE;
    let pip = pose.y.round() as i32;
    let from = (pose.crop_y - crop).min(pip - REACH) - MARGIN;
    let to = (pose.crop_y + crop).max(pip + REACH) + MARGIN;
    (from, to)
}

/// One pose, ready to be asked pixel by pixel.
struct View<'a> {
    shape: &'a Shape,
    pose: &'a Pose,
    sin: f64,
    cos: f64,
}

impl<'a> View<'a> {
    fn new(shape: &'a Shape, pose: &'a Pose) -> Self {
        View { shape, pose, sin: libm::sin(pose.turn), cos: libm::cos(pose.turn) }
    }

    /// Row `y` of the sensor from column `left` on, turned back into the shape's coordinates.
    fn row(&self, y: i32, left: i32) -> Row<'a> {
        let (right, down) = (f64::from(left) - self.pose.x, f64::from(y) - self.pose.y);
        Row {
            shape: self.shape,
            darkness: self.pose.uncovered as f32,
            x: ((self.cos * right + self.sin * down) / self.pose.width) as f32,
            y: ((self.cos * down - self.sin * right) / self.pose.height) as f32,
            x_step: (self.cos / self.pose.width) as f32,
            y_step: (-self.sin / self.pose.height) as f32,
        }
    }

    /// How bright the edge that comes from above makes row `y`: a soft ramp 12 pixels high about
    /// it.
    fn ramp(&self, y: i32) -> f32 {
        let Some(edge_y) = self.pose.edge_y else { return 0.0 };
        let part = (0.5 + (edge_y - f64::from(y)) / 12.0).clamp(0.0, 1.0);
        (0.6 * part * part * (3.0 - 2.0 * part)) as f32
    }

    /// How much of the edge each column gets; none without an edge.
    fn bells(&self, left: i32, width: usize) -> Vec<f32> {
        let bell = |column: usize| {
            let off = (f64::from(left) + column as f64 - self.pose.x) / 8.0;
            libm::exp(-0.5 * off * off * off * off) as f32
        };
        if self.pose.edge_y.is_some() { (0..width).map(bell).collect() } else { Vec::new() }
    }
}

/// Coverage along one row.
struct Row<'a> {
    shape: &'a Shape,
    darkness: f32,
    x: f32,
    y: f32,
    x_step: f32,
    y_step: f32,
}

impl Row<'_> {
    #[inline]
    fn coverage(&self, column: i32) -> f32 {
        let k = column as f32;
        self.darkness * self.shape.coverage(self.x + k * self.x_step, self.y + k * self.y_step)
    }
}
