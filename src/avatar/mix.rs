//! A blend of two frames.

use gst_video::VideoInfo;
use lipstream_engines::image::{Plane, alpha};

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

/// The same of two frames with alpha, A420 as `info` says: a colour counts by how much of it is seen.
pub fn mix_transparent(a: &gst::Buffer, b: &gst::Buffer, part: u16, info: &VideoInfo) -> Result<gst::Buffer> {
    let (a, b) = (a.map_readable()?, b.map_readable()?);
    if a.len() != info.size() || b.len() != info.size() {
        return Err(Failure::run("frames of two sizes cannot be mixed"));
    }
    let (of_a, of_b) = (u32::from(256 - part.min(256)), u32::from(part.min(256)));
    let (width, height) = (info.width() as usize, info.height() as usize);
    let stride = |plane: usize| info.stride()[plane] as usize;
    let alphas = |bytes: &[u8]| -> Vec<u8> {
        let rows = bytes[info.offset()[3]..].chunks(stride(3).max(1)).take(height);
        rows.flat_map(|row| &row[..width]).copied().collect()
    };
    let seen = [alphas(&a), alphas(&b)];
    let half = |alphas: &Vec<u8>| alpha::halved(Plane { data: alphas, stride: width }, (width, height));
    let seen_half = [half(&seen[0]), half(&seen[1])];
    let mut out = a.to_vec();
    for plane in 0..4 {
        let chroma = plane == 1 || plane == 2;
        let (columns, rows) = if chroma { (width.div_ceil(2), height.div_ceil(2)) } else { (width, height) };
        let weights = if chroma { &seen_half } else { &seen };
        for y in 0..rows {
            let start = info.offset()[plane] + y * stride(plane);
            for x in 0..columns {
                let (at, place) = (start + x, y * columns + x);
                let [wa, wb] = if plane == 3 {
                    [of_a, of_b]
                } else {
                    [of_a * u32::from(weights[0][place]), of_b * u32::from(weights[1][place])]
                };
                let sum = u32::from(a[at]) * wa + u32::from(b[at]) * wb + (wa + wb) / 2;
                out[at] = sum.checked_div(wa + wb).unwrap_or_else(|| a[at].into()) as u8;
            }
        }
    }
    Ok(gst::Buffer::from_mut_slice(out))
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

    #[test]
    fn what_is_not_seen_does_not_colour_what_is() {
        gst::init().unwrap();
        let info = VideoInfo::builder(gst_video::VideoFormat::A420, 16, 16).build().unwrap();
        let frame = |color: u8, alpha: u8| {
            let mut bytes = vec![color; info.size()];
            bytes[info.offset()[3]..].fill(alpha);
            gst::Buffer::from_slice(bytes)
        };
        let mixed = mix_transparent(&frame(200, 255), &frame(20, 0), 128, &info).unwrap();
        let mixed = mixed.map_readable().unwrap();
        assert!(mixed[..info.offset()[3]].iter().all(|code| *code == 200));
        assert!(mixed[info.offset()[3]..].iter().all(|alpha| *alpha == 128));
    }
}
