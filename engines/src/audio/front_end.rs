use std::time::Duration;

use super::{Ave, Encoder, Hearing, Wav2LipMel, Windowed, whisper};
use crate::{
    Error, Result,
    manifest::{AudioKind, Family, Features, Package},
    runtime::Options,
};

/// Most numbers in one feature. Whisper's largest encoder has 33 states of 1280, which are 42 240.
pub const MOST_DIMS: usize = 65_536;

/// Turns speech into one feature vector a hop, the same whatever the size of the pieces that it comes in.
pub trait FrontEnd: Send {
    /// Names what it computes: front-ends with the same key give the same features.
    fn key(&self) -> &str;

    /// Numbers in one feature, at most [`MOST_DIMS`].
    fn dims(&self) -> usize;

    /// Time from one feature to the next.
    fn hop(&self) -> Duration;

    /// Audio that must have arrived after a hop's start before its feature exists: the most that any hop waits for, where
    /// several features come at a time.
    fn overhang(&self) -> Duration;

    /// Sound from a hop's start that tells whether there is voice in it: what is waited for besides tells of other hops.
    fn own_sound(&self) -> Duration {
        self.overhang()
    }

    /// What it says of lasting silence: `[dims]`.
    fn silence(&self) -> &[f32];

    /// The stream that begins with the next sample does so at this running time. Said after a reset, before the first sample;
    /// where nothing is said it begins at 0.
    fn begin_at(&mut self, _time: Duration) {}

    /// Takes 16 kHz mono samples in -1..1, any number of them, and calls `sink` with each feature that they complete.
    /// The first feature after a reset belongs to the hop that starts with the first sample.
    fn push(&mut self, samples: &[f32], sink: &mut dyn FnMut(&[f32])) -> Result<()>;

    /// Ends the stream: every hop that has begun is given, as if silence followed, and the state is reset.
    fn finish(&mut self, sink: &mut dyn FnMut(&[f32])) -> Result<()>;

    /// Forgets everything heard.
    fn reset(&mut self);

    /// What was heard so far was silence; time goes on.
    fn hush(&mut self);
}

/// The front-end of an engine.
pub fn front_end(package: &Package, options: &Options) -> Result<Box<dyn FrontEnd>> {
    let manifest = package.manifest();
    match manifest.family {
        Family::Compact => match &manifest.audio {
            Some(audio) if audio.kind == AudioKind::CausalWhisper => {
                Ok(Box::new(Hearing::new(package, options, audio.features)?))
            }
            Some(audio) if audio.kind == AudioKind::WindowedWhisper => {
                Ok(Box::new(Windowed::new(package, options, audio)?))
            }
            _ => Ok(Box::new(Encoder::new(package, options)?)),
        },
        Family::Wav2Lip => Ok(Box::new(Wav2LipMel::default())),
        Family::SyncTalk2d => match manifest.synctalk2d.as_ref().map(|section| section.features) {
            None | Some(Features::Ave) => Ok(Box::new(Ave::new(package, options)?)),
            Some(Features::Compact) => Ok(Box::new(Encoder::new(&Package::find("compact")?, options)?)),
            Some(other) => Err(Error::invalid(format!(
                "engine `{}` hears by {}, whose encoder it does not bring: it can be checked and not run; import a \
                 checkpoint that was trained with the features ave",
                manifest.name,
                other.name()
            ))),
        },
        Family::LatentSync | Family::MuseTalk => whisper::engine::open(package, options),
        Family::Tracker | Family::Expert | Family::Occlusion | Family::Enhancer => {
            Err(Error::invalid(format!("engine `{}` has no audio encoder", manifest.name)))
        }
    }
}
