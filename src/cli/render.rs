//! `lipstream render`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use gstlipstream::{alpha::Mode, selector::Selector};
use lipstream_engines::{
    enhance::{self, Filter},
    occlusion::Masks,
    runtime::{Device, Precision},
    schedule,
};

use crate::{
    error::{Failure, Result},
    marks::{self, Corner, Identity},
    media::{self, Notices, Sequence, Track, sequence::Pattern},
    render::{self, AudioCodec},
};

#[derive(Args)]
pub(super) struct Render {
    /// Video of a person; any container that GStreamer decodes, or numbered pictures as frames/%05d.png
    #[arg(long, value_name = "FILE")]
    video: PathBuf,
    /// Pictures a second where VIDEO is numbered pictures: 25, 29.97, 30000/1001 [default: 25]
    #[arg(long, value_name = "RATE", value_parser = media::sequence::parse_rate)]
    fps: Option<(i32, i32)>,
    /// What becomes of the video's transparency: keep (in .webm as VP9, in .mov as ProRes 4444, in pictures), drop (it is laid on black), a
    /// colour as #00ff00 to lay it on, or stack (the picture above, its alpha as a grey picture below)
    #[arg(long, default_value = "drop", value_name = "keep|drop|#RRGGBB|stack")]
    alpha: Mode,
    /// Speech, of any file that GStreamer decodes. Where it is the file of VIDEO, picture and sound keep their places in time;
    /// two files begin together, each with its own beginning
    #[arg(long, value_name = "FILE")]
    audio: PathBuf,
    /// Which sound track is heard where the file has several: its number, from 1 on, or its language as `en` [default: the
    /// file's own default, else the first that is not silent]
    #[arg(long, value_name = "N|LANG")]
    audio_track: Option<Track>,
    /// Output: .mp4, .mov, .mkv or .webm, or numbered pictures without sound as frames/%05d.png
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Engine by name, or the folder of its engine.toml
    #[arg(long)]
    engine: Option<String>,
    /// Run an imported engine as its published program does, to the pixel: whole boxes and hard pastes in the place of sub-pixel
    /// ones, feathers and fitted colours
    #[arg(long, requires = "engine")]
    exact: bool,
    /// auto, cpu, openvino, cuda[:n] or tensorrt[:n]
    #[arg(long, default_value = "auto")]
    device: Device,
    /// auto, fp32, tf32, fp16, bf16 or int8
    #[arg(long, default_value = "auto")]
    precision: Precision,
    /// Denoise steps a frame, in place of the engine's own number
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=*schedule::STEPS.end() as i64))]
    steps: Option<u32>,
    /// How a latent is denoised: ddim or dpm-solver++, in place of the engine's own way
    #[arg(long)]
    sampler: Option<schedule::Sampler>,
    /// Scale of the guidance by what is heard, 1 being none
    #[arg(long, value_parser = guidance)]
    guidance: Option<f64>,
    /// Which steps are guided: all, last or none
    #[arg(long)]
    guided: Option<schedule::Guided>,
    /// Sound after a frame that its mouth may hear, in milliseconds, one of those that `lipstream engines` lists [default: the
    /// longest that the engine has]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    look_ahead: Option<u32>,
    /// What stays before the mouth, such as a hand, a microphone or hair: auto by the network that is built in, off nothing, a masker by
    /// the name under which it was imported, or an ONNX file: of xseg, of BiSeNet, or as engines/train/occlusion exports it
    #[arg(long, default_value = "auto", value_name = "auto|off|NAME|FILE.onnx")]
    occlusion: Masks,
    /// Look for faces every so many frames; they are followed in between
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "FRAMES")]
    inference_interval: Option<u32>,
    /// How far the mouth moves, 1 being as learnt
    #[arg(long, value_parser = gain)]
    motion_gain: Option<f64>,
    /// Which of several faces speak: largest, all, auto (the one whose own lips follow the sound), left, right, or track:N
    #[arg(long, value_name = "FACE")]
    speaker: Option<Selector>,
    /// A second voice, mixed with the first and cut to its length: of the faces that the first does not move it moves those that
    /// --speaker-b names
    #[arg(long, value_name = "FILE")]
    audio_b: Option<PathBuf>,
    /// Which faces the second voice moves, as --speaker [default: largest]
    #[arg(long, value_name = "FACE", requires = "audio_b")]
    speaker_b: Option<Selector>,
    /// End with the video where the audio is longer, in place of playing it backward and forward again
    #[arg(long)]
    no_loop: bool,
    /// Reference bank of the person, in place of gathering one from the video
    #[arg(long, value_name = "FILE")]
    reference_bank: Option<PathBuf>,
    /// Do not look at the video beforehand: references are gathered as it plays
    #[arg(long, conflicts_with = "reference_bank")]
    no_gather: bool,
    /// Do not use reference frames nearer than this to the frame, in milliseconds: hides the true mouth when measuring
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(0..=60_000))]
    reference_gap: Option<u32>,
    /// Make the face crisper once the mouth is pasted: sharpen, clahe (local contrast), detail (texture), combined, or an enhancer by the
    /// name under which it was imported, or by the ONNX file of GFPGAN, CodeFormer or GPEN-BFR
    #[arg(long, value_parser = enhancer, value_name = "NAME|FILE.onnx")]
    enhance: Option<render::Enhancer>,
    /// CodeFormer's weight, 0 to 1: 0 is the best picture, 1 the most like the face [default: 0.5]
    #[arg(long, value_parser = part, requires = "enhance")]
    fidelity: Option<f64>,
    /// Frames of a face for one evaluation of an enhancer's network: what it changed follows the face between them [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=8), requires = "enhance")]
    enhance_every: Option<u8>,
    /// Enlarge the picture, 1 to 2, and work on the face at that size, in which the output is [default: 1]
    #[arg(long, value_name = "FACTOR", value_parser = upscale, requires = "enhance")]
    face_upscale: Option<f64>,
    /// How much of the enhancement is blended in, 0 to 1 [default: 0.8]
    #[arg(long, value_parser = part, requires = "enhance")]
    enhance_strength: Option<f64>,
    /// How much of the mouth is kept from the enhancement, 0 to 1 [default: 0.8]
    #[arg(long, value_parser = part, requires = "enhance")]
    mouth_protection: Option<f64>,
    /// Text in every picture for all to see, such as that a machine made the speech: at most 100 Latin, Greek or Cyrillic
    /// characters
    #[arg(long, value_parser = label, value_name = "TEXT")]
    label: Option<String>,
    /// Where it is
    #[arg(long, requires = "label", default_value_t, value_enum)]
    label_corner: Corner,
    /// Audio of the output [default: aac in .mp4 and .mov, flac in .mkv, opus in .webm]
    #[arg(long, value_enum)]
    audio_codec: Option<AudioCodec>,
    /// Quality of H.264, lower is better
    #[arg(long, default_value_t = 18, value_parser = clap::value_parser!(u32).range(0..=50))]
    crf: u32,
    /// Speed of x264: ultrafast, superfast, veryfast, faster, fast, medium, slow, slower, veryslow
    #[arg(long, default_value = "veryfast", value_parser = PRESETS)]
    preset: String,
    /// high: visually lossless and slow to encode. H.264 by x264 with crf 12, preset slow, tune film; VP8 in .webm with
    /// cq-level 4, cpu-used 2, and VP9 with cq-level 4, cpu-used 3 where alpha is kept. In place of --crf and --preset
    #[arg(long, value_enum, conflicts_with_all = ["crf", "preset", "video_bitrate"])]
    quality: Option<Quality>,
    /// Video bit rate in kbit/s, in place of a quality
    #[arg(long, value_name = "KBIT", value_parser = clap::value_parser!(u32).range(50..=200_000))]
    video_bitrate: Option<u32>,
    /// Add nothing that says that a machine made the mouth: no invisible mark in the picture, no signed C2PA manifest in .mp4
    /// and .mov
    #[arg(long)]
    no_marks: bool,
    /// Certificate chain in PEM that signs the manifest, the signer's first [default: one that is made here and says so]
    #[arg(long, value_name = "FILE.pem", requires = "certificate_key", conflicts_with = "no_marks")]
    certificate: Option<PathBuf>,
    /// Its private key in PEM
    #[arg(long, value_name = "FILE.pem", requires = "certificate")]
    certificate_key: Option<PathBuf>,
    /// Print one JSON object about the render on stdout
    #[arg(long)]
    json: bool,
    /// No progress
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Quality {
    High,
}

const PRESETS: [&str; 9] =
    ["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"];

impl Render {
    fn enhancement(&self) -> Option<render::Enhance> {
        self.enhance.clone().map(|by| render::Enhance {
            by,
            strength: self.enhance_strength,
            mouth_protection: self.mouth_protection,
            fidelity: self.fidelity,
            every: self.enhance_every,
            upscale: self.face_upscale.filter(|by| *by > 1.0),
        })
    }

    pub(super) fn run(self) -> Result<ExitCode> {
        let mut properties = vec![("device", self.device.to_string()), ("precision", self.precision.to_string())];
        let mut set = |name, value: Option<String>| properties.extend(value.map(|v| (name, v)));
        set("engine", self.engine.clone());
        set("exact", self.exact.then(|| "true".to_owned()));
        set("steps", self.steps.map(|n| n.to_string()));
        set("sampler", self.sampler.map(|sampler| sampler.name().to_owned()));
        set("guidance", self.guidance.map(|scale| scale.to_string()));
        set("guided", self.guided.map(|guided| guided.name().to_owned()));
        set("inference-interval", self.inference_interval.map(|n| n.to_string()));
        set("motion-gain", self.motion_gain.map(|g| g.to_string()));
        set("speaker", self.speaker.map(|selector| selector.to_string()));
        set("speaker-b", self.speaker_b.map(|selector| selector.to_string()));
        set("reference-gap", self.reference_gap.map(|ms| ms.to_string()));
        set("label", self.label.clone());
        set("label-corner", self.label.is_some().then(|| self.label_corner.to_string()));
        set("watermark", self.no_marks.then(|| "false".to_owned()));
        let enhance = self.enhancement();
        let signer = match (&self.certificate, &self.certificate_key) {
            _ if self.no_marks => None,
            (Some(chain), Some(key)) => Some(Identity::from_files(chain, key)?),
            _ => Some(Identity::self_made()?),
        };
        let video = match self.fps {
            Some(_) if Pattern::of(&self.video).is_none() => {
                let video = self.video.display();
                return Err(Failure::usage(format!(
                    "--fps: {video} is one file and has a rate of its own; it is for pictures as %05d.png"
                )));
            }
            rate => Sequence::path(&self.video, rate),
        };
        let summary = render::render(render::Options {
            video,
            audio: self.audio,
            audio_track: self.audio_track.unwrap_or_default(),
            second_audio: self.audio_b,
            output: self.output,
            properties,
            engine: self.engine,
            exact: self.exact,
            occlusion: self.occlusion,
            look_ahead: self.look_ahead,
            runtime: lipstream_engines::runtime::Options {
                device: self.device,
                precision: self.precision,
                ..Default::default()
            },
            reference_bank: self.reference_bank,
            gather: !self.no_gather,
            looped: !self.no_loop,
            alpha: self.alpha,
            enhance,
            audio_codec: self.audio_codec,
            quality: match (self.quality, self.video_bitrate) {
                (Some(Quality::High), _) => render::Quality::High,
                (None, Some(rate)) => render::Quality::BitRate { rate, preset: self.preset },
                (None, None) => render::Quality::Crf { crf: self.crf, preset: self.preset },
            },
            signer,
            part: None,
            quiet: self.quiet,
            watch: render::Watch::default(),
            notices: Notices::default(),
        })?;
        if self.json {
            println!("{}", serde_json::to_string(&summary).expect("a summary has only plain values"));
        } else if !self.quiet {
            eprintln!(
                "{}: {} frames, {:.2} s, {:.1} times real time on {}",
                summary.output.display(),
                summary.frames,
                summary.seconds,
                summary.rtf,
                summary.device,
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn enhancer(text: &str) -> Result<render::Enhancer, String> {
    if let Ok(filter) = text.parse() {
        return Ok(render::Enhancer::Filter(filter));
    }
    if enhance::is_file(text) {
        return Ok(render::Enhancer::Network(text.into()));
    }
    let known = Filter::ALL.map(Filter::name).join(", ");
    let installed = enhance::installed(text).map(|_| render::Enhancer::Network(text.into()));
    installed
        .map_err(|error| format!("must be one of {known}, an enhancer that is installed, or an .onnx file: {error}"))
}

fn upscale(text: &str) -> Result<f64, String> {
    let by = text.parse().ok().filter(|by| (1.0..=2.0).contains(by));
    by.ok_or_else(|| "must be a number from 1 to 2".into())
}

fn label(text: &str) -> Result<String, String> {
    marks::check_label(text).map(|()| text.to_owned())
}

fn part(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|p| (0.0..=1.0).contains(p)).ok_or_else(|| "must be a number in 0..1".into())
}

fn gain(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|g| (0.0..=4.0).contains(g)).ok_or_else(|| "must be a number in 0..4".into())
}

fn guidance(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|g| (0.0..=20.0).contains(g)).ok_or_else(|| "must be a number in 0..20".into())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn all_that_is_said_of_an_enhancer_reaches_it() {
        let asked = |words: &str| {
            let line = format!("lipstream render --video a --audio b -o c {words}");
            match Cli::try_parse_from(line.split(' ')).map(|cli| cli.command) {
                Ok(Command::Render(render)) => Ok(render.enhancement()),
                Ok(_) => panic!("{line} renders nothing"),
                Err(error) => Err(error.to_string()),
            }
        };
        let by = |by| render::Enhance {
            by,
            strength: None,
            mouth_protection: None,
            fidelity: None,
            every: None,
            upscale: None,
        };
        let sharpen = by(render::Enhancer::Filter(Filter::Sharpen));
        assert_eq!(asked("--enhance sharpen"), Ok(Some(sharpen)));
        let network = by(render::Enhancer::Network("codeformer.onnx".into()));
        let network =
            render::Enhance { strength: Some(0.5), mouth_protection: Some(0.0), fidelity: Some(0.25), ..network };
        let words = "--enhance codeformer.onnx --enhance-strength 0.5 --mouth-protection 0 --fidelity 0.25";
        assert_eq!(asked(words), Ok(Some(network)));
        let refused = asked("--enhance blur").unwrap_err();
        let known = "sharpen, clahe, detail, combined, an enhancer that is installed, or an .onnx file: there is no enhancer `blur`";
        assert!(refused.contains(known), "{refused}");
    }
}
