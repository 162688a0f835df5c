//! MuseTalk's networks as stages: a face, hidden and whole, is encoded; its latents are painted anew by what is heard; they are
//! decoded (TMElyralab/MuseTalk, musetalk/models/vae.py and unet.py).

use crate::{
    Error, Result,
    engine::{
        LATENT, NetworkStage, Noise, Stage, StageKind, Then, Work,
        latent::coder::{CHANNELS, Decode, EPSILON, Encode, FACTOR, LATENTS, PICTURES, PIXELS, opened},
        pass_through,
    },
    manifest::{MuseTalkSection, Package},
    runtime::{Options, Tensor},
};

/// Places of the stages.
pub(super) const ENCODE: usize = 0;
pub(super) const FORWARD: usize = 1;
pub(super) const DECODE: usize = 2;
/// Tensors of the work: what is heard, `[1, rows, width]`; both faces as the U-Net sees them, `[1, 8, side / 8, side / 8]`;
/// and what it makes of them, `[1, 4, side / 8, side / 8]`.
pub(super) const SOUND: &str = "audio";
pub(super) const FACES: &str = "latents";
pub(super) const PAINTED: &str = "painted";
/// What is hidden is black: 0 before pixels are brought to -1..1.
pub(super) const BLACK: f32 = -1.0;
/// Channels of a picture.
const COLOURS: usize = 3;

/// The networks, loaded.
pub(crate) struct Painter {
    pub(super) stages: Vec<Box<dyn Stage>>,
    /// Batches that their device takes at a time.
    pub(super) lanes: usize,
    /// What a frame hears: rows and numbers of a row.
    pub(super) sound: [usize; 2],
}

impl Painter {
    pub(crate) fn load(package: &Package, options: &Options) -> Result<Self> {
        let section = section(package)?;
        let MuseTalkSection { side, latent_scale, decoder, batch_sizes, sound, .. } = section;
        let sound = [sound.moments * sound.states, sound.width];
        let unet = package.network("unet", options)?;
        unet.expect_input(SOUND, &sound)?;
        let lanes = unet.at_a_time();
        let open = opened(*side, unet.device());
        let pictures = batch_sizes.iter().map(|faces| 2 * faces).collect();
        let encode = Encode::new(package.network("encoder", options)?, *latent_scale, *side, pictures);
        let sizes = unet.taken_of(batch_sizes.clone());
        let paint = NetworkStage::new(StageKind::Forward, unet, &[FACES, SOUND], &[PAINTED], sizes).with_open(&open);
        let decode = Decode::load(package, options, *decoder, *latent_scale, *side, (batch_sizes.clone(), 1))?;
        let stages: Vec<Box<dyn Stage>> =
            vec![Box::new(Then::new(encode, join)), Box::new(Then::new(paint, hand_on)), Box::new(decode)];
        Ok(Self { stages, lanes, sound })
    }

    /// What encoded pictures of a face of `side` pixels are sampled by.
    pub(super) fn epsilon(noise: &mut Noise, side: usize) -> Vec<f32> {
        noise.latent(2 * CHANNELS * (side / FACTOR).pow(2))
    }

    /// The work of a face: its pixels `[3, side, side]`, RGB in -1..1; what is heard, `[rows, width]`; and what its encoded
    /// pictures are sampled by, standard normal, `[2, 4, side / 8, side / 8]`: of the one whose lower half is hidden, then of
    /// the whole one.
    ///
    /// Errors: tensors of other sizes.
    pub(crate) fn work(&self, face: &[f32], side: usize, sound: Vec<f32>, epsilon: Vec<f32>) -> Result<Work> {
        let (small, plane) = (side / FACTOR, side * side);
        let [rows, width] = self.sound;
        let fits = side.is_multiple_of(FACTOR)
            && face.len() == COLOURS * plane
            && sound.len() == rows * width
            && epsilon.len() == 2 * CHANNELS * small * small;
        if !fits || plane == 0 {
            return Err(Error::invalid(format!(
                "a face of {} numbers, {side} pixels a side, does not go with {} of sound and {} of noise",
                face.len(),
                sound.len(),
                epsilon.len()
            )));
        }
        let mut pixels = Vec::with_capacity(2 * face.len());
        for colour in face.chunks_exact(plane) {
            pixels.extend_from_slice(&colour[..side / 2 * side]);
            pixels.resize(pixels.len() + plane - side / 2 * side, BLACK);
        }
        pixels.extend_from_slice(face);
        let mut work = Work::new(Noise::default())
            .with(PIXELS, Tensor { shape: vec![2, COLOURS, side, side], data: pixels })
            .with(EPSILON, Tensor { shape: vec![2, CHANNELS, small, small], data: epsilon })
            .with(SOUND, Tensor { shape: vec![1, rows, width], data: sound });
        [ENCODE, FORWARD, DECODE].into_iter().for_each(|stage| work.pass(stage));
        Ok(work)
    }

    /// Passes work through all stages on this thread.
    pub(crate) fn complete(&self, work: &mut Work) -> Result<()> {
        pass_through(&self.stages, work)
    }
}

/// The section of an engine of MuseTalk.
pub(super) fn section(package: &Package) -> Result<&MuseTalkSection> {
    package.manifest().musetalk.as_ref().ok_or_else(|| Error::Manifest {
        origin: package.location(),
        key: "musetalk".into(),
        cause: "is missing".into(),
    })
}

/// The picture of finished work, `[3, side, side]`, RGB in about -1..1.
///
/// Errors: one that is not whole or not finite.
pub(crate) fn picture(work: &mut Work, side: usize, engine: &str) -> Result<Vec<f32>> {
    let picture = work.take(PICTURES)?.data;
    if picture.len() != COLOURS * side * side || picture.iter().any(|v| !v.is_finite()) {
        return Err(Error::invalid(format!(
            "engine `{engine}` gave a picture that is not whole or not finite; try precision=fp32"
        )));
    }
    Ok(picture)
}

/// A picture as the published program takes it: `[side, side, 3]`, RGB, rounded to even.
pub(crate) fn bytes(picture: &[f32]) -> Vec<u8> {
    let plane = picture.len() / COLOURS;
    let byte = |v: f32| ((v / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
    (0..plane).flat_map(|i| [0, 1, 2].map(|c| byte(picture[c * plane + i]))).collect()
}

/// Latents of a face hidden and whole, joined as the U-Net sees them.
fn join(work: &mut Work) -> Result<()> {
    drop(work.take(PIXELS)?);
    let Tensor { shape, data } = work.take(LATENTS)?;
    let [2, channels, height, width] = shape[..] else {
        return Err(Error::invalid(format!("latents of {shape:?} are not of a face hidden and whole")));
    };
    work.put(FACES, Tensor { shape: vec![1, 2 * channels, height, width], data });
    Ok(())
}

/// What the U-Net painted, as a clip of one frame.
fn hand_on(work: &mut Work) -> Result<()> {
    drop(work.take(FACES)?);
    let mut painted = work.take(PAINTED)?;
    // [1, 4, height, width] as [1, 4, 1, height, width].
    painted.shape.insert(painted.shape.len().min(2), 1);
    work.put(LATENT, painted);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn painter() -> Painter {
        Painter { stages: Vec::new(), lanes: 1, sound: [5, 3] }
    }

    #[test]
    fn the_lower_half_is_black_in_the_first_picture_and_there_in_the_second() {
        let face: Vec<f32> = (0..3 * 64).map(|i| i as f32 / 192.0).collect();
        let work = painter().work(&face, 8, vec![0.5; 15], vec![0.1; 8]).unwrap();
        let pixels = work.tensor(PIXELS).unwrap();
        assert_eq!(pixels.shape, [2, 3, 8, 8]);
        let (hidden, whole) = pixels.data.split_at(192);
        assert_eq!(whole, face);
        for (i, (hidden, own)) in hidden.iter().zip(&face).enumerate() {
            assert_eq!(*hidden, if i % 64 < 32 { *own } else { -1.0 }, "{i}");
        }
        assert_eq!((work.tensor(SOUND).unwrap().shape.clone(), work.remaining()), (vec![1, 5, 3], 3));
    }

    #[test]
    fn tensors_that_do_not_go_together_are_refused() {
        let error = |face: usize, side: usize, sound: usize, noise: usize| {
            painter().work(&vec![0.0; face], side, vec![0.0; sound], vec![0.0; noise]).unwrap_err().to_string()
        };
        for found in
            [error(191, 8, 15, 8), error(192, 8, 14, 8), error(192, 8, 15, 9), error(0, 0, 15, 0), error(108, 6, 15, 0)]
        {
            assert!(found.contains("does not go with") && !found.contains('\n'), "{found}");
        }
    }

    #[test]
    fn bytes_are_rounded_to_even_and_cut_off_where_they_leave_the_range() {
        // 0.5, 1.5 and 2.5 of 255, in red, green and blue of one pixel.
        let value = |v: f32| v / 255.0 * 2.0 - 1.0;
        assert_eq!(bytes(&[value(100.0), value(7.4), value(200.6)]), [100, 7, 201]);
        assert_eq!(bytes(&[-1.3, 1.2, 0.0]), [0, 255, 128]);
    }

    #[test]
    fn a_picture_that_is_not_finite_is_an_error_that_says_what_to_try() {
        let work = |data: Vec<f32>| Work::default().with(PICTURES, Tensor { shape: vec![1, 3, 2, 2], data });
        assert_eq!(picture(&mut work(vec![0.5; 12]), 2, "muse").unwrap().len(), 12);
        let mut broken = vec![0.5; 12];
        broken[7] = f32::NAN;
        for data in [broken, vec![0.5; 11]] {
            let error = picture(&mut work(data), 2, "muse").unwrap_err().to_string();
            assert!(error.starts_with("engine `muse`") && error.contains("try precision=fp32"), "{error}");
        }
    }
}
