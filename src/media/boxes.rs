//! Boxes of the ISO base media file format (ISO/IEC 14496-12) and of QuickTime, in memory.

use std::ops::Range;

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
