//! The front-end of engines that hear by Whisper, and what a frame takes of it.

use std::time::Duration;

use super::{
    super::{FrontEnd, Pick, Tail, WindowSpec},
    shared::SharedEncoder,
    stream::{Context, Stream},
    whole::{Program, Whole},
    window,
};
use crate::{
    Error, Result,
    manifest::{Family, Manifest, Package, SoundSection},
    runtime::Options,
};

/// Time from one row to the next.
const HOP: Duration = Duration::from_millis(20);
/// Rows that a frame takes after its own.
const AFTER: u32 = window::ROWS as u32 - 1 - window::BEFORE as u32;

/// Milliseconds of a column.
const COLUMN_MS: usize = 10;
/// How a stream hears where its manifest does not say.
pub(crate) const CONTEXT: Context =
    Context { columns: SoundSection::WINDOW_MS / COLUMN_MS, rows: SoundSection::ROWS, ahead: SoundSection::AHEAD };

/// What an engine hears; `None` of one that does not hear by Whisper.
fn section(manifest: &Manifest) -> Option<&SoundSection> {
    let latentsync = manifest.latentsync.as_ref().map(|section| &section.sound);
    latentsync.or(manifest.musetalk.as_ref().map(|section| &section.sound))
}

fn context(section: &SoundSection) -> Context {
    Context { columns: section.window_ms / COLUMN_MS, rows: section.rows, ahead: section.ahead }
}

/// The front-end of an engine of LatentSync or MuseTalk, whose network `whisper` all streams share.
///
/// Errors: a network that has other states than the manifest says.
pub fn open(package: &Package, options: &Options) -> Result<Box<dyn FrontEnd>> {
    let manifest = package.manifest();
    let section = section(manifest)
        .ok_or_else(|| Error::invalid(format!("engine `{}` does not hear by Whisper", manifest.name)))?;
    let model = package.network("whisper", options)?;
    let dims = section.states * section.width;
    let states = model.signature().outputs.iter().find(|port| port.name == "states");
    let found = states.map(|port| port.shape.iter().skip(2).copied().collect::<Vec<_>>()).unwrap_or_default();
    if found != [Some(section.states), Some(section.width)] {
        return Err(Error::Mismatch {
            model: model.name().into(),
            what: "`states`".into(),
            expected: format!("[batch, columns / 2, {}, {}]", section.states, section.width),
            found: states.map_or("nothing".into(), crate::runtime::Port::describe),
        });
    }
    let encoder = SharedEncoder::of(&model);
    let name = package.digest("whisper");
    if package.is_exact() {
        let program = if manifest.family == Family::MuseTalk { Program::MuseTalk } else { Program::LatentSync };
        return Ok(Box::new(Whole::new(encoder, program, name, dims)));
    }
    let evaluate = move |mel: &[f32], columns: usize| encoder.evaluate(mel.to_vec(), columns);
    Ok(Box::new(Stream::new(Box::new(evaluate), name, dims, context(section))?))
}

/// Sound after a frame's time that a stream waits for: the last of its rows, and what comes after that.
pub fn look_ahead(manifest: &Manifest) -> Option<Duration> {
    Some(context(section(manifest)?).overhang() + HOP * AFTER)
}

/// What a frame hears: rows from four before its own to five after it, the one that has begun at its time. What there is not is
/// silence; in a recording, LatentSync repeats its ends and MuseTalk has zeros beyond them.
pub fn window_spec(package: &Package, front_end: &dyn FrontEnd) -> WindowSpec {
    let hop = HOP.as_nanos() as i64;
    let tail = match package.manifest().family {
        _ if !package.is_exact() => Tail::Silence,
        Family::MuseTalk => Tail::Cut,
        _ => Tail::Ends,
    };
    WindowSpec {
        hop: front_end.hop(),
        overhang: front_end.overhang(),
        taps: (0..window::ROWS as i64).map(|k| (k - window::BEFORE) * hop).collect(),
        look_ahead: front_end.overhang() + HOP * AFTER,
        dims: front_end.dims(),
        silence: front_end.silence().into(),
        pick: Pick::Before,
        tail,
    }
}
