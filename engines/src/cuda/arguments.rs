//! The structures that the kernels take, laid out as those of `engines/kernels`.

use std::marker::PhantomData;

use super::memory::Plain;

/// An address in the memory of a device; 0 where there is nothing.
#[repr(transparent)]
#[derive(Debug)]
pub struct Pointer<T>(u64, PhantomData<*const T>);

impl<T> Pointer<T> {
    pub const NONE: Self = Self(0, PhantomData);

    pub(super) fn new(address: u64) -> Self {
        Self(address, PhantomData)
    }

    pub(crate) fn address(self) -> u64 {
        self.0
    }
}

impl Pointer<u8> {
    /// The byte `bytes` further on.
    pub(crate) fn beyond(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64, PhantomData)
    }
}

impl<T> Clone for Pointer<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Pointer<T> {}

impl<T> Default for Pointer<T> {
    fn default() -> Self {
        Self::NONE
    }
}

/// What one kernel takes.
///
/// # Safety
/// The type is laid out as the kernel's structure.
pub unsafe trait Arguments {
    const KERNEL: &'static str;
}

/// Structures as C lays them out.
macro_rules! structures {
    ($($(#[$about:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$about])*
        #[repr(C)]
        #[derive(Clone, Copy, Default)]
        pub struct $name { $(pub $field: $type),* }
    )*};
}

/// Which structure a kernel takes.
macro_rules! kernels {
    ($($kernel:ident: $arguments:ident),* $(,)?) => {
        $(
            // SAFETY: the structures are those of the kernel's file, field by field.
            unsafe impl Arguments for $arguments {
                const KERNEL: &'static str = stringify!($kernel);
            }
        )*
        /// The kernels by their names.
        pub const KERNELS: &[&str] = &[$(stringify!($kernel)),*];
    };
}

structures! {
    /// The samples of a channel in a part of a picture.
    Plane { data: Pointer<u8>, stride: i32, step: i32, left: i32, top: i32, width: i32, height: i32 }
    Cut { width: i32, height: i32, left: i32, top: i32, factor: i32, dx: i32, dy: i32 }
    Place { x: i32, y: i32 }
    Line { first: i32, end: i32, x: i32, y: i32 }
    Matrix { rows: [[f32; 3]; 3], offset: [f32; 3] }
    Space { yuv: i32, kr: f32, kb: f32, offset: f32, luma: f32, chroma: f32 }
    Take {
        out: Pointer<u8>, lines: Pointer<Place>, lines_of_pairs: Pointer<Place>, planes: [Plane; 3], cut: Cut,
        cut_of_pairs: Cut, side: i32, sharp: i32,
    }
    Show {
        crop: Pointer<u8>, out: Pointer<f32>, masked: Pointer<f32>, mask: Pointer<f32>, matrix: Matrix, size: i32,
        side: i32, x: f32, y: f32, width: f32, height: f32, scale: f32, offset: f32, hidden: f32,
    }
    Put {
        crop: Pointer<u8>, planes: [Pointer<f32>; 3], size: i32, side: i32, x: f32, y: f32, width: f32, height: f32,
        scale: f32, offset: f32, space: Space,
    }
    Cover { out: Pointer<u8>, columns: Pointer<f32>, rows: Pointer<f32>, side: i32 }
    Convert { from: Pointer<u8>, out: Pointer<u8>, pixels: i64, space: Space, wanted: Space }
    Target {
        frame: [Plane; 3], patch: [Plane; 3], mask: Plane, cut: Cut, lines: Pointer<Line>, channels: i32, top: i32,
        rows: i32, x: f32, y: f32, unit: f32,
    }
    Colour { gain: f32, pivot: [f32; 3], plane: [[f32; 3]; 3] }
    Sample { at: [f32; 2], patch: [f32; 3], frame: [f32; 3] }
    Fit {
        target: Target, samples: Pointer<Sample>, out: Pointer<Colour>, stride: i32, sample_rows: i32,
        sample_columns: i32, with_gain: i32,
    }
    Blend { target: Target, colour: Pointer<Colour>, left: i32, weight: f32 }
    Noise { seed: u64, pairs: u64, spare: f32, has_spare: i32 }
    Clip {
        latent: Pointer<f32>, known: Pointer<f32>, copies: [Pointer<f32>; 3], channels: i32, frames: i32, kept: i32,
        plane: i32,
    }
    Begin { clip: Clip, noise: Pointer<f32> }
    Advance {
        clip: Clip, prediction: Pointer<f32>, without: Pointer<f32>, estimate: Pointer<f32>, noise: Noise,
        guidance: f32, keep: f32, predict: f32, prior: f32, deviation: f32, of_latent: f32, of_prediction: f32,
        estimates: i32,
    }
    Draw {
        out: Pointer<f32>, last: Pointer<f32>, noise: Noise, keep: f32, fresh: f32, deviation: f32, length: i32,
        goes_on: i32,
    }
    Condition {
        out: [Pointer<f32>; 2], mask: Pointer<f32>, mean: Pointer<f32>, log_variance: Pointer<f32>,
        epsilon: Pointer<f32>, known: Pointer<f32>, channels: i32, frames: i32, kept: i32, plane: i32, scale: f32,
    }
    Decoded { out: Pointer<f32>, latent: Pointer<f32>, channels: i32, frames: i32, kept: i32, plane: i32, scale: f32 }
    Finite { values: Pointer<f32>, found: Pointer<i32>, count: i64 }
    Node { x: f32, y: f32 }
    Nodes {
        nodes: Pointer<Node>, folded: Pointer<i32>, x: Pointer<f32>, y: Pointer<f32>, wx: Pointer<f32>,
        wy: Pointer<f32>, affine: [[f32; 3]; 2], count: i32, cells: i32, columns: [i32; 2], rows: [i32; 2],
    }
    Warp {
        crop: Pointer<u8>, out: Pointer<u8>, nodes: Pointer<Node>, side: i32, cells: i32, columns: [i32; 2],
        rows: [i32; 2], share: i32, copies: i32,
    }
    Window { crop: Pointer<u8>, out: Pointer<f32>, matrix: Matrix, side: i32, zoom: i32, x: i32, y: i32 }
    Shapes { out: Pointer<f32>, points: Pointer<f32>, inner: i32, outer: i32 }
    Correct { picture: Pointer<u8>, delta: Pointer<f32>, space: Space, side: i32, zoom: i32, x: i32, y: i32 }
    Finish {
        from: Pointer<u8>, before: Pointer<u8>, out: Pointer<u8>, side: i32, columns: [i32; 2], rows: [i32; 2],
        weight: i32, reach: i32, calm_columns: [i32; 2], calm_rows: [i32; 2], calm: f32,
        moving_columns: [i32; 2], moving_rows: [i32; 2], lively: f32, yuv: i32,
    }
}

/// The same structure for another kernel.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Inset(pub Show);
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Compare(pub Fit);
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Folds(pub Nodes);

kernels! {
    take: Take, planar: Show, inset_cut: Inset, inset_put: Put, cover: Cover, convert: Convert, compare: Compare, fit: Fit, blend: Blend,
    begin: Begin, advance: Advance, draw: Draw, condition: Condition, plain: Decoded, all_finite: Finite,
    spline_nodes: Nodes, spline_folds: Folds, warp: Warp, window: Window, shapes: Shapes, correct: Correct, finish: Finish,
}

// SAFETY: four-byte numbers alone.
unsafe impl Plain for Place {}
// SAFETY: as above.
unsafe impl Plain for Line {}
// SAFETY: as above.
unsafe impl Plain for Colour {}
// SAFETY: as above.
unsafe impl Plain for Sample {}
// SAFETY: as above.
unsafe impl Plain for Node {}
