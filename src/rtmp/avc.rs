//! H.264 between its two framings: Annex B with start codes, as encoders give it, and length-prefixed with a
//! configuration record, as FLV carries it (ITU-T H.264 annex B; ISO/IEC 14496-15, 5.2.4 and 5.3.3).

use bytes::{BufMut, Bytes, BytesMut};

/// NAL unit types (H.264 table 7-1).
const SPS: u8 = 7;
const PPS: u8 = 8;
const DELIMITER: u8 = 9;
const END_OF_SEQUENCE: u8 = 10;
const FILLER: u8 = 12;

/// An access unit, split.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessUnit {
    /// NAL units, each behind four bytes of length, without parameter sets and delimiters.
    pub data: Bytes,
    /// `AVCDecoderConfigurationRecord` where the unit has both parameter sets.
    pub config: Option<Bytes>,
    /// By the SPS.
    pub picture: Option<Picture>,
}

/// What an SPS says of the pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picture {
    pub width: u32,
    pub height: u32,
    /// Frames a second as a fraction, where the rate is fixed or at least told.
    pub fps: Option<(u32, u32)>,
}

/// NAL units between start codes of three or four bytes.
pub fn units(annex_b: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = after_start_code(annex_b);
    std::iter::from_fn(move || {
        loop {
            let data = rest?;
            let end = data.windows(3).position(|w| w == [0, 0, 1]);
            let unit = end.map_or(data, |end| &data[..end]);
            rest = end.map(|end| &data[end + 3..]);
            // Zeros before a start code belong to it or are padding; a unit's own last byte is never 0 (7.4.1).
            let length = unit.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
            if length > 0 {
                return Some(&unit[..length]);
            }
        }
    })
}

fn after_start_code(data: &[u8]) -> Option<&[u8]> {
    data.windows(3).position(|w| w == [0, 0, 1]).map(|at| &data[at + 3..])
}

/// Turns an access unit of Annex B into length-prefixed units.
pub fn from_annex_b(annex_b: &[u8]) -> AccessUnit {
    let mut data = BytesMut::with_capacity(annex_b.len() + 16);
    let (mut sps, mut pps): (Vec<&[u8]>, Vec<&[u8]>) = Default::default();
    for unit in units(annex_b) {
        match unit[0] & 0x1F {
            SPS => sps.push(unit),
            PPS => pps.push(unit),
            DELIMITER | END_OF_SEQUENCE | FILLER => {}
            _ => {
                data.put_u32(unit.len() as u32);
                data.put_slice(unit);
            }
        }
    }
    let picture = sps.first().and_then(|sps| picture(sps));
    AccessUnit { data: data.freeze(), config: record(&sps, &pps), picture }
}

/// The configuration record of parameter sets, with four bytes of length before each unit.
fn record(sps: &[&[u8]], pps: &[&[u8]]) -> Option<Bytes> {
    let first = sps.first().filter(|sps| sps.len() >= 4)?;
    pps.first()?;
    let mut out = BytesMut::new();
    out.put_slice(&[1, first[1], first[2], first[3], 0xFF]);
    for (marker, limit, sets) in [(0xE0, 31, sps), (0, 255, pps)] {
        let sets = &sets[..sets.len().min(limit)];
        out.put_u8(marker | sets.len() as u8);
        for set in sets {
            out.put_u16(u16::try_from(set.len()).ok()?);
            out.put_slice(set);
        }
    }
    // High profiles repeat the chroma format and depth (5.3.3.1.2); ours are 4:2:0 with 8 bits.
    if matches!(first[1], 100 | 110 | 122 | 144) {
        out.put_slice(&[0xFD, 0xF8, 0xF8, 0]);
    }
    Some(out.freeze())
}

/// What a configuration record that a peer sent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// Version 1, at least one SPS and PPS, all within it.
    Whole,
    /// It has no SPS or no PPS: encoders that begin before their parameters are known send another.
    Lacking,
    Broken,
}

pub fn record_kind(record: &[u8]) -> Record {
    // How many sets there are, and where they end.
    let sets = |at: usize, mask: u8| -> Option<(u8, usize)> {
        let count = record.get(at)? & mask;
        let mut at = at + 1;
        for _ in 0..count {
            let length = usize::from(u16::from_be_bytes([*record.get(at)?, *record.get(at + 1)?]));
            at += 2 + length;
        }
        (at <= record.len()).then_some((count, at))
    };
    if record.first() != Some(&1) {
        return Record::Broken;
    }
    match sets(5, 0x1F) {
        Some((0, _)) => Record::Lacking,
        Some((_, at)) if at == record.len() => Record::Lacking,
        Some((_, at)) => match sets(at, 0xFF) {
            Some((0, _)) => Record::Lacking,
            Some(_) => Record::Whole,
            None => Record::Broken,
        },
        None => Record::Broken,
    }
}

/// The pictures after an SPS (7.3.2.1.1), cropping applied.
pub fn picture(sps: &[u8]) -> Option<Picture> {
    let payload = unescape(sps.get(1..)?);
    let mut bits = Bits { data: &payload, at: 0 };
    let profile = bits.read(8)?;
    bits.read(16)?;
    bits.unsigned()?;
    let mut chroma = 1;
    if matches!(profile, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135) {
        chroma = bits.unsigned()?;
        if chroma == 3 {
            bits.read(1)?;
        }
        bits.unsigned()?;
        bits.unsigned()?;
        bits.read(1)?;
        if bits.read(1)? == 1 {
            for list in 0..if chroma == 3 { 12 } else { 8 } {
                if bits.read(1)? == 1 {
                    bits.scaling_list(if list < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    bits.unsigned()?;
    match bits.unsigned()? {
        0 => {
            bits.unsigned()?;
        }
        1 => {
            bits.read(1)?;
            bits.unsigned()?;
            bits.unsigned()?;
            for _ in 0..bits.unsigned()?.min(255) {
                bits.unsigned()?;
            }
        }
        _ => {}
    }
    bits.unsigned()?;
    bits.read(1)?;
    let width = bits.unsigned()?.checked_add(1)?.checked_mul(16)?;
    let map_height = bits.unsigned()?.checked_add(1)?.checked_mul(16)?;
    let frames_only = bits.read(1)?;
    if frames_only == 0 {
        bits.read(1)?;
    }
    let height = map_height.checked_mul(2 - frames_only)?;
    bits.read(1)?;
    let (mut across, mut down) = (0, 0);
    if bits.read(1)? == 1 {
        let (x, y) = if chroma == 1 { (2, 2) } else { (1, 1) };
        across = bits.unsigned()?.checked_add(bits.unsigned()?)?.checked_mul(x)?;
        down = bits.unsigned()?.checked_add(bits.unsigned()?)?.checked_mul(y * (2 - frames_only))?;
    }
    let (width, height) = (width.checked_sub(across)?, height.checked_sub(down)?);
    let bounds = 1..=16384;
    let fps = rate(&mut bits);
    (bounds.contains(&width) && bounds.contains(&height)).then_some(Picture { width, height, fps })
}

/// The rate in the usability information (annex E.1.1), of which `bits` has not read anything. A tick is half a frame.
fn rate(bits: &mut Bits) -> Option<(u32, u32)> {
    const EXTENDED_SHAPE: u32 = 255;
    (bits.read(1)? == 1).then_some(())?;
    if bits.read(1)? == 1 && bits.read(8)? == EXTENDED_SHAPE {
        bits.read(32)?;
    }
    if bits.read(1)? == 1 {
        bits.read(1)?;
    }
    if bits.read(1)? == 1 {
        bits.read(4)?;
        if bits.read(1)? == 1 {
            bits.read(24)?;
        }
    }
    if bits.read(1)? == 1 {
        bits.unsigned()?;
        bits.unsigned()?;
    }
    (bits.read(1)? == 1).then_some(())?;
    let (tick, scale) = (bits.read(32)?, bits.read(32)?);
    Some((scale, tick.checked_mul(2)?)).filter(|(frames, seconds)| *frames > 0 && *seconds > 0)
}

/// Removes the bytes that keep start codes out of a payload (7.4.1).
fn unescape(data: &[u8]) -> Vec<u8> {
    let mut zeros = 0;
    let keep = |byte: &u8| {
        let escape = zeros >= 2 && *byte == 3;
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        !escape
    };
    data.iter().copied().filter(keep).collect()
}

struct Bits<'a> {
    data: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn read(&mut self, count: usize) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count {
            let byte = *self.data.get(self.at / 8)?;
            value = value << 1 | u32::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Some(value)
    }

    /// Exp-Golomb, unsigned (9.1).
    fn unsigned(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.read(1)? == 0 {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        let rest = self.read(zeros)?;
        Some(((1u64 << zeros) - 1) as u32 + rest)
    }

    fn signed(&mut self) -> Option<i64> {
        let code = i64::from(self.unsigned()?);
        Some(if code % 2 == 1 { code / 2 + 1 } else { -(code / 2) })
    }

    fn scaling_list(&mut self, size: usize) -> Option<()> {
        let (mut last, mut next) = (8i64, 8i64);
        for _ in 0..size {
            if next != 0 {
                next = (last + self.signed()?).rem_euclid(256);
            }
            if next != 0 {
                last = next;
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// x264, constrained baseline, 640x360, 25 fps.
    const SPS_640X360: [u8; 24] = [
        0x67, 0x42, 0xC0, 0x1E, 0xD9, 0x00, 0xA0, 0x2F, 0xF9, 0x70, 0x11, 0x00, 0x00, 0x03, 0x00, 0x01, 0x00, 0x00,
        0x03, 0x00, 0x32, 0x0F, 0x16, 0x2E,
    ];

    #[test]
    fn an_access_unit_is_split_into_record_and_slices() {
        let mut unit = vec![0, 0, 0, 1, 9, 0xF0, 0, 0, 0, 1];
        unit.extend_from_slice(&SPS_640X360);
        unit.extend_from_slice(&[
            0, 0, 0, 1, 0x68, 0xCB, 0x83, 0xCB, 0x20, 0, 0, 1, 0x65, 0x88, 0x84, 0, 0, 3, 1, 0, 0,
        ]);
        let split = from_annex_b(&unit);
        assert_eq!(&split.data[..], [0, 0, 0, 7, 0x65, 0x88, 0x84, 0, 0, 3, 1]);
        assert_eq!(split.picture, Some(Picture { width: 640, height: 360, fps: Some((50, 2)) }));
        let record = split.config.unwrap();
        assert_eq!(record[..6], [1, 0x42, 0xC0, 0x1E, 0xFF, 0xE1]);
        assert_eq!(record_kind(&record), Record::Whole);
        assert_eq!(record_kind(&record[..record.len() - 1]), Record::Broken);
        assert_eq!(record_kind(b"no record"), Record::Broken);
        // Without its PPS, with and without the number of them.
        let sps = 8 + SPS_640X360.len();
        assert_eq!(record_kind(&record[..sps]), Record::Lacking);
        assert_eq!(record_kind(&[&record[..sps], &[0][..]].concat()), Record::Lacking);
        assert_eq!(record_kind(&[1, 0x42, 0xC0, 0x1E, 0xFF, 0xE0, 0]), Record::Lacking);
    }

    #[test]
    fn a_unit_without_parameter_sets_has_no_record() {
        let split = from_annex_b(&[0, 0, 1, 0x41, 0x9A, 0x80]);
        assert_eq!((&split.data[..], split.config), (&[0, 0, 0, 3, 0x41, 0x9A, 0x80][..], None));
        assert_eq!(from_annex_b(b"no start code"), AccessUnit::default());
    }
}
