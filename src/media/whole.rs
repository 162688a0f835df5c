//! Whether a file is all there, as far as its container says how long it is.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use super::movie;

/// Bytes in which the beginning of a Matroska segment lies.
const HEAD: u64 = 4096;

/// What is missing of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    Nothing,
    /// Its end.
    End,
    /// Its end and with it the index, without which nothing can be decoded.
    Index,
}

/// Looks at a file. What cannot be read or says nothing of its size misses nothing.
pub fn missing(path: &Path) -> Missing {
    let Ok(mut file) = File::open(path) else { return Missing::Nothing };
    let Some(length) = file.metadata().ok().filter(|meta| meta.is_file()).map(|meta| meta.len()) else {
        return Missing::Nothing;
    };
    if let Some(top) = movie::top(&mut file) {
        return match (top.cut, top.index) {
            (true, None) => Missing::Index,
            (true, Some(_)) => Missing::End,
            (false, _) => Missing::Nothing,
        };
    }
    let mut head = Vec::new();
    // What cannot be read says nothing.
    let read = file.seek(SeekFrom::Start(0)).and_then(|_| Read::by_ref(&mut file).take(HEAD).read_to_end(&mut head));
    let says = read.ok().and_then(|_| riff(&head).or_else(|| segment(&head)));
    if says.is_some_and(|says| says > length) { Missing::End } else { Missing::Nothing }
}

/// Size of a RIFF file (WAV, AVI); writers that cannot go back leave 0 or the largest number.
fn riff(head: &[u8]) -> Option<u64> {
    if head.get(..4)? != b"RIFF" {
        return None;
    }
    let size = u32::from_le_bytes(head.get(4..8)?.try_into().ok()?);
    (size != 0 && size != u32::MAX).then(|| u64::from(size) + 8)
}

/// Size of a Matroska or WebM file whose segment says one (RFC 8794, 4 and 6).
fn segment(head: &[u8]) -> Option<u64> {
    if head.get(..4)? != [0x1a, 0x45, 0xdf, 0xa3] {
        return None;
    }
    let (size, width) = number(head.get(4..)?)?;
    let at = 4 + width + usize::try_from(size).ok()?;
    if head.get(at..at.checked_add(4)?)? != [0x18, 0x53, 0x80, 0x67] {
        return None;
    }
    let (size, width) = number(head.get(at + 4..)?)?;
    let unknown = (1 << (7 * width)) - 1;
    (size != unknown).then(|| (at + 4 + width) as u64 + size)
}

/// A variable-size integer and the bytes that it takes.
fn number(bytes: &[u8]) -> Option<(u64, usize)> {
    let width = bytes.first()?.leading_zeros() as usize + 1;
    let bytes = bytes.get(..width).filter(|_| width <= 8)?;
    let value = bytes.iter().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
    Some((value & ((1 << (7 * width)) - 1), width))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Missing {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        missing(file.path())
    }

    #[test]
    fn containers_say_their_size() {
        assert_eq!(of(b"RIFF\x04\0\0\0WAVE"), Missing::Nothing);
        assert_eq!(of(b"RIFF\x40\0\0\0WAVE"), Missing::End);
        assert_eq!(of(b"RIFF\xff\xff\xff\xffWAVE"), Missing::Nothing);
        let matroska = [0x1a, 0x45, 0xdf, 0xa3, 0x80, 0x18, 0x53, 0x80, 0x67, 0x84, 1, 2, 3, 4];
        assert_eq!(of(&matroska), Missing::Nothing);
        assert_eq!(of(&matroska[..12]), Missing::End);
        let mut live = matroska;
        live[9] = 0xff;
        assert_eq!(of(&live[..12]), Missing::Nothing);
        assert_eq!(of(b"\0\0\0\x0cftypisom\0\0\x10\0mdat"), Missing::Index);
        assert_eq!(of(b"anything"), Missing::Nothing);
        assert_eq!(of(b""), Missing::Nothing);
    }
}
