//! Names of streams that have left and keep their series for a while.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

/// From so many entries on that stand for nothing they are looked for.
const MANY: usize = 64;

/// Names, and when each left last.
#[derive(Default)]
pub struct Departed {
    last: HashMap<String, Instant>,
    /// In order of leaving; a name that left again has left an entry behind.
    queue: VecDeque<(Instant, String)>,
}

impl Departed {
    /// A stream of this name has left.
    pub fn add(&mut self, name: String, now: Instant) {
        self.queue.push_back((now, name.clone()));
        self.last.insert(name, now);
        if self.queue.len() > 2 * self.last.len() + MANY {
            self.queue.retain(|(left, name)| self.last.get(name) == Some(left));
        }
    }

    /// Takes those out that left so long ago, and the oldest beyond `most`.
    pub fn take(&mut self, now: Instant, retention: Duration, most: usize) -> HashSet<String> {
        let mut taken = HashSet::new();
        while let Some((left, name)) = self.queue.pop_front() {
            if self.last.get(&name) != Some(&left) {
                continue;
            }
            let is_recent = now.saturating_duration_since(left) < retention;
            if is_recent && self.last.len() <= most {
                self.queue.push_front((left, name));
                break;
            }
            self.last.remove(&name);
            taken.insert(name);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_left_long_ago_is_taken_and_the_oldest_beyond_what_is_kept() {
        let begun = Instant::now();
        let at = |s| begun + Duration::from_secs(s);
        let mut departed = Departed::default();
        for (s, name) in [(0, "a"), (1, "b"), (2, "c"), (3, "a")] {
            departed.add(name.to_owned(), at(s));
        }
        let mut take = |s, most| {
            let mut names: Vec<_> =
                departed.take(at(s), Duration::from_secs(10), most).into_iter().collect();
            names.sort();
            names.concat()
        };
        assert_eq!(take(10, 9), "");
        assert_eq!(take(11, 9), "b");
        assert_eq!(take(11, 1), "c");
        assert_eq!(take(12, 9), "");
        assert_eq!(take(13, 9), "a");
    }

    #[test]
    fn who_comes_and_goes_takes_no_more_room() {
        let (mut departed, now) = (Departed::default(), Instant::now());
        for k in 0..100_000u64 {
            departed.add(format!("camera-{}", k % 3), now + Duration::from_micros(k));
        }
        assert!(departed.queue.len() <= 2 * 3 + MANY + 1);
    }
}
