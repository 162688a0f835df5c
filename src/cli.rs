//! The command line.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use gstlipstream::{alpha::Mode, selector::Selector};
use lipstream_engines::{
    enhance::{self, Filter},
    import::onnx,
    manifest::{Family, Features},
    occlusion::Masks,
    runtime::{Device, Precision},
    schedule,
};

use crate::{
    adapt, detect, doctor, engines,
    error::{Failure, Result},
    eval, graph,
    marks::{self, Corner, Identity},
    media::{self, Notices, Sequence, Track, sequence::Pattern},
    render::{self, AudioCodec},
    serve, tenants,
};

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed while running
  2    wrong command line, graph file or parameter
  3    an input is missing, cannot be decoded, or has no video, no audio or no face
  4    an engine, its model or its device does not work
  5    the output cannot be written
  130  interrupted";

/// Live lip-sync for GStreamer: a video says what a voice says.
#[derive(Parser)]
#[command(version, after_help = EXIT_CODES)]
pub struct Cli {
    /// Say what is chosen and why (more with LIPSTREAM_LOG=debug)
    #[arg(short, long, global = true)]
    pub verbose: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Render a video file whose lips follow a speech file
    Render(Box<Render>),
    /// Run a graph file
    Run(Run),
    /// Serve live sessions: RTMP and WebRTC in and out, speech over HTTP, a page to operate it
    Serve(Serve),
    /// Measure the lips of a video: sync, sharpness, steadiness, silence
    Eval(Box<Eval>),
    /// Look in a video for the invisible mark that renders and streams carry
    Detect(Detect),
    /// Make an engine for one person from a video of them
    Adapt(Adapt),
    /// Make an engine of a published checkpoint: Wav2Lip, SyncTalk_2D
    Import(Import),
    /// List the engines that are installed, check, build or remove one
    Engines(Engines),
    /// Tenants of a server, and their keys
    Keys(tenants::command::Keys),
    /// Check what Lipstream needs on this machine, and say how to get what is missing
    Doctor(Json),
}

#[derive(Args)]
struct Json {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Import {
    /// wav2lip, synctalk2d, latentsync, musetalk, enhancer or occlusion [default: what the files are]
    #[arg(value_parser = family)]
    family: Option<Family>,
    /// A checkpoint as it was published: .pt, .pth, .bin, .safetensors or .onnx, a folder of one, or its .json; once for each
    #[arg(long, value_name = "FILE", required = true)]
    from: Vec<PathBuf>,
    /// Name of the engine [default: the file's]
    #[arg(long)]
    name: Option<String>,
    /// Arithmetic of its networks
    #[arg(long, default_value = "fp32", value_parser = ["fp32", "fp16"])]
    precision: String,
    /// What computes the audio features of a SyncTalk_2D network: ave, hubert, wenet, or compact, Lipstream's own
    #[arg(long, value_parser = features)]
    features: Option<Features>,
    /// Licence of the weights, as you have it
    #[arg(long)]
    licence: Option<String>,
    /// Replace an engine of that name
    #[arg(long)]
    replace: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// No progress
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
struct Engines {
    #[command(subcommand)]
    action: Option<EnginesAction>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum EnginesAction {
    /// Run every network on stored inputs and compare what it says
    Check {
        /// Name of the engine, or its folder
        name: String,
        /// Inputs and outputs that the published code computed, in place of those of the import
        #[arg(long, value_name = "FILE")]
        golden: Option<PathBuf>,
        /// Largest difference of an output, over its standard deviation
        #[arg(long, default_value_t = 1e-3)]
        tolerance: f64,
        /// auto, cpu, openvino, cuda[:n] or tensorrt[:n]
        #[arg(long, default_value = "cpu")]
        device: Device,
        /// auto, fp32, tf32, fp16, bf16 or int8
        #[arg(long, default_value = "auto")]
        precision: Precision,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Build the TensorRT engines that device=tensorrt takes: of this card, its TensorRT, a precision and sizes of batches
    Build {
        /// Name of the engine, or a network's ONNX file
        name: String,
        /// Version or alias of the engine
        #[arg(long)]
        version: Option<String>,
        /// tensorrt[:n]
        #[arg(long, default_value = "tensorrt")]
        device: Device,
        /// auto (fp16), fp32, fp16 or bf16
        #[arg(long, default_value = "auto")]
        precision: Precision,
        /// Sizes of batches, each with an engine of its own: 1,2,4; or one engine for all from MIN..MAX or MIN..BEST..MAX, tuned for
        /// BEST, which are slower [default: every size that the engine takes]
        #[arg(long)]
        batch: Option<engines::build::Batches>,
        /// Sizes of further dimensions that an ONNX file leaves open: height=256,width=256 [default: 1]
        #[arg(long, value_delimiter = ',', value_name = "NAME=SIZE")]
        shapes: Vec<engines::build::Size>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
        /// No progress
        #[arg(short, long)]
        quiet: bool,
    },
    /// Remove an engine of yours
    Remove { name: String },
}

fn family(text: &str) -> Result<Family, String> {
    match text {
        "wav2lip" => Ok(Family::Wav2Lip),
        "synctalk2d" => Ok(Family::SyncTalk2d),
        "latentsync" => Ok(Family::LatentSync),
        "musetalk" => Ok(Family::MuseTalk),
        "enhancer" => Ok(Family::Enhancer),
        "occlusion" => Ok(Family::Occlusion),
        other => Err(format!(
            "`{other}` is no family that can be imported: wav2lip, synctalk2d, latentsync, musetalk, enhancer, occlusion"
        )),
    }
}

fn features(text: &str) -> Result<Features, String> {
    [Features::Ave, Features::Hubert, Features::Wenet, Features::Compact]
        .into_iter()
        .find(|features| features.name() == text)
        .ok_or_else(|| "ave, hubert, wenet or compact".into())
}

#[derive(Args)]
struct Render {
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

#[derive(Args)]
struct Run {
    /// Graph file, such as graphs/file.toml
    graph: PathBuf,
    /// Value of a parameter
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// List the parameters of the graph and end
    #[arg(long, visible_alias = "list")]
    help_params: bool,
    /// Print the gst-launch line and end
    #[arg(long)]
    print: bool,
}

#[derive(Args)]
struct Serve {
    /// Configuration; without one everything has a default and only this machine is served
    config: Option<PathBuf>,
    /// Print a commented configuration with the defaults and end
    #[arg(long, conflicts_with = "config")]
    print_config: bool,
    /// Share sessions with the other machines of a cluster, which meet at these NATS servers: nats://HOST:4222, separated by commas
    #[arg(long, value_name = "URL")]
    cluster: Option<String>,
}

#[derive(Args)]
struct Eval {
    /// Video whose mouth is measured
    video: PathBuf,
    /// The same picture with the true mouth: adds how the picture differs from it
    #[arg(long = "true", value_name = "FILE")]
    truth: Option<PathBuf>,
    /// Video of whoever spoke the speech, when that is not the truth: adds how the motion agrees
    #[arg(long, value_name = "FILE")]
    speech_of: Option<PathBuf>,
    /// What is heard with VIDEO, in place of its own sound
    #[arg(long, value_name = "FILE")]
    audio: Option<PathBuf>,
    /// Which sound track is heard where the file has several: its number, from 1 on, or its language as `en` [default: the
    /// file's own default, else the first that is not silent]
    #[arg(long, value_name = "N|LANG")]
    audio_track: Option<Track>,
    /// The same video made to say nothing: adds what moves in silence
    #[arg(long, value_name = "FILE")]
    silent: Option<PathBuf>,
    /// Write the landmarks of VIDEO: a line a frame at 25 frames a second, x and y of 111 points in pixels, empty where there is no face
    #[arg(long, value_name = "FILE.csv")]
    points: Option<PathBuf>,
    /// Draw ten moments of VIDEO, above those of the truth, and the curve of its sync
    #[arg(long, value_name = "FILE.png")]
    sheet: Option<PathBuf>,
    /// Judge of sync by name, or the folder of its engine.toml
    #[arg(long, default_value = "expert", value_name = "ENGINE")]
    expert: String,
    /// auto, cpu, openvino, cuda[:n] or tensorrt[:n]
    #[arg(long, default_value = "auto")]
    device: Device,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Detect {
    /// Video that is looked at; an hour of it at most
    video: PathBuf,
    /// Look for so many marks that nobody makes as well, and say how well the best of each fits: what chance does here
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=1000))]
    other_keys: u16,
    /// auto, cpu, openvino, cuda[:n] or tensorrt[:n]
    #[arg(long, default_value = "auto")]
    device: Device,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Adapt {
    /// Video of the person, alone in it; with their own speech the range of the motion is fitted as well
    #[arg(long, value_name = "FILE")]
    video: PathBuf,
    /// Folder of the new engine; an engine that is there is replaced
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    /// What is heard with VIDEO, in place of its own sound
    #[arg(long, value_name = "FILE")]
    audio: Option<PathBuf>,
    /// Which sound track is heard where the file has several: its number, from 1 on, or its language as `en` [default: the
    /// file's own default, else the first that is not silent]
    #[arg(long, value_name = "N|LANG")]
    audio_track: Option<Track>,
    /// General engine by name, or the folder of its engine.toml
    #[arg(long, default_value = render::DEFAULT_ENGINE)]
    engine: String,
    /// Pictures of the person that are kept
    #[arg(long, default_value_t = adapt::REFERENCES, value_parser = clap::value_parser!(u16).range(1..=256))]
    references: u16,
    /// auto, cpu, openvino, cuda[:n] or tensorrt[:n]
    #[arg(long, default_value = "auto")]
    device: Device,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// No progress
    #[arg(short, long)]
    quiet: bool,
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

impl Cli {
    pub fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::Render(command) => command.run(),
            Command::Run(command) => command.run(),
            Command::Serve(command) => command.run(),
            Command::Eval(command) => command.run(),
            Command::Detect(command) => command.run(),
            Command::Adapt(command) => command.run(),
            Command::Import(command) => command.run(),
            Command::Engines(command) => command.run(),
            Command::Keys(command) => command.run(),
            Command::Doctor(Json { json }) => doctor::examine(json),
        }
    }
}

impl Import {
    fn run(self) -> Result<ExitCode> {
        engines::import::import(&engines::import::Options {
            family: self.family,
            files: self.from,
            name: self.name,
            precision: if self.precision == "fp16" { onnx::Precision::Fp16 } else { onnx::Precision::Fp32 },
            features: self.features,
            licence: self.licence,
            replace: self.replace,
            json: self.json,
            quiet: self.quiet,
        })
    }
}

impl Engines {
    fn run(self) -> Result<ExitCode> {
        match self.action {
            None => engines::list(self.json),
            Some(EnginesAction::Check { name, golden, tolerance, device, precision, json }) => {
                let runtime = lipstream_engines::runtime::Options { device, precision, ..Default::default() };
                engines::check::check(&engines::check::Options { name, golden, tolerance, runtime, json })
            }
            Some(EnginesAction::Build { name, version, device, precision, batch, shapes, json, quiet }) => {
                let name = version.map_or(name.clone(), |version| format!("{name}@{version}"));
                engines::build::build(&engines::build::Options { name, device, precision, batch, shapes, json, quiet })
            }
            Some(EnginesAction::Remove { name }) => engines::check::remove(&name),
        }
    }
}

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

    fn run(self) -> Result<ExitCode> {
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

impl Eval {
    fn run(self) -> Result<ExitCode> {
        let figures = eval::evaluate(&eval::Options {
            video: self.video,
            truth: self.truth,
            speech_of: self.speech_of,
            silent: self.silent,
            audio: self.audio,
            audio_track: self.audio_track.unwrap_or_default(),
            points: self.points,
            sheet: self.sheet,
            expert: self.expert,
            runtime: lipstream_engines::runtime::Options { device: self.device, ..Default::default() },
            notices: Notices::default(),
        })?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&figures).expect("figures are plain values"));
        } else {
            figures.print();
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Detect {
    fn run(self) -> Result<ExitCode> {
        let found = detect::detect(&detect::Options {
            video: self.video.clone(),
            other_keys: self.other_keys,
            runtime: lipstream_engines::runtime::Options { device: self.device, ..Default::default() },
            notices: Notices::default(),
        })?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&found).expect("a finding has only plain values"));
        } else {
            print!("{found}");
        }
        match found.reason {
            Some(why) => {
                Err(Failure::input(format!("{}: cannot tell whether it is marked: {why}", self.video.display())))
            }
            None => Ok(ExitCode::SUCCESS),
        }
    }
}

impl Adapt {
    fn run(self) -> Result<ExitCode> {
        let summary = adapt::adapt(&adapt::Options {
            video: self.video,
            output: self.output,
            audio: self.audio,
            audio_track: self.audio_track.unwrap_or_default(),
            engine: self.engine,
            references: self.references.into(),
            runtime: lipstream_engines::runtime::Options { device: self.device, ..Default::default() },
            quiet: self.quiet,
            notices: Notices::default(),
        })?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&summary).expect("a summary has only plain values"));
        } else {
            print!("{summary}");
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Run {
    fn run(self) -> Result<ExitCode> {
        let graph = graph::Graph::read(&self.graph)?;
        if self.help_params {
            print!("{}", graph.help());
            return Ok(ExitCode::SUCCESS);
        }
        let launch = graph.launch(&self.set)?;
        if self.print {
            println!("{}", graph::command_line(&launch));
            return Ok(ExitCode::SUCCESS);
        }
        if graph.session().is_some() {
            let why =
                "is a graph for `lipstream serve`, which feeds it; docs/gst-launch.md has it as a line of its own";
            return Err(Failure::usage(format!("{}: {why}", self.graph.display())));
        }
        graph::run(&launch)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Serve {
    fn run(self) -> Result<ExitCode> {
        if self.print_config {
            print!("{}", serve::Config::template());
        } else {
            serve::run(self.config.as_deref(), self.cluster.as_deref())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

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
