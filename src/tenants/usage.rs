//! What has been used, by calendar month.
//!
//! Each start of the server has rows of its own in the store, and writes into them what it has counted since it began. Writing
//! the same again changes nothing, so that nothing is counted twice, whenever the server dies.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use utoipa::ToSchema;

/// What only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Microseconds for which graphs of sessions ran.
    pub session_us: u64,
    /// Microseconds of a card: what engines took of it for sessions, and for which renders ran on it.
    pub gpu_us: u64,
    /// Frames that left graphs, and those of renders that are done.
    pub frames: u64,
    /// Encoded media that was handed to viewers and pushes, and results of renders.
    pub egress_bytes: u64,
}

impl Totals {
    fn each(self, other: Self, with: fn(u64, u64) -> u64) -> Self {
        Self {
            session_us: with(self.session_us, other.session_us),
            gpu_us: with(self.gpu_us, other.gpu_us),
            frames: with(self.frames, other.frames),
            egress_bytes: with(self.egress_bytes, other.egress_bytes),
        }
    }

    /// What of this is more than `before`.
    pub fn since(self, before: Self) -> Self {
        self.each(before, u64::saturating_sub)
    }

    pub fn largest(self, other: Self) -> Self {
        self.each(other, u64::max)
    }
}

impl std::ops::Add for Totals {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.each(other, u64::saturating_add)
    }
}

/// A calendar month in UTC: months since January of year 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month(u32);

impl Month {
    pub fn now() -> Self {
        Self::at(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
    }

    /// Of seconds since 1970.
    fn at(seconds: u64) -> Self {
        let mut days = seconds / 86_400;
        let mut year = 1970;
        let leap = |year: u32| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        while year < 9999 && days >= 365 + u64::from(leap(year)) {
            days -= 365 + u64::from(leap(year));
            year += 1;
        }
        let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30];
        let mut month = 0;
        for length in lengths {
            if days < length {
                break;
            }
            days -= length;
            month += 1;
        }
        Self(year * 12 + month)
    }

    pub fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// `2026-11`
    pub fn parse(text: &str) -> Option<Self> {
        let (year, month) = text.split_once('-')?;
        let digits =
            year.len() == 4 && month.len() == 2 && (year.to_owned() + month).bytes().all(|b| b.is_ascii_digit());
        let month: u32 = month.parse().ok().filter(|month| digits && (1..=12).contains(month))?;
        Some(Self(year.parse::<u32>().ok()? * 12 + month - 1))
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.0 / 12, self.0 % 12 + 1)
    }
}

/// What this process has counted for a tenant.
#[derive(Debug, Default)]
pub struct Meter {
    months: BTreeMap<Month, Totals>,
    /// Months that the store does not have as they are.
    changed: BTreeSet<Month>,
    /// What other starts of the server have counted in a month.
    others: Option<(Month, u64)>,
}

impl Meter {
    pub fn add(&mut self, month: Month, more: Totals) {
        let totals = self.months.entry(month).or_default();
        *totals = *totals + more;
        self.changed.insert(month);
    }

    pub fn set_others(&mut self, month: Month, session_us: u64) {
        self.others = Some((month, session_us));
    }

    pub fn session_us(&self, month: Month) -> u64 {
        let others = self.others.filter(|(of, _)| *of == month).map_or(0, |(_, us)| us);
        self.months.get(&month).map_or(0, |totals| totals.session_us).saturating_add(others)
    }

    pub fn totals(&self) -> Totals {
        self.months.values().fold(Totals::default(), |sum, totals| sum + *totals)
    }

    /// What is to be written.
    pub fn take_changed(&mut self) -> Vec<(Month, Totals)> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().filter_map(|month| Some((month, *self.months.get(&month)?))).collect()
    }

    /// It could not be written.
    pub fn put_back(&mut self, month: Month) {
        self.changed.insert(month);
    }
}

/// The usage of a tenant in a month.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Usage)]
pub struct Row {
    pub tenant: String,
    /// In UTC.
    #[schema(example = "2026-11")]
    pub month: String,
    /// For which graphs of its sessions ran.
    pub session_seconds: f64,
    /// Taken of a card by engines for its sessions, of each evaluation their part, and by renders that ran on one; 0 without a card.
    pub gpu_seconds: f64,
    /// Frames that left the graphs of its sessions, and those of its renders that are done.
    pub frames: u64,
    /// Encoded media that was handed to viewers and pushes, and results of renders; not what protocols add.
    pub egress_bytes: u64,
}

impl Row {
    pub(super) fn new(tenant: String, month: String, totals: Totals) -> Self {
        let seconds = |us: u64| us as f64 / 1e6;
        Self {
            tenant,
            month,
            session_seconds: seconds(totals.session_us),
            gpu_seconds: seconds(totals.gpu_us),
            frames: totals.frames,
            egress_bytes: totals.egress_bytes,
        }
    }
}

/// Rows as RFC 4180 has them. Names need no quotes.
pub fn csv(rows: &[Row]) -> String {
    let mut text = String::from("tenant,month,session_seconds,gpu_seconds,frames,egress_bytes\r\n");
    for row in rows {
        let Row { tenant, month, session_seconds, gpu_seconds, frames, egress_bytes } = row;
        text += &format!("{tenant},{month},{session_seconds:.6},{gpu_seconds:.6},{frames},{egress_bytes}\r\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_begin_and_end_where_the_calendar_says() {
        for (seconds, month) in [
            (0, "1970-01"),
            (951_782_399, "2000-02"),
            (951_868_799, "2000-02"),
            (951_868_800, "2000-03"),
            (1_709_251_199, "2024-02"),
            (1_709_251_200, "2024-03"),
            (1_767_225_599, "2025-12"),
            (1_767_225_600, "2026-01"),
            (4_107_542_400, "2100-03"),
        ] {
            assert_eq!(Month::at(seconds).to_string(), month, "{seconds}");
            assert_eq!(Month::parse(month), Some(Month::at(seconds)));
        }
        assert_eq!(Month::at(1_767_225_600).before().to_string(), "2025-12");
        for bad in ["", "2026", "2026-13", "2026-00", "26-01", "2026-1", "2026-01-01", "+026-01", "éé-01"] {
            assert_eq!(Month::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn each_month_is_counted_apart_and_written_when_it_has_changed() {
        let mut meter = Meter::default();
        let (november, december) = (Month::parse("2026-11").unwrap(), Month::parse("2026-12").unwrap());
        let second = Totals { session_us: 1_000_000, frames: 25, ..Totals::default() };
        meter.add(november, second);
        meter.add(november, second);
        assert_eq!(meter.take_changed(), [(november, second + second)]);
        assert_eq!(meter.take_changed(), []);
        meter.add(december, second);
        meter.put_back(november);
        assert_eq!(meter.take_changed(), [(november, second + second), (december, second)]);
        meter.set_others(november, 5);
        assert_eq!((meter.session_us(november), meter.session_us(december)), (2_000_005, 1_000_000));
        assert_eq!(meter.totals().frames, 75);
    }

    #[test]
    fn a_counter_that_falls_behind_is_not_counted_again() {
        let at = |frames| Totals { frames, ..Totals::default() };
        let (mut last, mut sum) = (Totals::default(), 0);
        for now in [10, 20, 15, 20, 30] {
            sum += at(now).since(last).frames;
            last = last.largest(at(now));
        }
        assert_eq!(sum, 30);
    }
}
