//! Frames of a clip that are known: a clip goes on from the one before.

use super::{step::LATENT, work::Work};
use crate::{Error, Result, runtime::Tensor};

/// Latents of the first k frames of the clip in [`LATENT`], `[1, channels, frames, …]`, that are known:
/// `[steps + 1, channels, k, …]`, as they were before each step and after the last. They are put back before each step and at the
/// end, so that the other frames are painted to continue them. Lugmayr et al. 2022 (arXiv 2201.09865) put back what is known
/// with fresh noise; as it was itself, the network finds it as it did when it painted those frames. By what a step then makes
/// of the last of them and what is known of it differ, the frames after it are moved, less and less.
pub const KNOWN: &str = "known";
/// Where a work item brings it empty, `[0, channels, frames, …]`: the latents before each step and after the last,
/// `[steps + 1, channels, frames, …]`, from which the next clip takes what is known.
pub const TRAIL: &str = "trail";

/// Adds the latents to the trail of an item that has one.
pub(crate) fn record(work: &mut Work) -> Result<()> {
    if work.get(TRAIL).is_none() {
        return Ok(());
    }
    let mut trail = work.take(TRAIL)?;
    let latent = work.tensor(LATENT)?;
    if trail.shape.get(1..) != latent.shape.get(1..) || latent.shape.first() != Some(&1) {
        return Err(Error::invalid(format!("a trail of {:?} is not of latents of {:?}", trail.shape, latent.shape)));
    }
    trail.shape[0] += 1;
    trail.data.extend_from_slice(&latent.data);
    work.put(TRAIL, trail);
    Ok(())
}

/// Puts what is known of a clip into its latents, as it was when so many steps were left.
pub(crate) fn put_back(work: &mut Work, left: usize) -> Result<()> {
    change(work, left, |channel| channel.own.copy_from_slice(channel.known))
}

/// Moves the latents of the frames after those that are known, after a step that leaves so many, by what the last of these was
/// missed by: the first by almost all of it, the last by little. Two clips that paint the same frame a little differently are
/// joined without a jump.
pub(super) fn go_on(work: &mut Work, left: usize) -> Result<()> {
    change(work, left, |Channel { own, new, known, frame }| {
        let last = known.len() - frame;
        let count = new.len() / frame;
        for (j, new) in new.chunks_exact_mut(frame).enumerate() {
            let part = 1.0 - (j + 1) as f32 / (count + 1) as f32;
            let missed = known[last..].iter().zip(&own[last..]).map(|(known, own)| known - own);
            new.iter_mut().zip(missed).for_each(|(v, missed)| *v += part * missed);
        }
    })
}

/// One channel of a clip.
struct Channel<'a> {
    /// The frames that are known, as the clip has them,
    own: &'a mut [f32],
    /// those after them,
    new: &'a mut [f32],
    /// and what is known.
    known: &'a [f32],
    /// Numbers of a frame.
    frame: usize,
}

fn change(work: &mut Work, left: usize, each: impl Fn(Channel)) -> Result<()> {
    if work.get(KNOWN).is_none() {
        return Ok(());
    }
    // Taken out so that it can be changed beside the other.
    let mut latent = work.take(LATENT)?;
    let result = change_channels(&mut latent, work.tensor(KNOWN)?, left, each);
    work.put(LATENT, latent);
    result
}

fn change_channels(latent: &mut Tensor, known: &Tensor, left: usize, each: impl Fn(Channel)) -> Result<()> {
    let Tensor { shape, data } = latent;
    let alike = shape.len() == known.shape.len()
        && shape.len() > 2
        && shape[0] == 1
        && shape[1] == known.shape[1]
        && (1..=shape[2]).contains(&known.shape[2])
        && shape[3..] == known.shape[3..]
        && !data.is_empty();
    let row = alike.then(|| known.shape[0].checked_sub(left + 1)).flatten();
    let Some(row) = row else {
        return Err(Error::invalid(format!(
            "latents of {:?} that are known are not of a clip of {shape:?} with {left} steps to go",
            known.shape
        )));
    };
    let frame: usize = shape[3..].iter().product();
    let (kept, of_row) = (known.shape[2] * frame, known.data.len() / known.shape[0]);
    let channels = data.chunks_exact_mut(shape[2] * frame);
    for (channel, known) in channels.zip(known.data[row * of_row..][..of_row].chunks_exact(kept)) {
        let (own, new) = channel.split_at_mut(kept);
        each(Channel { own, new, known, frame });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Noise;

    fn tensor(shape: &[usize], from: f32) -> Tensor {
        let count: usize = shape.iter().product();
        Tensor { shape: shape.to_vec(), data: (0..count).map(|i| from + i as f32).collect() }
    }

    fn clip(frames: usize) -> Work {
        Work::new(Noise::default()).with(LATENT, tensor(&[1, 2, frames, 1, 2], 0.0))
    }

    #[test]
    fn known_frames_are_put_back_as_they_were_before_the_step() {
        // Two channels, three frames of two numbers; one frame is known, before one step and after it.
        let mut work = clip(3);
        put_back(&mut work, 1).unwrap();
        assert_eq!(work.tensor(LATENT).unwrap(), &tensor(&[1, 2, 3, 1, 2], 0.0), "nothing is known");
        work.put(KNOWN, tensor(&[2, 2, 1, 1, 2], 50.0));
        put_back(&mut work, 1).unwrap();
        let found = &work.tensor(LATENT).unwrap().data;
        assert_eq!(found[..], [50.0, 51.0, 2.0, 3.0, 4.0, 5.0, 52.0, 53.0, 8.0, 9.0, 10.0, 11.0]);
        put_back(&mut work, 0).unwrap();
        let found = &work.tensor(LATENT).unwrap().data;
        assert_eq!(found[..], [54.0, 55.0, 2.0, 3.0, 4.0, 5.0, 56.0, 57.0, 8.0, 9.0, 10.0, 11.0]);
        for (known, left) in [([2, 2, 1, 1, 2], 2), ([2, 2, 4, 1, 2], 0), ([2, 2, 0, 1, 2], 0), ([2, 3, 1, 1, 2], 0)] {
            work.put(KNOWN, tensor(&known, 0.0));
            let error = put_back(&mut work, left).unwrap_err().to_string();
            assert!(error.contains("are not of a clip of [1, 2, 3, 1, 2]"), "{error}");
        }
    }

    #[test]
    fn frames_after_known_ones_are_moved_by_what_these_were_missed_by_and_less_and_less() {
        let mut work = clip(4);
        go_on(&mut work, 0).unwrap();
        assert_eq!(work.tensor(LATENT).unwrap(), &tensor(&[1, 2, 4, 1, 2], 0.0), "nothing is known");
        // Missed by 8 in the first channel.
        work.put(KNOWN, Tensor { shape: vec![1, 2, 1, 1, 2], data: vec![8.0, 9.0, 8.0, 9.0] });
        go_on(&mut work, 0).unwrap();
        let found = &work.tensor(LATENT).unwrap().data;
        assert_eq!(found[..8], [0.0, 1.0, 2.0 + 6.0, 3.0 + 6.0, 4.0 + 4.0, 5.0 + 4.0, 6.0 + 2.0, 7.0 + 2.0]);
        assert_eq!(found[8..], tensor(&[8], 8.0).data);
    }

    #[test]
    fn a_trail_holds_the_latents_one_after_another() {
        let mut work = clip(3);
        record(&mut work).unwrap();
        assert!(work.get(TRAIL).is_none());
        work.put(TRAIL, tensor(&[0, 2, 3, 1, 2], 0.0));
        record(&mut work).unwrap();
        work.put(LATENT, tensor(&[1, 2, 3, 1, 2], 20.0));
        record(&mut work).unwrap();
        let trail = work.tensor(TRAIL).unwrap();
        assert_eq!((&trail.shape[..], trail.data[0], trail.data[12]), (&[2, 2, 3, 1, 2][..], 0.0, 20.0));
        work.put(TRAIL, tensor(&[0, 2, 4, 1, 2], 0.0));
        assert!(record(&mut work).unwrap_err().to_string().contains("is not of latents of [1, 2, 3, 1, 2]"));
    }
}
