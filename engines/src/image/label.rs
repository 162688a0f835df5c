//! A line of text in a corner of frames, for all to see.

use std::sync::LazyLock;

use ab_glyph::{Font, FontRef, PxScale, ScaleFont, point};

use super::{ColorSpace, Format, FrameMut, PlaneMut, Range};

/// DejaVu Sans, reduced to Latin, Greek and Cyrillic: `label/LICENSE`.
static FONT: LazyLock<Option<FontRef>> =
    LazyLock::new(|| FontRef::try_from_slice(include_bytes!("label/sans.ttf")).ok());
/// Longest text, in characters; what is longer is cut off.
pub const MAX_LABEL: usize = 100;
/// Line height as a part of the frame's height, and the least of it in pixels.
const HEIGHT: f32 = 1.0 / 24.0;
const LEAST_HEIGHT: f32 = 12.0;
/// The text is made smaller until it takes at most so much of the frame's width.
const WIDTH: f32 = 0.9;
/// Around the text and around its box, in line heights.
const PADDING: f32 = 0.25;
const MARGIN: f32 = 0.5;
/// How much of the picture the box covers, 0..1.
const BOX: f32 = 0.55;
/// In the place of what the font does not have.
const UNKNOWN: char = '\u{FFFD}';

/// Where a label is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Corner {
    TopLeft,
    TopRight,
    #[default]
    BottomLeft,
    BottomRight,
}

/// White text on a box that darkens what is beneath.
#[derive(Debug)]
pub struct Label {
    text: String,
    corner: Corner,
    /// For frames as the last one was.
    drawn: Option<Drawn>,
}

/// What becomes of a pixel: `pixel * keep / 255 + add`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cover {
    keep: u8,
    add: u8,
}

impl Cover {
    fn apply(self, pixel: &mut u8) {
        *pixel = ((u32::from(*pixel) * u32::from(self.keep) + 127) / 255) as u8 + self.add;
    }
}

#[derive(Debug)]
struct Drawn {
    size: (usize, usize),
    space: ColorSpace,
    /// Place of the box, even, and its width in pixels, even too.
    at: (usize, usize),
    width: usize,
    /// Row by row; of R, G and B or Y.
    pixels: Vec<Cover>,
    /// Of Cb and Cr, half as wide.
    chroma: Vec<Cover>,
}

impl Label {
    /// Control characters are left out; `None` where nothing remains to be shown.
    pub fn new(text: &str, corner: Corner) -> Option<Self> {
        let known = |c| FONT.as_ref().is_some_and(|font| font.glyph_id(c).0 != 0);
        let shown = text.chars().filter(|c| !c.is_control()).take(MAX_LABEL);
        let text: String = shown.map(|c| if known(c) { c } else { UNKNOWN }).collect();
        (!text.trim().is_empty()).then(|| Self { text: text.trim().to_owned(), corner, drawn: None })
    }

    /// Whether every character of `text` has a glyph; others are shown as a replacement.
    pub fn can_show(text: &str) -> bool {
        let Some(font) = FONT.as_ref() else { return false };
        text.chars().filter(|c| !c.is_control()).all(|c| font.glyph_id(c).0 != 0)
    }

    /// Writes the label over the frame's own pixels. A frame of less than 16 pixels a side has none.
    pub fn draw(&mut self, frame: &mut FrameMut) {
        let size = (frame.width(), frame.height());
        let space = frame.space();
        if self.drawn.as_ref().is_none_or(|drawn| (drawn.size, drawn.space) != (size, space)) {
            self.drawn = typeset(&self.text, self.corner, size, space);
        }
        let Some(drawn) = &self.drawn else { return };
        let format = frame.format();
        let mut planes = frame.planes.iter_mut();
        let Some(first) = planes.next() else { return };
        match format.packing() {
            Some((offsets, bytes)) => {
                let alpha = (bytes == 4).then_some(3);
                drawn.lines(first, bytes, false, |pixel, cover| {
                    offsets.iter().for_each(|offset| cover.apply(&mut pixel[*offset]));
                    if let Some(alpha) = alpha {
                        seen(cover).apply(&mut pixel[alpha]);
                    }
                });
            }
            None => {
                drawn.lines(first, 1, false, |pixel, cover| cover.apply(&mut pixel[0]));
                let bytes = if format == Format::Nv12 { 2 } else { 1 };
                for plane in planes {
                    drawn.lines(plane, bytes, true, |pixel, cover| pixel.iter_mut().for_each(|c| cover.apply(c)));
                }
                if let Some(alpha) = &mut frame.alpha {
                    drawn.lines(alpha, 1, false, |pixel, cover| seen(cover).apply(&mut pixel[0]));
                }
            }
        }
    }
}

/// What a cover does to alpha: it is seen where the picture is transparent too.
fn seen(cover: Cover) -> Cover {
    Cover { add: 255 - cover.keep, ..cover }
}

impl Drawn {
    /// Calls `f` with every pixel of `bytes` under the box in a plane, `halved` for one of half the size.
    fn lines(&self, plane: &mut PlaneMut, bytes: usize, halved: bool, f: impl Fn(&mut [u8], Cover)) {
        let by = if halved { 2 } else { 1 };
        let covers = if halved { &self.chroma } else { &self.pixels };
        let (x, y, width) = (self.at.0 / by, self.at.1 / by, self.width / by);
        for (row, covers) in covers.chunks_exact(width).enumerate() {
            let from = (y + row) * plane.stride + x * bytes;
            let line = &mut plane.data[from..from + width * bytes];
            line.chunks_exact_mut(bytes).zip(covers).for_each(|(pixel, cover)| f(pixel, *cover));
        }
    }
}

/// `None` where the frame has no room for a box.
fn typeset(text: &str, corner: Corner, size: (usize, usize), space: ColorSpace) -> Option<Drawn> {
    if size.0 < 16 || size.1 < 16 {
        return None;
    }
    let font = FONT.as_ref()?;
    let (frame_width, frame_height) = (size.0 as f32, size.1 as f32);
    let advance = |height: f32| {
        let font = font.as_scaled(PxScale::from(height));
        text.chars().map(|c| font.h_advance(font.glyph_id(c))).sum::<f32>()
    };
    let wanted = (frame_height * HEIGHT).max(LEAST_HEIGHT);
    let line = wanted * (frame_width * WIDTH / (advance(wanted) + 2.0 * PADDING * wanted)).min(1.0);
    let even = |length: f32, most: usize| ((length / 2.0).ceil() as usize * 2).min(most & !1);
    let width = even(advance(line) + 2.0 * PADDING * line, size.0);
    let height = even(line * (1.0 + 2.0 * PADDING), size.1);
    let margin = even(line * MARGIN, usize::MAX);
    let place = |far: bool, length: usize, all: usize| {
        let room = (all & !1) - length;
        if far { room - margin.min(room) } else { margin.min(room) }
    };
    let right = matches!(corner, Corner::TopRight | Corner::BottomRight);
    let bottom = matches!(corner, Corner::BottomLeft | Corner::BottomRight);
    let at = (place(right, width, size.0), place(bottom, height, size.1));

    let ink = rasterise(font, text, line, (width, height));
    let (low, high) = match space {
        ColorSpace::Yuv(_, Range::Limited) => (16.0, 235.0),
        ColorSpace::Yuv(..) | ColorSpace::Rgb => (0.0, 255.0),
    };
    let keep = |ink: f32| (1.0 - BOX) * (1.0 - ink);
    let cover = |ink: f32| {
        // Rounded down, so that the sum stays a byte.
        let add = low * (1.0 - keep(ink) - ink) + high * ink;
        Cover { keep: (keep(ink) * 255.0) as u8, add: add as u8 }
    };
    let chroma = (0..height / 2 * (width / 2)).map(|i| {
        let (x, y) = (i % (width / 2) * 2, i / (width / 2) * 2);
        let four = [(x, y), (x + 1, y), (x, y + 1), (x + 1, y + 1)];
        let kept = (four.map(|(x, y)| keep(ink[y * width + x])).iter().sum::<f32>() / 4.0 * 255.0) as u8;
        Cover { keep: kept, add: ((255 - u32::from(kept)) * 128 / 255) as u8 }
    });
    let chroma = chroma.collect();
    Some(Drawn { size, space, at, width, pixels: ink.iter().map(|ink| cover(*ink)).collect(), chroma })
}

/// How much of each pixel is text, `[height, width]`, 0..1.
fn rasterise(font: &FontRef, text: &str, line: f32, (width, height): (usize, usize)) -> Vec<f32> {
    let mut ink = vec![0.0f32; width * height];
    let scaled = font.as_scaled(PxScale::from(line));
    let (mut x, baseline) = (PADDING * line, PADDING * line + scaled.ascent());
    for c in text.chars() {
        let glyph = scaled.glyph_id(c).with_scale_and_position(line, point(x, baseline));
        x += scaled.h_advance(glyph.id);
        let Some(outline) = font.outline_glyph(glyph) else { continue };
        let bounds = outline.px_bounds();
        outline.draw(|column, row, covered| {
            let (x, y) = (bounds.min.x as i64 + i64::from(column), bounds.min.y as i64 + i64::from(row));
            if (0..width as i64).contains(&x) && (0..height as i64).contains(&y) {
                let ink = &mut ink[y as usize * width + x as usize];
                *ink = (*ink + covered).min(1.0);
            }
        });
    }
    ink
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Matrix;

    const GREY: u8 = 120;

    /// A grey frame with the label, its planes.
    fn labelled(format: Format, (width, height): (usize, usize), label: &mut Label) -> Vec<Vec<u8>> {
        let half = (width.div_ceil(2), height.div_ceil(2));
        let sizes: &[(usize, usize)] = match format {
            Format::I420 => &[(width, height), half, half],
            Format::Nv12 => &[(width, height), (half.0 * 2, half.1)],
            Format::Rgb => &[(width * 3, height)],
            Format::Rgba | Format::Bgra => &[(width * 4, height)],
        };
        let mut planes: Vec<Vec<u8>> = sizes.iter().map(|(stride, rows)| vec![GREY; stride * rows]).collect();
        let views =
            planes.iter_mut().zip(sizes).map(|(data, (stride, _))| PlaneMut { data, stride: *stride }).collect();
        let mut frame = FrameMut::new(format, (width, height), Matrix::Bt709, Range::Limited, views).unwrap();
        label.draw(&mut frame);
        planes
    }

    #[test]
    fn the_text_is_white_on_a_darker_box_in_its_corner_and_nothing_else_changes() {
        let size = (321, 181);
        for (corner, right, bottom) in [
            (Corner::TopLeft, false, false),
            (Corner::TopRight, true, false),
            (Corner::BottomLeft, false, true),
            (Corner::BottomRight, true, true),
        ] {
            let mut label = Label::new("AI", corner).unwrap();
            let y = &labelled(Format::Nv12, size, &mut label)[0];
            let changed: Vec<_> = (0..y.len()).filter(|i| y[*i] != GREY).map(|i| (i % size.0, i / size.0)).collect();
            assert!(changed.len() > 150, "{corner:?}: {} pixels", changed.len());
            assert!(changed.iter().all(|(x, y)| (*x > 160) == right && (*y > 90) == bottom), "{corner:?}");
            // Strokes of small letters are thinner than a pixel.
            assert!(
                y.iter().any(|v| *v > 210) && y.iter().any(|v| (60..64).contains(v)),
                "{corner:?}: no white, no box"
            );
        }
    }

    #[test]
    fn colours_go_with_it_and_transparent_pixels_become_opaque() {
        let mut label = Label::new("Synthetic", Corner::BottomLeft).unwrap();
        let planes = labelled(Format::I420, (320, 180), &mut label);
        assert!(planes[1..].iter().all(|plane| plane.iter().any(|c| (123..=128).contains(c))));
        let rgba = &labelled(Format::Rgba, (320, 180), &mut label)[0];
        let pixels = rgba.as_chunks::<4>().0;
        assert!(pixels.iter().all(|p| p[0] == p[1] && p[1] == p[2]));
        assert!(pixels.iter().any(|p| p[0] > 225 && p[3] > 225), "white is opaque");
        assert!(pixels.iter().filter(|p| p[0] != GREY).all(|p| p[3] > GREY));
    }

    #[test]
    fn an_alpha_plane_becomes_opaque_under_it_too() {
        let mut label = Label::new("Synthetic", Corner::BottomLeft).unwrap();
        let mut planes = [vec![GREY; 320 * 180], vec![128; 160 * 90], vec![128; 160 * 90]];
        let mut alpha = vec![0; 320 * 180];
        let strides = [320, 160, 160];
        let own = planes.iter_mut().zip(strides).map(|(data, stride)| PlaneMut { data, stride }).collect();
        let frame = FrameMut::new(Format::I420, (320, 180), Matrix::Bt709, crate::image::Range::Limited, own).unwrap();
        let mut frame = frame.with_alpha(PlaneMut { data: &mut alpha, stride: 320 }).unwrap();
        label.draw(&mut frame);
        drop(frame);
        let [luma, ..] = planes;
        assert!(luma.iter().zip(&alpha).any(|(luma, alpha)| *luma > 225 && *alpha > 225), "white is opaque");
        assert!(luma.iter().zip(&alpha).all(|(luma, alpha)| (*luma == GREY) == (*alpha == 0) || *alpha > 0));
        assert!(alpha.contains(&0));
    }

    #[test]
    fn any_text_fits_any_frame() {
        let long = "w".repeat(1000);
        for text in ["x", long.as_str(), "Ünïcödé Ωμέγα Привет", "字\u{7}\n"] {
            let mut label = Label::new(text, Corner::BottomRight).unwrap();
            for size in [(16, 16), (17, 400), (1000, 17), (3840, 2160)] {
                labelled(Format::Nv12, size, &mut label);
                labelled(Format::Rgb, size, &mut label);
            }
        }
        assert!(Label::new(" \n\t", Corner::TopLeft).is_none() && Label::new("", Corner::TopLeft).is_none());
        assert!(Label::can_show("KI – ИИ – ΤΝ") && !Label::can_show("字"));
    }
}
