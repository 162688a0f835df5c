use gst::prelude::*;
use gst_check::Harness;
use gst_video::{VideoFormat, VideoInfo};
use lipstream_engines::image::{ColorSpace, Matrix, Range};

use super::LipColor;

const SIZE: (u32, u32) = (37, 23);
/// In pixels, chroma and alpha by fours, so that no filter mixes any.
const COLORS: [[u8; 3]; 4] = [[220, 40, 60], [40, 160, 90], [70, 90, 200], [180, 180, 170]];
const ALPHAS: [u8; 4] = [1, 77, 200, 255];

fn element(colorimetry: Option<&str>) -> Harness {
    gst::init().unwrap();
    let element: LipColor = gst::glib::Object::builder().property("keep-alpha", true).build();
    element.set_property("colorimetry", colorimetry);
    Harness::with_element(&element, Some("sink"), Some("src"))
}

fn caps(format: VideoFormat, colorimetry: &str) -> gst::Caps {
    let info = VideoInfo::builder(format, SIZE.0, SIZE.1).fps(gst::Fraction::new(25, 1)).build().unwrap();
    let mut caps = info.to_caps().unwrap();
    caps.make_mut().set("colorimetry", colorimetry);
    caps
}

/// Which of the colours and alphas a pixel has.
fn chosen(x: usize, y: usize) -> (usize, usize) {
    ((x / 2 + y / 2) % 4, (x / 2 + 2 * (y / 2)) % 4)
}

/// Y, Cb, Cr and alpha of each pixel of a picture in A420 or AYUV.
fn read(data: &[u8], info: &VideoInfo) -> Vec<[u8; 4]> {
    let (width, height) = (SIZE.0 as usize, SIZE.1 as usize);
    let at = |x: usize, y: usize| -> [u8; 4] {
        let plane = |n: usize, x: usize, y: usize| data[info.offset()[n] + y * info.stride()[n] as usize + x];
        match info.format() {
            VideoFormat::A420 => [plane(0, x, y), plane(1, x / 2, y / 2), plane(2, x / 2, y / 2), plane(3, x, y)],
            _ => [1, 2, 3, 0].map(|n| plane(0, 4 * x + n, y)),
        }
    };
    (0..height).flat_map(|y| (0..width).map(move |x| at(x, y))).collect()
}

fn picture(info: &VideoInfo, space: ColorSpace) -> gst::Buffer {
    let mut data = vec![0; info.size()];
    for (x, y) in (0..SIZE.1 as usize).flat_map(|y| (0..SIZE.0 as usize).map(move |x| (x, y))) {
        let (color, alpha) = chosen(x, y);
        let [luma, cb, cr] = space.from_rgb(COLORS[color].map(f32::from)).map(|code| code.round() as u8);
        let mut set = |n: usize, x: usize, y: usize, code| {
            data[info.offset()[n] + y * info.stride()[n] as usize + x] = code;
        };
        match info.format() {
            VideoFormat::A420 => {
                set(0, x, y, luma);
                set(1, x / 2, y / 2, cb);
                set(2, x / 2, y / 2, cr);
                set(3, x, y, ALPHAS[alpha]);
            }
            _ => [ALPHAS[alpha], luma, cb, cr].into_iter().enumerate().for_each(|(n, code)| set(0, 4 * x + n, y, code)),
        }
    }
    gst::Buffer::from_mut_slice(data)
}

#[test]
fn alpha_stays_to_the_code_where_colours_are_those_of_another_signal() {
    let limited = |matrix| ColorSpace::Yuv(matrix, Range::Limited);
    let (bt601, bt709) = (("bt601", limited(Matrix::Bt601)), ("bt709", limited(Matrix::Bt709)));
    let full = ("1:4:5:1", ColorSpace::Yuv(Matrix::Bt601, Range::Full));
    for format in [VideoFormat::A420, VideoFormat::Ayuv] {
        for ((from, own), (to, other)) in [(bt709, bt601), (bt601, bt709), (full, bt709), (bt709, full), (bt601, bt601)]
        {
            // By the property, and as what follows asks.
            for property in [true, false] {
                let mut harness = element(property.then_some(to));
                let incaps = caps(format, from);
                let info = VideoInfo::from_caps(&incaps).unwrap();
                if !property {
                    harness.set_sink_caps(caps(format, to));
                }
                harness.set_src_caps(incaps);
                harness.push(picture(&info, own)).unwrap();
                let buffer = harness.pull().unwrap();
                let caps = harness.sinkpad().unwrap().current_caps().unwrap();
                let info = VideoInfo::from_caps(&caps).unwrap();
                let what = format!("{format:?}, {from} to {to}, by the property: {property}");
                let wanted = to.parse::<gst_video::VideoColorimetry>().unwrap();
                assert_eq!((info.format(), info.colorimetry()), (format, wanted), "{what}");
                for (i, pixel) in read(&buffer.map_readable().unwrap(), &info).into_iter().enumerate() {
                    let (x, y) = (i % SIZE.0 as usize, i / SIZE.0 as usize);
                    let (color, alpha) = chosen(x, y);
                    assert_eq!(pixel[3], ALPHAS[alpha], "{what}: {x} {y}");
                    let wanted = other.from_rgb(COLORS[color].map(f32::from));
                    let off = pixel.iter().zip(wanted).map(|(a, b)| (f32::from(*a) - b).abs()).fold(0.0, f32::max);
                    assert!(off <= 1.3, "{what}: {x} {y}: {pixel:?} in place of {wanted:?}");
                }
            }
        }
    }
}

#[test]
fn colours_stay_where_nobody_asks_for_others() {
    let mut harness = element(None);
    let incaps = caps(VideoFormat::A420, "bt709");
    let info = VideoInfo::from_caps(&incaps).unwrap();
    harness.set_src_caps(incaps);
    let before = picture(&info, ColorSpace::Yuv(Matrix::Bt709, Range::Limited));
    harness.push(before.copy_deep().unwrap()).unwrap();
    let after = harness.pull().unwrap();
    let caps = harness.sinkpad().unwrap().current_caps().unwrap();
    let out = VideoInfo::from_caps(&caps).unwrap();
    assert_eq!(out.colorimetry(), info.colorimetry());
    assert_eq!(read(&after.map_readable().unwrap(), &out), read(&before.map_readable().unwrap(), &info));
}
