//! `lipstream adapt`: an engine for one person, from a video of them.
//!
//! 1. [`observe`] follows the person through the video and keeps many pictures of the mouth: the reference bank.
//! 2. [`offset`] asks the general engine what it would have made of the video's own sound, and finds by how much sound and
//!    picture are apart.
//! 3. The range of the motion is fitted to the person and kept where it helps on stretches that it was not taken from.
//! 4. [`write`] seals all that as a folder that is an engine like any other.

mod observe;
mod offset;
mod write;

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Instant,
};

use lipstream_engines::{
    engine::{
        Engine as _,
        compact::{self, Agreement, Compact},
    },
    manifest::{Family, Package},
    runtime,
};
use serde::Serialize;

use self::offset::Offset;
use crate::{
    error::{Failure, Result},
    eval::sound,
    media::{Notice, Notices, Track},
};

/// Pictures that are kept unless told otherwise.
pub const REFERENCES: u16 = 128;

/// What to adapt and to whom; the command line fills it.
#[derive(Clone, Debug)]
pub struct Options {
    pub video: PathBuf,
    /// The folder of the new engine.
    pub output: PathBuf,
    /// What is heard with the video, in place of its own sound.
    pub audio: Option<PathBuf>,
    /// Which sound track is heard.
    pub audio_track: Track,
    /// The general engine, by name or folder.
    pub engine: String,
    /// Pictures at most, 1..=256.
    pub references: usize,
    pub runtime: runtime::Options,
    pub quiet: bool,
    pub notices: Notices,
}

/// What came of it. Figures of the motion are of stretches that the range was not taken from.
#[derive(Debug, Serialize)]
pub struct Summary {
    pub output: PathBuf,
    pub name: String,
    pub engine: String,
    /// Frames that were looked at, and those that show the person.
    pub frames: usize,
    pub faces: usize,
    /// Of the video, as far as it was looked at.
    pub seconds: f64,
    pub references: usize,
    /// Shapes of the mouth that rest and range are taken from.
    pub shapes: u64,
    /// Frames with a face and a voice that the range was taken from.
    pub pairs: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<Offset>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Agreement>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Agreement>,
    /// Factor on the motion, where it is part of the engine,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<f32>,
    /// and where it is not, why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
    pub wall_seconds: f64,
    /// What was chosen, converted or missing in the files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<Notice>,
}

/// What is known of the motion.
#[derive(Default)]
struct Motion {
    pairs: usize,
    offset: Option<Offset>,
    before: Option<Agreement>,
    after: Option<Agreement>,
    range: Option<f32>,
    why_not: Option<String>,
}

/// Makes the engine. Errors: a video that cannot be read, without one single face, or too short; an engine that is no general
/// one; a folder that cannot be written.
pub fn adapt(options: &Options) -> Result<Summary> {
    let started = Instant::now();
    let engine = general(&options.engine)?;
    let name = write::name(&options.output)?;
    write::check(&options.output)?;
    let compact = Compact::load(&engine, &options.runtime)?;
    let heard = match &options.audio {
        Some(path) => Some(sound::samples(path, &options.audio_track, 0.0, &options.notices)?),
        None => None,
    };
    let seen = observe::watch(options, &compact)?;
    let heard = match heard {
        Some(heard) => Some(heard),
        None => sound::samples_if_any(&options.video, &options.audio_track, seen.start, &options.notices)?,
    };
    let motion = motion(&engine, &compact, options, &seen, heard.as_deref())?;
    let bank = seen.bank.to_bytes()?;
    let person = motion.range.map(compact::person_file).transpose()?;
    write::engine(&engine, &options.output, &name, &bank, person.as_deref())?;
    Ok(Summary {
        output: options.output.clone(),
        name,
        engine: engine.manifest().name.clone(),
        frames: seen.frames,
        faces: seen.faces(),
        seconds: seen.seconds,
        references: seen.bank.references().len(),
        shapes: seen.bank.observed(),
        pairs: motion.pairs,
        offset: motion.offset,
        before: motion.before,
        after: motion.after,
        range: motion.range,
        why_not: motion.why_not,
        wall_seconds: started.elapsed().as_secs_f64(),
        notices: options.notices.list(),
    })
}

fn general(name: &str) -> Result<Package> {
    let engine = Package::find(name)?;
    let manifest = engine.manifest();
    if manifest.family != Family::Compact {
        let family = manifest.family;
        return Err(Failure::usage(format!("engine `{name}` is of the family `{family}`; adapt one of `compact`")));
    }
    if engine.is_adapted() {
        return Err(Failure::usage(format!("engine `{name}` is adapted to somebody already; adapt a general one")));
    }
    Ok(engine)
}

fn motion(
    engine: &Package,
    compact: &Compact,
    options: &Options,
    seen: &observe::Observed,
    heard: Option<&[f32]>,
) -> Result<Motion> {
    let without = |why: String| Ok(Motion { why_not: Some(why), ..Motion::default() });
    let Some(heard) = heard.filter(|samples| samples.iter().any(|s| s.abs() > 1e-4)) else {
        return without("there is no sound".into());
    };
    let identity = compact.prepare(&seen.bank)?;
    let stretches = offset::stretches(compact, &identity, seen)?;
    let speech = offset::Speech::new(engine, compact, &options.runtime, heard)?;
    let Some(offset) = offset::offset(compact, &speech, &stretches)? else {
        return without("the mouth and the sound do not move together: is it the person's own voice?".into());
    };
    let pairs = offset::pairs(&speech, &stretches, offset)?;
    let (count, fewest) = (pairs.len(), compact::FEWEST);
    if count < fewest {
        let why = format!("{count} frames with speech are too few, {fewest} are needed");
        return Ok(Motion { pairs: count, offset: Some(offset), why_not: Some(why), ..Motion::default() });
    }
    let fit = compact::fit(compact, &pairs)?;
    let why_not = fit.range.is_none().then(|| "the general engine's was not bettered".to_owned());
    let (before, after) = (Some(fit.before), Some(fit.after));
    Ok(Motion { pairs: count, offset: Some(offset), before, after, range: fit.range, why_not })
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: engine `{}`, adapted from `{}`", self.output.display(), self.name, self.engine)?;
        writeln!(f, "frames      {} in {:.1} s, {} with the face", self.frames, self.seconds, self.faces)?;
        writeln!(f, "references  {} of {} shapes", self.references, self.shapes)?;
        if let Some(offset) = &self.offset {
            writeln!(f, "offset      the picture is {} ms late, r {:.2}", offset.milliseconds, offset.r)?;
        }
        if let (Some(before), Some(after)) = (&self.before, &self.after) {
            writeln!(
                f,
                "motion      r {:.3} before, {:.3} after; lips off by {:.4} and {:.4}; spread {:.2} and {:.2} (held out)",
                before.r, after.r, before.lips, after.lips, before.spread, after.spread
            )?;
        }
        match (&self.range, &self.why_not) {
            (Some(range), _) => writeln!(f, "kept        references, rest, range {range:.2} ({} frames)", self.pairs),
            (None, Some(why)) => writeln!(f, "kept        references, rest; no range: {why}"),
            (None, None) => writeln!(f, "kept        references, rest"),
        }
    }
}

/// What a path is called in failures.
fn shown(path: &Path) -> std::path::Display<'_> {
    path.display()
}
