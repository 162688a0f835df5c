use std::time::Duration;

use super::{
    super::{FrontEnd, Pick, Tail, WindowSpec},
    stream::{Context, Evaluate, Stream},
};
use crate::{
    Error, Result,
    manifest::{Package, SoundSection},
    runtime::{Input, Options},
};

/// Every 40 ms the last two seconds are shown, of which the last 80 ms are there for the rows before them alone.
pub(crate) const CONTEXT: Context = Context { columns: 200, rows: 2, ahead: 4 };
/// Rows after that of a frame's own time which belong to its window: the last of ten at 25 frames a second, in both families.
const AFTER: u32 = 5;

/// Whisper's encoder of an engine of LatentSync or MuseTalk as its front-end: a feature is a row of its states.
pub(crate) fn front_end(package: &Package, options: &Options) -> Result<Stream> {
    let manifest = package.manifest();
    let sections = [manifest.latentsync.as_ref().map(|s| &s.sound), manifest.musetalk.as_ref().map(|s| &s.sound)];
    let SoundSection { states, width, .. } = sections.into_iter().flatten().next().ok_or_else(|| {
        Error::invalid(format!("engine `{}` says nothing of what it hears: import it again", manifest.name))
    })?;
    let model = package.network("whisper", options)?;
    // The graph tells whether the last states are normed, the file beside it has the weights.
    let file = manifest.files.get("whisper");
    let hash = |hash: Option<&String>| hash.and_then(|hash| hash.get(..16)).unwrap_or_default().to_owned();
    let data = file.and_then(|file| file.data.as_ref());
    let name = format!("{}{}", hash(file.map(|file| &file.sha256)), hash(data.map(|data| &data.sha256)));
    let evaluate: Evaluate = Box::new(move |mel, columns| {
        let inputs = [Input { name: "mel", shape: &[1, super::super::BINS, columns], data: mel }];
        Ok(model.run(&inputs)?.into_iter().next().map(|states| states.data).unwrap_or_default())
    });
    Stream::new(evaluate, &name, states * width, CONTEXT)
}

/// What a frame hears of it: so many rows, of which [`AFTER`] follow that of its own time.
pub(crate) fn window(front_end: &dyn FrontEnd, moments: usize) -> WindowSpec {
    let (hop, overhang) = (front_end.hop(), front_end.overhang());
    let rows = i64::from(AFTER) + 1 - moments as i64..=i64::from(AFTER);
    WindowSpec {
        hop,
        overhang,
        taps: rows.map(|row| row * hop.as_nanos() as i64).collect(),
        look_ahead: hop * AFTER + overhang,
        dims: front_end.dims(),
        silence: front_end.silence().into(),
        pick: Pick::Before,
        tail: Tail::Silence,
    }
}

/// Sound after a frame's time that it waits for.
pub(crate) fn look_ahead() -> Duration {
    CONTEXT.row() * AFTER + CONTEXT.overhang()
}
