//! Pictures and faces for tests.
#![allow(dead_code)]

pub mod faces;

use std::path::{Path, PathBuf};

use lipstream_engines::{
    geometry::{Point, Rect},
    image::{ColorSpace, Format, FrameMut, FrameView, Matrix, Plane, PlaneMut, Range},
    import::{self, Request, onnx::Precision},
    manifest::Family,
    tracker::Face,
};

pub const BT709: ColorSpace = ColorSpace::Yuv(Matrix::Bt709, Range::Limited);

/// A face that was found with these landmarks, seen from the front.
pub fn face(points: Vec<Point>) -> Face {
    Face {
        track_id: 1,
        rect: Rect::around(&points).unwrap(),
        points: points.into(),
        confidence: 0.99,
        yaw: 0.0,
        occluded: false,
        front: None,
    }
}

/// A picture that owns its planes; rows are padded, so that a stride counts.
#[derive(Clone)]
pub struct Picture {
    pub format: Format,
    pub size: (usize, usize),
    pub planes: Vec<Vec<u8>>,
    pub strides: Vec<usize>,
}

impl Picture {
    /// A picture whose RGB at the point (x, y) is `paint(x, y)`, 0..255.
    pub fn new(format: Format, size: (usize, usize), paint: impl Fn(f32, f32) -> [f32; 3]) -> Self {
        let (w, h) = size;
        let half = (w.div_ceil(2), h.div_ceil(2));
        let round = |v: f32| v.round().clamp(0.0, 255.0) as u8;
        let (rows, strides): (Vec<usize>, Vec<usize>) = match format {
            Format::I420 => (vec![h, half.1, half.1], vec![w + 5, half.0 + 3, half.0 + 3]),
            Format::Nv12 => (vec![h, half.1], vec![w + 5, half.0 * 2 + 6]),
            Format::Rgb => (vec![h], vec![w * 3 + 7]),
            Format::Rgba | Format::Bgra => (vec![h], vec![w * 4 + 12]),
        };
        let planes = rows.iter().zip(&strides).map(|(r, s)| vec![77; r * s]).collect();
        let mut picture = Self { format, size, planes, strides };
        for y in 0..h {
            for x in 0..w {
                let rgb = paint(x as f32 + 0.5, y as f32 + 0.5);
                let at = |p: &Self, bytes: usize| y * p.strides[0] + x * bytes;
                match format {
                    Format::I420 | Format::Nv12 => {
                        let k = at(&picture, 1);
                        picture.planes[0][k] = round(BT709.from_rgb(rgb)[0]);
                    }
                    Format::Rgb => {
                        let k = at(&picture, 3);
                        picture.planes[0][k..k + 3].copy_from_slice(&rgb.map(round));
                    }
                    Format::Rgba | Format::Bgra => {
                        let k = at(&picture, 4);
                        let [r, g, b] = rgb.map(round);
                        let alpha = (x * 7 + y * 13) as u8;
                        let p = if format == Format::Rgba { [r, g, b, alpha] } else { [b, g, r, alpha] };
                        picture.planes[0][k..k + 4].copy_from_slice(&p);
                    }
                }
            }
        }
        if format.is_yuv() {
            for y in 0..half.1 {
                for x in 0..half.0 {
                    // The mean of the four pixels, not of one.
                    let quad = [(0.5, 0.5), (1.5, 0.5), (0.5, 1.5), (1.5, 1.5)]
                        .map(|(dx, dy)| BT709.from_rgb(paint((2 * x) as f32 + dx, (2 * y) as f32 + dy)));
                    let mean = |c: usize| round(quad.iter().map(|q| q[c]).sum::<f32>() / 4.0);
                    match format {
                        Format::I420 => {
                            let k = y * picture.strides[1] + x;
                            picture.planes[1][k] = mean(1);
                            picture.planes[2][k] = mean(2);
                        }
                        _ => {
                            let k = y * picture.strides[1] + 2 * x;
                            picture.planes[1][k..k + 2].copy_from_slice(&[mean(1), mean(2)]);
                        }
                    }
                }
            }
        }
        picture
    }

    pub fn space(&self) -> ColorSpace {
        if self.format.is_yuv() { BT709 } else { ColorSpace::Rgb }
    }

    pub fn view(&self) -> FrameView<'_> {
        let planes = self.planes.iter().zip(&self.strides).map(|(data, stride)| Plane { data, stride: *stride });
        FrameView::new(self.format, self.size, Matrix::Bt709, Range::Limited, planes.collect()).unwrap()
    }

    pub fn frame(&mut self) -> FrameMut<'_> {
        let planes = self.planes.iter_mut().zip(&self.strides).map(|(data, stride)| PlaneMut { data, stride: *stride });
        FrameMut::new(self.format, self.size, Matrix::Bt709, Range::Limited, planes.collect()).unwrap()
    }

    /// RGB of a pixel, 0..255.
    pub fn rgb(&self, x: usize, y: usize) -> [f32; 3] {
        let at =
            |plane: usize, column: usize, row: usize| f32::from(self.planes[plane][row * self.strides[plane] + column]);
        match self.format {
            Format::I420 => BT709.to_rgb([at(0, x, y), at(1, x / 2, y / 2), at(2, x / 2, y / 2)]),
            Format::Nv12 => BT709.to_rgb([at(0, x, y), at(1, x / 2 * 2, y / 2), at(1, x / 2 * 2 + 1, y / 2)]),
            Format::Rgb => [0, 1, 2].map(|c| at(0, 3 * x + c, y)),
            Format::Rgba => [0, 1, 2].map(|c| at(0, 4 * x + c, y)),
            Format::Bgra => [2, 1, 0].map(|c| at(0, 4 * x + c, y)),
        }
    }

    /// Calls `f(plane, index, (column, row), frame pixels to a column, alpha or padding)` for each byte.
    pub fn each_byte(&self, mut f: impl FnMut(usize, usize, (usize, usize), usize, bool)) {
        for (plane, data) in self.planes.iter().enumerate() {
            let bytes = match (self.format, plane) {
                (Format::Nv12, 1) => 2,
                (Format::Rgb, _) => 3,
                (Format::Rgba | Format::Bgra, _) => 4,
                _ => 1,
            };
            let spacing = if plane == 0 { 1 } else { 2 };
            for at in 0..data.len() {
                let (column, row) = (at % self.strides[plane] / bytes, at / self.strides[plane]);
                let alpha = bytes == 4 && at % self.strides[plane] % 4 == 3;
                f(plane, at, (column, row), spacing, alpha || column >= self.size.0.div_ceil(spacing));
            }
        }
    }
}

/// The same noise for the same seed.
pub fn noise(format: Format, size: (usize, usize), seed: u64) -> Picture {
    let mut picture = Picture::new(format, size, |_, _| [0.0; 3]);
    let mut state = seed;
    for byte in picture.planes.iter_mut().flatten() {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        *byte = 60 + (state >> 33) as u8 % 100;
    }
    picture
}

/// The folder of the shared data, or a printed line that says why the test does nothing.
pub fn shared_data() -> Option<PathBuf> {
    shared("data")
}

/// A file or folder of what is shared beside the project, or a printed line that says why the test does nothing.
pub fn shared(path: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("LIPSTREAM_SHARED").map(PathBuf::from).unwrap_or_else(|| {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        root.ancestors().nth(2).map(|p| p.join("shared")).unwrap_or(root)
    });
    let path = folder.join(path);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: there is no {}", path.display());
    None
}

/// The folder of an engine of the golden checkpoint of LatentSync 1.5, of 64 pixels for time; `None` where it is not at hand.
pub fn golden_latentsync(home: &Path) -> Option<PathBuf> {
    golden(home, Family::LatentSync, &["latentsync_unet.pt", "config.json", "vae", "tiny.pt"], "latentsync15")
}

/// The same of MuseTalk 1.5.
pub fn golden_musetalk(home: &Path) -> Option<PathBuf> {
    golden(home, Family::MuseTalk, &["unet.pth", "musetalk.json", "vae", "whisper"], "musetalk15")
}

fn golden(home: &Path, family: Family, files: &[&str], name: &str) -> Option<PathBuf> {
    let folder = shared("golden")?.join(name);
    let files: Vec<PathBuf> = files.iter().map(|file| folder.join(file)).collect();
    let request = Request {
        family: Some(family),
        files: &files,
        name: Some("golden"),
        precision: Precision::Fp32,
        features: None,
        licence: None,
        replace: true,
    };
    let folder = import::import(&request, &home.join("engines"), &mut |_, _| Ok(())).unwrap().folder;
    let path = folder.join("engine.toml");
    let text = std::fs::read_to_string(&path).unwrap().replace("side = 256", "side = 64");
    std::fs::write(path, text).unwrap();
    Some(folder)
}

/// The numbers of a tensor.
pub fn numbers(file: &safetensors::SafeTensors, name: &str) -> Vec<f32> {
    let view = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    let data = view.data();
    match view.dtype() {
        safetensors::Dtype::F32 => data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        safetensors::Dtype::I32 => data.as_chunks::<4>().0.iter().map(|b| i32::from_le_bytes(*b) as f32).collect(),
        safetensors::Dtype::I64 => data.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as f32).collect(),
        safetensors::Dtype::U8 => data.iter().map(|v| f32::from(*v)).collect(),
        other => panic!("{name}: {other:?}"),
    }
}
