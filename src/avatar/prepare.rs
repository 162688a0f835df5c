//! Makes a clip of a video: looks at it, turns it upright, brings it to a fixed size and rate, stores it frame by frame.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use gst_video::VideoInfo;
use lipstream_engines::{bank::ReferenceBank, manifest::Package, runtime, tracker::Face};

use super::{
    Rejection,
    clip::{MAX_FRAMES, Shape, Writer},
    jpeg, matte,
};
use crate::{
    error::{Failure, Result},
    media::{Media, Notices, Reader, Track},
    render::{DEFAULT_ENGINE, gather},
};

/// Length of a clip, in seconds.
const MIN_SECONDS: f64 = 1.0;
const MAX_SECONDS: f64 = 60.0;
/// Sides of a video that is taken, in pixels.
const MIN_SIDE: u32 = 128;
const MAX_SIDE: u32 = 4096;
/// A larger video is scaled to fit: more than full HD no session holds in real time on a CPU.
const LONG: u32 = 1920;
const SHORT: u32 = 1080;
/// Frames a second. Faster videos lose frames, slower ones repeat them.
const FPS: std::ops::RangeInclusive<f64> = 10.0..=60.0;
/// Rates of cameras and editors; a rate so near to one of them is meant to be that one.
const RATES: [(u32, u32); 8] =
    [(24, 1), (25, 1), (30, 1), (50, 1), (60, 1), (24_000, 1001), (30_000, 1001), (60_000, 1001)];
const NEAR: f64 = 0.0002;
/// Rate of a video whose frames come as they like.
const VARIABLE: (u32, u32) = (25, 1);
/// Least width of the face, in pixels of the prepared clip: below it the mouth is a smear.
const MIN_FACE: f32 = 96.0;
/// Share of the frames that must show the face.
const SEEN: f64 = 0.85;
/// Share of the frames that a file says it has which must be there.
const WHOLE: f64 = 0.8;
/// Share of the frames that may show a second face, and how wide a face must be against the first one to be one.
const OTHERS: f64 = 0.1;
const OTHER_WIDTH: f32 = 0.4;
/// Faces that are looked for.
const FACES: usize = 3;
/// Bytes of a clip.
const MAX_BYTES: u64 = 1 << 30;
/// Longest time that the work may take, whatever the file.
const PATIENCE: Duration = Duration::from_secs(900);

/// What a video is made into.
pub struct Wish<'a> {
    pub folder: &'a Path,
    pub clip: &'a str,
    /// The size of the avatar that the clip is added to.
    pub size: Option<(u32, u32)>,
    /// Where to keep the reference bank; `None` where the avatar has one.
    pub bank: Option<&'a Path>,
    pub notices: Notices,
}

/// Writes the clip, or says why it cannot be one. On a refusal files may be left in the folder.
pub fn prepare(video: &Path, wish: &Wish, progress: &mut dyn FnMut(f32)) -> Result<Shape, Rejection> {
    let mut work = || {
        let Target { shape, frames, alpha } = target(video, wish.size, &wish.notices)?;
        let seen = convert(video, wish, (shape, alpha), frames, progress)?;
        seen.judge()?;
        if let (Some(path), Some(bank)) = (wish.bank, &seen.bank) {
            if bank.references().is_empty() {
                return Err(Failure::input("the face is never seen from the front and sharp: film it so"));
            }
            bank.save(path)?;
        }
        Ok(shape)
    };
    work().map_err(|failure| {
        // The path is of this machine, and none of the sender's business.
        let text = failure.to_string().replace(&format!("{}: ", video.display()), "");
        Rejection(text)
    })
}

/// What the clip will be.
struct Target {
    shape: Shape,
    frames: f64,
    /// Whether its frames have transparency.
    alpha: bool,
}

fn target(video: &Path, size: Option<(u32, u32)>, notices: &Notices) -> Result<Target> {
    let reader = Reader::open(video, Media::Alpha, notices)
        .map_err(|f| Failure::new(f.kind, format!("{f}; send a video file such as MP4 with H.264")))?;
    let caps = reader.caps().ok_or_else(|| Failure::input("the video has no format; convert it to MP4 with H.264"))?;
    let info = VideoInfo::from_caps(&caps)?;
    let (width, height) = (info.width(), info.height());
    if width.min(height) < MIN_SIDE || width.max(height) > MAX_SIDE {
        return Err(Failure::input(format!(
            "the video is {width}x{height}; its sides must be {MIN_SIDE} to {MAX_SIDE} pixels: scale it"
        )));
    }
    let fps = rate((info.fps().numer(), info.fps().denom()));
    let seconds = reader.duration().map_or(0.0, |d| d.nseconds() as f64 / 1e9);
    if seconds > MAX_SECONDS + 0.5 {
        return Err(too_long(seconds));
    }
    let par = f64::from(info.par().numer()) / f64::from(info.par().denom().max(1));
    let (width, height) = size.unwrap_or_else(|| fit(f64::from(width) * par.clamp(0.1, 10.0), f64::from(height)));
    let frames = seconds * f64::from(fps.0) / f64::from(fps.1);
    Ok(Target { shape: Shape { width, height, fps }, frames, alpha: info.format_info().has_alpha() })
}

fn too_long(seconds: f64) -> Failure {
    Failure::input(format!("the video lasts {seconds:.0} s; at most {MAX_SECONDS} s become a clip: cut it"))
}

/// Even sides of the shape given, no larger than full HD upright or across.
fn fit(width: f64, height: f64) -> (u32, u32) {
    let (long, short) = (width.max(height), width.min(height));
    let scale = (f64::from(LONG) / long).min(f64::from(SHORT) / short).min(1.0);
    let even = |side: f64| ((side * scale / 2.0).round() as u32 * 2).max(16);
    // An odd side loses its last line rather than being scaled by half a percent of a pixel.
    let side = |n: f64| if scale == 1.0 && n.fract() == 0.0 { (n as u32 & !1).max(16) } else { even(n) };
    (side(width), side(height))
}

/// A constant rate for what the file says, frames a second as a fraction.
fn rate((n, d): (i32, i32)) -> (u32, u32) {
    if n <= 0 || d <= 0 {
        return VARIABLE;
    }
    let says = f64::from(n) / f64::from(d);
    let near = |(n, d): &(u32, u32)| (f64::from(*n) / f64::from(*d) / says - 1.0).abs() < NEAR;
    if let Some(usual) = RATES.iter().find(|r| near(r)) {
        return *usual;
    }
    if says < *FPS.start() {
        return VARIABLE;
    }
    // A slow-motion rate is halved until it is a usual one, which drops every second frame.
    let times = (says / FPS.end()).log2().ceil().max(0.0) as u32;
    let fps = says / f64::from(1 << times.min(16));
    ((fps * 1000.0).round() as u32, 1000)
}

/// What was seen on the way.
struct Seen {
    frames: u64,
    without_face: u64,
    with_others: u64,
    widths: Vec<f32>,
    bank: Option<ReferenceBank>,
    seconds: f64,
    /// Frames that the file says it has; 0 where it does not.
    expected: f64,
}

impl Seen {
    fn judge(&self) -> Result<()> {
        let frames = self.frames.max(1) as f64;
        if self.frames == 1 {
            return Err(Failure::input(format!(
                "the file is a photograph; send a video of at least {MIN_SECONDS} s, in which the person blinks and moves"
            )));
        }
        if self.seconds < MIN_SECONDS {
            return Err(Failure::input(format!(
                "the video lasts {:.1} s; a clip needs at least {MIN_SECONDS} s",
                self.seconds
            )));
        }
        if frames < WHOLE * self.expected {
            return Err(Failure::input(format!(
                "the video ends after {:.1} s, {:.0} % of what the file says: it is cut short; send it whole",
                self.seconds,
                100.0 * frames / self.expected
            )));
        }
        let missing = self.without_face as f64 / frames;
        if missing > 1.0 - SEEN {
            return Err(Failure::input(format!(
                "no face in {:.0} % of the frames; the face must be seen in at least {:.0} %: choose another part of \
                 the video, light the face, let it look at the camera",
                (100.0 * missing).ceil(),
                100.0 * SEEN
            )));
        }
        if self.with_others as f64 / frames > OTHERS {
            return Err(Failure::input(format!(
                "several faces in {:.0} % of the frames; an avatar is one person: crop the video to one",
                100.0 * self.with_others as f64 / frames
            )));
        }
        let mut widths = self.widths.clone();
        widths.sort_by(f32::total_cmp);
        let width = widths.get(widths.len() / 2).copied().unwrap_or(0.0);
        if width < MIN_FACE {
            return Err(Failure::input(format!(
                "the face is {width:.0} pixels wide; it needs at least {MIN_FACE}: film it from nearer or in a higher \
                 resolution, or crop the video to it"
            )));
        }
        Ok(())
    }

    fn count(&mut self, faces: &[Face]) -> Option<Face> {
        let main = faces.iter().max_by(|a, b| a.rect.width.total_cmp(&b.rect.width)).cloned();
        self.frames += 1;
        match &main {
            Some(main) => {
                self.widths.push(main.rect.width);
                let others = faces.iter().filter(|f| f.rect.width > OTHER_WIDTH * main.rect.width).count();
                self.with_others += u64::from(others > 1);
            }
            None => self.without_face += 1,
        }
        main
    }
}

fn convert(
    video: &Path,
    wish: &Wish,
    (shape, alpha): (Shape, bool),
    expected: f64,
    progress: &mut dyn FnMut(f32),
) -> Result<Seen> {
    let info = jpeg::info(shape.width, shape.height)?;
    let (n, d) = shape.fps;
    let caps = gst::Caps::builder("video/x-raw")
        .field("format", if alpha { "A420" } else { "I420" })
        .field("width", shape.width as i32)
        .field("height", shape.height as i32)
        .field("framerate", gst::Fraction::new(n as i32, d as i32))
        .field("pixel-aspect-ratio", gst::Fraction::new(1, 1))
        // The one that raw video of this size has when nobody says another.
        .field("colorimetry", info.colorimetry().to_string())
        .build();
    // What is transparent is scaled by what knows to leave borders so.
    let front = if alpha {
        format!("lippicture keep-alpha=true width={} height={}", shape.width, shape.height)
    } else {
        "lippicture".into()
    };
    let elements = format!("{front} ! videorate skip-to-first=true ! videoconvertscale add-borders=true");
    let mut reader = Reader::open_as(video, Media::Video, &Track::Default, &elements, &caps, &wish.notices)?;
    let mut writer = Writer::create(wish.folder, wish.clip, shape)?;
    let with_alpha = matte::info(shape.width, shape.height)?;
    let mut mattes = alpha.then(|| matte::Writer::create(wish.folder, wish.clip, shape)).transpose()?;
    let mut encoder = jpeg::Encoder::new(&info)?;
    let mut watcher = gather::Watcher::new(runtime::Options::default(), FACES)?;
    let bank = match wish.bank {
        Some(_) => Some(ReferenceBank::new(gather::config(&Package::find(DEFAULT_ENGINE)?))),
        None => None,
    };
    let mut seen =
        Seen { frames: 0, without_face: 0, with_others: 0, widths: Vec::new(), bank, seconds: 0.0, expected };
    let started = Instant::now();
    let most = (MAX_SECONDS * f64::from(n) / f64::from(d)).ceil() as usize + 1;
    while let Some(sample) = reader.next_sample()? {
        let mut frame = sample.buffer_owned().ok_or_else(|| Failure::run("a decoded sample without a buffer"))?;
        if let Some(mattes) = &mut mattes {
            let (colors, alphas) = matte::split(&frame, &with_alpha, &info)?;
            mattes.add(&alphas)?;
            frame = colors;
        }
        let jpeg = encoder.encode(frame)?;
        let mut written = Ok(());
        let time = sample.buffer().and_then(gst::BufferRef::pts).map(Into::into);
        watcher.watch(&sample, |frame, faces| {
            let luma = frame.plane(0);
            written = writer.add(&jpeg, luma.data, luma.stride);
            if let (Some(mut face), Some(bank)) = (seen.count(&faces), &mut seen.bank) {
                // One person is what is asked for: a face that was lost and found is that person's.
                face.track_id = 0;
                bank.observe(frame, &face, time)?;
            }
            Ok(())
        })?;
        written?;
        if writer.frames() > most.min(MAX_FRAMES) {
            return Err(too_long(writer.frames() as f64 * f64::from(d) / f64::from(n)));
        }
        if writer.size() + mattes.as_ref().map_or(0, matte::Writer::size) > MAX_BYTES {
            return Err(Failure::input("the clip takes more than 1 GB: cut it or scale it down"));
        }
        if started.elapsed() > PATIENCE {
            return Err(Failure::run(format!("the work took more than {} s: cut the video", PATIENCE.as_secs())));
        }
        progress((writer.frames() as f64 / expected.max(1.0)).min(1.0) as f32);
    }
    seen.seconds = writer.frames() as f64 * f64::from(d) / f64::from(n);
    writer.finish()?;
    mattes.map_or(Ok(()), matte::Writer::finish)?;
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_even_and_fit_full_hd() {
        assert_eq!(fit(1280.0, 720.0), (1280, 720));
        assert_eq!(fit(641.0, 359.0), (640, 358));
        assert_eq!(fit(3840.0, 2160.0), (1920, 1080));
        assert_eq!(fit(2160.0, 3840.0), (1080, 1920));
        assert_eq!(fit(4000.0, 3000.0), (1440, 1080));
    }

    #[test]
    fn rates_are_those_that_cameras_mean() {
        assert_eq!(rate((25, 1)), (25, 1));
        assert_eq!(rate((29_970, 1000)), (30_000, 1001));
        assert_eq!(rate((30, 1)), (30, 1));
        assert_eq!(rate((0, 1)), VARIABLE);
        assert_eq!(rate((5, 1)), VARIABLE);
        assert_eq!(rate((240, 1)), (60_000, 1000));
        assert_eq!(rate((2989, 100)), (29_890, 1000));
    }
}
