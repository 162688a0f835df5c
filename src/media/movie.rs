//! What the index of an MP4 or MOV file says of its tracks and GStreamer's demuxer passes over: which are to be played,
//! whether the codes of a picture span the full range, and whether it is mirrored.

use std::{
    collections::HashMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    ops::Range,
    path::Path,
};

use gst_video::{VideoColorMatrix, VideoColorPrimaries, VideoColorRange, VideoColorimetry, VideoTransferFunction};

use super::boxes::{child, children, handler};

/// Largest index that is read: an hour of video has about 2 MB.
const MAX_MOOV: u64 = 64 << 20;
/// Boxes at the top of a file that are looked at: a fragmented file has two a fragment.
const MAX_TOP: usize = 100_000;
/// What such a file begins with.
const FIRST: [&[u8]; 7] = [b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"];

/// A track, as far as its headers say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Track {
    /// Meant to be played unless the viewer chooses another.
    pub enabled: bool,
    /// Of the `colr` box, where it says all of it.
    pub colorimetry: Option<VideoColorimetry>,
    /// Value of the tag `image-orientation` for a picture that is shown mirrored.
    pub mirrored: Option<&'static str>,
}

/// The tracks of a file by their track number; none of one that is no such file.
pub fn tracks(path: &Path) -> HashMap<u32, Track> {
    index(path).map(|moov| tracks_of(&moov)).unwrap_or_default()
}

/// The tracks of a `moov` box, its header included.
pub fn tracks_of(moov: &[u8]) -> HashMap<u32, Track> {
    let traks =
        children(moov, 8.min(moov.len())..moov.len()).filter(|(kind, _)| kind == b"trak").map(|(_, range)| range);
    traks.filter_map(|trak| track(moov, trak)).collect()
}

/// The `moov` box of a file.
fn index(path: &Path) -> Option<Vec<u8>> {
    let mut file = File::open(path).ok()?;
    let (offset, size) = top(&mut file)?.index?;
    let mut moov = vec![0; usize::try_from(size).ok().filter(|_| size <= MAX_MOOV)?];
    file.seek(SeekFrom::Start(offset)).ok()?;
    file.read_exact(&mut moov).ok()?;
    Some(moov)
}

/// The boxes at the top of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Top {
    /// Place and size of `moov`.
    pub index: Option<(u64, u64)>,
    /// A box is larger than what is left of the file.
    pub cut: bool,
}

/// Looks at the boxes of a file; `None` of one that is no such file.
pub fn top(file: &mut File) -> Option<Top> {
    // A pipe has no index to be looked up.
    let end = file.metadata().ok().filter(|meta| meta.is_file())?.len();
    let mut top = Top::default();
    let mut offset = 0;
    for _ in 0..MAX_TOP {
        if end - offset < 8 {
            break;
        }
        file.seek(SeekFrom::Start(offset)).ok()?;
        let mut head = [0; 16];
        file.read_exact(&mut head[..8]).ok()?;
        if offset == 0 && !FIRST.contains(&&head[4..8]) {
            return None;
        }
        let mut size = u64::from(u32::from_be_bytes(head[..4].try_into().ok()?));
        let mut header = 8;
        match size {
            // It lasts to the end of the file.
            0 => size = end - offset,
            1 if end - offset >= 16 => {
                file.read_exact(&mut head[8..]).ok()?;
                size = u64::from_be_bytes(head[8..].try_into().ok()?);
                header = 16;
            }
            _ => {}
        }
        let next = offset.checked_add(size).filter(|_| size >= header);
        let Some(next) = next.filter(|next| *next <= end) else {
            top.cut = true;
            break;
        };
        if &head[4..8] == b"moov" && header == 8 {
            top.index = Some((offset, size));
        }
        offset = next;
    }
    Some(top)
}

fn track(moov: &[u8], trak: Range<usize>) -> Option<(u32, Track)> {
    let body = trak.start + 8..trak.end;
    let tkhd = &moov[child(moov, body.clone(), b"tkhd")?];
    // Version 1 has 64-bit times.
    let (number, matrix) = if *tkhd.get(8)? == 1 { (28, 60) } else { (20, 48) };
    let word = |at: usize| Some(i32::from_be_bytes(tkhd.get(at..at + 4)?.try_into().ok()?));
    let number = word(number)? as u32;
    let [a, b, c, d] = [word(matrix)?, word(matrix + 4)?, word(matrix + 12)?, word(matrix + 16)?];
    let enabled = tkhd.get(11)? & 1 != 0;
    if handler(moov, trak) != Some(b"vide") {
        return Some((number, Track { enabled, ..Track::default() }));
    }
    let colorimetry = colr(moov, body).and_then(colorimetry);
    Some((number, Track { enabled, colorimetry, mirrored: mirrored([a, b, c, d].map(i32::signum)) }))
}

/// The signs of a track's matrix (ISO/IEC 14496-12, 8.3.2: x' = a x + c y, y' = b x + d y) as a tag, for the four that
/// mirror; the others the demuxer knows.
fn mirrored(signs: [i32; 4]) -> Option<&'static str> {
    match signs {
        [-1, 0, 0, 1] => Some("flip-rotate-0"),
        [0, -1, -1, 0] => Some("flip-rotate-90"),
        [1, 0, 0, -1] => Some("flip-rotate-180"),
        [0, 1, 1, 0] => Some("flip-rotate-270"),
        _ => None,
    }
}

/// The body of the `colr` box of the track's first sample description.
fn colr(moov: &[u8], trak: Range<usize>) -> Option<&[u8]> {
    let inner = |range: Range<usize>, kind| child(moov, range.start + 8..range.end, kind);
    let mdia = child(moov, trak, b"mdia")?;
    let stsd = inner(inner(inner(mdia, b"minf")?, b"stbl")?, b"stsd")?;
    let (_, entry) = children(moov, stsd.start + 16..stsd.end).next()?;
    // VisualSampleEntry: 78 bytes of fields come before its boxes.
    let colr = child(moov, (entry.start + 86).min(entry.end)..entry.end, b"colr")?;
    moov.get(colr.start + 8..colr.end)
}

/// Of a `colr` box that says everything (ISO/IEC 14496-12, 12.1.5; codes of ISO/IEC 23091-2). QuickTime's own form has no
/// range: what the bitstream says holds there.
fn colorimetry(body: &[u8]) -> Option<VideoColorimetry> {
    let code = |at: usize| Some(u32::from(u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?)));
    if body.get(..4)? != b"nclx" {
        return None;
    }
    let primaries = VideoColorPrimaries::from_iso(code(4)?);
    let transfer = VideoTransferFunction::from_iso(code(6)?);
    let matrix = VideoColorMatrix::from_iso(code(8)?);
    let full = body.get(10)? & 0x80 != 0;
    let known = primaries != VideoColorPrimaries::Unknown
        && transfer != VideoTransferFunction::Unknown
        && matrix != VideoColorMatrix::Unknown;
    let range = if full { VideoColorRange::Range0_255 } else { VideoColorRange::Range16_235 };
    known.then(|| VideoColorimetry::new(range, matrix, transfer, primaries))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::boxes::boxed;

    fn file(matrix: [i32; 4], colr: &[u8]) -> tempfile::NamedTempFile {
        let mut tkhd = vec![0; 84];
        tkhd[12..16].copy_from_slice(&7u32.to_be_bytes());
        for (at, n) in [40, 44, 52, 56].into_iter().zip(matrix) {
            tkhd[at..at + 4].copy_from_slice(&(n << 16).to_be_bytes());
        }
        let mut hdlr = vec![0; 24];
        hdlr[8..12].copy_from_slice(b"vide");
        let entry = boxed(b"avc1", &[vec![0; 78], boxed(b"colr", colr)].concat());
        let stsd = boxed(b"stsd", &[vec![0; 8], entry].concat());
        let minf = boxed(b"minf", &boxed(b"stbl", &stsd));
        let mdia = boxed(b"mdia", &[boxed(b"hdlr", &hdlr), minf].concat());
        let moov = boxed(b"moov", &boxed(b"trak", &[boxed(b"tkhd", &tkhd), mdia].concat()));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [boxed(b"ftyp", b"isom"), boxed(b"mdat", &[0; 100]), moov].concat()).unwrap();
        file
    }

    #[test]
    fn range_and_mirroring_are_read() {
        let nclx = *b"nclx\0\x01\0\x01\0\x06\x80";
        let found = tracks(file([-1, 0, 0, 1], &nclx).path());
        let track = &found[&7];
        let colorimetry = track.colorimetry.unwrap();
        assert_eq!(colorimetry.range(), VideoColorRange::Range0_255);
        assert_eq!(colorimetry.matrix(), VideoColorMatrix::Bt601);
        assert_eq!(colorimetry.primaries(), VideoColorPrimaries::Bt709);
        assert_eq!(track.mirrored, Some("flip-rotate-0"));
    }

    #[test]
    fn what_says_less_says_nothing() {
        for colr in [&b"nclx\0\x02\0\x02\0\x02\x80"[..], b"nclc\0\x01\0\x01\0\x01", b"nc", b"nclx\0\x01"] {
            let found = tracks(file([0, 1, -1, 0], colr).path());
            assert_eq!(found[&7], Track::default(), "{colr:?}");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [0, 0, 0, 0]).unwrap();
        assert!(tracks(file.path()).is_empty());
    }

    #[test]
    fn a_file_that_ends_within_a_box_is_cut() {
        let whole = file([1, 0, 0, 1], b"");
        let top = |bytes: &[u8]| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), bytes).unwrap();
            super::top(&mut File::open(file.path()).unwrap())
        };
        let bytes = std::fs::read(whole.path()).unwrap();
        assert!(top(&bytes).is_some_and(|top| !top.cut && top.index.is_some()));
        assert_eq!(top(&bytes[..60]), Some(Top { index: None, cut: true }));
        assert_eq!(top(b"RIFF----WAVE"), None);
    }

    #[test]
    fn broken_indexes_are_no_panic() {
        let nclx = *b"nclx\0\x01\0\x01\0\x06\x80";
        let whole = std::fs::read(file([-1, 0, 0, 1], &nclx).path()).unwrap();
        let moov = &whole[12 + 108..];
        assert_eq!(tracks_of(moov).len(), 1);
        (0..moov.len()).for_each(|cut| drop(tracks_of(&moov[..cut])));
        let mut state = 1u32;
        let mut random = |below: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % below
        };
        for _ in 0..50_000 {
            let mut broken = moov.to_vec();
            for _ in 0..1 + random(4) {
                let at = random(broken.len());
                // Sizes matter most: large, small, off by a little.
                broken[at] = [0, 1, 7, 8, 0x7F, 0xFF, random(256) as u8][random(7)];
            }
            drop(tracks_of(&broken));
        }
    }
}
