//! Where mouths are drawn: in the memory of the process, or in that of a device, where references stay once they were shown.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::{
    person::Wanted,
    refine::{self, DELTA, INPUTS, SIDE},
    render::CELLS,
};
use crate::{
    Error, Result,
    bank::Reference,
    cuda::{Buffer, Memory},
    engine::{
        DeviceTensor, Patch, Work,
        device::{Coverage, DevicePicture},
    },
    geometry::{Rect, Similarity, ThinPlate, landmarks},
    image::{ColorSpace, Crop, Lattice, sharpen, steady},
    kernels::{self, DeviceCrop, DeviceLattice},
    runtime::Tensor,
};

/// Where an engine's mouths are drawn.
pub(super) enum Canvas {
    Here,
    There(Device),
}

/// The memory of a device and the references that are there, each as long as somebody holds it.
pub(super) struct Device {
    pub memory: Arc<dyn Memory>,
    references: Mutex<Vec<(Weak<Reference>, Arc<DeviceCrop>)>>,
}

impl Device {
    pub fn new(memory: Arc<dyn Memory>) -> Self {
        Self { memory, references: Mutex::default() }
    }

    fn reference(&self, reference: &Arc<Reference>) -> Result<Arc<DeviceCrop>> {
        let mut known = self.references.lock();
        known.retain(|(own, _)| own.strong_count() > 0);
        if let Some((_, crop)) = known.iter().find(|(own, _)| own.as_ptr() == Arc::as_ptr(reference)) {
            return Ok(Arc::clone(crop));
        }
        let crop = Arc::new(DeviceCrop::of(&self.memory, &reference.crop)?);
        known.push((Arc::downgrade(reference), Arc::clone(&crop)));
        Ok(crop)
    }
}

/// A picture in the making.
pub(super) enum Picture {
    Here(Crop),
    There(DeviceCrop),
}

/// A picture that is shown.
#[derive(Clone)]
pub(super) enum Drawn {
    Here(Arc<Crop>),
    There(Arc<DevicePicture>),
}

/// What a picture is finished by: see [`sharpen`] and [`steady`].
pub(super) struct Finish<'a> {
    /// Where pixels are new, in unit crop coordinates.
    pub area: &'a Rect,
    pub amount: f32,
    pub reach: usize,
    /// The picture before, and the frames of 40 ms since.
    pub before: Option<(&'a Drawn, f32)>,
    /// What moves, and the frames that it is ahead by.
    pub moving: Option<(Rect, f32)>,
}

impl Picture {
    pub fn side(&self) -> usize {
        match self {
            Self::Here(crop) => crop.side,
            Self::There(crop) => crop.side,
        }
    }

    pub fn space(&self) -> ColorSpace {
        match self {
            Self::Here(crop) => crop.space,
            Self::There(crop) => crop.space,
        }
    }
}

impl Drawn {
    /// The patch that it is where `to_frame` says; `mask` is its coverage.
    fn patch(&self, mask: &Arc<[u8]>, to_frame: Similarity) -> Patch {
        match self {
            Self::Here(crop) => {
                let (pixels, mask) = (Arc::clone(crop).into(), Arc::clone(mask));
                Patch { pixels, mask, to_frame, opacity: 1.0, hard: false }
            }
            Self::There(picture) => Arc::clone(picture).patch(to_frame),
        }
    }
}

/// Pictures of two canvases do not come together.
fn elsewhere() -> Error {
    Error::invalid("a picture in another memory")
}

impl Canvas {
    /// Gives back what is kept for later.
    pub fn trim(&self) {
        if let Self::There(device) = self {
            device.memory.trim();
        }
    }

    /// A reference warped inside `area`.
    pub fn warp(&self, plate: &ThinPlate, reference: &Arc<Reference>, area: &Rect) -> Result<Picture> {
        match self {
            Self::Here => Ok(Picture::Here(Lattice::over(plate, CELLS, area).warp(&reference.crop))),
            Self::There(device) => {
                let lattice = DeviceLattice::over(&device.memory, plate, CELLS, area)?;
                Ok(Picture::There(lattice.warp(&device.memory, &*device.reference(reference)?)?))
            }
        }
    }

    /// Adds another reference to a picture, by `share`.
    pub fn mix(
        &self,
        plate: &ThinPlate,
        reference: &Arc<Reference>,
        area: &Rect,
        picture: &mut Picture,
        share: f32,
    ) -> Result<()> {
        match (self, picture) {
            (Self::Here, Picture::Here(picture)) => {
                Lattice::over(plate, CELLS, area).warp_mixed_into(&reference.crop, picture, share);
                Ok(())
            }
            (Self::There(device), Picture::There(picture)) => {
                let lattice = DeviceLattice::over(&device.memory, plate, CELLS, area)?;
                lattice.warp_mixed_into(&device.memory, &*device.reference(reference)?, picture, share)
            }
            _ => Err(elsewhere()),
        }
    }

    /// Puts into `work` what the refinement reads: windows of `picture` and of its partner, which is the same where there is none,
    /// the wanted mouth's shapes, and three openings.
    pub fn fill(
        &self,
        work: &mut Work,
        picture: &Picture,
        beside: Option<&Picture>,
        wanted: &Wanted,
        openings: [f32; 3],
    ) -> Result<()> {
        let corner = refine::corner(wanted);
        match (self, picture) {
            (Self::Here, Picture::Here(picture)) => {
                let first = refine::planes(picture, corner);
                let other = match beside {
                    Some(Picture::Here(beside)) => refine::planes(beside, corner),
                    _ => first.clone(),
                };
                let tensor = |channels, data| Tensor { shape: vec![1, channels, SIDE, SIDE], data };
                work.put(INPUTS[0], tensor(3, first));
                work.put(INPUTS[1], tensor(3, other));
                work.put(INPUTS[2], tensor(2, refine::shapes(wanted, corner)));
                work.put(INPUTS[3], Tensor { shape: vec![1, 3], data: openings.to_vec() });
                Ok(())
            }
            (Self::There(Device { memory, .. }), Picture::There(picture)) => {
                let window = |crop: &DeviceCrop| {
                    let planes = Buffer::room(memory, 3 * SIDE * SIDE)?;
                    kernels::window(memory, crop, refine::zoom(crop.side), corner, (&planes, 0))?;
                    Ok::<_, Error>(Arc::new(planes))
                };
                let first = window(picture)?;
                let other = match beside {
                    Some(Picture::There(beside)) => window(beside)?,
                    _ => Arc::clone(&first),
                };
                let shapes = Buffer::room(memory, 2 * SIDE * SIDE)?;
                let outline = |lips: std::ops::Range<usize>| refine::in_window(&wanted.points[lips], corner);
                let outlines = [outline(landmarks::LIPS_INNER), outline(landmarks::LIPS_OUTER)];
                kernels::shapes(memory, &outlines[0], &outlines[1], (&shapes, 0))?;
                work.put_there(INPUTS[0], vec![1, 3, SIDE, SIDE], first);
                work.put_there(INPUTS[1], vec![1, 3, SIDE, SIDE], other);
                work.put_there(INPUTS[2], vec![1, 2, SIDE, SIDE], shapes);
                work.put_there(INPUTS[3], vec![1, 3], Buffer::of(memory, &openings)?);
                Ok(())
            }
            _ => Err(elsewhere()),
        }
    }

    /// Corrects `picture` by what the refinement said of it, for the same wanted points.
    pub fn correct(&self, work: &mut Work, picture: &mut Picture, wanted: &Wanted) -> Result<()> {
        let corner = refine::corner(wanted);
        match (self, picture) {
            (Self::Here, Picture::Here(picture)) => refine::apply(work, picture, corner),
            (Self::There(device), Picture::There(picture)) => {
                let delta = work.take_there(DELTA)?;
                let zoom = refine::zoom(picture.side);
                kernels::correct(&device.memory, picture, zoom, corner, DeviceTensor::part(&delta))
            }
            _ => Err(elsewhere()),
        }
    }

    /// The picture as it is shown, with what it covers, and where.
    pub fn finish(
        &self,
        picture: Picture,
        finish: &Finish,
        mask: Vec<u8>,
        to_frame: Similarity,
    ) -> Result<(Drawn, Patch)> {
        let Finish { area, amount, reach, before, moving } = *finish;
        let mask: Arc<[u8]> = mask.into();
        let drawn = match (self, picture) {
            (Self::Here, Picture::Here(mut picture)) => {
                sharpen(&mut picture, area, amount, reach);
                if let Some((Drawn::Here(before), frames)) = before {
                    steady(&mut picture, before, area, frames, moving);
                }
                Drawn::Here(Arc::new(picture))
            }
            (Self::There(Device { memory, .. }), Picture::There(picture)) => {
                let before = match before {
                    Some((Drawn::There(before), frames)) => Some((&before.crop, frames)),
                    _ => None,
                };
                let finish = kernels::Finish { area, amount, reach, before, moving };
                let picture = kernels::finish(memory, &picture, &finish)?;
                Drawn::There(DevicePicture::new(memory, picture, Coverage::new(memory, Arc::clone(&mask))?))
            }
            _ => return Err(elsewhere()),
        };
        let patch = drawn.patch(&mask, to_frame);
        Ok((drawn, patch))
    }
}
