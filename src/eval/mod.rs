//! `lipstream eval`: how well the lips of a video follow a speech, and how good they look.
//!
//! The mouth is measured with the tracker that is built in, so that the figures need nothing else; who wants an opinion
//! of another network measures with that. `engines/train/evaluate.py` computes the same, and `docs/measure.md` says what
//! each figure means.

pub(crate) mod frames;
mod sheet;
pub(crate) mod sound;

use std::path::{Path, PathBuf};

use lipstream_engines::{
    geometry::{Point, landmarks},
    manifest::Package,
    quality::{
        expert::{self, Expert},
        picture::{self, Flicker, Seam},
        series,
    },
    runtime,
};
use serde::Serialize;

use self::{
    frames::{FACE, Faces, MOUTH, Pictures, Places, WatchedVideo},
    sheet::Sheet,
};
use crate::{
    error::{Failure, Result},
    media::{Notice, Notices, Track},
};

/// Frames by which a mouth may be off and still be in sync.
const IN_SYNC: i32 = 1;
/// Frames within which the best agreement is sought.
const REACH: i32 = 15;

/// What is compared.
pub struct Options {
    pub video: PathBuf,
    /// The same person and picture with the true mouth.
    pub truth: Option<PathBuf>,
    /// A video whose mouth says what `video` was made to say; the truth where this is `None`.
    pub speech_of: Option<PathBuf>,
    /// What is heard with `video`; its own sound where this is `None`, that of the speech where it has none.
    pub audio: Option<PathBuf>,
    /// Which sound track is heard.
    pub audio_track: Track,
    /// `video`, made to say nothing.
    pub silent: Option<PathBuf>,
    /// Where the landmarks of `video` go.
    pub points: Option<PathBuf>,
    /// Where a contact sheet goes, a PNG.
    pub sheet: Option<PathBuf>,
    /// The sync expert, by name or folder.
    pub expert: String,
    pub runtime: runtime::Options,
    pub notices: Notices,
}

/// The figures. Openings are in distances of the outer eye corners; what could not be measured is left out.
#[derive(Debug, Default, Serialize)]
pub struct Figures {
    /// Frames on a grid of 25 a second.
    pub frames: usize,
    /// Part of them in which a face was found.
    pub faces: f64,
    pub opening_median: f64,
    /// Standard deviation.
    pub opening_deviation: f64,
    /// Variance of the Laplacian in the picture of the mouth as large as it is, the median of the frames.
    pub sharpness: f64,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub motion: Option<Motion>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub sync: Option<Sync>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub true_sync: Option<TrueSync>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub looks: Option<Appearance>,
    /// Standard deviation of the opening in silence over that in speech.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub silence_leak: Option<f64>,
    /// What was chosen, converted or missing in the files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<Notice>,
}

/// The mouth's motion against that of the video that says the same.
#[derive(Debug, Serialize)]
pub struct Motion {
    /// Correlation of the opening at the best lag within one frame.
    pub r: f64,
    pub r_at_0: f64,
    /// The best within 15 frames, and the frames by which the mouth is late there.
    pub r_best: f64,
    pub lag: i32,
    /// Standard deviation of the opening over the true one.
    pub spread: f64,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub closures: Option<Closures>,
}

/// The closures of the true lips.
#[derive(Debug, Serialize)]
pub struct Closures {
    /// Share that the mouth meets within a frame.
    #[serde(rename = "closures")]
    pub met: f64,
    /// How far the mouth falls there: 1, as shut as it ever is.
    #[serde(rename = "closure_depth")]
    pub depth: f64,
    #[serde(rename = "closure_count")]
    pub count: usize,
}

/// The picture against the true one, frame by frame.
#[derive(Debug, Serialize)]
pub struct Appearance {
    /// Mean distance of the lips' landmarks, each seen from the middle of the mouth.
    pub lmd: f64,
    /// Medians over the frames, in the picture of the mouth; dB.
    pub psnr: f64,
    pub ssim: f64,
    pub sharpness_ratio: f64,
    /// Mean second difference in time where the truth is quiet, less the true one in grey levels, and over the true one.
    pub flicker: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flicker_ratio: Option<f64>,
    /// Mean step across the outline of the lower face: of the difference from the truth in grey levels, and of the picture
    /// over that of the truth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seam: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seam_ratio: Option<f64>,
}

/// What the expert says of the lips and the sound.
#[derive(Debug, Serialize)]
pub struct Sync {
    /// Frames (40 ms) by which the picture is late.
    #[serde(rename = "av_offset")]
    pub offset: i32,
    #[serde(rename = "av_confidence")]
    pub confidence: f64,
}

/// The same of the video that the speech belongs to.
#[derive(Debug, Serialize)]
pub struct TrueSync {
    #[serde(rename = "true_av_offset")]
    pub offset: i32,
    #[serde(rename = "true_av_confidence")]
    pub confidence: f64,
    /// Confidence over the true one.
    #[serde(rename = "av_confidence_ratio", skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
}

/// Measures. Errors: a file that cannot be read, a video without a face, an expert that does not work.
pub fn evaluate(options: &Options) -> Result<Figures> {
    let watch = |path: &PathBuf| frames::watch(path, options.runtime, &options.notices);
    let seen = watch(&options.video)?;
    if let Some(path) = &options.points {
        write(path, &table(&seen.faces))?;
    }
    let opening = opening(&seen.faces);
    let mut figures = Figures {
        frames: seen.faces.len(),
        faces: seen.faces.iter().flatten().count() as f64 / seen.faces.len() as f64,
        opening_median: series::median(&opening).unwrap_or_default(),
        opening_deviation: series::deviation(&opening),
        ..Figures::default()
    };
    let truth = options.truth.as_ref().map(watch).transpose()?;
    let places = Places::of(&truth.as_ref().unwrap_or(&seen).faces)?;
    match (&options.truth, &truth) {
        (Some(path), Some(truth)) => {
            let both = Comparison::of(&places, (&options.video, &seen), (path, truth))?;
            figures.sharpness = series::median(&both.sharpness.0).unwrap_or_default();
            figures.looks = both.finish();
        }
        _ => figures.sharpness = sharpness(&places, &options.video)?,
    }
    let said = options.speech_of.as_ref().map(watch).transpose()?;
    let said = said.as_ref().zip(options.speech_of.as_deref()).or(truth.as_ref().zip(options.truth.as_deref()));
    figures.motion = said.and_then(|(said, _)| motion(&opening, &self::opening(&said.faces)));
    let curves = sync(options, &seen, said, &mut figures)?;
    if let Some(path) = &options.silent {
        let still = self::opening(&watch(path)?.faces);
        let moved = figures.opening_deviation;
        figures.silence_leak = (moved > 0.0).then(|| series::deviation(&still) / moved);
    }
    if let Some(path) = &options.sheet {
        let moments = sheet::moments(figures.frames);
        let files = [Some(&options.video), options.truth.as_ref()].into_iter().flatten();
        let rows: Vec<_> = files.map(|file| places.portraits(file, &moments)).collect::<Result<_>>()?;
        let curves: Vec<&[f64]> = curves.iter().map(Vec::as_slice).collect();
        Sheet::draw(&rows, places.portrait, &curves).write(path)?;
    }
    figures.notices = options.notices.list();
    Ok(figures)
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|e| Failure::output(format!("{}: {e}", path.display())))
}

/// Asks the expert of the video, and of the one that says the same; their curves.
fn sync(
    options: &Options,
    seen: &WatchedVideo,
    said: Option<(&WatchedVideo, &Path)>,
    figures: &mut Figures,
) -> Result<Vec<Vec<f64>>> {
    let expert = Expert::load(&Package::find(&options.expert)?, &options.runtime)?;
    let heard = match &options.audio {
        Some(path) => Some(sound::samples(path, &options.audio_track, 0.0, &options.notices)?),
        None => sound::samples_if_any(&options.video, &options.audio_track, seen.start, &options.notices)?,
    };
    let truly_heard = said
        .map(|(seen, path)| sound::samples_if_any(path, &Track::Default, seen.start, &options.notices))
        .transpose()?
        .flatten();
    let judge = |faces: &Faces, sound: Option<&Vec<f32>>| {
        let Some(sound) = sound else { return Ok(None) };
        Ok::<_, Failure>(expert::offset(&expert.lips(faces)?, &expert.voice(sound)?))
    };
    let found = judge(&seen.faces, heard.as_ref().or(truly_heard.as_ref()))?;
    let truly = match said {
        Some((seen, _)) => judge(&seen.faces, truly_heard.as_ref())?,
        None => None,
    };
    figures.sync = found.as_ref().map(|o| Sync { offset: o.frames, confidence: o.confidence });
    figures.true_sync = truly.as_ref().map(|o| TrueSync {
        offset: o.frames,
        confidence: o.confidence,
        ratio: found.as_ref().filter(|_| o.confidence > 0.0).map(|f| f.confidence / o.confidence),
    });
    Ok(found.into_iter().chain(truly).map(|o| o.curve).collect())
}

/// A line a frame: x and y of each landmark, or nothing.
fn table(faces: &Faces) -> String {
    let line = |face: &Option<Vec<Point>>| {
        let numbers: Vec<String> = face.iter().flatten().flat_map(|p| [p.x, p.y]).map(|v| format!("{v:.3}")).collect();
        numbers.join(",") + "\n"
    };
    faces.iter().map(line).collect()
}

fn opening(faces: &Faces) -> Vec<f64> {
    let each: Vec<_> = faces.iter().map(|face| face.as_ref().map(|points| landmarks::opening(points))).collect();
    series::fill(&each)
}

fn motion(opening: &[f64], said: &[f64]) -> Option<Motion> {
    let near = series::correlate(opening, said, IN_SYNC)?;
    let best = series::correlate(opening, said, REACH)?;
    let n = opening.len().min(said.len());
    Some(Motion {
        r: near.r,
        r_at_0: series::pearson(opening, said)?,
        r_best: best.r,
        lag: best.lag,
        spread: series::deviation(&opening[..n]) / series::deviation(&said[..n]),
        closures: series::closures(opening, said, IN_SYNC.unsigned_abs() as usize).map(|c| Closures {
            met: c.met,
            depth: c.depth,
            count: c.count,
        }),
    })
}

fn sharpness(places: &Places, video: &Path) -> Result<f64> {
    let mut look = places.look(video)?;
    let mut each = Vec::new();
    while let Some(pictures) = look.next()? {
        each.extend(pictures.map(|p| picture::sharpness(&p.close, places.close)));
    }
    Ok(series::median(&each).unwrap_or_default())
}

/// What is gathered of a video and its truth, frame by frame.
#[derive(Default)]
struct Comparison {
    distances: Vec<f64>,
    psnr: Vec<f64>,
    ssim: Vec<f64>,
    /// Of the video, and of the truth.
    sharpness: (Vec<f64>, Vec<f64>),
    flicker: Flicker,
    seams: Vec<Seam>,
}

impl Comparison {
    fn of(places: &Places, made: (&Path, &WatchedVideo), truth: (&Path, &WatchedVideo)) -> Result<Self> {
        let mut all = Self::default();
        let both = made.1.faces.iter().zip(&truth.1.faces);
        all.distances = both.filter_map(|(a, b)| Some(lips_apart(a.as_ref()?, b.as_ref()?))).collect();
        let (mut looks, mut true_looks) = (places.look(made.0)?, places.look(truth.0)?);
        let mut before: [Option<(Pictures, Pictures)>; 2] = [None, None];
        for i in 0.. {
            let (Some(a), Some(b)) = (looks.next()?, true_looks.next()?) else { break };
            let pair = a.zip(b);
            if let Some((a, b)) = &pair {
                all.add(a, b, places, i, &truth.1.faces);
            }
            if let ([Some(first), Some(second)], Some(third)) = (&before, &pair) {
                let mouths = |f: &dyn Fn(&(Pictures, Pictures)) -> &Pictures| {
                    [first, second, third].map(|pair| f(pair).mouth.clone())
                };
                let (made, truth) = (mouths(&|p| &p.0), mouths(&|p| &p.1));
                all.flicker.push(made.each_ref().map(Vec::as_slice), truth.each_ref().map(Vec::as_slice), MOUTH);
            }
            before = [std::mem::take(&mut before[1]), pair];
        }
        Ok(all)
    }

    fn add(&mut self, made: &Pictures, truth: &Pictures, places: &Places, i: usize, faces: &Faces) {
        self.psnr.push(picture::psnr(&made.mouth, &truth.mouth));
        self.ssim.push(picture::ssim(&made.mouth, &truth.mouth, MOUTH));
        self.sharpness.0.push(picture::sharpness(&made.close, places.close));
        self.sharpness.1.push(picture::sharpness(&truth.close, places.close));
        if let (Some(Some(points)), Some(crop)) = (faces.get(i), places.crop(i)) {
            let outline = landmarks::OUTLINE_JAW.chain(landmarks::OUTLINE_OVER);
            let outline: Vec<Point> = outline.map(|l| crop.apply(points[l])).collect();
            self.seams.extend(picture::seam(&made.face, &truth.face, FACE, &picture::crossings(&outline)));
        }
    }

    fn finish(&self) -> Option<Appearance> {
        let flicker = self.flicker.finish()?;
        let steps = |f: &dyn Fn(&Seam) -> f64| series::mean(&self.seams.iter().map(f).collect::<Vec<_>>());
        Some(Appearance {
            lmd: series::mean(&self.distances),
            psnr: series::median(&self.psnr)?,
            ssim: series::median(&self.ssim)?,
            sharpness_ratio: ratio(series::median(&self.sharpness.0)?, series::median(&self.sharpness.1)?)?,
            flicker: flicker.made - flicker.truth,
            flicker_ratio: ratio(flicker.made, flicker.truth),
            seam: (!self.seams.is_empty()).then(|| steps(&|s| s.step)),
            seam_ratio: ratio(steps(&|s| s.made), steps(&|s| s.truth)),
        })
    }
}

/// `None` of nothing.
fn ratio(a: f64, b: f64) -> Option<f64> {
    (b > 0.0).then(|| a / b)
}

/// Mean distance of the lips, each face's seen from between its mouth's corners, in distances of its eye corners.
fn lips_apart(a: &[Point], b: &[Point]) -> f64 {
    let seen = |points: &[Point], i: usize| {
        let middle = points[landmarks::CORNER_RIGHT].lerp(points[landmarks::CORNER_LEFT], 0.5);
        let eyes = points[landmarks::EYE_RIGHT].distance(points[landmarks::EYE_LEFT]).max(f32::EPSILON);
        (points[i] - middle) * (1.0 / eyes)
    };
    let each = |i: usize| f64::from(seen(a, i).distance(seen(b, i)));
    landmarks::LIPS.map(each).sum::<f64>() / landmarks::LIPS.len() as f64
}

impl Figures {
    /// One line a figure.
    pub fn print(&self) {
        let line = |name: &str, value: f64, unit: &str| println!("{name:26} {value:9.3} {unit}");
        let optional = |name: &str, value: Option<f64>, unit: &str| value.into_iter().for_each(|v| line(name, v, unit));
        line("frames", self.frames as f64, "");
        line("with a face", self.faces * 100.0, "%");
        line("opening, median", self.opening_median, "eye distances");
        line("opening, deviation", self.opening_deviation, "eye distances");
        line("sharpness", self.sharpness, "");
        if let Some(m) = &self.motion {
            line("opening r, lag of -1..1", m.r, "");
            line("opening r, no lag", m.r_at_0, "");
            line("opening r, best lag", m.r_best, &format!("at {} frames", m.lag));
            line("opening, spread", m.spread, "of the truth");
            if let Some(c) = &m.closures {
                line("closures met", c.met, &format!("of {}, to a depth of {:.2}", c.count, c.depth));
            }
        }
        if let Some(s) = &self.sync {
            line("AV offset", f64::from(s.offset), "frames that the picture is late");
            line("AV confidence", s.confidence, "");
        }
        if let Some(s) = &self.true_sync {
            line("AV offset of the truth", f64::from(s.offset), "frames");
            line("AV confidence of the truth", s.confidence, "");
            optional("AV confidence", s.ratio, "of the truth");
        }
        if let Some(l) = &self.looks {
            line("lips apart (LMD)", l.lmd, "eye distances");
            line("PSNR of the mouth", l.psnr, "dB");
            line("SSIM of the mouth", l.ssim, "");
            line("sharpness", l.sharpness_ratio, "of the truth");
            line("flicker", l.flicker, "grey levels more than the truth");
            optional("flicker", l.flicker_ratio, "of the truth");
            optional("seam", l.seam, "grey levels");
            optional("contrast at the seam", l.seam_ratio, "of the truth");
        }
        if let Some(leak) = self.silence_leak {
            line("motion in silence", leak * 100.0, "% of that in speech");
        }
    }
}
