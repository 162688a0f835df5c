//! The duration in the header of a Matroska or WebM file. The muxer takes the end of the longest packet, and the last
//! packet of an audio encoder is filled up.

use std::{
    fs::OpenOptions,
    io::{self, Read, Seek, SeekFrom, Write},
    ops::Range,
    path::Path,
};

/// Identifiers of the elements (RFC 9559, 5.1).
const SEGMENT: u32 = 0x1853_8067;
const INFO: u32 = 0x1549_a966;
const SCALE: u32 = 0x2a_d7b1;
const DURATION: u32 = 0x4489;
/// Bytes at the start of a file in which the header lies.
const HEAD: usize = 4096;

/// Makes the header of `path` say that it lasts `nanoseconds`.
pub fn set_duration(path: &Path, nanoseconds: u64) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut head = Vec::new();
    Read::by_ref(&mut file).take(HEAD as u64).read_to_end(&mut head)?;
    let refuse = || io::Error::new(io::ErrorKind::InvalidData, "its header has no duration");
    let place = duration(&head).ok_or_else(refuse)?;
    let units = nanoseconds as f64 / place.scale as f64;
    file.seek(SeekFrom::Start(place.at as u64))?;
    file.write_all(&units.to_be_bytes())?;
    file.sync_all()
}

/// Where the duration is in a header, and the nanoseconds of its unit.
#[doc(hidden)]
pub fn duration_place(head: &[u8]) -> Option<(usize, u64)> {
    duration(head).map(|field| (field.at, field.scale))
}

struct DurationField {
    /// Of the eight bytes of the number.
    at: usize,
    /// Nanoseconds a unit.
    scale: u64,
}

fn duration(head: &[u8]) -> Option<DurationField> {
    let segment = find(head, 0..head.len(), SEGMENT)?;
    let info = find(head, segment, INFO)?;
    let at = find(head, info.clone(), DURATION).filter(|place| place.len() == 8)?.start;
    let scale = find(head, info, SCALE).filter(|place| place.len() <= 8);
    let scale = scale.map(|place| head[place].iter().fold(0, |n, byte| n << 8 | u64::from(*byte)));
    Some(DurationField { at, scale: scale.filter(|scale| *scale > 0).unwrap_or(1_000_000) })
}

/// Where the content of the first element `id` among those of `within` lies (RFC 8794, section 5).
fn find(head: &[u8], within: Range<usize>, id: u32) -> Option<Range<usize>> {
    let mut at = within.start;
    while at < within.end {
        let (name, name_size) = number(&head[at..within.end])?;
        at += name_size;
        let (size, size_size) = number(&head[at..within.end])?;
        at += size_size;
        // The content of a size that is not known, all ones, and of one that goes beyond what was read, ends with that.
        let size = usize::try_from(size & !(1 << (7 * size_size))).unwrap_or(usize::MAX);
        let end = at.saturating_add(size).min(within.end);
        if name == u64::from(id) {
            return Some(at..end);
        }
        at = end;
    }
    None
}

/// A number of variable size with its marker, and the bytes that it takes (RFC 8794, section 4).
fn number(bytes: &[u8]) -> Option<(u64, usize)> {
    let size = 1 + bytes.first()?.leading_zeros() as usize;
    let bytes = bytes.get(..size).filter(|_| size <= 8)?;
    Some((bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)), size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_duration_is_written_in_the_files_own_units() {
        // The segment's random name holds what looks like a duration.
        let name = [&[0x73, 0xa4, 0x84][..], &[0x44, 0x89, 0x88, 0]].concat();
        let duration = [&[0x44, 0x89, 0x88][..], &1.5f64.to_be_bytes()].concat();
        let content = [&name[..], &[0x2a, 0xd7, 0xb1, 0x83, 0x0f, 0x42, 0x40], &duration].concat();
        let info = [&[0x15, 0x49, 0xa9, 0x66, 0x80 | content.len() as u8][..], &content].concat();
        // The index of the header names the element, too.
        let seek = [0x11, 0x4d, 0x9b, 0x74, 0x84, 0x15, 0x49, 0xa9, 0x66];
        let start = [0x1a, 0x45, 0xdf, 0xa3, 0x80, 0x18, 0x53, 0x80, 0x67, 0x01, 255, 255, 255, 255, 255, 255, 255];
        let whole = [&start[..], &seek, &info].concat();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &whole).unwrap();
        set_duration(file.path(), 4_000_000_000).unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        assert_eq!(bytes[bytes.len() - 8..], 4000.0f64.to_be_bytes());
        assert_eq!(bytes[..bytes.len() - 8], whole[..whole.len() - 8]);
        for cut in 0..whole.len() {
            std::fs::write(file.path(), &whole[..cut]).unwrap();
            assert!(set_duration(file.path(), 1).is_err(), "{cut}");
        }
    }
}
