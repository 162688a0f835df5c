//! Figures of a signal with one value a frame, such as the opening of a mouth.

/// Fewer frames than this say nothing about a correlation.
const FEWEST: usize = 10;
/// A signal whose standard deviation is below this does not move.
const FLAT: f64 = 1e-6;

/// Shares of an opening's range below which lips are shut, above which they are wide, below which a made mouth meets a
/// closure; frames from wide to shut.
const SHUT: f64 = 0.12;
const WIDE: f64 = 0.35;
const MET: f64 = 0.2;
const NEAR: usize = 3;

/// How a made mouth meets the closures of the lips in the one that it follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Closures {
    /// Share that is met within a frame.
    pub met: f64,
    /// Mean of how far the made mouth falls there, 1 at its most shut.
    pub depth: f64,
    pub count: usize,
}

/// How well two signals agree, and where.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Match {
    /// Pearson's correlation.
    pub r: f64,
    /// Frames by which the first is late against the second.
    pub lag: i32,
}

/// Gaps filled by straight lines between what is known, the first and the last value held beyond it; zeros where nothing
/// is known.
pub fn fill(values: &[Option<f32>]) -> Vec<f64> {
    let known: Vec<usize> = (0..values.len()).filter(|i| values[*i].is_some()).collect();
    let at = |i: usize| f64::from(values[i].unwrap_or_default());
    let mut next = 0;
    (0..values.len())
        .map(|i| {
            while next < known.len() && known[next] < i {
                next += 1;
            }
            match (next.checked_sub(1).map(|n| known[n]), known.get(next).copied()) {
                (_, Some(right)) if right == i => at(i),
                (Some(left), Some(right)) => {
                    let part = (i - left) as f64 / (right - left) as f64;
                    at(left) * (1.0 - part) + at(right) * part
                }
                (Some(one), None) | (None, Some(one)) => at(one),
                (None, None) => 0.0,
            }
        })
        .collect()
}

pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The standard deviation, of the population.
pub fn deviation(values: &[f64]) -> f64 {
    let middle = mean(values);
    (values.iter().map(|v| (v - middle) * (v - middle)).sum::<f64>() / values.len().max(1) as f64).sqrt()
}

/// The middle value, the mean of the two middle ones; `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[half]),
        _ => Some((sorted[half - 1] + sorted[half]) / 2.0),
    }
}

/// Pearson's correlation of as many values as both have; `None` where they are few or one does not move.
pub fn pearson(a: &[f64], b: &[f64]) -> Option<f64> {
    let n = a.len().min(b.len());
    let (a, b) = (&a[..n], &b[..n]);
    let (da, db) = (deviation(a), deviation(b));
    if n < FEWEST || da < FLAT || db < FLAT {
        return None;
    }
    let (ma, mb) = (mean(a), mean(b));
    let together = a.iter().zip(b).map(|(x, y)| (x - ma) * (y - mb)).sum::<f64>() / n as f64;
    Some(together / (da * db))
}

/// The best correlation of `a` against `b` over lags of at most `reach` frames; of equal ones the smaller lag.
pub fn correlate(a: &[f64], b: &[f64], reach: i32) -> Option<Match> {
    let n = a.len().min(b.len());
    let (a, b) = (&a[..n], &b[..n]);
    let at = |lag: i32| {
        let by = (lag.unsigned_abs() as usize).min(n);
        let r = if lag >= 0 { pearson(&a[by..], &b[..n - by]) } else { pearson(&a[..n - by], &b[by..]) };
        r.map(|r| Match { r, lag })
    };
    let mut lags: Vec<i32> = (-reach..=reach).collect();
    lags.sort_by_key(|lag| lag.abs());
    lags.into_iter().filter_map(at).reduce(|best, next| if next.r > best.r { next } else { best })
}

/// The value below which the share `part` of sorted values lies, straight lines between them.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let at = part * (sorted.len() - 1) as f64;
    let low = at as usize;
    let high = (low + 1).min(sorted.len() - 1);
    sorted[low] + (sorted[high] - sorted[low]) * (at - low as f64)
}

/// An opening between its own 2 % and 95 %.
fn shares(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (quantile(&sorted, 0.02), quantile(&sorted, 0.95));
    values.iter().map(|v| (v - low) / (high - low).max(1e-9)).collect()
}

/// Closures of the lips in the opening `said` that `made` meets at most `reach` frames from them. A closure is a run of
/// frames below 12 % of the opening's range within three of one above 35 %; it is met below 20 %. `None` of few frames and
/// where no lips close.
pub fn closures(made: &[f64], said: &[f64], reach: usize) -> Option<Closures> {
    let n = made.len().min(said.len());
    if n < FEWEST {
        return None;
    }
    let (made, said) = (shares(&made[..n]), shares(&said[..n]));
    let wide = |i: usize| said[i.saturating_sub(NEAR)..(i + NEAR + 1).min(n)].iter().any(|v| *v > WIDE);
    let shut: Vec<bool> = (0..n).map(|i| said[i] < SHUT && wide(i)).collect();
    let mut lows = Vec::new();
    let mut at = 0;
    for run in shut.chunk_by(|a, b| a == b) {
        let end = at + run.len();
        if run[0] {
            let around = &made[at.saturating_sub(reach)..(end + reach).min(n)];
            lows.push(around.iter().copied().fold(f64::INFINITY, f64::min));
        }
        at = end;
    }
    let count = lows.len();
    let share = |f: &dyn Fn(f64) -> f64| lows.iter().map(|v| f(*v)).sum::<f64>() / count as f64;
    (count > 0).then(|| Closures {
        met: share(&|v| f64::from(u8::from(v < MET))),
        depth: 1.0 - share(&|v| v.clamp(0.0, 1.0)),
        count,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(n: usize, late: f64) -> Vec<f64> {
        (0..n).map(|i| ((i as f64 - late) * 0.37).sin() + 0.5 * ((i as f64 - late) * 1.1).sin()).collect()
    }

    #[test]
    fn gaps_are_filled_by_straight_lines() {
        let filled = fill(&[None, Some(1.0), None, None, Some(4.0), None]);
        assert_eq!(filled, [1.0, 1.0, 2.0, 3.0, 4.0, 4.0]);
        assert_eq!(fill(&[None, None]), [0.0, 0.0]);
        assert!(fill(&[]).is_empty());
    }

    #[test]
    fn a_signal_that_is_late_is_found_so() {
        let (truth, late) = (wave(200, 0.0), wave(200, 3.0));
        let found = correlate(&late, &truth, 10).unwrap();
        assert_eq!(found.lag, 3);
        assert!(found.r > 0.999, "{found:?}");
        assert_eq!(correlate(&truth, &late, 10).unwrap().lag, -3);
        assert!(correlate(&late, &truth, 1).unwrap().r < 0.9);
    }

    #[test]
    fn what_does_not_move_or_is_short_has_no_correlation() {
        assert_eq!(pearson(&[1.0; 50], &wave(50, 0.0)), None);
        assert_eq!(pearson(&wave(9, 0.0), &wave(9, 0.0)), None);
        assert_eq!(correlate(&wave(5, 0.0), &wave(5, 0.0), 10), None);
        let negative: Vec<f64> = wave(50, 0.0).iter().map(|v| 7.0 - 2.0 * v).collect();
        assert!((pearson(&negative, &wave(50, 0.0)).unwrap() + 1.0).abs() < 1e-12);
    }

    #[test]
    fn closures_are_met_within_a_frame_and_missed_beyond() {
        let mut said = vec![1.0; 100];
        for i in [20, 21, 50, 80] {
            said[i] = 0.0;
        }
        // Of a long rest the two ends are closures.
        said[60..75].fill(0.0);
        let late = |frames: usize| [&said[100 - frames..], &said[..100 - frames]].concat();
        let met = closures(&late(1), &said, 1).unwrap();
        assert_eq!((met.met, met.depth, met.count), (1.0, 1.0, 5));
        assert!(closures(&late(3), &said, 1).unwrap().met < 1.0);
        let mut half: Vec<f64> = said.iter().map(|v| v.max(0.5)).collect();
        half[90..95].fill(0.0);
        let found = closures(&half, &said, 1).unwrap();
        assert!(found.met == 0.0 && (found.depth - 0.5).abs() < 0.01 && found.count == 5, "{found:?}");
        assert_eq!(closures(&said, &[1.0; 100], 1), None);
        assert_eq!(closures(&said[..9], &said, 1), None);
    }

    #[test]
    fn medians_and_deviations() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
        assert_eq!(deviation(&[1.0, 3.0]), 1.0);
    }
}
