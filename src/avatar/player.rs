//! Plays the clips of an avatar without end.

use std::{sync::Arc, time::Duration};

use gst_video::VideoInfo;

use super::{
    Avatar,
    clip::Clip,
    jpeg, matte,
    mix::{mix, mix_transparent},
    transition::{self, DISSOLVE, Playback, Position, Transition},
};
use crate::error::{Failure, Result};

/// Gives the frames of an avatar one after the other: the idle clip to and fro, others once and back to the idle clip.
pub struct Player {
    avatar: Arc<Avatar>,
    frames: Frames,
    current: Track,
    /// The clip that fades out, and how many frames of the dissolve were shown.
    leaving: Option<(Track, usize)>,
    /// What to do when the wait is over.
    plan: Option<(Transition, Arc<Clip>)>,
    /// A clip that was asked for and is not yet planned.
    wanted: Option<Arc<Clip>>,
    /// Frames shown at the current rate; durations are taken from it so that they do not drift.
    shown: u64,
}

/// Makes frames of what is stored.
struct Frames {
    decoder: jpeg::Decoder,
    opaque: VideoInfo,
    /// Of frames that keep their alpha.
    alpha: Option<VideoInfo>,
}

impl Frames {
    fn of(&mut self, clip: &Clip, frame: usize) -> Result<gst::Buffer> {
        let colors = self.decoder.decode(clip.jpeg(frame)?)?;
        match (&self.alpha, clip.alphas(frame)?) {
            (None, None) => Ok(colors),
            (None, Some(alphas)) => matte::on_black(colors, &alphas, &self.opaque),
            (Some(info), alphas) => {
                let opaque = || vec![255; (info.width() * info.height()) as usize];
                matte::join(&colors, &alphas.unwrap_or_else(opaque), info)
            }
        }
    }
}

/// A clip that is being played.
struct Track {
    clip: Arc<Clip>,
    idle: bool,
    /// The frame that is shown next.
    at: Position,
}

impl Track {
    fn path(&self) -> Playback<'_> {
        Playback { clip: &self.clip, to_and_fro: self.idle }
    }

    fn decode(&mut self, frames: &mut Frames) -> Result<gst::Buffer> {
        let frame = frames.of(&self.clip, self.at.frame)?;
        self.at = self.at.next(self.clip.frames(), self.idle);
        Ok(frame)
    }
}

impl Player {
    /// Shows what is transparent on black.
    pub fn open(avatar: Arc<Avatar>) -> Result<Self> {
        Self::showing(avatar, false)
    }

    /// The same, or with `alpha` frames in A420.
    pub fn showing(avatar: Arc<Avatar>, alpha: bool) -> Result<Self> {
        let idle = avatar.clips().into_iter().next();
        let idle = idle.ok_or_else(|| Failure::input(format!("avatar `{}` has no clip", avatar.name)))?;
        let (width, height) = (avatar.picture.width, avatar.picture.height);
        let opaque = jpeg::info(width, height)?;
        let alpha = alpha.then(|| matte::info(width, height)).transpose()?;
        let frames = Frames { decoder: jpeg::Decoder::new(&opaque)?, opaque, alpha };
        let current = Track { clip: idle, idle: true, at: Position::START };
        Ok(Self { avatar, frames, current, leaving: None, plan: None, wanted: None, shown: 0 })
    }

    /// The next frame, I420 or A420 with default strides of the avatar's size, and how long it is shown. Decodes; call it from
    /// a thread of its own.
    pub fn next_frame(&mut self) -> Result<(gst::Buffer, Duration)> {
        if self.leaving.is_none() {
            self.plan();
            self.turn();
        }
        let mut frame = self.current.decode(&mut self.frames)?;
        if let Some((mut old, shown)) = self.leaving.take() {
            let shown = shown + 1;
            let part = 256 * shown / (DISSOLVE + 1);
            let old_frame = old.decode(&mut self.frames)?;
            frame = match &self.frames.alpha {
                None => mix(&old_frame, &frame, part as u16)?,
                Some(info) => mix_transparent(&old_frame, &frame, part as u16, info)?,
            };
            self.leaving = (shown < DISSOLVE).then_some((old, shown));
        }
        Ok((frame, self.duration()))
    }

    /// Decides when to leave the current clip, where there is a reason to.
    fn plan(&mut self) {
        if let Some(clip) = self.wanted.take() {
            let to = Playback { clip: &clip, to_and_fro: self.is_idle(&clip) };
            let plan = transition::soon(self.current.path(), self.current.at, to);
            self.plan = Some((plan, clip));
        } else if self.plan.is_none() && !self.current.idle {
            let clip = self.idle();
            let plan =
                transition::at_end(self.current.path(), self.current.at, Playback { clip: &clip, to_and_fro: true });
            self.plan = Some((plan, clip));
        }
    }

    /// Leaves the current clip where the plan says now.
    fn turn(&mut self) {
        let Some((mut plan, clip)) = self.plan.take() else { return };
        if plan.wait > 0 {
            plan.wait -= 1;
            self.plan = Some((plan, clip));
            return;
        }
        let idle = self.is_idle(&clip);
        if clip.shape.fps != self.current.clip.shape.fps {
            self.shown = 0;
        }
        let new = Track { clip, idle, at: plan.entry };
        self.leaving = Some((std::mem::replace(&mut self.current, new), 0));
    }

    fn duration(&mut self) -> Duration {
        let (n, d) = self.current.clip.shape.fps;
        let time = |frames: u64| (u128::from(frames) * u128::from(d) * 1_000_000_000 / u128::from(n)) as u64;
        self.shown += 1;
        Duration::from_nanos(time(self.shown) - time(self.shown - 1))
    }

    fn idle(&self) -> Arc<Clip> {
        // A player was opened on it, and clips are only ever added.
        self.avatar.clips().swap_remove(0)
    }

    fn is_idle(&self, clip: &Arc<Clip>) -> bool {
        Arc::ptr_eq(clip, &self.idle())
    }

    /// Switches to another clip at the next pair of frames that are alike, within a second and a half.
    pub fn switch(&mut self, clip: &str) -> Result<()> {
        let Some(found) = self.avatar.clip(clip) else {
            let names = self.clips().join("`, `");
            return Err(Failure::input(format!(
                "avatar `{}` has no clip `{clip}`; it has `{names}`",
                self.avatar.name
            )));
        };
        let planned = self.plan.as_ref().is_some_and(|(_, clip)| Arc::ptr_eq(clip, &found));
        if planned && self.current.idle {
            // Asked for again: a new search would only put it off.
            self.wanted = None;
        } else if Arc::ptr_eq(&found, &self.current.clip) {
            // It is shown already: stay on it, and on the way back to the idle clip that an action has anyway.
            self.wanted = None;
            if self.current.idle {
                self.plan = None;
            }
        } else {
            self.wanted = Some(found);
        }
        Ok(())
    }

    /// The clip that is shown.
    pub fn clip(&self) -> &str {
        &self.current.clip.name
    }

    /// All clips, the idle one first; those that were added meanwhile too.
    pub fn clips(&self) -> Vec<String> {
        self.avatar.clips().iter().map(|clip| clip.name.clone()).collect()
    }
}
