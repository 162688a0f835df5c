//! Face restoration by a published network, fed and pasted as facefusion does (face_helper.py, face_masker.py,
//! processors/modules/face_enhancer/core.py of facefusion 3.8.1): GFPGAN, CodeFormer, GPEN-BFR 256 and 512.

use std::{
    path::Path,
    sync::{Arc, LazyLock, Weak},
};

use parking_lot::Mutex;

use super::region::Mouth;
use crate::{
    Error, Result,
    geometry::{
        Point, Similarity,
        landmarks::{CORNER_LEFT, CORNER_RIGHT, EYE_CORNERS, EYELIDS, NOSE_TIP},
    },
    image::{ColorSpace, Crop, FrameMut, FrameView, PlaneMut, resample, rgb_planar},
    manifest::{Family, Package},
    runtime::{Batches, Device, Dtype, Input, Model, Options, Port, Precision, Signature},
    tracker::Face,
};

/// Sides of pictures that enhancers make, in pixels.
pub const SIDES: [usize; 2] = [256, 512];
/// Most faces in one evaluation, where the file takes more than one.
const MOST: usize = 8;
/// What ends so names a file.
const FILE: &str = ".onnx";

/// Where the eyes' centres, the tip of the nose and the corners of the mouth belong in the crop, over its side: facefusion's
/// `ffhq_512`,
const FFHQ_512: [[f32; 2]; 5] =
    [[0.376917, 0.468647], [0.622857, 0.469128], [0.501239, 0.613319], [0.393088, 0.725411], [0.611502, 0.724905]];
/// and `arcface_128`, for networks of 256 pixels.
const ARCFACE_128: [[f32; 2]; 5] =
    [[0.361677, 0.403877], [0.636967, 0.402355], [0.500197, 0.560442], [0.387104, 0.721605], [0.615077, 0.720345]];
/// `face_mask_blur`.
const MASK_BLUR: f32 = 0.3;

/// A network that makes a better face of a face, for all streams of a process: faces that are asked for while it runs go together in
/// the next evaluation, where its file takes more than one.
pub struct Network {
    name: String,
    device: Device,
    /// Pixels of its picture.
    side: usize,
    template: [Point; 5],
    /// Whether it weighs fidelity against quality.
    weighs: bool,
    /// The box mask along one axis; that of a pixel is the product of both.
    mask: Vec<f32>,
    batches: Batches<Asked, Vec<f32>>,
}

/// A face that waits for an evaluation: its picture and its weight of fidelity.
type Asked = (Vec<f32>, f32);

/// Names of a network's ports: the picture, and what weighs fidelity to it against quality.
struct Ports {
    side: usize,
    input: String,
    weight: Option<String>,
    /// Faces in one evaluation are any number.
    open: bool,
}

impl Ports {
    fn of(signature: &Signature) -> Option<Self> {
        let side_of = |port: &Port| match port.shape[..] {
            [None | Some(1), Some(3), Some(h), Some(w)] if h == w && SIDES.contains(&h) => Some(h),
            _ => None,
        };
        let picture = signature.inputs.iter().find_map(|port| Some((port, side_of(port)?)));
        let (input, side) = picture?;
        let rest: Vec<&Port> = signature.inputs.iter().filter(|port| port.name != input.name).collect();
        let single = |port: &&Port| port.shape.iter().all(|d| d.unwrap_or(1) == 1) && port.dtype != Dtype::I64;
        let weight = match rest[..] {
            [] => None,
            [port] if single(&port) => Some(port.name.clone()),
            _ => return None,
        };
        // Shapes that the graph does not tell show when it runs.
        let told = |port: &Port| port.shape.iter().all(Option::is_some);
        let first = signature.outputs.first()?;
        if told(first) && side_of(first) != Some(side) {
            return None;
        }
        // An output of other channels is no picture, whatever its size is.
        if first.shape.get(1).copied().flatten().is_some_and(|channels| channels != 3) {
            return None;
        }
        let open = input.shape.first() == Some(&None) && first.shape.first() == Some(&None);
        Some(Self { side, input: input.name.clone(), weight, open })
    }
}

/// Whether a network of these ports is an enhancer.
pub(crate) fn is_enhancer(signature: &Signature) -> bool {
    Ports::of(signature).is_some()
}

/// A face as a network takes it.
pub struct Prepared {
    /// `[1, 3, side, side]`, R, G, B, -1..1.
    pub pixels: Vec<f32>,
    /// From places of the frame's pixels to those of the crop; the first pixel's is (0, 0).
    pub to_crop: Similarity,
}

impl Network {
    /// The enhancer that is installed as `name`, by `lipstream import`, or an ONNX file with an input `[1, 3, side, side]`, `side` 256
    /// or 512, and perhaps a `weight` of one number. Loaded once for all who name it with these options. What it computes with is
    /// fp32 where nothing is said: fp16 gives solid colours.
    pub fn find(name: &str, options: &Options) -> Result<Arc<Self>> {
        /// Networks in use, by name and options.
        type Shared = Vec<((String, String), Weak<Network>)>;
        static SHARED: LazyLock<Mutex<Shared>> = LazyLock::new(Mutex::default);
        let key = (name.to_owned(), format!("{options:?}"));
        // Held while it loads: who asks for the same meanwhile waits for it.
        let mut shared = SHARED.lock();
        shared.retain(|(_, network)| network.strong_count() > 0);
        if let Some(network) = shared.iter().find(|(known, _)| *known == key).and_then(|(_, network)| network.upgrade())
        {
            return Ok(network);
        }
        let network = Arc::new(match is_file(name) {
            true => Self::open(Path::new(name), options)?,
            false => Self::new(installed(name)?.network("enhance", &exact(name, options)?)?)?,
        });
        shared.push((key, Arc::downgrade(&network)));
        Ok(network)
    }

    /// An ONNX file, as [`find`](Self::find) takes it.
    pub fn open(path: &Path, options: &Options) -> Result<Self> {
        Self::new(Model::open(path, &exact(&path.display().to_string(), options)?)?)
    }

    fn new(model: Arc<Model>) -> Result<Self> {
        let signature = model.signature();
        let ports = Ports::of(signature).ok_or_else(|| {
            let words = |ports: &[Port]| ports.iter().map(|p| format!("{} {}", p.name, p.describe())).collect::<Vec<_>>();
            Error::Mismatch {
                model: model.name().into(),
                what: "ports of an enhancer".into(),
                expected: "an input [1, 3, 512, 512] or [1, 3, 256, 256], where it has one a `weight` of one number, and such an \
                           output"
                    .into(),
                found: [words(&signature.inputs), words(&signature.outputs)].concat().join(", "),
            }
        })?;
        let (side, weighs) = (ports.side, ports.weight.is_some());
        let template = if side == 256 { ARCFACE_128 } else { FFHQ_512 };
        let template = template.map(|[x, y]| Point::new(x * side as f32, y * side as f32));
        let (name, device) = (model.name().to_owned(), model.device());
        let most = if ports.open && !model.device().wants_fixed_shapes() { MOST } else { 1 };
        let lanes = model.at_a_time();
        let run = move |asked: &[Asked]| evaluate(&model, &ports, asked);
        // Faces of one weight go together.
        let batches =
            Batches::new(&name, lanes, |asked: &Asked| asked.1.to_bits() as usize, Box::new(run)).of_at_most(most);
        Ok(Self { name, device, side, template, weighs, mask: box_mask(side), batches })
    }

    /// Makes the face with these `points`, as [`prepare`](Self::prepare) has them, better by `strength` 0..1. `weight` as of
    /// [`run`](Self::run). Whether there was a face with a shape.
    pub fn enhance(&self, frame: &mut FrameMut, points: &[Point; 5], strength: f32, weight: f32) -> Result<bool> {
        let Some(prepared) = self.prepare(&frame.view(), points) else { return Ok(false) };
        let (_, made) = self.run(prepared.pixels, weight)?;
        Ok(self.put(frame, &made, &prepared.to_crop, (strength, None)))
    }

    /// Puts what it made of a face into the frame; whether that is a picture.
    pub(super) fn put(
        &self,
        frame: &mut FrameMut,
        made: &[f32],
        to_crop: &Similarity,
        amounts: (f32, Option<&Mouth>),
    ) -> bool {
        let Some(picture) = self.picture(made, frame.space()) else { return false };
        self.paste(frame, &picture, to_crop, amounts);
        true
    }

    /// Where it is evaluated.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Pixels of the side of its picture.
    pub fn side(&self) -> usize {
        self.side
    }

    /// Whether it has a weight of fidelity.
    pub fn weighs(&self) -> bool {
        self.weighs
    }

    /// The crop of a face. `points`: eyes' centres, tip of the nose, corners of the mouth, from the picture's left to its
    /// right, in places of pixels. `None` for a face without a shape.
    pub fn prepare(&self, frame: &FrameView, points: &[Point; 5]) -> Option<Prepared> {
        let (to_crop, data) = crop(frame, points, &self.template, self.side)?;
        let mut pixels = vec![0.0; data.len()];
        rgb_planar(&data, frame.space(), &mut pixels);
        // Bytes of R, G and B, as a published program has them.
        pixels.iter_mut().for_each(|v| *v = ((*v * 255.0).round() / 255.0 - 0.5) / 0.5);
        Some(Prepared { pixels, to_crop })
    }

    /// `pixels` again, and what the network makes of them, R, G, B `[3, side, side]`. `weight`: 0 is the best picture, 1 the most faithful one.
    pub fn run(&self, pixels: Vec<f32>, weight: f32) -> Result<(Vec<f32>, Vec<f32>)> {
        if pixels.len() != 3 * self.side * self.side {
            return Err(Error::invalid(format!("a picture of {} numbers for {}", pixels.len(), self.name)));
        }
        let ((pixels, _), made) = self.batches.ask((pixels, if self.weighs { weight } else { 0.0 }));
        Ok((pixels, made?))
    }

    /// The network's picture as bytes in the colours of `space`.
    fn picture(&self, made: &[f32], space: ColorSpace) -> Option<Crop> {
        let unit: Vec<f32> = made.iter().map(|v| ((v.clamp(-1.0, 1.0) + 1.0) / 2.0 * 255.0).round() / 255.0).collect();
        Crop::from_rgb_planar(&unit, self.side, space)
    }

    /// Blends `picture` into the frame by the box mask times `strength`, less around the mouth.
    fn paste(
        &self,
        frame: &mut FrameMut,
        picture: &Crop,
        to_crop: &Similarity,
        (strength, mouth): (f32, Option<&Mouth>),
    ) {
        let Some(back) = to_crop.inverse() else { return };
        let (width, height, side) = (frame.width(), frame.height(), self.side as f32);
        let corners =
            [(-1.0, -1.0), (side, -1.0), (-1.0, side), (side, side)].map(|(x, y)| back.apply(Point::new(x, y)));
        let bounds = |of: fn(&Point) -> f32| {
            let values = corners.iter().map(of);
            (values.clone().fold(f32::MAX, f32::min).floor(), values.fold(f32::MIN, f32::max).ceil())
        };
        let ((left, right), (top, bottom)) = (bounds(|p| p.x), bounds(|p| p.y));
        let packing = frame.format().packing();
        let planes = frame.planes.len();
        let source = Source { crop: picture, mask: &self.mask, to_crop, strength, mouth };
        for (i, plane) in frame.planes.iter_mut().enumerate() {
            let step = if i == 0 { 1 } else { 2 };
            let size = if i == 0 { (width, height) } else { (width.div_ceil(2), height.div_ceil(2)) };
            let cut = |v: f32, most: usize| (v / step as f32).clamp(0.0, most as f32) as usize;
            let columns = cut(left, size.0)..(cut(right, size.0) + 1).min(size.0);
            let rows = cut(top, size.1)..(cut(bottom, size.1) + 1).min(size.1);
            // Bytes from a pixel to the next, and where each channel of the crop goes.
            let (bytes, channels): (usize, Vec<(usize, usize)>) = match (packing, i, planes) {
                (Some((offsets, bytes)), ..) => (bytes, offsets.into_iter().zip(0..).collect()),
                (None, 0, _) => (1, vec![(0, 0)]),
                (None, _, 2) => (2, vec![(0, 1), (1, 2)]),
                (None, i, _) => (1, vec![(0, i)]),
            };
            for y in rows {
                for x in columns.clone() {
                    // A sample of chroma lies between its two by two pixels.
                    let place = |v: usize| (v * step) as f32 + (step - 1) as f32 * 0.5;
                    source.blend(plane, Point::new(place(x), place(y)), (y, x * bytes), &channels);
                }
            }
        }
    }
}

/// The crop of `side` pixels in which a face's `points` lie on `template`, in the frame's own colours; and the way to it.
pub(crate) fn crop(
    frame: &FrameView,
    points: &[Point; 5],
    template: &[Point; 5],
    side: usize,
) -> Option<(Similarity, Vec<u8>)> {
    let to_crop = Similarity::fit(points, template)?;
    // From centres of pixels to centres of pixels.
    let back = to_crop.inverse()?;
    let half = Point::new(0.5, 0.5);
    let corner = back.apply(Point::new(-0.5, -0.5)) + half;
    let back = Similarity { tx: corner.x, ty: corner.y, ..back };
    Some((to_crop, resample(frame, (side, side), &back)?))
}

/// The template of crops of 512 pixels, which maskers are shown too.
pub(crate) fn ffhq(side: usize) -> [Point; 5] {
    FFHQ_512.map(|[x, y]| Point::new(x * side as f32, y * side as f32))
}

/// Whether what names an enhancer, or a masker, names a file.
pub fn is_file(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(FILE) || name.contains(['/', '\\'])
}

/// The enhancer that is installed as `name`.
///
/// Errors: there is none, or what is there does something else.
pub fn installed(name: &str) -> Result<Package> {
    let is_enhancer = |package: &Package| package.manifest().family == Family::Enhancer;
    let found = Package::named(name);
    if let Ok(package) = &found
        && is_enhancer(package)
    {
        return found;
    }
    let all = Package::installed();
    let known: Vec<_> = all.iter().filter(|(_, package)| package.as_ref().is_ok_and(is_enhancer)).collect();
    let known = match known.is_empty() {
        true => "none is installed; `lipstream import --from gfpgan_1.4.onnx` installs one".to_owned(),
        false => format!("there are {}", known.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")),
    };
    Err(Error::invalid(match found {
        Ok(package) => {
            format!("engine `{name}` is of the family `{}`, no enhancer: {known}", package.manifest().family)
        }
        Err(_) => format!("there is no enhancer `{name}`: {known}"),
    }))
}

/// Options in a precision that enhancers bear.
fn exact(name: &str, options: &Options) -> Result<Options> {
    let precision = match options.precision {
        Precision::Auto => Precision::Fp32,
        Precision::Fp16 | Precision::Bf16 | Precision::Int8 => {
            let why = "enhancers give solid colours in less than fp32; leave precision at auto";
            return Err(Error::invalid(format!("{name}: {why}")));
        }
        exact => exact,
    };
    Ok(Options { precision, ..*options })
}

/// Pictures of faces by one evaluation.
fn evaluate(model: &Model, ports: &Ports, asked: &[Asked]) -> Result<Vec<Vec<f32>>> {
    let count = 3 * ports.side * ports.side;
    let shape = [asked.len(), 3, ports.side, ports.side];
    let together: Vec<f32>;
    let data = match asked {
        [(alone, _)] => alone,
        _ => {
            together = asked.iter().flat_map(|(pixels, _)| pixels.iter().copied()).collect();
            &together
        }
    };
    let mut inputs = vec![Input { name: &ports.input, shape: &shape, data }];
    let weight = [asked.first().map_or(0.0, |(_, weight)| *weight)];
    if let Some(name) = &ports.weight {
        inputs.push(Input { name, shape: &[1], data: &weight });
    }
    let first = model.run(&inputs)?.into_iter().next().map(|t| t.data).unwrap_or_default();
    if first.len() != count * asked.len() || first.iter().any(|v| !v.is_finite()) {
        return Err(Error::invalid(format!(
            "{} gave a picture that is not finite or of another size; precision=fp32 is what enhancers need",
            model.name()
        )));
    }
    Ok(first.chunks_exact(count).map(<[f32]>::to_vec).collect())
}

/// What is blended in.
struct Source<'a> {
    crop: &'a Crop,
    mask: &'a [f32],
    to_crop: &'a Similarity,
    strength: f32,
    mouth: Option<&'a Mouth>,
}

impl Source<'_> {
    /// Blends what lies at `place` of the frame into the bytes `at` of a row.
    fn blend(&self, plane: &mut PlaneMut, place: Point, (row, at): (usize, usize), channels: &[(usize, usize)]) {
        let side = self.crop.side;
        let p = self.to_crop.apply(place);
        let inside = |v: f32| v > -1.0 && v < side as f32;
        if !inside(p.x) || !inside(p.y) {
            return;
        }
        let (x, y) = (p.x.floor(), p.y.floor());
        let (fx, fy) = (p.x - x, p.y - y);
        // Nothing of the mask lies beyond the crop.
        let line = |at: f32, part: f32| {
            let near = |i: f32| if i < 0.0 { 0.0 } else { self.mask.get(i as usize).copied().unwrap_or(0.0) };
            near(at) * (1.0 - part) + near(at + 1.0) * part
        };
        let mut share = line(x, fx) * line(y, fy) * self.strength;
        if let Some(mouth) = self.mouth {
            share *= 1.0 - mouth.weight(Point::new(place.x + 0.5, place.y + 0.5));
        }
        if share <= 0.0 {
            return;
        }
        let edge = |v: f32| v.clamp(0.0, (side - 1) as f32) as usize;
        let [left, right, top, bottom] = [edge(x), edge(x + 1.0), edge(y), edge(y + 1.0)];
        for (offset, channel) in channels {
            let value = |x: usize, y: usize| f32::from(self.crop.data[(y * side + x) * 3 + channel]);
            let above = value(left, top) * (1.0 - fx) + value(right, top) * fx;
            let below = value(left, bottom) * (1.0 - fx) + value(right, bottom) * fx;
            let new = above * (1.0 - fy) + below * fy;
            let Some(old) = plane.data.get_mut(row * plane.stride + at + offset) else { continue };
            *old = (f32::from(*old) + share * (new - f32::from(*old)) + 0.5) as u8;
        }
    }
}

/// Eyes' centres, tip of the nose and corners of the mouth in places of pixels; `None` where landmarks lack.
pub(super) fn five(face: &Face) -> Option<[Point; 5]> {
    five_of(&face.points)
}

/// The same of landmarks (`[111]`).
pub(crate) fn five_of(points: &[Point]) -> Option<[Point; 5]> {
    let middle = |corners: usize, lids: usize| {
        let four = [points.get(corners)?, points.get(corners + 1)?, points.get(lids)?, points.get(lids + 1)?];
        Some(four.into_iter().fold(Point::default(), |sum, p| sum + *p) * 0.25)
    };
    let (corners, lids) = (EYE_CORNERS.start, EYELIDS.start);
    let found = [
        middle(corners, lids)?,
        middle(corners + 2, lids + 2)?,
        *points.get(NOSE_TIP)?,
        *points.get(CORNER_RIGHT)?,
        *points.get(CORNER_LEFT)?,
    ];
    Some(found.map(|p| Point::new(p.x - 0.5, p.y - 0.5)))
}

/// One axis of facefusion's box mask: zero along the border for half the blur, then a Gaussian of a quarter of it, cut by
/// OpenCV at four deviations.
fn box_mask(side: usize) -> Vec<f32> {
    let blur = (side as f32 * 0.5 * MASK_BLUR) as usize;
    let border = (blur / 2).max(1);
    let deviation = blur as f64 * 0.25;
    let half = ((deviation * 8.0 + 1.0).round() as i64 | 1) / 2;
    let weights: Vec<f64> = (-half..=half).map(|d| (-(d * d) as f64 / (2.0 * deviation * deviation)).exp()).collect();
    let all: f64 = weights.iter().sum();
    // Reflected beyond the ends.
    let last = side as i64 - 1;
    let is_in = |i: i64| {
        let i = if i < 0 { -i } else { i };
        let i = if i > last { 2 * last - i } else { i };
        i >= border as i64 && i < (side - border) as i64
    };
    let at = |i: i64| {
        let held = (-half..=half).zip(&weights).filter(|(d, _)| is_in(i + d));
        (held.map(|(_, weight)| weight).sum::<f64>() / all) as f32
    };
    (0..side as i64).map(at).collect()
}
