//! `lipstream eval`: how well the lips of a video follow a speech, and how good they look.
//!
//! The mouth is measured with the tracker that is built in, so that the figures need nothing else; who wants an opinion
//! of another network measures with that. `engines/train/evaluate.py` computes the same.

mod look;

use std::path::PathBuf;

use lipstream_engines::{
    geometry::{Point, landmarks},
    ruler::{picture, series},
    runtime,
};
use serde::Serialize;

use self::look::{FACE, Faces, MOUTH, Pictures, Places};
use crate::error::{Failure, Result};

/// Frames by which a mouth may be off and still be in sync.
const IN_SYNC: i32 = 1;
/// Frames within which the best agreement is sought.
const REACH: i32 = 15;
/// The outline along which a generated lower face meets the true one: the jaw, and over the cheeks and under the nose.
const OUTLINE_JAW: std::ops::Range<usize> = landmarks::JAW.start + 3..landmarks::JAW.end - 3;
const OUTLINE_OVER: [usize; 5] = [69, 90, 89, 91, 70];
/// Half the width of the seam that is looked at, as a part of the aligned crop.
const SEAM: f32 = 0.02;

/// What is compared.
pub struct Options {
    pub video: PathBuf,
    /// The same person and picture with the true mouth.
    pub truth: Option<PathBuf>,
    /// A video whose mouth says what `video` was made to say; the truth where this is `None`.
    pub speech_of: Option<PathBuf>,
    /// `video`, made to say nothing.
    pub silent: Option<PathBuf>,
    /// Where the landmarks of `video` go.
    pub points: Option<PathBuf>,
    pub device: runtime::Options,
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
    /// Variance of the Laplacian in the picture of the mouth, the median of the frames.
    pub sharpness: f64,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub motion: Option<Motion>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub looks: Option<Looks>,
    /// Standard deviation of the opening in silence over that in speech.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub silence_leak: Option<f64>,
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
}

/// The picture against the true one, frame by frame.
#[derive(Debug, Serialize)]
pub struct Looks {
    /// Mean distance of the lips' landmarks, each seen from the middle of the mouth.
    pub lmd: f64,
    /// Medians over the frames, in the picture of the mouth; dB.
    pub psnr: f64,
    pub ssim: f64,
    pub sharpness_ratio: f64,
    /// Mean second difference in time over the true one.
    pub flicker_ratio: f64,
    /// Mean gradient along the outline of the lower face over the true one.
    pub seam_ratio: f64,
}

/// Measures. Errors: a file that cannot be read, a video without a face.
pub fn evaluate(options: &Options) -> Result<Figures> {
    let device = || options.device.clone();
    let faces = look::faces(&options.video, device())?;
    if let Some(path) = &options.points {
        std::fs::write(path, table(&faces)).map_err(|e| Failure::output(format!("{}: {e}", path.display())))?;
    }
    let opening = opening(&faces);
    let mut figures = Figures {
        frames: faces.len(),
        faces: faces.iter().flatten().count() as f64 / faces.len() as f64,
        opening_median: series::median(&opening).unwrap_or_default(),
        opening_deviation: series::deviation(&opening),
        ..Figures::default()
    };
    let truth = options.truth.as_ref().map(|path| look::faces(path, device())).transpose()?;
    let places = Places::of(truth.as_ref().unwrap_or(&faces))?;
    let pictures = places.take(&options.video)?;
    figures.sharpness = sharpness(&pictures);
    if let (Some(path), Some(truth)) = (&options.truth, &truth) {
        let true_pictures = places.take(path)?;
        figures.looks = looks((&faces, &pictures), (truth, &true_pictures), &places);
    }
    let said = match &options.speech_of {
        Some(path) => Some(self::opening(&look::faces(path, device())?)),
        None => truth.as_ref().map(self::opening),
    };
    figures.motion = said.and_then(|said| motion(&opening, &said));
    if let Some(path) = &options.silent {
        let still = self::opening(&look::faces(path, device())?);
        let moved = figures.opening_deviation;
        figures.silence_leak = (moved > 0.0).then(|| series::deviation(&still) / moved);
    }
    Ok(figures)
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
    })
}

fn sharpness(pictures: &[Option<Pictures>]) -> f64 {
    let each: Vec<f64> = pictures.iter().flatten().map(|p| picture::sharpness(&p.mouth, MOUTH)).collect();
    series::median(&each).unwrap_or_default()
}

type Seen<'a> = (&'a Faces, &'a [Option<Pictures>]);

fn looks(made: Seen, truth: Seen, places: &Places) -> Option<Looks> {
    let both: Vec<_> = made.1.iter().zip(truth.1).map(|(a, b)| a.as_ref().zip(b.as_ref())).collect();
    let middle = |f: &dyn Fn(&Pictures, &Pictures) -> f64| {
        series::median(&both.iter().flatten().map(|(a, b)| f(a, b)).collect::<Vec<_>>())
    };
    let distances: Vec<f64> =
        made.0.iter().zip(truth.0).filter_map(|(a, b)| Some(lips_apart(a.as_ref()?, b.as_ref()?))).collect();
    let flickers: Vec<(f64, f64)> = both
        .windows(3)
        .filter_map(|w| {
            let [(a0, b0), (a1, b1), (a2, b2)] = [w[0]?, w[1]?, w[2]?];
            let made = picture::flicker(&a0.mouth, &a1.mouth, &a2.mouth);
            Some((made, picture::flicker(&b0.mouth, &b1.mouth, &b2.mouth)))
        })
        .collect();
    let mut seams = Vec::new();
    for (i, pair) in both.iter().enumerate() {
        if let (Some((a, b)), Some(Some(points)), Some(crop)) = (pair, truth.0.get(i), places.crop(i)) {
            let outline: Vec<Point> =
                OUTLINE_JAW.chain(OUTLINE_OVER).map(|landmark| crop.apply(points[landmark])).collect();
            let band = picture::band(FACE, &outline, SEAM);
            let along = |p: &Pictures| picture::gradient(&p.face, FACE, &band);
            seams.extend(along(a).zip(along(b)));
        }
    }
    Some(Looks {
        lmd: series::mean(&distances),
        psnr: middle(&|a, b| picture::psnr(&a.mouth, &b.mouth))?,
        ssim: middle(&|a, b| picture::ssim(&a.mouth, &b.mouth, MOUTH))?,
        sharpness_ratio: sharpness(made.1) / sharpness(truth.1),
        flicker_ratio: ratio(&flickers)?,
        seam_ratio: ratio(&seams)?,
    })
}

/// The sum of the first over the sum of the second.
fn ratio(pairs: &[(f64, f64)]) -> Option<f64> {
    let (a, b) = pairs.iter().fold((0.0, 0.0), |(a, b), (x, y)| (a + x, b + y));
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
        }
        if let Some(l) = &self.looks {
            line("lips apart (LMD)", l.lmd, "eye distances");
            line("PSNR of the mouth", l.psnr, "dB");
            line("SSIM of the mouth", l.ssim, "");
            line("sharpness", l.sharpness_ratio, "of the truth");
            line("flicker", l.flicker_ratio, "of the truth");
            line("seam", l.seam_ratio, "of the truth");
        }
        if let Some(leak) = self.silence_leak {
            line("motion in silence", leak * 100.0, "% of that in speech");
        }
    }
}
