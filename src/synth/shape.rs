//! The outlines of the four pips, as coverage between 0 and 1.
//!
//! Knows neither motion nor pixels. Coordinates are pixels at scale 1 about the pip's middle,
//! x to the right and y down.

use super::Pip;
use std::sync::OnceLock;

/// Samples per pixel, along one axis.
const SAMPLES: usize = 8;
/// Half the side of the drawn square, in pixels; every outline and its blur lie within.
const HALF: usize = 16;
/// Samples along the side of the square.
const SIDE: usize = 2 * HALF * SAMPLES + 1;
/// Standard deviation of the blur, in pixels.
const BLUR: f64 = 0.55;
/// Points on an ellipse.
const ELLIPSE: usize = 64;

type Point = (f64, f64);

/// The drawn shape of `pip`, made once.
pub(super) fn of(pip: Pip) -> &'static Shape {
    static SHAPES: [OnceLock<Shape>; 4] = [const { OnceLock::new() }; 4];
    SHAPES[pip as usize].get_or_init(|| Shape::new(&outline(pip)))
}

/// Coverage on a grid of [`SAMPLES`] a pixel.
pub(super) struct Shape {
    grid: Vec<f32>,
}

impl Shape {
    /// Draws a union of convex hulls and blurs it.
    fn new(hulls: &[Vec<Point>]) -> Self {
        let mut sharp = vec![0.0; SIDE * SIDE];
        for hull in hulls {
            fill(hull, &mut sharp);
        }
        let blurred = blur_rows_and_transpose(&blur_rows_and_transpose(&sharp));
        Shape { grid: blurred.iter().map(|&c| c as f32).collect() }
    }

    /// Coverage at a point, by bilinear interpolation; 0 beyond the drawn square.
    #[inline]
    pub(super) fn coverage(&self, x: f32, y: f32) -> f32 {
        const LAST: f32 = (SIDE - 1) as f32;
        let (u, v) = ((x + HALF as f32) * SAMPLES as f32, (y + HALF as f32) * SAMPLES as f32);
        if !((0.0..LAST).contains(&u) && (0.0..LAST).contains(&v)) {
            return 0.0;
        }
        let (column, row) = (u as usize, v as usize);
        let (right, down) = (u - column as f32, v - row as f32);
        let at = row * SIDE + column;
        let [a, b, c, d] = [at, at + 1, at + SIDE, at + SIDE + 1]
            .map(|k| self.grid.get(k).copied().unwrap_or(0.0));
        let (upper, lower) = (a + (b - a) * right, c + (d - c) * right);
        upper + (lower - upper) * down
    }
}

/// The convex hulls whose union is the pip.
fn outline(pip: Pip) -> Vec<Vec<Point>> {
    match pip {
        Pip::Club => {
            let discs = [ellipse((0.0, -6.4), (5.6, 5.6)), ellipse((6.6, 3.9), (5.4, 5.3))];
            let body = profile(&[(3.0, -3.0), (3.5, 3.0), (2.0, 6.5)]);
            let stem = profile(&[(1.0, 5.0), (1.2, 9.0), (3.0, 12.2)]);
            [both_sides(discs.to_vec()), body, stem].concat()
        }
        Pip::Diamond => profile(&[(0.0, -11.6), (4.3, -5.2), (9.2, 0.0), (4.3, 5.2), (0.0, 11.6)]),
        Pip::Heart => both_sides(vec![side((6.7, -3.2), (7.2, 6.5), [13.0, -5.2])]),
        Pip::Spade => {
            let stem = profile(&[(1.0, 5.0), (1.3, 9.0), (4.0, 12.0)]);
            [both_sides(vec![side((6.6, 4.0), (5.5, 5.2), [-12.0, 6.5])]), stem].concat()
        }
    }
}

fn ellipse(middle: Point, radii: Point) -> Vec<Point> {
    let point = |k: usize| {
        let turn = std::f64::consts::TAU * k as f64 / ELLIPSE as f64;
        (middle.0 + radii.0 * libm::cos(turn), middle.1 + radii.1 * libm::sin(turn))
    };
    (0..ELLIPSE).map(point).collect()
}

/// One side of a heart or spade: the hull of an ellipse with two points on the axis.
fn side(middle: Point, radii: Point, on_axis: [f64; 2]) -> Vec<Point> {
    let mut points = ellipse(middle, radii);
    points.extend(on_axis.map(|y| (0.0, y)));
    points
}

/// Trapezoids between half-widths given from top to bottom.
fn profile(half_widths: &[Point]) -> Vec<Vec<Point>> {
    let trapezoid = |pair: &[Point]| pair.iter().flat_map(|&(w, y)| [(-w, y), (w, y)]).collect();
    half_widths.windows(2).map(trapezoid).collect()
}

/// The hulls and their mirror images.
fn both_sides(hulls: Vec<Vec<Point>>) -> Vec<Vec<Point>> {
    let mirrored = |hull: &Vec<Point>| hull.iter().map(|&(x, y)| (-x, y)).collect();
    let others: Vec<_> = hulls.iter().map(mirrored).collect();
    [hulls, others].concat()
}

/// Sets the samples inside the convex hull of `points`.
fn fill(points: &[Point], grid: &mut [f64]) {
    for (row, samples) in grid.chunks_exact_mut(SIDE).enumerate() {
        let y = row as f64 / SAMPLES as f64 - HALF as f64;
        if let Some((left, right)) = span(points, y) {
            for (column, sample) in samples.iter_mut().enumerate() {
                let x = column as f64 / SAMPLES as f64 - HALF as f64;
                if left <= x && x <= right {
                    *sample = 1.0;
                }
            }
        }
    }
}

/// Where a horizontal line enters and leaves the convex hull of `points`: both ends lie on a
/// segment between two of them.
fn span(points: &[Point], y: f64) -> Option<(f64, f64)> {
    let mut found: Option<(f64, f64)> = None;
    for (k, &a) in points.iter().enumerate() {
        for &b in &points[k..] {
            if (a.1 - y) * (b.1 - y) > 0.0 {
                continue;
            }
            let part = if a.1 == b.1 { 0.0 } else { (y - a.1) / (b.1 - a.1) };
            let x = a.0 + (b.0 - a.0) * part;
            let (left, right) = found.unwrap_or((x, x));
            found = Some((left.min(x), right.max(x)));
        }
    }
    found
}

/// Blurs along x and exchanges x and y, so that twice blurs both and turns nothing.
fn blur_rows_and_transpose(grid: &[f64]) -> Vec<f64> {
    let sd = BLUR * SAMPLES as f64;
    let reach = (4.0 * sd) as usize;
    let weight = |k: usize| libm::exp(-0.5 * (k as f64 / sd) * (k as f64 / sd));
    let total = 1.0 + 2.0 * (1..=reach).map(weight).sum::<f64>();
    let weights: Vec<f64> = (0..=2 * reach).map(|k| weight(k.abs_diff(reach)) / total).collect();
    let mut blurred = vec![0.0; grid.len()];
    for (row, samples) in grid.chunks_exact(SIDE).enumerate() {
        for column in reach..SIDE - reach {
            let near = &samples[column - reach..=column + reach];
            blurred[column * SIDE + row] = near.iter().zip(&weights).map(|(s, w)| s * w).sum();
        }
    }
    blurred
}

#[cfg(test)]
mod tests {
    use super::{HALF, SAMPLES, SIDE, of, span};
    use crate::synth::Pip;

    #[test]
    fn shapes_have_their_areas_and_extents() {
        let cases = [
            (Pip::Club, 325.2, 12.0, 12.2),
            (Pip::Diamond, 195.6, 9.2, 11.6),
            (Pip::Heart, 403.7, 13.9, 13.0),
            (Pip::Spade, 335.0, 12.1, 12.0),
        ];
        for (pip, area, half_width, lowest) in cases {
            let grid = &of(pip).grid;
            let sum: f32 = grid.iter().sum();
            let found = f64::from(sum) / (SAMPLES * SAMPLES) as f64;
            assert!((found / area - 1.0).abs() < 0.02, "{pip:?}: area {found}, not {area}");
            let half = |k: usize| k as f64 / SAMPLES as f64 - HALF as f64;
            let dark = |k: &usize| grid[*k] > 0.3;
            let right = (0..grid.len()).filter(dark).map(|k| half(k % SIDE)).fold(0.0, f64::max);
            let low = (0..grid.len()).filter(dark).map(|k| half(k / SIDE)).fold(0.0, f64::max);
            assert!((right - half_width).abs() < 0.9, "{pip:?}: reaches {right}");
            assert!((low - lowest).abs() < 1.3, "{pip:?}: ends at {low}");
        }
    }

    #[test]
    fn shapes_are_symmetric_and_bounded() {
        for pip in Pip::ALL {
            for k in 0..400 {
                let (x, y) = (k as f32 * 0.05 - 0.5, (k * 37 % 400) as f32 * 0.09 - 18.0);
                let (right, left) = (of(pip).coverage(x, y), of(pip).coverage(-x, y));
                assert!((right - left).abs() < 1e-4, "{pip:?} at {x}, {y}: {left} {right}");
                assert!((0.0..=1.0001).contains(&right));
            }
            assert_eq!(of(pip).coverage(f32::NAN, 0.0), 0.0);
        }
    }

    #[test]
    fn spans_of_a_square() {
        let square = [(1.0, 1.0), (3.0, 1.0), (1.0, 3.0), (3.0, 3.0)];
        for (y, expected) in [(0.5, None), (1.0, Some((1.0, 3.0))), (2.2, Some((1.0, 3.0)))] {
            assert_eq!(span(&square, y), expected, "at {y}");
        }
    }
}
