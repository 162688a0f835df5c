//! What an engine of the family `compact` hears by, and how far ahead.

use std::{iter, time::Duration};

use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AudioSection {
    #[serde(default)]
    pub kind: AudioKind,
    /// Numbers in one feature vector.
    pub features: usize,
    /// Length of one hop in milliseconds: a multiple of the 10 ms between mel frames; of `causal-whisper` 20.
    pub hop_ms: u32,
    /// What normalises the log-mel: `(y - mean) / std`; `recurrent` alone has it.
    pub mel_mean: Option<f32>,
    pub mel_std: Option<f32>,
    /// Where around a frame's time features are taken, in milliseconds, ascending.
    pub taps_ms: Vec<i32>,
    /// Audio that may be used after a frame's time, in milliseconds; at least the last tap and what a hop needs beyond it.
    pub look_ahead_ms: u32,
    /// Windows of the kind `windowed-whisper`, which alone has them.
    pub window: Option<HearingWindow>,
    /// What may be chosen in its place.
    #[serde(default)]
    pub alternatives: Vec<Alternative>,
}

/// What the network `audio` of `compact` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AudioKind {
    /// A small network that carries a state from hop to hop.
    #[default]
    Recurrent,
    /// Blocks of Whisper's encoder behind a causal mask, whose keys and values are kept.
    CausalWhisper,
    /// Blocks of Whisper's encoder over windows of sound, each of which is heard as a whole: for files.
    WindowedWhisper,
}

/// Another look-ahead, and the motion network that was trained for it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alternative {
    /// As of [`AudioSection`].
    pub look_ahead_ms: u32,
    pub taps_ms: Vec<i32>,
    /// The part that it plays among the engine's files, in the place of `motion`.
    pub motion: String,
    /// Another hearing, of the kind `windowed-whisper`, which alone is chosen for a look-ahead.
    pub hearing: Option<OtherHearing>,
}

/// What hears in the place of the engine's own network.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtherHearing {
    /// The part that it plays among the engine's files, in the place of `audio`.
    pub audio: String,
    /// Numbers in one feature vector.
    pub features: usize,
    pub window: HearingWindow,
    /// Cost of a video frame in GFLOP, in the place of `cost.gflop.front_end`.
    pub gflop: Option<f32>,
}

/// A stretch of sound that is heard as a whole, in tokens of 20 ms, and what is left at either end as too near to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HearingWindow {
    pub tokens: usize,
    pub margin: usize,
}

/// Milliseconds from a hop's start to the last sample that its mel frames cover, less the hop itself.
const MEL_OVERLAP_MS: u32 = 15;

impl AudioSection {
    /// The most that a hop of `causal-whisper` waits for: its tokens are computed two at a time.
    pub const CAUSAL_OVERHANG: Duration = Duration::from_micros(52_500);
    /// Of that what the token itself needs: the rest is the other one's.
    const CAUSAL_NEED: Duration = HearingWindow::NEED;

    /// Audio after a hop's start that its feature is made of.
    fn need(&self) -> Duration {
        match self.kind {
            AudioKind::Recurrent => Duration::from_millis((self.hop_ms + MEL_OVERLAP_MS).into()),
            AudioKind::CausalWhisper => Self::CAUSAL_NEED,
            AudioKind::WindowedWhisper => self.overhang(),
        }
    }

    /// Audio after a hop's start that must have come before there is its feature.
    pub fn overhang(&self) -> Duration {
        match self.kind {
            AudioKind::Recurrent => self.need(),
            AudioKind::CausalWhisper => Self::CAUSAL_OVERHANG,
            AudioKind::WindowedWhisper => self.window.map_or(Duration::ZERO, HearingWindow::overhang),
        }
    }

    /// Audio after a frame's time that must have come before the frame has its features.
    pub fn look_ahead(&self) -> Duration {
        Duration::from_millis(self.look_ahead_ms.into()) + self.overhang() - self.need()
    }

    /// Every look-ahead that it can have, in milliseconds; the first is taken where nobody says.
    pub fn look_aheads(&self) -> impl Iterator<Item = u32> {
        self.choices().map(|(ms, _)| ms)
    }

    /// Those of them for which sound is not heard in windows of seconds.
    pub fn live_look_aheads(&self) -> impl Iterator<Item = u32> {
        self.choices().filter(|(_, windowed)| !windowed).map(|(ms, _)| ms)
    }

    /// Each with whether sound is heard in windows for it.
    fn choices(&self) -> impl Iterator<Item = (u32, bool)> {
        let own = (self.look_ahead_ms, self.kind == AudioKind::WindowedWhisper);
        iter::once(own).chain(self.alternatives.iter().map(|a| (a.look_ahead_ms, a.hearing.is_some())))
    }

    /// As it is with one of its alternatives chosen, which remains one of them.
    pub(super) fn chosen(&self, of: &Alternative) -> Self {
        let mut chosen = Self { look_ahead_ms: of.look_ahead_ms, taps_ms: of.taps_ms.clone(), ..self.clone() };
        if let Some(hearing) = &of.hearing {
            chosen.kind = AudioKind::WindowedWhisper;
            chosen.window = Some(hearing.window);
            chosen.features = hearing.features;
            (chosen.mel_mean, chosen.mel_std) = (None, None);
        }
        chosen
    }
}

impl HearingWindow {
    /// Most tokens, 10 s: features of a window come at once, and no look-ahead is longer.
    const MOST: usize = 500;
    /// Time of a token.
    pub const TOKEN: Duration = Duration::from_millis(20);
    /// Sound from a token's start to the end of the mel frames that it is made of.
    pub const NEED: Duration = Duration::from_micros(32_500);

    /// Tokens whose features are used, and by which the next window lies later.
    pub fn used(self) -> usize {
        self.tokens.saturating_sub(self.margin.saturating_mul(2))
    }

    /// What the first of them waits for: that the last token of the window is there.
    pub fn overhang(self) -> Duration {
        Self::TOKEN * self.tokens.saturating_sub(self.margin.saturating_add(1)) as u32 + Self::NEED
    }

    fn check(self) -> Result<(), (&'static str, String)> {
        if !(1..=Self::MOST).contains(&self.tokens) {
            return Err(("window.tokens", format!("{} is outside 1..{} of 20 ms", self.tokens, Self::MOST)));
        }
        // What is heard again and again at the margins is bounded.
        if self.margin > self.tokens || 4 * self.used() < self.tokens {
            return Err((
                "window.margin",
                format!(
                    "{} leaves {} of {} tokens: at least a quarter must be used",
                    self.margin,
                    self.used(),
                    self.tokens
                ),
            ));
        }
        Ok(())
    }
}

impl AudioSection {
    pub(super) fn check(&self) -> Result<(), (String, String)> {
        let fail = |key: &str, cause: String| Err((format!("audio.{key}"), cause));
        self.check_hearing().map_err(|(key, cause)| (format!("audio.{key}"), cause))?;
        let window = |taps: &[i32], ms| self.check_window(taps, ms);
        window(&self.taps_ms, self.look_ahead_ms).map_err(|(key, cause)| (format!("audio.{key}"), cause))?;
        for alternative in &self.alternatives {
            let refuse = |(key, cause): (&str, String)| (format!("audio.alternatives.{key}"), cause);
            let chosen = self.chosen(alternative);
            if let Some(hearing) = &alternative.hearing {
                let inner = |(key, cause): (&str, String)| (format!("audio.alternatives.hearing.{key}"), cause);
                chosen.check_hearing().map_err(inner)?;
                if let Some(cost) = hearing.gflop.filter(|cost| !(0.0..=1e7).contains(cost)) {
                    return Err(inner(("gflop", format!("{cost} is outside 0..10000000"))));
                }
            }
            chosen.check_window(&chosen.taps_ms, chosen.look_ahead_ms).map_err(refuse)?;
        }
        let known: Vec<u32> = self.look_aheads().collect();
        if known.iter().enumerate().any(|(i, ms)| known[..i].contains(ms)) {
            return fail("alternatives.look_ahead_ms", format!("{known:?} are not different"));
        }
        Ok(())
    }

    /// What turns sound into features.
    fn check_hearing(&self) -> Result<(), (&'static str, String)> {
        if !(1..=4096).contains(&self.features) {
            return Err(("features", format!("{} is outside 1..4096", self.features)));
        }
        if !(10..=80).contains(&self.hop_ms) || !self.hop_ms.is_multiple_of(10) {
            return Err(("hop_ms", format!("{} is not a multiple of 10 in 10..80", self.hop_ms)));
        }
        let finite = |v: Option<f32>| v.is_some_and(f32::is_finite);
        let whisper = self.kind != AudioKind::Recurrent;
        let normalises = finite(self.mel_mean) && finite(self.mel_std) && self.mel_std > Some(0.0);
        if !whisper && !normalises {
            return Err(("mel_std", "mel_mean and mel_std must be there and finite, and mel_std above 0".into()));
        }
        if whisper && self.mel_mean.or(self.mel_std).is_some() {
            return Err(("mel_mean", "and mel_std belong to the kind `recurrent`".into()));
        }
        if whisper && self.hop_ms != 20 {
            let kind = if self.window.is_some() { "windowed-whisper" } else { "causal-whisper" };
            return Err(("hop_ms", format!("{} is not 20, as of the kind `{kind}`", self.hop_ms)));
        }
        match (self.kind, self.window) {
            (AudioKind::WindowedWhisper, None) => {
                Err(("window", "is missing: the kind `windowed-whisper` needs its tokens and margin".into()))
            }
            (AudioKind::WindowedWhisper, Some(window)) => window.check(),
            (_, Some(_)) => Err(("window", "belongs to the kind `windowed-whisper`".into())),
            (_, None) => Ok(()),
        }
    }

    fn check_window(&self, taps: &[i32], look_ahead_ms: u32) -> Result<(), (&'static str, String)> {
        let ascending = taps.windows(2).all(|w| w[0] < w[1]);
        let (Some(first), Some(last), true) = (taps.first(), taps.last(), ascending && taps.len() <= 256) else {
            return Err(("taps_ms", "must be 1 to 256 ascending offsets".into()));
        };
        if *first < -5000 || *last > 5000 {
            return Err(("taps_ms", "must lie within -5000..5000".into()));
        }
        let needs = f64::from(*last) + self.need().as_secs_f64() * 1e3;
        if f64::from(look_ahead_ms) < needs || look_ahead_ms > 10_000 {
            return Err((
                "look_ahead_ms",
                format!("{look_ahead_ms} is less than the last tap needs, {needs}, or more than 10000"),
            ));
        }
        Ok(())
    }
}
