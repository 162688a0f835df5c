//! A bank in a safetensors file: `crops` u8 `[n, side, side, 3]`, `points` f32 `[n, 111, 2]`, `sharpness` f32 `[n]`,
//! `yaw` f32 `[n]`, `time` f32 `[n]` (milliseconds into the video, -1 where that is not known), `shapes` f32 `[m, 111, 2]`; the
//! metadata says the colours, the alignment, the capacity and the least side that the engine works with (without it, that
//! of the crops).
//!
//! A file is written beside its place and renamed. What is read is bounded and checked: a file may come from anybody.

use std::{
    collections::HashMap,
    io::{Read, Write},
    path::Path,
    sync::Arc,
    time::Duration,
};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use super::{BankConfig, MAX_ZOOM, Reference, ReferenceBank, SHAPES, select, shapes::Shapes};
use crate::{
    Error, Result,
    geometry::{Alignment, Point, landmarks},
    image::{ColorSpace, Crop, Matrix, Range},
};

pub(super) const MAX_REFERENCES: usize = 256;
const MAX_SIDE: usize = 1024;
/// 256 references of 1024 px and their points would be 806 MB; no honest bank comes near.
const MAX_BYTES: u64 = 512 << 20;
const FORMAT: &str = "lipstream-bank-2";
/// Landmarks lie near the crop, angles within half a turn.
const FAR: f32 = 16.0;
/// Milliseconds, a year.
const LATE: f32 = 3.2e10;

const SPACES: [(&str, ColorSpace); 7] = [
    ("rgb", ColorSpace::Rgb),
    ("bt601-limited", ColorSpace::Yuv(Matrix::Bt601, Range::Limited)),
    ("bt601-full", ColorSpace::Yuv(Matrix::Bt601, Range::Full)),
    ("bt709-limited", ColorSpace::Yuv(Matrix::Bt709, Range::Limited)),
    ("bt709-full", ColorSpace::Yuv(Matrix::Bt709, Range::Full)),
    ("bt2020-limited", ColorSpace::Yuv(Matrix::Bt2020, Range::Limited)),
    ("bt2020-full", ColorSpace::Yuv(Matrix::Bt2020, Range::Full)),
];

impl ReferenceBank {
    /// Writes the bank; an existing file is replaced as a whole or not at all.
    pub fn save(&self, path: &Path) -> Result<()> {
        let bytes = self.serialize().map_err(|cause| refused(path, "(file)", cause))?;
        let temporary = {
            let mut name = path.file_name().unwrap_or_default().to_owned();
            name.push(format!(".{}.partial", std::process::id()));
            path.with_file_name(name)
        };
        let write = || {
            let mut file = std::fs::File::create(&temporary)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            std::fs::rename(&temporary, path)
        };
        write().map_err(|e| {
            // The error that counts is the first one.
            let _ = std::fs::remove_file(&temporary);
            Error::io(path, e)
        })
    }

    /// The bytes of [`save`](Self::save).
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        self.serialize().map_err(Error::invalid)
    }

    fn serialize(&self) -> std::result::Result<Vec<u8>, String> {
        let (n, side) = (self.references.len(), self.side());
        let floats = |values: Vec<f32>| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
        let flat = |points: &[Point]| -> Vec<f32> { points.iter().flat_map(|p| [p.x, p.y]).collect() };
        let crops: Vec<u8> = self.references.iter().flat_map(|r| r.crop.data.iter().copied()).collect();
        let points = floats(self.references.iter().flat_map(|r| flat(&r.points)).collect());
        let sharpness = floats(self.references.iter().map(|r| r.sharpness).collect());
        let yaw = floats(self.references.iter().map(|r| r.yaw).collect());
        let ms = |r: &Arc<Reference>| r.time.map_or(-1.0, |time| time.as_secs_f32() * 1000.0);
        let time = floats(self.references.iter().map(ms).collect());
        let shapes = floats(flat(self.shapes.as_points()));
        let count = self.shapes.iter().count();
        let view = |dtype, shape: Vec<usize>, data| TensorView::new(dtype, shape, data).map_err(|e| e.to_string());
        let tensors = [
            ("crops", view(Dtype::U8, vec![n, side, side, 3], &crops)?),
            ("points", view(Dtype::F32, vec![n, landmarks::COUNT, 2], &points)?),
            ("sharpness", view(Dtype::F32, vec![n], &sharpness)?),
            ("yaw", view(Dtype::F32, vec![n], &yaw)?),
            ("time", view(Dtype::F32, vec![n], &time)?),
            ("shapes", view(Dtype::F32, vec![count, landmarks::COUNT, 2], &shapes)?),
        ];
        let space = self.space().unwrap_or(ColorSpace::Rgb);
        let space = SPACES.iter().find(|(_, s)| *s == space).map_or("rgb", |(name, _)| name);
        let alignment = &self.config.alignment;
        let alignment = serde_json::json!({ "anchors": alignment.anchors, "points": alignment.points });
        let metadata = HashMap::from([
            ("format".to_owned(), FORMAT.to_owned()),
            ("space".to_owned(), space.to_owned()),
            ("alignment".to_owned(), alignment.to_string()),
            ("capacity".to_owned(), self.config.capacity.to_string()),
            ("side".to_owned(), self.config.side.to_string()),
            ("observed".to_owned(), self.shapes.observed().to_string()),
        ]);
        safetensors::serialize(tensors, Some(metadata)).map_err(|e| e.to_string())
    }

    /// Reads a bank. It is bound to no track yet. Errors name the file and the key that is refused.
    pub fn load(path: &Path) -> Result<Self> {
        let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(refused(path, "(file)", format!("is larger than {} MiB", MAX_BYTES >> 20)));
        }
        Self::read(path, &bytes)
    }

    /// The same for bytes at hand; `origin` is what errors call them.
    pub fn read(origin: &Path, bytes: &[u8]) -> Result<Self> {
        parse(bytes).map_err(|(key, cause)| refused(origin, key, cause))
    }

    /// Refuses a bank that was gathered for another engine: its crops would not lie where that engine expects them.
    pub fn check(&self, config: &BankConfig) -> Result<()> {
        if self.config.side != config.side {
            return Err(Error::invalid(format!(
                "the reference bank has crops of {} px, the engine works with {} px; gather the bank anew",
                self.config.side, config.side
            )));
        }
        let (a, b) = (&self.config.alignment, &config.alignment);
        let same = a.anchors == b.anchors && a.points.iter().zip(&b.points).all(|(p, q)| p.distance(*q) < 1e-4);
        if same {
            Ok(())
        } else {
            Err(Error::invalid("the reference bank is aligned otherwise than the engine; gather the bank anew"))
        }
    }
}

fn refused(path: &Path, key: &str, cause: impl Into<String>) -> Error {
    Error::Manifest { origin: path.display().to_string(), key: key.into(), cause: cause.into() }
}

type Refusal = (&'static str, String);

fn parse(bytes: &[u8]) -> std::result::Result<ReferenceBank, Refusal> {
    let broken = |e: safetensors::SafeTensorError| ("(file)", format!("is not a safetensors file: {e}"));
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(broken)?;
    let tensors = SafeTensors::deserialize(bytes).map_err(broken)?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let text = |key: &'static str| metadata.get(key).map(String::as_str).ok_or((key, "is missing".to_owned()));
    if text("format")? != FORMAT {
        return Err(("format", format!("expected {FORMAT}, found {:.40}", text("format")?)));
    }
    let space = text("space")?;
    let Some((_, space)) = SPACES.iter().find(|(name, _)| *name == space) else {
        return Err(("space", format!("{space:.40} is not one of {}", SPACES.map(|s| s.0).join(", "))));
    };
    let alignment: Alignment = serde_json::from_str(text("alignment")?).map_err(|e| ("alignment", e.to_string()))?;
    alignment.check().map_err(|e| ("alignment", e))?;
    let number = |key| text(key)?.parse::<u64>().map_err(|_| (key, "is not a whole number".to_owned()));
    let capacity = number("capacity")?;
    if !(1..=MAX_REFERENCES as u64).contains(&capacity) {
        return Err(("capacity", format!("{capacity} is outside 1..{MAX_REFERENCES}")));
    }

    let crops = tensors.tensor("crops").map_err(|_| ("crops", "is missing".to_owned()))?;
    let &[n, side, width, 3] = crops.shape() else {
        return Err(("crops", format!("expected [n, side, side, 3], found {:?}", crops.shape())));
    };
    if crops.dtype() != Dtype::U8 || side != width || !(1..=MAX_SIDE).contains(&side) || n > MAX_REFERENCES {
        return Err((
            "crops",
            format!(
                "expected u8 squares of 1..{MAX_SIDE} px, at most {MAX_REFERENCES}, found {:?} {:?}",
                crops.dtype(),
                crops.shape()
            ),
        ));
    }
    let least = if metadata.contains_key("side") { number("side")? as usize } else { side };
    if least == 0 || !side.is_multiple_of(least) || side / least > MAX_ZOOM {
        return Err(("side", format!("crops of {side} px are not one to {MAX_ZOOM} times {least} px large")));
    }
    let floats = |key: &'static str, shape: &[usize]| {
        let t = tensors.tensor(key).map_err(|_| (key, "is missing".to_owned()))?;
        if t.dtype() != Dtype::F32 || t.shape() != shape {
            return Err((key, format!("expected F32 {shape:?}, found {:?} {:?}", t.dtype(), t.shape())));
        }
        Ok(t.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect::<Vec<f32>>())
    };
    let within = |key: &'static str, values: Vec<f32>, limit: f32| {
        let bad = values.iter().find(|v| v.is_nan() || v.abs() > limit).copied();
        bad.map_or(Ok(values), |v| Err((key, format!("{v} is outside -{limit}..{limit}"))))
    };
    let pairs =
        |values: Vec<f32>| -> Vec<Point> { values.as_chunks::<2>().0.iter().map(|p| Point::from(*p)).collect() };
    let points = pairs(within("points", floats("points", &[n, landmarks::COUNT, 2])?, FAR)?);
    let sharpness = within("sharpness", floats("sharpness", &[n])?, 2040.0)?;
    let yaw = within("yaw", floats("yaw", &[n])?, 180.0)?;
    let time = within("time", floats("time", &[n])?, LATE)?;
    let count = tensors
        .tensor("shapes")
        .map_err(|_| ("shapes", "is missing".to_owned()))?
        .shape()
        .first()
        .copied()
        .unwrap_or(0);
    if count > SHAPES {
        return Err(("shapes", format!("{count} are more than {SHAPES}")));
    }
    let shapes = pairs(within("shapes", floats("shapes", &[count, landmarks::COUNT, 2])?, FAR)?);
    let observed = number("observed")?;
    if observed < count as u64 || observed > u64::MAX / 4 || (count < SHAPES && observed != count as u64) {
        return Err(("observed", format!("{observed} does not go with {count} shapes")));
    }

    let mut bank = ReferenceBank::new(BankConfig { capacity: capacity as usize, side: least, alignment });
    bank.zoom = side / least;
    let points: Vec<Vec<Point>> = points.chunks_exact(landmarks::COUNT).map(<[Point]>::to_vec).collect();
    let mut kept = select::spanning(&points, bank.config.capacity);
    kept.sort_unstable();
    for i in kept {
        let data = crops.data()[i * side * side * 3..(i + 1) * side * side * 3].to_vec();
        let crop = Crop { side, space: *space, data };
        let id = bank.references.len() as u64;
        let time = (time[i] >= 0.0).then(|| Duration::from_micros((f64::from(time[i]) * 1000.0).round() as u64));
        let (points, sharpness, yaw) = (points[i].clone(), sharpness[i], yaw[i]);
        bank.references.push(Reference { id, crop, points, sharpness, yaw, time, coarse: false }.into());
    }
    bank.next_id = bank.references.len() as u64;
    bank.shapes = Shapes::restore(shapes, observed);
    bank.version = 1;
    Ok(bank)
}
