//! Supplemental enhancement information of H.264 (ITU-T H.264, 7.3.2.3 and D.1.7): user data that is not registered.

use bytes::{BufMut, Bytes, BytesMut};

/// Says whose user data it is: a963d8d7-e9d1-43c3-a26a-8c6227f49825.
const UUID: [u8; 16] = [0xA9, 0x63, 0xD8, 0xD7, 0xE9, 0xD1, 0x43, 0xC3, 0xA2, 0x6A, 0x8C, 0x62, 0x27, 0xF4, 0x98, 0x25];
const START_CODE: [u8; 4] = [0, 0, 0, 1];
/// NAL unit type of SEI, and the type of its payload.
const SEI: u8 = 6;
const USER_DATA_UNREGISTERED: u8 = 5;
/// NAL unit types that hold slices of a picture.
const SLICES: std::ops::RangeInclusive<u8> = 1..=5;

/// A NAL unit of user data, start code included.
pub fn unit(data: &[u8]) -> Bytes {
    let mut body = vec![USER_DATA_UNREGISTERED];
    let mut size = UUID.len() + data.len();
    while size >= 255 {
        body.push(255);
        size -= 255;
    }
    body.push(size as u8);
    body.extend(UUID);
    body.extend(data);
    // The stop bit of the RBSP.
    body.push(0x80);
    let mut unit = BytesMut::with_capacity(body.len() + 8);
    unit.put_slice(&START_CODE);
    unit.put_u8(SEI);
    // No start code may appear inside (7.4.1).
    let mut zeros = 0;
    for byte in body {
        if zeros >= 2 && byte <= 3 {
            unit.put_u8(3);
            zeros = 0;
        }
        unit.put_u8(byte);
        zeros = if byte == 0 { zeros + 1 } else { 0 };
    }
    unit.freeze()
}

/// `access_unit` (Annex B) with `sei` in front of its first slice; as it is where it has none.
pub fn insert(access_unit: &Bytes, sei: &[u8]) -> Bytes {
    let Some(at) = first_slice(access_unit) else { return access_unit.clone() };
    let mut marked = BytesMut::with_capacity(access_unit.len() + sei.len());
    marked.put_slice(&access_unit[..at]);
    marked.put_slice(sei);
    marked.put_slice(&access_unit[at..]);
    marked.freeze()
}

/// Where the start code of the first slice begins.
fn first_slice(access_unit: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = access_unit[from..].windows(3).position(|w| w == [0, 0, 1]).map(|at| from + at) {
        let kind = access_unit.get(at + 3)? & 0x1F;
        if SLICES.contains(&kind) {
            // A start code of four bytes has one more zero in front.
            return Some(if at > 0 && access_unit[at - 1] == 0 { at - 1 } else { at });
        }
        from = at + 3;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_comes_behind_the_parameter_sets_and_before_the_picture() {
        let access_unit =
            Bytes::from_static(&[0, 0, 0, 1, 0x67, 1, 2, 0, 0, 0, 1, 0x68, 3, 0, 0, 1, 0x65, 9, 9, 0, 0, 1, 0x65, 8]);
        let sei = unit(b"{}");
        let marked = insert(&access_unit, &sei);
        assert_eq!(marked[..13], access_unit[..13]);
        assert_eq!(marked[13..13 + sei.len()], sei[..]);
        assert_eq!(marked[13 + sei.len()..], access_unit[13..]);
        let long = Bytes::from_static(&[0, 0, 0, 1, 0x68, 3, 0, 0, 0, 1, 0x65, 9]);
        assert_eq!(insert(&long, &sei)[6..6 + sei.len()], sei[..], "no zero of the start code stays behind");
        let without = Bytes::from_static(&[0, 0, 0, 1, 0x67, 1, 2]);
        assert_eq!(insert(&without, &sei), without);
        assert_eq!(insert(&Bytes::new(), &sei), Bytes::new());
    }

    #[test]
    fn sizes_above_254_and_zeros_are_written_as_the_standard_has_them() {
        let short = unit(b"ab");
        assert_eq!(short[..7], [0, 0, 0, 1, 6, 5, 18]);
        assert_eq!(short[23..], [b'a', b'b', 0x80]);
        let long = unit(&[b'x'; 500]);
        assert_eq!(long[5..9], [5, 255, 255, 6]);
        let zeros = unit(&[0, 0, 0, 0, 1]);
        assert_eq!(zeros[23..], [0, 0, 3, 0, 0, 3, 1, 0x80]);
    }
}
