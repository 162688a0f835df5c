//! Frames that keep their own mouth although another was wanted, as `lipsync` counts them by reason.

use std::collections::BTreeMap;

/// By reason: `no-face`, `cut-off`, `too-small`, `turned-away`, `covered`, `unclear`, `late`. Those that there are none of are
/// left out.
pub type Untouched = BTreeMap<String, u64>;

/// Of the counts of the bin.
pub fn of(counts: &gstlipstream::untouched::Untouched) -> Untouched {
    counts.iter().filter(|(_, count)| *count > 0).map(|(why, count)| (why.name().to_owned(), count)).collect()
}

/// All of them.
pub fn total(untouched: &Untouched) -> u64 {
    untouched.values().sum()
}

/// Adds the counts of `more`.
pub fn add(untouched: &mut Untouched, more: Untouched) {
    for (why, count) in more {
        *untouched.entry(why).or_default() += count;
    }
}

/// One line about them among `frames`; `None` where there are none.
pub fn sentence(untouched: &Untouched, frames: u64) -> Option<String> {
    let total = total(untouched);
    if total == 0 {
        return None;
    }
    let mut reasons: Vec<_> = untouched.iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let words = |why: &str| match why {
        "no-face" => "no face is seen",
        "cut-off" => "the picture's edge cuts off the mouth",
        "too-small" => "the face is too small",
        "turned-away" => "the head is turned away",
        "covered" => "something covers the mouth",
        "late" => "the mouth was not ready in time",
        _ => "the face cannot be made out",
    };
    let reasons: Vec<String> = reasons.iter().map(|(why, count)| format!("{} in {count}", words(why))).collect();
    // More than none and less than all are shown as such.
    let share = match total as f64 / frames.max(total) as f64 * 100.0 {
        share if share < 0.1 => "less than 0.1".to_owned(),
        share if share < 10.0 => format!("{share:.1}"),
        share if total < frames => format!("{:.0}", share.min(99.0)),
        _ => "100".to_owned(),
    };
    let frames = frames.max(total);
    Some(format!("{total} of {frames} frames ({share} %) keep their own mouth: {}", reasons.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_says_the_share_and_the_reasons_most_frequent_first() {
        let counts = |list: &[(&str, u64)]| list.iter().map(|(why, n)| ((*why).to_owned(), *n)).collect::<Untouched>();
        assert_eq!(sentence(&counts(&[]), 50), None);
        let some = counts(&[("cut-off", 40), ("no-face", 2)]);
        assert_eq!(
            sentence(&some, 50).unwrap(),
            "42 of 50 frames (84 %) keep their own mouth: the picture's edge cuts off the mouth in 40, no face is seen in 2"
        );
        for (n, of, share) in [(1, 5000, "less than 0.1"), (1, 50, "2.0"), (999, 1000, "99"), (50, 50, "100")] {
            let text = sentence(&counts(&[("late", n)]), of).unwrap();
            assert!(text.contains(&format!("({share} %)")), "{text}");
        }
    }
}
