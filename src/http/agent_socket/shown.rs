//! Reports that wait until viewers are shown what they tell of: speech is given to the graph ahead of that.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::message::Report;
use crate::session::clock::Nanos;

/// Longest wait for a frame: a graph that has stopped does not hold the reports.
const PATIENCE: Duration = Duration::from_secs(2);

struct Waiting {
    /// Clock time of the frame that must have been shown.
    at: Nanos,
    since: Instant,
    report: Report,
}

/// Reports in the order in which they are to be told.
#[derive(Default)]
pub(super) struct Shown {
    waiting: VecDeque<Waiting>,
}

impl Shown {
    /// `report` is due when the frame of clock time `at` has been shown.
    pub fn wait(&mut self, at: Nanos, report: Report) {
        self.waiting.push_back(Waiting { at, since: Instant::now(), report });
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next report that is due. `last` is the clock time of the newest frame that was shown, `None` where no
    /// graph runs.
    pub fn due(&mut self, last: Option<Nanos>) -> Option<Report> {
        let next = self.waiting.front()?;
        let due = last.is_none_or(|last| last >= next.at) || next.since.elapsed() > PATIENCE;
        if due { self.waiting.pop_front().map(|waiting| waiting.report) } else { None }
    }

    /// The utterance `id` was cut: that it has started is no longer told where it was not shown yet. What else waited is
    /// due now.
    pub fn cut(&mut self, id: &str) -> Vec<Report> {
        let unshown = |report: &Report| matches!(report, Report::Started(own) if own.event_id == id);
        self.waiting.drain(..).map(|waiting| waiting.report).filter(|report| !unshown(report)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::agent_socket::message::Utterance;

    fn started(id: &str) -> Report {
        Report::Started(Utterance::of(id))
    }

    fn ended(id: &str) -> Report {
        Report::Ended(Utterance::of(id))
    }

    #[test]
    fn a_report_waits_for_its_frame_and_keeps_its_place() {
        let mut shown = Shown::default();
        shown.wait(100, started("a"));
        shown.wait(300, ended("a"));
        assert_eq!(shown.due(Some(99)), None);
        assert_eq!(shown.due(Some(100)), Some(started("a")));
        assert_eq!(shown.due(Some(299)), None);
        assert_eq!(shown.due(Some(300)), Some(ended("a")));
        assert!(shown.is_empty());
    }

    #[test]
    fn nothing_waits_for_frames_that_are_not_shown() {
        let mut shown = Shown::default();
        shown.wait(100, started("a"));
        assert_eq!(shown.due(None), Some(started("a")));
    }

    #[test]
    fn a_cut_utterance_that_no_viewer_saw_has_not_started() {
        let mut shown = Shown::default();
        shown.wait(100, ended("a"));
        shown.wait(100, started("b"));
        assert_eq!(shown.cut("b"), [ended("a")]);
        assert!(shown.is_empty());
    }
}
