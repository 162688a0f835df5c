use std::sync::Arc;

use super::decode::{self, Detection, STRIDES};
use crate::{
    Error, Result,
    geometry::{Point, Rect, Similarity},
    image::{FrameView, resample, rgb_planar},
    runtime::{Input, Model, Port, Signature, Tensor},
};

/// The families of detectors that are understood.
#[derive(Clone, Debug, PartialEq)]
enum Layout {
    /// BGR 0..255; indices of cls, obj, bbox and kps at each stride.
    Yunet([[usize; 4]; 3]),
    /// (RGB - 127.5) / 128; outputs are told apart by their shapes.
    Scrfd,
}

/// How the input's size is chosen where the model leaves it open.
#[derive(Clone, Copy, Debug)]
pub(super) enum InputSize {
    /// About this many pixels in the shape of the frame.
    Pixels(usize),
    /// The longer side.
    Side(usize),
}

/// A face detector: the whole frame, shrunk, in; boxes and five points out.
pub(super) struct Detector {
    model: Arc<Model>,
    layout: Layout,
    size: InputSize,
    /// Height and width, where fixed.
    fixed: [Option<usize>; 2],
}

impl Detector {
    /// Tells the family from the model's signature. Errors: a model of no known family.
    pub fn new(model: Arc<Model>, size: InputSize) -> Result<Self> {
        let layout = layout(model.name(), model.signature())?;
        let shape = &model.signature().inputs[0].shape;
        let fixed = [shape[2], shape[3]];
        if let Some(bad) = fixed.iter().flatten().find(|v| **v % 32 != 0 || !(32..=4096).contains(*v)) {
            return Err(Error::Mismatch {
                model: model.name().into(),
                what: "input size".into(),
                expected: "multiples of 32 up to 4096".into(),
                found: bad.to_string(),
            });
        }
        Ok(Self { model, layout, size, fixed })
    }

    /// Faces above `threshold`, best first, in frame pixels.
    pub fn detect(&self, frame: &FrameView, threshold: f32) -> Result<Vec<Detection>> {
        let (w, h) = (frame.width() as f32, frame.height() as f32);
        let (width, height) = self.input_size(w, h);
        let scale = (width as f32 / w).min(height as f32 / h);
        let content = |v: f32, limit: usize| ((v * scale).round() as usize).clamp(1, limit);
        let (columns, rows) = (content(w, width), content(h, height));
        let to_frame = Similarity { a: 1.0 / scale, ..Similarity::IDENTITY };
        let Some(pixels) = resample(frame, (columns, rows), &to_frame) else { return Ok(Vec::new()) };
        let mut rgb = vec![0.0; pixels.len()];
        rgb_planar(&pixels, frame.space(), &mut rgb);
        let data = self.tensor(&rgb, (columns, rows), (width, height));
        let name = &self.model.signature().inputs[0].name;
        let outputs = self.model.run(&[Input { name, shape: &[1, 3, height, width], data: &data }])?;
        let mut found = self.decode(&outputs, (width, height), threshold)?;
        for d in &mut found {
            let r = d.rect;
            d.rect = Rect { x: r.x / scale, y: r.y / scale, width: r.width / scale, height: r.height / scale };
            d.keys = d.keys.map(|k| k * (1.0 / scale));
        }
        // Padding shows nothing: what is found there is not in the frame.
        found.retain(|d| {
            let Point { x, y } = d.rect.centre();
            (0.0..w).contains(&x) && (0.0..h).contains(&y)
        });
        Ok(found)
    }

    /// Width and height of the input for a frame of `w` x `h`.
    fn input_size(&self, w: f32, h: f32) -> (usize, usize) {
        let round = |v: f32| ((v / 32.0).round() as usize).clamp(1, 128) * 32;
        let (free_w, free_h) = match self.size {
            InputSize::Pixels(n) => {
                let side = (n as f32).sqrt();
                // Panoramas and towers would leave one row of cells.
                let aspect = (w / h).clamp(0.25, 4.0).sqrt();
                (round(side * aspect), round(side / aspect))
            }
            InputSize::Side(n) => {
                let scale = n as f32 / w.max(h);
                (round(w * scale), round(h * scale))
            }
        };
        (self.fixed[1].unwrap_or(free_w), self.fixed[0].unwrap_or(free_h))
    }

    /// Planes `[3, height, width]` with the picture at the left top and black around it.
    fn tensor(&self, rgb: &[f32], (columns, rows): (usize, usize), (width, height): (usize, usize)) -> Vec<f32> {
        let (order, scale, offset) = match self.layout {
            Layout::Yunet(_) => ([2, 1, 0], 255.0, 0.0),
            Layout::Scrfd => ([0, 1, 2], 255.0 / 128.0, -127.5 / 128.0),
        };
        let mut data = vec![offset; 3 * width * height];
        for (plane, channel) in data.chunks_exact_mut(width * height).zip(order) {
            let source = rgb[channel * columns * rows..][..columns * rows].chunks_exact(columns);
            for (to, from) in plane.chunks_exact_mut(width).zip(source) {
                to.iter_mut().zip(from).for_each(|(t, f)| *t = f * scale + offset);
            }
        }
        data
    }

    fn decode(&self, outputs: &[Tensor], (width, height): (usize, usize), threshold: f32) -> Result<Vec<Detection>> {
        let mut found = Vec::new();
        for (level, stride) in STRIDES.into_iter().enumerate() {
            let cells = (width / stride) * (height / stride);
            let short = |what: &str, wanted: usize, len: usize| Error::Mismatch {
                model: self.model.name().into(),
                what: format!("{what} at stride {stride}"),
                expected: format!("{wanted} values"),
                found: len.to_string(),
            };
            match &self.layout {
                Layout::Yunet(indices) => {
                    let parts = indices[level].map(|i| &outputs[i].data[..]);
                    for (part, (name, channels)) in parts.iter().zip(YUNET) {
                        if part.len() != cells * channels {
                            return Err(short(name, cells * channels, part.len()));
                        }
                    }
                    decode::yunet(parts, (width, stride), threshold, &mut found);
                }
                Layout::Scrfd => {
                    // One or two priors a cell.
                    let part = |channels: usize| {
                        outputs.iter().find_map(|t| {
                            let last = *t.shape.last()?;
                            let anchors = (t.data.len() / channels).checked_div(cells)?;
                            let fits = last == channels
                                && (1..=2).contains(&anchors)
                                && anchors * cells * channels == t.data.len();
                            fits.then_some((&t.data[..], anchors))
                        })
                    };
                    let (Some((scores, anchors)), Some((boxes, _))) = (part(1), part(4)) else {
                        return Err(short("scores and boxes", cells * 2, 0));
                    };
                    let kps = part(10).map(|p| p.0);
                    decode::scrfd(scores, boxes, kps, (width, stride, anchors), threshold, &mut found);
                }
            }
        }
        Ok(decode::suppress(found))
    }
}

const YUNET: [(&str, usize); 4] = [("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)];

fn layout(model: &str, signature: &Signature) -> Result<Layout> {
    let refused = || {
        let list = |ports: &[Port]| {
            let all: Vec<String> = ports.iter().take(12).map(|p| format!("{} {}", p.name, p.describe())).collect();
            all.join(", ")
        };
        Error::Mismatch {
            model: model.into(),
            what: "face detector".into(),
            expected:
                "one image [1, 3, H, W] and the outputs of YuNet (cls_8 .. kps_32) or of SCRFD (scores [n, 1], boxes \
                       [n, 4] and, in most, points [n, 10] at strides 8, 16, 32)"
                    .into(),
            found: format!("{} -> {}", list(&signature.inputs), list(&signature.outputs)),
        }
    };
    let [input] = &signature.inputs[..] else { return Err(refused()) };
    if input.shape.len() != 4 || input.shape[1].is_some_and(|c| c != 3) || input.shape[0].is_some_and(|b| b != 1) {
        return Err(refused());
    }
    let position = |name: String| signature.outputs.iter().position(|o| o.name == name);
    let mut indices = [[0; 4]; 3];
    let mut yunet = true;
    for (level, stride) in STRIDES.iter().enumerate() {
        for (slot, (part, _)) in indices[level].iter_mut().zip(YUNET) {
            match position(format!("{part}_{stride}")) {
                Some(i) => *slot = i,
                None => yunet = false,
            }
        }
    }
    if yunet {
        return Ok(Layout::Yunet(indices));
    }
    let widths: Vec<Option<usize>> = signature.outputs.iter().map(|o| o.shape.last().copied().flatten()).collect();
    let count = |w: usize| widths.iter().filter(|v| **v == Some(w)).count();
    let open = widths.iter().filter(|v| v.is_none()).count();
    let known = count(1) + count(4) + count(10) + open == widths.len();
    let three = [1, 4].iter().all(|w| count(*w) == 3 || (open > 0 && count(*w) < 3)) && count(10) <= 3;
    if known && three && matches!(widths.len(), 6 | 9) { Ok(Layout::Scrfd) } else { Err(refused()) }
}
