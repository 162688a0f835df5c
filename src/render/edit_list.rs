//! An AAC encoder puts a block of priming samples in front of the sound. An edit list (ISO/IEC 14496-12, 8.6.5 and
//! 8.6.6) tells the player to skip them and where the sound ends; the muxer does not write one for audio, so this does,
//! in the `moov` box that it leaves at the end of the file.

use std::{
    fs::OpenOptions,
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

use crate::media::boxes::{boxed, child, children, handler, top_level};

/// Largest `moov` that is read: an hour of video has about 2 MB.
const MAX_MOOV: u64 = 1 << 30;

/// Makes the audio track of `path` start after `priming` of its samples and last `samples` at `rate`.
pub fn trim_audio(path: &Path, priming: u64, samples: u64, rate: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let (offset, size) = last_box(&mut file, *b"moov")?;
    if size > MAX_MOOV {
        return Err(refuse("its index is too large"));
    }
    file.seek(SeekFrom::Start(offset))?;
    let mut moov = vec![0; size as usize];
    file.read_exact(&mut moov)?;
    let moov = with_edit(&moov, priming, samples, rate).ok_or_else(|| refuse("its index cannot be read"))?;
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(&moov)?;
    file.set_len(offset + moov.len() as u64)?;
    file.sync_all()
}

fn refuse(cause: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, cause)
}

/// Place and size of the box that ends the file, which must be of `kind`: only then may it grow.
fn last_box(file: &mut std::fs::File, kind: [u8; 4]) -> io::Result<(u64, u64)> {
    let last = top_level(file)?.pop().filter(|last| last.kind == kind);
    last.map(|last| (last.offset, last.size)).ok_or_else(|| refuse("its index is not at its end"))
}

/// `moov` with the edit list of its first audio track in place.
pub fn with_edit(moov: &[u8], priming: u64, samples: u64, rate: u32) -> Option<Vec<u8>> {
    let seconds = |scale: u32| (u128::from(samples) * u128::from(scale) / u128::from(rate.max(1))) as u64;
    let mvhd = child(moov, 8..moov.len(), b"mvhd")?;
    let movie_scale = scale(&moov[mvhd])?;
    let trak = children(moov, 8..moov.len())
        .filter(|(kind, _)| kind == b"trak")
        .map(|(_, range)| range)
        .find(|trak| handler(moov, trak.clone()) == Some(b"soun"))?;
    let body = trak.start + 8..trak.end;

    let mut elst = vec![1, 0, 0, 0]; // version 1: 64-bit fields; no flags
    elst.extend(1u32.to_be_bytes()); // one entry
    elst.extend(seconds(movie_scale).to_be_bytes());
    elst.extend((priming as i64).to_be_bytes()); // media time: the muxer counts an audio track in samples
    elst.extend([0, 1, 0, 0]); // rate 1.0
    let edts = boxed(b"edts", &boxed(b"elst", &elst));

    let mut track = Vec::new();
    for (kind, range) in children(moov, body) {
        if &kind == b"edts" {
            continue;
        }
        let bytes = &moov[range];
        if &kind == b"tkhd" {
            track.extend(with_track_duration(bytes, seconds(movie_scale))?);
            track.extend(&edts);
        } else {
            track.extend(bytes);
        }
    }
    let mut out = moov[8..trak.start].to_vec();
    out.extend(boxed(b"trak", &track));
    out.extend(&moov[trak.end..]);
    set_movie_duration(&mut out)?;
    Some(boxed(b"moov", &out))
}

/// The movie, the boxes of a `moov`, lasts as long as its longest track.
fn set_movie_duration(movie: &mut [u8]) -> Option<()> {
    let traks = children(movie, 0..movie.len()).filter(|(kind, _)| kind == b"trak");
    let tkhds = traks.filter_map(|(_, trak)| child(movie, trak.start + 8..trak.end, b"tkhd"));
    let longest = tkhds.filter_map(|tkhd| track_duration(&movie[tkhd])).max()?;
    let mvhd = child(movie, 0..movie.len(), b"mvhd")?;
    let mvhd = &mut movie[mvhd];
    if *mvhd.get(8)? == 1 {
        mvhd.get_mut(32..40)?.copy_from_slice(&longest.to_be_bytes());
    } else {
        mvhd.get_mut(24..28)?.copy_from_slice(&u32::try_from(longest).ok()?.to_be_bytes());
    }
    Some(())
}

fn track_duration(tkhd: &[u8]) -> Option<u64> {
    if *tkhd.get(8)? == 1 {
        Some(u64::from_be_bytes(tkhd.get(36..44)?.try_into().ok()?))
    } else {
        Some(u64::from(u32::from_be_bytes(tkhd.get(28..32)?.try_into().ok()?)))
    }
}

/// Time scale of an `mvhd` or `mdhd` box.
fn scale(header: &[u8]) -> Option<u32> {
    let at = if *header.get(8)? == 1 { 28 } else { 20 };
    Some(u32::from_be_bytes(header.get(at..at + 4)?.try_into().ok()?)).filter(|s| *s > 0)
}

fn with_track_duration(tkhd: &[u8], duration: u64) -> Option<Vec<u8>> {
    let mut out = tkhd.to_vec();
    if *tkhd.get(8)? == 1 {
        out.get_mut(36..44)?.copy_from_slice(&duration.to_be_bytes());
    } else {
        out.get_mut(28..32)?.copy_from_slice(&u32::try_from(duration).ok()?.to_be_bytes());
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(handler: &[u8; 4]) -> Vec<u8> {
        let tkhd = boxed(b"tkhd", &[0; 84]);
        let mut mdhd = vec![0; 24];
        mdhd[12..16].copy_from_slice(&16_000u32.to_be_bytes());
        let mut hdlr = vec![0; 24];
        hdlr[8..12].copy_from_slice(handler);
        let mdia = [boxed(b"mdhd", &mdhd), boxed(b"hdlr", &hdlr)].concat();
        boxed(b"trak", &[tkhd, boxed(b"edts", &[7; 5]), boxed(b"mdia", &mdia)].concat())
    }

    fn moov() -> Vec<u8> {
        let mut mvhd = vec![0; 100];
        mvhd[12..16].copy_from_slice(&10_000u32.to_be_bytes());
        boxed(b"moov", &[boxed(b"mvhd", &mvhd), track(b"vide"), track(b"soun"), boxed(b"udta", b"tail")].concat())
    }

    #[test]
    fn the_audio_track_alone_gets_the_edit() {
        let before = moov();
        let after = with_edit(&before, 1024, 32_000, 16_000).unwrap();
        let traks: Vec<_> = children(&after, 8..after.len()).filter(|(k, _)| k == b"trak").map(|(_, r)| r).collect();
        assert_eq!(after[traks[0].clone()], track(b"vide")[..]);
        let edts = child(&after, traks[1].start + 8..traks[1].end, b"edts").unwrap();
        let elst = &after[edts.start + 16..edts.end];
        assert_eq!(elst[..8], [1, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(elst[8..16], 20_000u64.to_be_bytes());
        assert_eq!(elst[16..24], 1024u64.to_be_bytes());
        let tkhd = child(&after, traks[1].start + 8..traks[1].end, b"tkhd").unwrap();
        assert_eq!(after[tkhd.start + 28..tkhd.start + 32], 20_000u32.to_be_bytes());
        assert_eq!(after[8 + 24..8 + 28], 20_000u32.to_be_bytes(), "the movie lasts as long as its longest track");
        assert!(after.ends_with(b"udtatail"));
        assert_eq!(u32::from_be_bytes(after[..4].try_into().unwrap()) as usize, after.len());
    }

    #[test]
    fn a_broken_index_is_refused() {
        let whole = moov();
        for cut in [8, 40, whole.len() - 100] {
            assert!(with_edit(&whole[..cut], 1024, 1, 16_000).is_none(), "cut at {cut}");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [boxed(b"moov", &[]), boxed(b"mdat", b"sound")].concat()).unwrap();
        assert!(trim_audio(file.path(), 1024, 1, 16_000).is_err());
    }
}
