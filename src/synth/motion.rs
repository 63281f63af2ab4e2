//! Where pip and crop are at each step: up, still, down ever faster, the crop behind.
//!
//! Knows no pixels and no events. Lengths in pixels, times in ms, speeds in pixels per ms;
//! positions are those of the sensor, whose rows count downwards.

use super::Pip;
use super::draw::Draw;

/// Length of a step.
pub(super) const STEP_MS: f64 = 0.03;

/// Greatest speed of rising.
const RISING: f64 = 1.8;
/// Shortest fall, and shortest recording.
const SHORTEST_MS: f64 = 4.0;

/// What differs between the pips, as measured on real recordings.
struct Habit {
    /// Time of the reversal: mean, sd.
    reversal_ms: (f64, f64),
    /// From the reversal to the end: mean, sd.
    fall_ms: (f64, f64),
    /// Acceleration, pixels per ms².
    acceleration: f64,
    /// Greatest speed of falling.
    falling: f64,
    /// Factor on the speed of rising.
    rising: f64,
    size: f64,
    /// The card tilts away: loss of height per ms, from a time after the reversal.
    flattening: (f64, f64),
    /// How far the crop runs ahead in the first ms after the reversal.
    ahead: f64,
    /// Probabilities: the crop runs into the border, the pip is uncovered at the start, a bright
    /// edge follows.
    border: f64,
    uncovered: f64,
    edge: f64,
}

/// Club, diamond, heart, spade, one motion for all.
#[rustfmt::skip]
const HABITS: [Habit; 5] = [
    Habit { reversal_ms: (4.9, 2.2), fall_ms: (10.9, 3.0), acceleration: 0.95, falling: 4.2, rising: 1.1, size: 1.0,
            flattening: (0.04, 6.0), ahead: 1.5, border: 0.6, uncovered: 0.5, edge: 0.35 },
    Habit { reversal_ms: (4.0, 3.0), fall_ms: (15.3, 3.0), acceleration: 0.5, falling: 5.4, rising: 1.0, size: 1.01,
            flattening: (0.035, 6.0), ahead: -0.5, border: 0.25, uncovered: 0.4, edge: 0.85 },
    Habit { reversal_ms: (3.1, 1.9), fall_ms: (8.6, 1.5), acceleration: 1.3, falling: 5.4, rising: 0.85, size: 0.97,
            flattening: (0.08, 3.0), ahead: 4.0, border: 0.3, uncovered: 0.15, edge: 0.45 },
    Habit { reversal_ms: (7.0, 2.9), fall_ms: (16.3, 2.2), acceleration: 0.58, falling: 4.8, rising: 0.62, size: 0.99,
            flattening: (0.04, 5.0), ahead: 2.5, border: 0.35, uncovered: 0.1, edge: 0.3 },
    Habit { reversal_ms: (4.8, 2.8), fall_ms: (12.8, 3.9), acceleration: 0.8, falling: 5.0, rising: 0.9, size: 1.0,
            flattening: (0.045, 5.0), ahead: 1.9, border: 0.38, uncovered: 0.3, edge: 0.5 },
];

/// One step: what is where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pose {
    /// The pip's middle.
    pub(super) x: f64,
    pub(super) y: f64,
    /// Its turn in radians, and its scale along its own axes.
    pub(super) turn: f64,
    pub(super) width: f64,
    pub(super) height: f64,
    /// Part of its darkness that is uncovered.
    pub(super) uncovered: f64,
    /// Pixel at the crop's centre.
    pub(super) crop_x: i32,
    pub(super) crop_y: i32,
    /// Middle of the bright edge, once it is there.
    pub(super) edge_y: Option<f64>,
}

/// Everything that is drawn about the motion of one recording.
pub(super) struct Plan {
    /// End of the recording.
    pub(super) duration_ms: f64,
    reversal_ms: f64,
    acceleration: f64,
    falling: f64,
    rising: f64,
    sideways: f64,
    turn: f64,
    turning: f64,
    size: f64,
    flattening: (f64, f64),
    /// Time constant of the crop, down and sideways.
    lag_ms: (f64, f64),
    crop_start: f64,
    crop_offset: (f64, f64),
    ahead: f64,
    border_ms: f64,
    uncovering_ms: f64,
    edge_ms: f64,
    edge_speed: f64,
}

impl Plan {
    /// Draws the motion of one recording.
    pub(super) fn draw(pip: Pip, one_motion: bool, draw: &mut Draw) -> Self {
        let habit = &HABITS[if one_motion { Pip::ALL.len() } else { pip as usize }];
        let reversal_ms = draw.normal(habit.reversal_ms.0, habit.reversal_ms.1);
        let fall_ms = draw.normal(habit.fall_ms.0, habit.fall_ms.1).max(SHORTEST_MS);
        let duration_ms = (reversal_ms + fall_ms).max(SHORTEST_MS);
        let falling = habit.falling * draw.factor(0.1);
        let lag = draw.factor(0.2);
        let border = draw.chance(habit.border).then(|| draw.uniform(2.0, 7.0));
        let edge = draw.chance(habit.edge).then(|| draw.normal(4.5, 1.2));
        Plan {
            duration_ms,
            reversal_ms,
            acceleration: habit.acceleration * draw.factor(0.15),
            falling,
            rising: RISING * habit.rising,
            sideways: draw.normal(0.0, 0.12),
            turn: draw.normal(0.0, 2.5).to_radians(),
            turning: draw.normal(0.0, 0.15).to_radians(),
            size: 0.95 * habit.size * draw.factor(0.03),
            flattening: (habit.flattening.0 * draw.factor(0.3), habit.flattening.1),
            lag_ms: (1.9 * lag, 1.7 * lag),
            crop_start: draw.normal(-1.0, 1.3),
            crop_offset: (draw.normal(0.0, 0.5), draw.normal(0.0, 0.8)),
            ahead: habit.ahead,
            border_ms: border.map_or(f64::INFINITY, |before| duration_ms - before),
            uncovering_ms: if draw.chance(habit.uncovered) { draw.uniform(0.6, 1.8) } else { 0.0 },
            edge_ms: edge.map_or(f64::INFINITY, |before| duration_ms - before),
            edge_speed: falling + draw.normal(1.8, 0.7),
        }
    }

    /// Speed downwards, `s_ms` after the reversal.
    fn speed(&self, s_ms: f64) -> f64 {
        if s_ms >= 0.0 {
            self.falling * libm::tanh(self.acceleration * s_ms / self.falling)
        } else {
            self.rising * libm::tanh(0.6 * self.acceleration * s_ms / RISING)
        }
    }

    /// The whole recording, a pose a step.
    pub(super) fn poses(&self) -> Vec<Pose> {
        let n_steps = (self.duration_ms / STEP_MS).ceil() as usize;
        let (mut x, mut y) = (0.0, 0.0);
        let mut follower_x = x - self.lag_ms.1 * self.sideways;
        let mut follower_y = y - 1.9 * self.speed(-self.reversal_ms) + self.crop_start;
        let mut edge_y = None;
        let step = |k: usize| {
            let t_ms = (k as f64 + 0.5) * STEP_MS;
            let s_ms = t_ms - self.reversal_ms;
            x += self.sideways * STEP_MS;
            y += self.speed(s_ms) * STEP_MS;
            let hold = if t_ms > self.border_ms { 0.25 } else { 1.0 };
            follower_x += (x - follower_x) * STEP_MS / self.lag_ms.1;
            follower_y += hold * (y - follower_y) * STEP_MS / self.lag_ms.0;
            let ahead = self.crop_offset.1 + self.ahead * s_ms.clamp(0.0, 1.0);
            let crop_x = (follower_x + self.crop_offset.0).round() as i32;
            let crop_y = (follower_y + ahead).round() as i32;
            if t_ms > self.edge_ms {
                let top = f64::from(crop_y - super::CENTRE + super::CROP.start());
                edge_y = Some(edge_y.unwrap_or(top) + self.edge_speed * STEP_MS);
            }
            let (width, height) = self.scale(s_ms);
            let turn = self.turn + self.turning * s_ms;
            let uncovered = self.uncovered(t_ms);
            Pose { x, y, turn, width, height, uncovered, crop_x, crop_y, edge_y }
        };
        (0..n_steps).map(step).collect()
    }

    fn scale(&self, s_ms: f64) -> (f64, f64) {
        let width = self.size * (0.96 + 0.018 * s_ms).clamp(0.84, 1.0);
        let (loss, from_ms) = self.flattening;
        (width, width * (1.0 - loss * (s_ms - from_ms).max(0.0)).max(0.45))
    }

    fn uncovered(&self, t_ms: f64) -> f64 {
        if t_ms < self.uncovering_ms { 0.15 + 0.85 * t_ms / self.uncovering_ms } else { 1.0 }
    }
}
