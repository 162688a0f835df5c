//! Where a render stands: a bar on a terminal, a line every few seconds elsewhere, or whoever watches it is told.

use std::{
    io::IsTerminal,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Watch;

/// Between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(5);

pub enum Progress {
    Bar(ProgressBar),
    Lines { what: &'static str, total: Option<u64>, started: Instant, next: Duration },
    Told { report: Arc<dyn Fn(f32) + Send + Sync>, total: Option<u64>, part: Range<f32> },
    Silent,
}

impl Progress {
    /// `total` frames are expected, as far as the file says so, which are `part` of the whole work.
    pub fn start(what: &'static str, total: Option<u64>, quiet: bool, watch: &Watch, part: Range<f32>) -> Self {
        if let Some(report) = watch.report() {
            report(part.start);
            return Self::Told { report, total, part };
        }
        if quiet {
            return Self::Silent;
        }
        if !std::io::stderr().is_terminal() {
            return Self::Lines { what, total, started: Instant::now(), next: LINE_EVERY };
        }
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
        let template = match total {
            Some(_) => "{msg} {bar:30} {pos}/{len} frames, {per_sec}, {eta} left",
            None => "{msg} {spinner} {pos} frames, {per_sec}, {elapsed}",
        };
        bar.set_style(ProgressStyle::with_template(template).expect("the template is ours"));
        bar.set_message(what);
        Self::Bar(bar)
    }

    pub fn at(&mut self, frames: u64) {
        match self {
            Self::Bar(bar) => {
                if bar.length().is_some_and(|total| total < frames) {
                    bar.set_length(frames);
                }
                bar.set_position(frames);
            }
            Self::Lines { what, total, started, next } => {
                let elapsed = started.elapsed();
                if elapsed < *next {
                    return;
                }
                *next = elapsed + LINE_EVERY;
                eprintln!("{}", line(what, frames, *total, elapsed));
            }
            Self::Told { report, total, part } => {
                let done = total.map_or(0.0, |total| frames as f32 / total.max(1) as f32).min(1.0);
                report(part.start + done * (part.end - part.start));
            }
            Self::Silent => {}
        }
    }

    pub fn finish(self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn line(what: &str, frames: u64, total: Option<u64>, elapsed: Duration) -> String {
    let rate = frames as f64 / elapsed.as_secs_f64().max(1e-3);
    match total.filter(|t| *t >= frames && rate > 0.0) {
        Some(total) => {
            let left = (total - frames) as f64 / rate;
            format!("{what}: {frames}/{total} frames, {rate:.1} fps, {left:.0} s left")
        }
        None => format!("{what}: {frames} frames, {rate:.1} fps"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_the_rate_and_the_time_left() {
        assert_eq!(line("render", 50, Some(150), Duration::from_secs(2)), "render: 50/150 frames, 25.0 fps, 4 s left");
        assert_eq!(line("render", 50, None, Duration::from_secs(2)), "render: 50 frames, 25.0 fps");
    }
}
