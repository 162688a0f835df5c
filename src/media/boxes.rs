//! Boxes of the ISO base media file format (ISO/IEC 14496-12) and of QuickTime, in memory and at the top of files.

use std::{
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
};

/// The boxes within `range`, each with its place; ends at the first that does not fit.
pub fn children(data: &[u8], range: Range<usize>) -> impl Iterator<Item = ([u8; 4], Range<usize>)> {
    let mut offset = range.start;
    std::iter::from_fn(move || {
        let head: [u8; 8] = data.get(offset..offset.checked_add(8)?)?.try_into().ok()?;
        let size = u32::from_be_bytes(head[..4].try_into().ok()?) as usize;
        let end = offset.checked_add(size).filter(|end| size >= 8 && *end <= range.end)?;
        let found = (head[4..].try_into().ok()?, offset..end);
        offset = end;
        Some(found)
    })
}

/// The first box of `kind` within `range`.
pub fn child(data: &[u8], range: Range<usize>, kind: &[u8; 4]) -> Option<Range<usize>> {
    children(data, range).find(|(k, _)| k == kind).map(|(_, range)| range)
}

/// A box of `kind` around `body`.
pub fn boxed(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut out = ((body.len() + 8) as u32).to_be_bytes().to_vec();
    out.extend(kind);
    out.extend(body);
    out
}

/// What a track holds: `vide`, `soun`, ... `trak` is the place of its box.
pub fn handler(data: &[u8], trak: Range<usize>) -> Option<&[u8]> {
    let mdia = child(data, trak.start + 8..trak.end, b"mdia")?;
    let hdlr = child(data, mdia.start + 8..mdia.end, b"hdlr")?;
    data.get(hdlr.start + 16..hdlr.start + 20)
}

/// A box of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopLevel {
    pub kind: [u8; 4],
    pub offset: u64,
    /// Its head counts.
    pub size: u64,
}

/// What `take` makes of the first box of a file, of those that are in no other, that is `wanted` and gives something; at most so many are
/// looked at, as far as they are sound.
pub fn first_of<F: Read + Seek, T>(
    file: &mut F,
    most: usize,
    wanted: impl Fn(&TopLevel) -> bool,
    take: impl Fn(&mut F, &TopLevel) -> io::Result<Option<T>>,
) -> io::Result<Option<T>> {
    let end = file.seek(SeekFrom::End(0))?;
    let mut offset = 0;
    for _ in 0..most {
        let Ok(found) = top_level_at(file, offset, end) else { break };
        if wanted(&found)
            && let Some(taken) = take(file, &found)?
        {
            return Ok(Some(taken));
        }
        offset += found.size;
    }
    Ok(None)
}

/// The box of a file of `end` bytes that begins at `offset`.
fn top_level_at(file: &mut (impl Read + Seek), offset: u64, end: u64) -> io::Result<TopLevel> {
    file.seek(SeekFrom::Start(offset))?;
    let mut head = [0; 8];
    file.read_exact(&mut head)?;
    let [a, b, c, d, kind @ ..] = head;
    let mut size = u64::from(u32::from_be_bytes([a, b, c, d]));
    if size == 1 {
        let mut long = [0; 8];
        file.read_exact(&mut long)?;
        size = u64::from_be_bytes(long);
    }
    if size < 8 || size > end.saturating_sub(offset) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "one of its boxes is broken"));
    }
    Ok(TopLevel { kind, offset, size })
}

/// The boxes of a file that are in no other. Errors: what does not end where the file does.
pub fn top_level(file: &mut (impl Read + Seek)) -> io::Result<Vec<TopLevel>> {
    let end = file.seek(SeekFrom::End(0))?;
    let (mut found, mut offset) = (Vec::new(), 0);
    while offset < end {
        let next = top_level_at(file, offset, end)?;
        offset += next.size;
        found.push(next);
    }
    Ok(found)
}
