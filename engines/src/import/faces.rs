//! Whole faces of golden files of MuseTalk, from the pixels that go in to those that come out: `unet.in.faces_bgr` u8
//! `[n, side, side, 3]` BGR, `unet.in.audio` `[n, rows, width]`, `unet.in.eps` `[n, 2, 4, side / 8, side / 8]`, and
//! `decode.out.faces_bgr` as the first.

use super::{PictureDifference, check::tensor};
use crate::{
    Error, Result,
    engine::latent::musetalk::painter::{self, Painter},
    manifest::Package,
    runtime::{Options, Tensor},
    tensor::Weights,
};

const GIVEN: &str = "unet.in.faces_bgr";
const WANTED: &str = "decode.out.faces_bgr";

/// Every face that `file` has of this engine; none of files that hold none.
pub(super) fn compare(package: &Package, options: &Options, file: &Weights) -> Result<Vec<PictureDifference>> {
    if [GIVEN, WANTED, "unet.in.audio", "unet.in.eps"].iter().any(|name| file.shape(name).is_none()) {
        return Ok(Vec::new());
    }
    let (given, wanted) = (tensor(file, GIVEN)?, tensor(file, WANTED)?);
    let (sound, epsilon) = (tensor(file, "unet.in.audio")?, tensor(file, "unet.in.eps")?);
    let [count, side, width, 3] = given.shape[..] else {
        return Err(malformed(file, "is not [faces, side, side, 3]"));
    };
    if count == 0 || side == 0 || side != width || wanted.shape != given.shape {
        return Err(malformed(file, "has no square faces, or others than came out"));
    }
    let painter = Painter::load(package, options)?;
    let own = |tensor: &Tensor, i: usize| -> Vec<f32> {
        let length = tensor.data.len() / count;
        tensor.data[i * length..(i + 1) * length].to_vec()
    };
    let face = |i: usize| {
        let pixels = own(&given, i);
        let plane = |c: usize| pixels.iter().skip(c).step_by(3).map(|v| (v / 255.0 - 0.5) / 0.5);
        let planes: Vec<f32> = [2, 1, 0].into_iter().flat_map(plane).collect();
        let mut work = painter.work(&planes, side, own(&sound, i), own(&epsilon, i))?;
        painter.complete(&mut work)?;
        let made = painter::bytes(&painter::picture(&mut work, side, &package.manifest().name)?);
        let (rgb, wanted) = (made.as_chunks::<3>().0, own(&wanted, i));
        let pairs = rgb.iter().zip(wanted.as_chunks::<3>().0);
        let apart: Vec<u8> =
            pairs.flat_map(|(rgb, bgr)| [0, 1, 2].map(|c| rgb[c].abs_diff(bgr[2 - c] as u8))).collect();
        Ok(PictureDifference {
            name: format!("{WANTED}[{i}]"),
            mean: apart.iter().map(|v| f64::from(*v)).sum::<f64>() / apart.len() as f64,
            max: apart.iter().copied().max().unwrap_or(0),
        })
    };
    (0..count).map(face).collect()
}

fn malformed(file: &Weights, cause: &str) -> Error {
    Error::invalid(format!("{}: `{GIVEN}` {cause}", file.origin()))
}
