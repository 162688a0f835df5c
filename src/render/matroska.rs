//! The duration in the header of a Matroska or WebM file. The muxer takes the end of the longest packet, and the last
//! packet of an audio encoder is filled up.

use std::{
    fs::OpenOptions,
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

/// Identifiers of the elements (RFC 9559, 5.1).
const INFO: [u8; 4] = [0x15, 0x49, 0xa9, 0x66];
const SCALE: [u8; 3] = [0x2a, 0xd7, 0xb1];
const DURATION: [u8; 2] = [0x44, 0x89];
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

struct Place {
    /// Of the eight bytes of the number.
    at: usize,
    /// Nanoseconds a unit.
    scale: u64,
}

fn duration(head: &[u8]) -> Option<Place> {
    let find = |from: usize, id: &[u8]| Some(from + head.get(from..)?.windows(id.len()).position(|w| w == id)?);
    let info = find(0, &INFO)?;
    let at = find(info, &DURATION)? + DURATION.len();
    // A float of eight bytes.
    (*head.get(at)? == 0x88 && head.len() >= at + 9).then_some(())?;
    let scale = find(info, &SCALE).and_then(|scale| {
        let size = usize::from(*head.get(scale + SCALE.len())?) & 0x7f;
        let bytes = head.get(scale + SCALE.len() + 1..scale + SCALE.len() + 1 + size)?;
        (size <= 8).then(|| bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)))
    });
    Some(Place { at: at + 1, scale: scale.filter(|scale| *scale > 0).unwrap_or(1_000_000) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_duration_is_written_in_the_files_own_units() {
        let info =
            [&INFO[..], &[0x92], &SCALE, &[0x83, 0x0f, 0x42, 0x40], &DURATION, &[0x88], &1.5f64.to_be_bytes()].concat();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [&[0x1a, 0x45, 0xdf, 0xa3][..], &info].concat()).unwrap();
        set_duration(file.path(), 4_000_000_000).unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        assert_eq!(bytes[bytes.len() - 8..], 4000.0f64.to_be_bytes());
        assert_eq!(bytes.len(), 4 + info.len());
        std::fs::write(file.path(), &info[..12]).unwrap();
        assert!(set_duration(file.path(), 1).is_err());
    }
}
