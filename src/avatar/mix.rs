//! A blend of two frames.

use crate::error::{Failure, Result};

/// `a` and `b` as one picture, with `part` of 256 of `b`. Both are of one size and layout.
pub fn mix(a: &gst::Buffer, b: &gst::Buffer, part: u16) -> Result<gst::Buffer> {
    let (a, b) = (a.map_readable()?, b.map_readable()?);
    if a.len() != b.len() {
        return Err(Failure::run("frames of two sizes cannot be mixed"));
    }
    let (of_a, of_b) = (256 - part.min(256), part.min(256));
    // 16 bits hold 255 * 256 + 128.
    let mixed: Vec<u8> =
        a.iter().zip(b.iter()).map(|(a, b)| ((u16::from(*a) * of_a + u16::from(*b) * of_b + 128) >> 8) as u8).collect();
    Ok(gst::Buffer::from_mut_slice(mixed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_weigh_as_asked() {
        gst::init().unwrap();
        let frame = |v: u8| gst::Buffer::from_slice(vec![v; 64]);
        let mixed = |part| mix(&frame(0), &frame(255), part).unwrap().map_readable().unwrap()[9];
        assert_eq!([mixed(0), mixed(64), mixed(128), mixed(256)], [0, 64, 128, 255]);
        assert!(mix(&frame(1), &gst::Buffer::from_slice([0; 3]), 1).is_err());
    }
}
