//! Whole frames of golden files: the picture that the published program wrote, beside ours of the same picture, box and sound.
//!
//! Wav2Lip: `frames` u8 `[n, h, w, 3]` BGR, `det_rects` or, of 256 pixels, `boxes` (top, bottom, left, right) and `order`,
//! `pick`, `mel_in` `[m, 1, 80, 16]`, `pasted` `[m', h, w, 3]`. SyncTalk_2D with `ave`: `frames`, `lms` `[n, 110, 2]`,
//! `frame_order`, `160/audio0`, `160/audio20`, `160/audio48`, and `160/pasted` of these three or `328/pasted` of the second.

use serde::Serialize;

use super::{
    check::{run, tensor},
    faces,
};
use crate::{
    Error, Result,
    engine::pixel::published::{self, Published, Smoother},
    geometry::Point,
    image::{self, Format, FrameMut, FrameView, Matrix, PixelBox, Plane, PlaneMut, Range},
    manifest::{Features, Package},
    runtime::{Options, Tensor},
    tensor::Weights,
};

/// How far a whole frame is from the published program's, in 1/255.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PictureDifference {
    /// The tensor and the place of the picture in it.
    pub name: String,
    pub mean: f64,
    pub max: u8,
}

impl PictureDifference {
    /// What a frame may differ by where both are of the same arithmetic: one value of the network's input that is rounded the
    /// other way is seen in it.
    pub const MEAN: f64 = 1.0;
    pub const MAX: u8 = 4;

    pub fn is_within(&self) -> bool {
        self.mean <= Self::MEAN && self.max <= Self::MAX
    }
}

/// Pictures of one size, RGB.
struct Pictures {
    size: (usize, usize),
    data: Vec<u8>,
}

impl Pictures {
    fn read(file: &Weights, name: &str) -> Result<Self> {
        let Tensor { shape, data } = tensor(file, name)?;
        let [_, height, width, 3] = shape[..] else {
            return Err(malformed(file, name, "is not [pictures, rows, columns, 3]"));
        };
        let mut data: Vec<u8> = data.into_iter().map(|v| v as u8).collect();
        data.as_chunks_mut::<3>().0.iter_mut().for_each(|pixel| pixel.reverse());
        Ok(Self { size: (width, height), data })
    }

    fn count(&self) -> usize {
        self.data.chunks_exact((self.size.0 * self.size.1 * 3).max(1)).len()
    }

    fn get(&self, index: usize) -> Option<&[u8]> {
        self.data.chunks_exact((self.size.0 * self.size.1 * 3).max(1)).nth(index)
    }
}

fn malformed(file: &Weights, name: &str, cause: &str) -> Error {
    Error::invalid(format!("{}: `{name}` {cause}", file.origin()))
}

/// One frame of a golden file.
struct Frame {
    /// Of the tensor of pasted pictures.
    output: usize,
    /// Of `frames`.
    picture: usize,
    place: PixelBox,
    audio: Tensor,
}

/// Every whole frame that `file` has of this engine; none of files that hold none.
pub(super) fn compare(package: &Package, options: &Options, file: &Weights) -> Result<Vec<PictureDifference>> {
    let manifest = package.manifest();
    if manifest.musetalk.is_some() {
        return faces::compare(package, options, file);
    }
    if let Some(section) = &manifest.wav2lip {
        let zip = manifest.sources.iter().any(|source| source.path.contains("zip"));
        let there = ["frames", "mel_in", "pasted"].iter().all(|name| file.shape(name).is_some());
        if zip || !there {
            return Ok(Vec::new());
        }
        let frames = Pictures::read(file, "frames")?;
        let wanted = wav2lip(file, &frames)?;
        let ports = [&section.ports.audio, &section.ports.face].map(String::clone);
        let published = Published::wav2lip(section.side);
        return paste(package, options, ("generator", ports), published, (frames, wanted, "pasted"), file);
    }
    if let Some(section) = manifest.synctalk2d.as_ref().filter(|section| section.features == Features::Ave) {
        let (name, outputs) =
            if section.side == 160 { ("160/pasted", &[0, 20, 48][..]) } else { ("328/pasted", &[20][..]) };
        if file.shape(name).is_none() {
            return Ok(Vec::new());
        }
        let frames = Pictures::read(file, "frames")?;
        let wanted = synctalk2d(file, outputs)?;
        let ports = ["audio", "face"].map(str::to_owned);
        let published = Published::synctalk2d(section.side);
        return paste(package, options, ("unet", ports), published, (frames, wanted, name), file);
    }
    Ok(Vec::new())
}

fn wav2lip(file: &Weights, frames: &Pictures) -> Result<Vec<Frame>> {
    let whole = |numbers: &[f32; 4]| numbers.map(|v| v as i32);
    let count = frames.count().max(1);
    let (places, order) = match file.shape("det_rects") {
        Some(_) => {
            let found = tensor(file, "det_rects")?.data;
            let boxes = found.as_chunks::<4>().0.iter().map(|rect| published::padded(whole(rect), frames.size));
            let boxes: Option<Vec<PixelBox>> = boxes.collect();
            let boxes = boxes.ok_or_else(|| malformed(file, "det_rects", "has a box outside of the picture"))?;
            let mut smoother = Smoother::default();
            let places: Vec<_> = (0..boxes.len()).map(|i| smoother.next(boxes[i], &boxes[i + 1..])).collect();
            (places, tensor(file, "pick")?.data)
        }
        None => {
            let boxes = tensor(file, "boxes")?.data;
            let places = boxes.as_chunks::<4>().0.iter().map(|rect| {
                let [top, bottom, left, right] = whole(rect);
                PixelBox { left, top, right, bottom }
            });
            (places.collect(), tensor(file, "order")?.data)
        }
    };
    let mel = tensor(file, "mel_in")?.data;
    let outputs = order.iter().zip(mel.chunks_exact(80 * 16)).enumerate();
    outputs
        .map(|(output, (index, mel))| {
            let picture = *index as usize % count;
            let place = places.get(picture).ok_or_else(|| malformed(file, "boxes", "has too few boxes"))?;
            Ok(Frame {
                output,
                picture,
                place: *place,
                audio: Tensor { shape: vec![1, 1, 80, 16], data: mel.to_vec() },
            })
        })
        .collect()
}

fn synctalk2d(file: &Weights, outputs: &[usize]) -> Result<Vec<Frame>> {
    let (landmarks, order) = (tensor(file, "lms")?.data, tensor(file, "frame_order")?.data);
    let faces: Vec<&[[f32; 2]]> = landmarks.as_chunks::<2>().0.chunks_exact(110).collect();
    let frame = |(output, index): (usize, &usize)| {
        let picture = *order.get(*index).ok_or_else(|| malformed(file, "frame_order", "is too short"))? as usize;
        let face = faces.get(picture).ok_or_else(|| malformed(file, "lms", "has too few faces"))?;
        let [right_ear, left_ear, nose] = [1, 31, 52].map(|i| Point::from(face[i]));
        let place = published::square(right_ear, left_ear, nose);
        let place = place.ok_or_else(|| malformed(file, "lms", "has landmarks that are no numbers"))?;
        let mut audio = tensor(file, &format!("160/audio{index}"))?;
        audio.shape.insert(0, 1);
        Ok(Frame { output, picture, place, audio })
    };
    outputs.iter().enumerate().map(frame).collect()
}

fn paste(
    package: &Package,
    options: &Options,
    (part, [audio_port, face_port]): (&str, [String; 2]),
    published: Published,
    (frames, wanted, name): (Pictures, Vec<Frame>, &str),
    file: &Weights,
) -> Result<Vec<PictureDifference>> {
    let model = package.network(part, options)?;
    let pasted = Pictures::read(file, name)?;
    let mut all = Vec::new();
    for Frame { output, picture, place, audio } in wanted {
        // Not every output has its picture stored.
        let Some(golden) = pasted.get(output) else { continue };
        let mut ours = frames.get(picture).ok_or_else(|| malformed(file, "frames", "has too few pictures"))?.to_vec();
        let stride = frames.size.0 * 3;
        let planes = vec![Plane { data: &ours, stride }];
        let view = FrameView::new(Format::Rgb, frames.size, Matrix::Bt709, Range::Full, planes)?;
        let outside = || malformed(file, name, "has a box outside of its picture");
        let place = place.within(frames.size.0, frames.size.1).ok_or_else(outside)?;
        let pixels = image::take(&view, &place).ok_or_else(outside)?;
        let mut prepared = published.prepare(&pixels, place.size()).ok_or_else(outside)?;
        let (input, side) = (std::mem::take(&mut prepared.input), published.side());
        let face = Tensor { shape: vec![1, 6, side, side], data: input };
        let made = run(&model, &[(audio_port.clone(), audio), (face_port.clone(), face)])?;
        let made = made.into_iter().next().map(|(_, tensor)| tensor.data).unwrap_or_default();
        let patch = published.finish(prepared, &made).and_then(|pixels| published::patch(&pixels, &place));
        let patch = patch.ok_or_else(|| Error::Mismatch {
            model: model.name().into(),
            what: "numbers of its picture".into(),
            expected: (3 * side * side).to_string(),
            found: made.len().to_string(),
        })?;
        let planes = vec![PlaneMut { data: &mut ours, stride }];
        let mut frame = FrameMut::new(Format::Rgb, frames.size, Matrix::Bt709, Range::Full, planes)?;
        image::paste(&mut frame, &patch)?;
        if ours.len() != golden.len() {
            return Err(malformed(file, name, "has pictures of another size than `frames`"));
        }
        let apart = ours.iter().zip(golden).map(|(a, b)| a.abs_diff(*b));
        all.push(PictureDifference {
            name: format!("{name}[{output}]"),
            mean: apart.clone().map(f64::from).sum::<f64>() / ours.len().max(1) as f64,
            max: apart.max().unwrap_or(0),
        });
    }
    Ok(all)
}
