//! A clip on disk: two files, the frames as JPEG one after the other and an index.
//!
//! ```text
//! NAME.jpegs   JPEG JPEG JPEG ...
//! NAME.index   "LIPCLIP1"  frames u32  width u32  height u32  rate u32/u32  thumbnail u32xu32   (little endian)
//!              for each frame: offset u64, length u32
//!              for each frame: its thumbnail, grey, one byte a pixel
//! ```
//!
//! Frames with transparency have their alphas in a third file: [`super::matte`].
//!
//! The index is held in memory. Frames are read when they are shown, so that however many players show an avatar, its
//! frames are in memory once, as pages of the system's cache.

use std::{
    fs::File,
    io::{BufWriter, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{matte::Mattes, name};
use crate::error::{Failure, Result};

const MAGIC: &[u8; 8] = b"LIPCLIP1";
/// Frames of a clip: two minutes at 60 a second.
pub const MAX_FRAMES: usize = 7200;
/// Bytes of one JPEG.
const MAX_JPEG: u32 = 16 << 20;
/// Longer side of a thumbnail.
const THUMBNAIL: u32 = 32;
/// Larger sides than this no avatar has.
pub const MAX_SIDE: u32 = 4096;

/// Size and rate of a clip's frames and thumbnails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub width: u32,
    pub height: u32,
    /// Frames a second as a fraction.
    pub fps: (u32, u32),
}

impl Shape {
    /// Width and height of the thumbnails.
    pub fn thumbnail(&self) -> (u32, u32) {
        let long = self.width.max(self.height);
        let side = |n: u32| (n * THUMBNAIL / long).clamp(1, THUMBNAIL);
        (side(self.width), side(self.height))
    }

    fn valid(&self) -> bool {
        let side = |n: u32| (16..=MAX_SIDE).contains(&n) && n.is_multiple_of(2);
        let (n, d) = self.fps;
        side(self.width) && side(self.height) && (1..=100_000).contains(&d) && n >= d && n <= 100 * d
    }
}

/// A prepared clip.
#[derive(Debug)]
pub struct Clip {
    pub name: String,
    pub shape: Shape,
    path: PathBuf,
    data: File,
    places: Vec<(u64, u32)>,
    thumbnails: Vec<u8>,
    /// Of a clip with transparency.
    mattes: Option<Mattes>,
}

impl Clip {
    /// Opens clip `name` in `folder`. Everything in its index is checked against the file of frames.
    pub fn open(folder: &Path, name: &str) -> Result<Self> {
        name::check("clip", name).map_err(Failure::input)?;
        let path = folder.join(format!("{name}.index"));
        let broken = |cause: &str| Failure::input(format!("{}: {cause}; add the clip again", path.display()));
        let mut index = Vec::new();
        let limit = 8 + 28 + MAX_FRAMES as u64 * (12 + u64::from(THUMBNAIL * THUMBNAIL));
        plain_file(&path)?.take(limit + 1).read_to_end(&mut index).map_err(|e| broken(&e.to_string()))?;
        let path = folder.join(format!("{name}.jpegs"));
        let data = plain_file(&path)?;
        let size = data.metadata().map_err(|e| broken(&e.to_string()))?.len();
        let Index { shape, places, thumbnails } = Index::parse(&index, size).map_err(broken)?;
        let mattes = Mattes::open(folder, name, shape, places.len())?;
        Ok(Self { name: name.to_owned(), shape, path, data, places, thumbnails, mattes })
    }

    pub fn frames(&self) -> usize {
        self.places.len()
    }

    pub fn seconds(&self) -> f64 {
        self.frames() as f64 * f64::from(self.shape.fps.1) / f64::from(self.shape.fps.0)
    }

    /// Frame `index` as JPEG.
    pub fn jpeg(&self, index: usize) -> Result<Vec<u8>> {
        let (offset, length) = self.places[index];
        let mut jpeg = vec![0; length as usize];
        self.data
            .read_exact_at(&mut jpeg, offset)
            .map_err(|e| Failure::input(format!("{}: frame {index} cannot be read: {e}", self.path.display())))?;
        Ok(jpeg)
    }

    /// The alphas of frame `index`, row by row; `None` where the clip is opaque.
    pub fn alphas(&self, index: usize) -> Result<Option<Vec<u8>>> {
        self.mattes.as_ref().map(|mattes| mattes.alphas(index)).transpose()
    }

    /// A small grey picture of frame `index`.
    pub fn thumbnail(&self, index: usize) -> &[u8] {
        let (width, height) = self.shape.thumbnail();
        let pixels = (width * height) as usize;
        &self.thumbnails[index * pixels..(index + 1) * pixels]
    }

    /// Mean difference of two frames' thumbnails, in 8-bit codes.
    pub fn distance(&self, index: usize, other: &Self, at: usize) -> f32 {
        let (a, b) = (self.thumbnail(index), other.thumbnail(at));
        let sum: u32 = a.iter().zip(b).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
        sum as f32 / a.len().min(b.len()) as f32
    }
}

/// What an index says.
pub struct Index {
    shape: Shape,
    places: Vec<(u64, u32)>,
    thumbnails: Vec<u8>,
}

impl Index {
    /// Reads an index of `size` bytes of frames. Errors say what is wrong with it.
    pub fn parse(index: &[u8], size: u64) -> Result<Self, &'static str> {
        let mut words = index.get(8..36).filter(|_| index.starts_with(MAGIC)).ok_or("is no index")?;
        let mut word = || {
            let (four, rest) = words.split_at(4);
            words = rest;
            u32::from_le_bytes(four.try_into().expect("four bytes"))
        };
        let frames = word() as usize;
        let shape = Shape { width: word(), height: word(), fps: (word(), word()) };
        let thumbnail = (word(), word());
        if frames == 0 || frames > MAX_FRAMES || !shape.valid() || thumbnail != shape.thumbnail() {
            return Err("has a head that makes no sense");
        }
        let pixels = (thumbnail.0 * thumbnail.1) as usize;
        if index.len() != 36 + frames * (12 + pixels) {
            return Err("is cut short or too long");
        }
        let (table, thumbnails) = index[36..].split_at(frames * 12);
        let places: Vec<(u64, u32)> = table
            .chunks_exact(12)
            .map(|entry| {
                let (offset, length) = entry.split_at(8);
                let offset = u64::from_le_bytes(offset.try_into().expect("eight bytes"));
                (offset, u32::from_le_bytes(length.try_into().expect("four bytes")))
            })
            .collect();
        let inside = |(offset, length): &(u64, u32)| {
            (1..=MAX_JPEG).contains(length) && offset.checked_add((*length).into()).is_some_and(|end| end <= size)
        };
        if !places.iter().all(inside) {
            return Err("names places outside of the frames");
        }
        Ok(Self { shape, places, thumbnails: thumbnails.to_vec() })
    }
}

/// A file that is neither a link nor anything else than a file.
pub fn plain_file(path: &Path) -> Result<File> {
    let failure = |cause: String| Failure::input(format!("{}: {cause}", path.display()));
    let meta = path.symlink_metadata().map_err(|e| failure(e.to_string()))?;
    if !meta.is_file() {
        return Err(failure("is not a file".into()));
    }
    File::open(path).map_err(|e| failure(e.to_string()))
}

/// Writes a clip, frame by frame.
pub struct Writer {
    shape: Shape,
    path: PathBuf,
    index: PathBuf,
    data: BufWriter<File>,
    places: Vec<(u64, u32)>,
    thumbnails: Vec<u8>,
    written: u64,
}

impl Writer {
    pub fn create(folder: &Path, name: &str, shape: Shape) -> Result<Self> {
        let path = folder.join(format!("{name}.jpegs"));
        let data = File::create_new(&path).map_err(|e| Failure::output(format!("{}: {e}", path.display())))?;
        let index = folder.join(format!("{name}.index"));
        let data = BufWriter::new(data);
        Ok(Self { shape, path, index, data, places: Vec::new(), thumbnails: Vec::new(), written: 0 })
    }

    /// Adds a frame: its JPEG, and its luma plane for the thumbnail.
    pub fn add(&mut self, jpeg: &[u8], luma: &[u8], stride: usize) -> Result<()> {
        self.data.write_all(jpeg).map_err(|e| self.failure(&e))?;
        self.places.push((self.written, jpeg.len() as u32));
        self.written += jpeg.len() as u64;
        shrink(luma, stride, &self.shape, &mut self.thumbnails);
        Ok(())
    }

    pub fn frames(&self) -> usize {
        self.places.len()
    }

    /// Bytes written.
    pub fn size(&self) -> u64 {
        self.written
    }

    pub fn finish(mut self) -> Result<()> {
        self.data.flush().map_err(|e| self.failure(&e))?;
        let (width, height) = self.shape.thumbnail();
        let mut index = MAGIC.to_vec();
        let head = [self.shape.width, self.shape.height, self.shape.fps.0, self.shape.fps.1, width, height];
        index.extend((self.places.len() as u32).to_le_bytes());
        head.iter().for_each(|word| index.extend(word.to_le_bytes()));
        for (offset, length) in &self.places {
            index.extend(offset.to_le_bytes());
            index.extend(length.to_le_bytes());
        }
        index.extend(&self.thumbnails);
        std::fs::write(&self.index, index).map_err(|e| self.failure(&e))
    }

    fn failure(&self, error: &std::io::Error) -> Failure {
        Failure::output(format!("{}: cannot be written: {error}", self.path.display()))
    }
}

/// Appends the picture as means over boxes.
fn shrink(luma: &[u8], stride: usize, shape: &Shape, out: &mut Vec<u8>) {
    let (width, height) = shape.thumbnail();
    let edge = |i: u32, parts: u32, length: u32| (u64::from(i) * u64::from(length) / u64::from(parts)) as usize;
    for row in 0..height {
        let rows = edge(row, height, shape.height)..edge(row + 1, height, shape.height);
        for column in 0..width {
            let columns = edge(column, width, shape.width)..edge(column + 1, width, shape.width);
            let line = |y: usize| &luma[y * stride + columns.start..y * stride + columns.end];
            let sum: u64 = rows.clone().map(|y| line(y).iter().map(|v| u64::from(*v)).sum::<u64>()).sum();
            out.push((sum / (rows.len() * columns.len()).max(1) as u64) as u8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { width: 64, height: 48, fps: (25, 1) };

    fn written(folder: &Path, frames: u8) {
        let mut writer = Writer::create(folder, "idle", SHAPE).unwrap();
        for i in 0..frames {
            writer.add(&vec![i; 10 + i as usize], &vec![i; 64 * 48], 64).unwrap();
        }
        writer.finish().unwrap();
    }

    #[test]
    fn frames_come_back_by_number() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path(), 5);
        let clip = Clip::open(folder.path(), "idle").unwrap();
        assert_eq!((clip.shape, clip.frames(), clip.seconds()), (SHAPE, 5, 0.2));
        assert_eq!(clip.jpeg(3).unwrap(), vec![3; 13]);
        assert_eq!(clip.thumbnail(4), vec![4; 32 * 24]);
        assert_eq!(clip.distance(1, &clip, 4), 3.0);
    }

    #[test]
    fn a_broken_index_is_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path(), 5);
        let path = folder.path().join("idle.index");
        let whole = std::fs::read(&path).unwrap();
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let message = Clip::open(folder.path(), "idle").unwrap_err().message;
            assert!(message.contains("idle.index"), "{message}");
        };
        for cut in [0, 7, 8, 20, 36, 60, whole.len() - 1] {
            refused(&whole[..cut]);
        }
        refused(&[whole.clone(), vec![0]].concat());
        for (place, value) in [(8, 0xff), (12, 1), (20, 0), (28, 9), (36 + 8, 0xff), (36 + 7, 0xff), (36 + 8, 0)] {
            let mut changed = whole.clone();
            changed[place] = value;
            if changed != whole {
                refused(&changed);
            }
        }
        std::fs::write(&path, &whole).unwrap();
        std::fs::write(folder.path().join("idle.jpegs"), b"short").unwrap();
        assert!(Clip::open(folder.path(), "idle").is_err());
    }

    #[test]
    fn no_index_makes_it_panic() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path(), 5);
        let path = folder.path().join("idle.index");
        let whole = std::fs::read(&path).unwrap();
        let mut random = 1_u32;
        let mut next = || {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 8) as usize
        };
        for _ in 0..3000 {
            let mut changed = whole.clone();
            for _ in 0..=next() % 4 {
                let at = next() % 100;
                changed[at] = next() as u8;
            }
            std::fs::write(&path, &changed).unwrap();
            if let Ok(clip) = Clip::open(folder.path(), "idle") {
                (0..clip.frames()).for_each(|i| drop((clip.jpeg(i), clip.thumbnail(i).len())));
            }
        }
    }

    #[test]
    fn links_and_names_that_lead_elsewhere_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        written(outside.path(), 2);
        for kind in ["index", "jpegs"] {
            let file = format!("idle.{kind}");
            std::os::unix::fs::symlink(outside.path().join(&file), folder.path().join(&file)).unwrap();
        }
        assert!(Clip::open(folder.path(), "idle").unwrap_err().message.contains("is not a file"));
        assert!(Clip::open(folder.path(), "../x").is_err());
    }
}
