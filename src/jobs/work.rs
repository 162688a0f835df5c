//! The render that a job is.

use std::{
    fmt,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Options, options::Quality, store::Settings};
use crate::{
    background,
    error::{Failure, Result},
    media::{Media, Notices, Reader, Track},
    render::{self, Watch},
};

/// Jobs share their workers with no live session: a queue of theirs must not stand before a live frame.
const INSTANCE: &str = "jobs";

/// Names of the files of a job in its folder.
pub const VIDEO: &str = "video";
pub const AUDIO: &str = "audio";
pub const AUDIO_B: &str = "audio-b";
pub const BANK: &str = "bank";
pub const INPUTS: [&str; 4] = [VIDEO, AUDIO, AUDIO_B, BANK];

/// Renders what `folder` holds, at low priority; a panic is a failure.
pub fn render(options: render::Options, longest: Duration) -> Result<render::Summary> {
    let done = panic::catch_unwind(AssertUnwindSafe(|| background::run("render", || run(options, longest))));
    done.unwrap_or_else(|_| Err(Failure::run("the render panicked; the log has more")))
}

fn run(options: render::Options, longest: Duration) -> Result<render::Summary> {
    let speech = Reader::open(&options.audio, Media::Audio, &options.notices)?;
    if let Some(length) = speech.duration().filter(|d| d.nseconds() > longest.as_nanos() as u64) {
        return Err(Failure::input(format!(
            "the speech lasts {} s; at most {} s are rendered: split it",
            length.seconds(),
            longest.as_secs()
        )));
    }
    drop(speech);
    render::render(options)
}

/// How to render what was `asked` of the files in `folder`, of which `bank` is one where the avatar has a reference bank.
pub fn options(
    asked: &Options,
    folder: &Path,
    bank: Option<PathBuf>,
    watch: Watch,
    settings: &Settings,
) -> render::Options {
    let engine = asked.engine.clone().unwrap_or_else(|| settings.engine.clone());
    let mut properties = vec![
        ("engine", engine.clone()),
        ("device", settings.runtime.device.to_string()),
        ("precision", settings.runtime.precision.to_string()),
        ("model-instance-id", INSTANCE.to_owned()),
    ];
    properties.extend((!settings.watermark).then(|| ("watermark", "false".to_owned())));
    properties.extend(asked.motion_gain.map(|gain| ("motion-gain", gain.to_string())));
    properties.extend(asked.speaker.clone().map(|speaker| ("speaker", speaker)));
    properties.extend(asked.label.clone().map(|label| ("label", label)));
    properties.extend(asked.label_corner.map(|corner| ("label-corner", corner.to_string())));
    let second_audio = Some(folder.join(AUDIO_B)).filter(|file| file.exists());
    properties.extend(asked.speaker_b.clone().filter(|_| second_audio.is_some()).map(|speaker| ("speaker-b", speaker)));
    // The bank of an avatar is of the default engine, and of one person.
    let reference_bank = bank.filter(|_| engine == render::DEFAULT_ENGINE && second_audio.is_none());
    render::Options {
        video: folder.join(VIDEO),
        audio: folder.join(AUDIO),
        audio_track: Track::Default,
        second_audio,
        output: result(folder, asked),
        properties,
        engine: Some(engine),
        exact: false,
        occlusion: asked.occlusion.map_or_else(|| settings.occlusion.clone(), |o| o.masks(&settings.occlusion)),
        look_ahead: None,
        runtime: settings.runtime,
        reference_bank,
        gather: true,
        looped: asked.looped,
        alpha: asked.alpha(),
        enhance: asked.enhance.as_deref().filter(|by| !matches!(*by, "" | "off")).map(|by| render::Enhance {
            by: by.parse().map_or_else(|_| render::Enhancer::Network(by.to_owned()), render::Enhancer::Filter),
            strength: asked.enhance_strength,
            mouth_protection: asked.mouth_protection,
            fidelity: asked.fidelity,
            every: asked.enhance_every,
            upscale: asked.face_upscale.filter(|by| *by > 1.0),
        }),
        audio_codec: None,
        quality: match asked.quality {
            Some(Quality::High) => render::Quality::High,
            None => render::Quality::Crf { crf: asked.crf, preset: "veryfast".into() },
        },
        signer: settings.signer.clone(),
        part: None,
        quiet: true,
        watch,
        notices: Notices::default(),
    }
}

/// The file that a render makes.
pub fn result(folder: &Path, asked: &Options) -> PathBuf {
    folder.join(format!("result.{}", asked.container.extension()))
}

/// A message with the job's own names for its files.
pub fn without(folder: &Path, message: &impl fmt::Display) -> String {
    let prefix = format!("{}/", folder.display());
    message.to_string().replace(&prefix, "")
}
