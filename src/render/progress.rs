//! Where a render stands: a bar on a terminal, a line every few seconds elsewhere, or whoever watches it is told.

use std::{
    io::IsTerminal,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Standing, Watch, pace::Pace, watch::Report};

/// Between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(5);

pub enum Progress {
    Bar { bar: ProgressBar, started: Instant, pace: Pace },
    Lines { what: &'static str, total: Option<u64>, started: Instant, pace: Pace, next: Duration },
    Told { report: Arc<Report>, total: Option<u64>, part: Range<f32>, started: Instant, pace: Pace },
    Silent,
}

impl Progress {
    /// `total` frames are expected, as far as the file says so, which are `part` of the whole work.
    pub fn start(what: &'static str, total: Option<u64>, quiet: bool, watch: &Watch, part: Range<f32>) -> Self {
        if let Some(report) = watch.report() {
            report(Standing { part: part.start, ..Standing::default() });
            return Self::Told { report, total, part, started: Instant::now(), pace: Pace::default() };
        }
        if quiet {
            return Self::Silent;
        }
        if !std::io::stderr().is_terminal() {
            let (started, pace) = (Instant::now(), Pace::default());
            return Self::Lines { what, total, started, pace, next: LINE_EVERY };
        }
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
        let template = match total {
            Some(_) => "{msg} {bar:30} {pos}/{len} frames, {prefix}",
            None => "{msg} {spinner} {pos} frames, {prefix}, {elapsed}",
        };
        bar.set_style(ProgressStyle::with_template(template).expect("the template is ours"));
        bar.set_message(what);
        Self::Bar { bar, started: Instant::now(), pace: Pace::default() }
    }

    pub fn at(&mut self, frames: u64) {
        match self {
            Self::Bar { bar, started, pace } => {
                pace.at(frames, started.elapsed());
                bar.set_prefix(pace.words(bar.length(), started.elapsed()));
                if bar.length().is_some_and(|total| total < frames) {
                    bar.set_length(frames);
                }
                bar.set_position(frames);
            }
            Self::Lines { what, total, started, pace, next } => {
                let elapsed = started.elapsed();
                pace.at(frames, elapsed);
                if elapsed < *next {
                    return;
                }
                *next = elapsed + LINE_EVERY;
                eprintln!("{}", line(what, frames, *total, &pace.words(*total, elapsed)));
            }
            Self::Told { report, total, part, started, pace } => {
                let done = total.map_or(0.0, |total| frames as f32 / total.max(1) as f32).min(1.0);
                pace.at(frames, started.elapsed());
                report(Standing {
                    part: part.start + done * (part.end - part.start),
                    fps: pace.fps(),
                    left: total.and_then(|total| pace.left(total, started.elapsed())),
                });
            }
            Self::Silent => {}
        }
    }

    pub fn finish(self) {
        if let Self::Bar { bar, .. } = self {
            bar.finish_and_clear();
        }
    }
}

fn line(what: &str, frames: u64, total: Option<u64>, pace: &str) -> String {
    let of = total.filter(|total| *total >= frames).map_or(String::new(), |total| format!("/{total}"));
    format!("{what}: {frames}{of} frames, {pace}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_the_rate_and_the_time_left() {
        let at = |total| {
            let mut pace = Pace::default();
            pace.at(50, Duration::from_secs(2));
            line("render", 50, total, &pace.words(total, Duration::from_secs(2)))
        };
        assert_eq!(at(Some(150)), "render: 50/150 frames, 25.0 fps, 4 s left");
        assert_eq!(at(None), "render: 50 frames, 25.0 fps");
        assert_eq!(at(Some(40)), "render: 50 frames, 25.0 fps");
    }
}
