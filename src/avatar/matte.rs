//! The transparency of a clip's frames, beside its JPEGs, without loss. A clip that has none has no such file.
//!
//! ```text
//! NAME.mattes  "LIPMATT1"
//!              for each frame: its alphas row by row, a byte a pixel, as a zlib stream
//!              for each frame: offset u64, length u32                                   (little endian)
//!              frames u32  width u32  height u32
//! ```

use std::{
    fs::File,
    io::{BufWriter, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use flate2::{Compression, read::ZlibDecoder, write::ZlibEncoder};
use gst_video::{VideoFormat, VideoFrameRef, VideoInfo, prelude::*};
use lipstream_engines::image::{FrameMut, Matrix, Plane, PlaneMut, Range, alpha};

use super::clip::{MAX_FRAMES, Shape, plain_file};
use crate::error::{Failure, Result};

const MAGIC: &[u8; 8] = b"LIPMATT1";
/// Bytes of the numbers at the end, and of a frame's entry before them.
const TAIL: usize = 12;
const ENTRY: usize = 12;

fn file_of(folder: &Path, clip: &str) -> PathBuf {
    folder.join(format!("{clip}.mattes"))
}

/// Writes the mattes of a clip, frame by frame.
pub struct Writer {
    path: PathBuf,
    size: (u32, u32),
    file: BufWriter<File>,
    places: Vec<(u64, u32)>,
    written: u64,
}

impl Writer {
    pub fn create(folder: &Path, clip: &str, shape: Shape) -> Result<Self> {
        let path = file_of(folder, clip);
        let failure = |e: std::io::Error| Failure::output(format!("{}: {e}", path.display()));
        let mut file = BufWriter::new(File::create_new(&path).map_err(failure)?);
        file.write_all(MAGIC).map_err(failure)?;
        Ok(Self { size: (shape.width, shape.height), file, places: Vec::new(), written: MAGIC.len() as u64, path })
    }

    /// Adds the alphas of a frame, row by row.
    pub fn add(&mut self, alphas: &[u8]) -> Result<()> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        let packed = encoder.write_all(alphas).and_then(|()| encoder.finish()).map_err(|e| self.failure(&e))?;
        self.file.write_all(&packed).map_err(|e| self.failure(&e))?;
        self.places.push((self.written, packed.len() as u32));
        self.written += packed.len() as u64;
        Ok(())
    }

    /// Bytes written.
    pub fn size(&self) -> u64 {
        self.written
    }

    pub fn finish(mut self) -> Result<()> {
        let mut end = Vec::with_capacity(self.places.len() * ENTRY + TAIL);
        for (offset, length) in &self.places {
            end.extend(offset.to_le_bytes());
            end.extend(length.to_le_bytes());
        }
        for number in [self.places.len() as u32, self.size.0, self.size.1] {
            end.extend(number.to_le_bytes());
        }
        self.file.write_all(&end).and_then(|()| self.file.flush()).map_err(|e| self.failure(&e))
    }

    fn failure(&self, error: &std::io::Error) -> Failure {
        Failure::output(format!("{}: cannot be written: {error}", self.path.display()))
    }
}

/// The mattes of a prepared clip.
#[derive(Debug)]
pub struct Mattes {
    path: PathBuf,
    file: File,
    size: (u32, u32),
    places: Vec<(u64, u32)>,
}

impl Mattes {
    /// Those of a clip of `frames` frames; `None` where it is opaque. Everything that the file says of itself is checked.
    pub fn open(folder: &Path, clip: &str, shape: Shape, frames: usize) -> Result<Option<Self>> {
        let path = file_of(folder, clip);
        if path.symlink_metadata().is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
            return Ok(None);
        }
        let broken = |cause: &str| Failure::input(format!("{}: {cause}; add the clip again", path.display()));
        let file = plain_file(&path)?;
        let size = file.metadata().map_err(|e| broken(&e.to_string()))?.len();
        let length = (frames.min(MAX_FRAMES) * ENTRY + TAIL) as u64;
        let table = size.checked_sub(length).filter(|start| *start >= MAGIC.len() as u64);
        let table = table.ok_or_else(|| broken("is cut short"))?;
        let mut end = vec![0; length as usize];
        let mut magic = [0; MAGIC.len()];
        let read = file.read_exact_at(&mut magic, 0).and_then(|()| file.read_exact_at(&mut end, table));
        read.map_err(|e| broken(&e.to_string()))?;
        let (entries, tail) = end.split_at(end.len() - TAIL);
        let word = |at: usize| u32::from_le_bytes([tail[at], tail[at + 1], tail[at + 2], tail[at + 3]]);
        if &magic != MAGIC || (word(0) as usize, word(4), word(8)) != (frames, shape.width, shape.height) {
            return Err(broken("is not of this clip"));
        }
        let places: Vec<(u64, u32)> = entries
            .as_chunks::<ENTRY>()
            .0
            .iter()
            .map(|[a, b, c, d, e, f, g, h, length @ ..]| {
                (u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), u32::from_le_bytes(*length))
            })
            .collect();
        // A stream is never much longer than what it holds.
        let most = u64::from(shape.width) * u64::from(shape.height) * 2 + 1024;
        let inside = |(offset, length): &(u64, u32)| {
            u64::from(*length) <= most && offset.checked_add((*length).into()).is_some_and(|end| end <= table)
        };
        if !places.iter().all(inside) {
            return Err(broken("names places outside of itself"));
        }
        Ok(Some(Self { path, file, size: (shape.width, shape.height), places }))
    }

    /// The alphas of frame `index`, row by row.
    pub fn alphas(&self, index: usize) -> Result<Vec<u8>> {
        let failure = |cause: &str| Failure::input(format!("{}: frame {index}: {cause}", self.path.display()));
        let (offset, length) = *self.places.get(index).ok_or_else(|| failure("is not there"))?;
        let mut packed = vec![0; length as usize];
        self.file.read_exact_at(&mut packed, offset).map_err(|e| failure(&e.to_string()))?;
        let count = self.size.0 as usize * self.size.1 as usize;
        let mut alphas = Vec::with_capacity(count + 1);
        let unpacked = ZlibDecoder::new(packed.as_slice()).take(count as u64 + 1).read_to_end(&mut alphas);
        unpacked.map_err(|e| failure(&e.to_string()))?;
        if alphas.len() == count { Ok(alphas) } else { Err(failure("is of another size")) }
    }
}

/// The colours of a frame with alpha as I420 with default strides, and its alphas row by row.
pub fn split(frame: &gst::BufferRef, info: &VideoInfo, opaque: &VideoInfo) -> Result<(gst::Buffer, Vec<u8>)> {
    let unreadable = || Failure::run("a frame with alpha cannot be read");
    let from = VideoFrameRef::from_buffer_ref_readable(frame, info).map_err(|_| unreadable())?;
    let mut bytes = vec![0; opaque.size()];
    let (width, height) = (info.width() as usize, info.height() as usize);
    let mut alphas = Vec::with_capacity(width * height);
    for plane in 0..4 {
        let data = from.plane_data(plane as u32).map_err(|_| unreadable())?;
        let stride = usize::try_from(from.plane_stride()[plane]).map_err(|_| unreadable())?;
        let half = plane == 1 || plane == 2;
        let (columns, rows) = if half { (width.div_ceil(2), height.div_ceil(2)) } else { (width, height) };
        for (y, line) in data.chunks(stride.max(1)).take(rows).enumerate() {
            let line = line.get(..columns).ok_or_else(unreadable)?;
            match opaque.offset().get(plane).filter(|_| plane < 3) {
                Some(offset) => {
                    let at = offset + y * usize::try_from(opaque.stride()[plane]).map_err(|_| unreadable())?;
                    bytes.get_mut(at..at + columns).ok_or_else(unreadable)?.copy_from_slice(line);
                }
                None => alphas.extend(line),
            }
        }
    }
    Ok((gst::Buffer::from_mut_slice(bytes), alphas))
}

/// A420 with default strides of I420 with those and its alphas.
pub fn join(opaque: &gst::Buffer, alphas: &[u8], info: &VideoInfo) -> Result<gst::Buffer> {
    let (colors, stride) = (opaque.map_readable()?, info.stride()[0] as usize);
    let mut bytes = vec![0; info.size()];
    let (start, rest) = bytes.split_at_mut(info.offset()[3].min(info.size()));
    let count = start.len().min(colors.len());
    start[..count].copy_from_slice(&colors[..count]);
    let width = info.width() as usize;
    rest.chunks_mut(stride.max(1))
        .zip(alphas.chunks(width))
        .for_each(|(line, alphas)| line[..width].copy_from_slice(alphas));
    Ok(gst::Buffer::from_mut_slice(bytes))
}

/// I420 with default strides, laid on black by its alphas.
pub fn on_black(mut opaque: gst::Buffer, alphas: &[u8], info: &VideoInfo) -> Result<gst::Buffer> {
    let failure = |e: lipstream_engines::Error| Failure::run(e.to_string());
    let (width, height) = (info.width() as usize, info.height() as usize);
    let mut map = opaque.make_mut().map_writable()?;
    let mut planes = Vec::new();
    let mut rest: &mut [u8] = &mut map;
    let mut taken = 0;
    for plane in 0..3 {
        let end = info.offset().get(plane + 1).copied().unwrap_or(info.size());
        let (data, behind) = rest.split_at_mut((end - taken).min(rest.len()));
        planes.push(PlaneMut { data, stride: info.stride()[plane] as usize });
        (rest, taken) = (behind, end);
    }
    let format = lipstream_engines::image::Format::I420;
    // Black is the same in every matrix.
    let mut frame = FrameMut::new(format, (width, height), Matrix::Bt709, Range::Limited, planes).map_err(failure)?;
    alpha::lay_on(&mut frame, Plane { data: alphas, stride: width }, [0; 3]);
    drop(frame);
    drop(map);
    Ok(opaque)
}

/// A420 of a size, the way that all frames with alpha are in memory.
pub fn info(width: u32, height: u32) -> Result<VideoInfo> {
    Ok(VideoInfo::builder(VideoFormat::A420, width, height).build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { width: 64, height: 48, fps: (25, 1) };

    fn alphas(frame: usize) -> Vec<u8> {
        (0..64 * 48).map(|i| if i % 64 < 32 { 0 } else { (i * 7 + frame) as u8 }).collect()
    }

    fn written(folder: &Path) {
        let mut writer = Writer::create(folder, "idle", SHAPE).unwrap();
        (0..3).for_each(|frame| writer.add(&alphas(frame)).unwrap());
        writer.finish().unwrap();
    }

    #[test]
    fn mattes_come_back_to_the_bit() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Mattes::open(folder.path(), "idle", SHAPE, 3).unwrap().is_none());
        written(folder.path());
        let mattes = Mattes::open(folder.path(), "idle", SHAPE, 3).unwrap().unwrap();
        (0..3).for_each(|frame| assert_eq!(mattes.alphas(frame).unwrap(), alphas(frame)));
        assert!(mattes.alphas(3).is_err());
    }

    #[test]
    fn what_is_broken_is_refused_with_its_name_and_never_panics() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path());
        let path = folder.path().join("idle.mattes");
        let whole = std::fs::read(&path).unwrap();
        for (shape, frames) in [(Shape { width: 66, ..SHAPE }, 3), (SHAPE, 2), (SHAPE, 4)] {
            let message = Mattes::open(folder.path(), "idle", shape, frames).unwrap_err().message;
            assert!(message.contains("idle.mattes"), "{message}");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x55;
            std::fs::write(&path, &changed).unwrap();
            if let Ok(Some(mattes)) = Mattes::open(folder.path(), "idle", SHAPE, 3) {
                (0..3).for_each(|frame| drop(mattes.alphas(frame)));
            }
        }
        for cut in [0, 7, 8, 19, 20, whole.len() - 1] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert!(Mattes::open(folder.path(), "idle", SHAPE, 3).is_err(), "{cut}");
        }
    }

    #[test]
    fn colours_and_alphas_part_and_join() {
        gst::init().unwrap();
        let (with, without) = (info(66, 48).unwrap(), super::super::jpeg::info(66, 48).unwrap());
        let bytes: Vec<u8> = (0..with.size()).map(|i| (i % 251) as u8).collect();
        let frame = gst::Buffer::from_slice(bytes.clone());
        let (colors, alphas) = split(&frame, &with, &without).unwrap();
        assert_eq!((colors.size(), alphas.len()), (without.size(), 66 * 48));
        let joined = join(&colors, &alphas, &with).unwrap();
        let (again, other) = split(&joined, &with, &without).unwrap();
        assert_eq!((again.map_readable().unwrap().to_vec(), other), (colors.map_readable().unwrap().to_vec(), alphas));
        let black = on_black(colors, &[0; 66 * 48], &without).unwrap();
        let black = black.map_readable().unwrap();
        assert_eq!((black[0], black[without.offset()[1]]), (16, 128));
    }
}
