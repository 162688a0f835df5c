//! What streams see and hear: a moving face before waves.

use std::f32::consts::{PI, TAU};

use lipstream_engines::{
    Result,
    bank::{BankConfig, ReferenceBank},
    engine::{Engine, Identity},
    geometry::{Point, Rect, landmarks},
    image::{Format, FrameMut, FrameView, Matrix, Plane, PlaneMut, Range},
    tracker::Face,
};

/// Pictures that a film repeats.
const PICTURES: usize = 8;

/// A frame, NV12.
#[derive(Clone)]
pub struct Picture {
    size: (usize, usize),
    pub luma: Vec<u8>,
    pub chroma: Vec<u8>,
}

impl Picture {
    fn new(size: (usize, usize), shift: f32) -> Self {
        // Products of waves along the rows and the columns, so that a frame costs few sines.
        let plane = |rows: usize, slow: f32| {
            let row: Vec<(f32, f32)> =
                (0..size.0).map(|x| x as f32 + shift).map(|x| ((x * 0.05 * slow).sin(), (x * 0.013).cos())).collect();
            let column = (0..rows).map(|y| y as f32).map(|y| ((y * 0.03).cos(), (y * 0.11 * slow).sin()));
            column
                .flat_map(|(a, b)| row.iter().map(move |(c, d)| (120.0 + 50.0 * a * c + 40.0 * b * d) as u8))
                .collect()
        };
        Self { size, luma: plane(size.1, 1.0), chroma: plane(size.1 / 2, 0.4) }
    }

    pub fn view(&self) -> Result<FrameView<'_>> {
        let planes = [&self.luma, &self.chroma].map(|data| Plane { data, stride: self.size.0 }).to_vec();
        FrameView::new(Format::Nv12, self.size, Matrix::Bt709, Range::Limited, planes)
    }

    pub fn frame(&mut self) -> Result<FrameMut<'_>> {
        let stride = self.size.0;
        let planes = [&mut self.luma, &mut self.chroma].map(|data| PlaneMut { data, stride });
        FrameMut::new(Format::Nv12, self.size, Matrix::Bt709, Range::Limited, planes.into_iter().collect())
    }
}

/// Pictures, and where the face is in them.
pub struct Film {
    size: (usize, usize),
    pictures: Vec<Picture>,
}

impl Film {
    /// Of frames of `size`, columns and rows, both even.
    pub fn new(size: (usize, usize)) -> Self {
        Self { size, pictures: (0..PICTURES).map(|i| Picture::new(size, i as f32 * 0.7)).collect() }
    }

    pub fn picture(&self, frame: usize) -> &Picture {
        &self.pictures[frame % PICTURES]
    }

    /// A face whose aligned crop has 0.44 times the frame's height as its side, and that opens its mouth by `open` crops.
    pub fn face(&self, engine: &dyn Engine, frame: usize, open: f32) -> Face {
        let (width, height) = (self.size.0 as f32, self.size.1 as f32);
        let side = 0.44 * height;
        let corner = Point::new(0.5 * width - 0.5 * side + 0.3 + 0.4 * (frame % 64) as f32, 0.3 * height + 0.6);
        let mut points = level(open);
        let alignment = &engine.spec().alignment;
        for (anchor, point) in alignment.anchors.iter().zip(&alignment.points) {
            points[*anchor] = *point;
        }
        let points: Vec<Point> = points.into_iter().map(|point| corner + point * side).collect();
        let rect = Rect::around(&points).unwrap_or_default();
        Face { track_id: 1, rect, points: points.into(), confidence: 0.99, yaw: 0.0, occluded: false, front: None }
    }

    /// The person, of an engine that knows one by pictures.
    pub fn identity(&self, engine: &dyn Engine) -> Result<Identity> {
        let spec = engine.spec();
        let mut bank =
            ReferenceBank::new(BankConfig { capacity: 8, side: spec.crop, alignment: spec.alignment.clone() });
        for (frame, open) in [0.0, 0.04, 0.08].into_iter().enumerate() {
            // The second look confirms a shape that is far from the one before.
            for _ in 0..2 {
                bank.observe(&self.picture(3 * frame).view()?, &self.face(engine, frame, open), None)?;
            }
        }
        engine.prepare(&bank)
    }
}

/// Landmarks of a level face in the crop that `compact` takes, 0..1.
fn level(open: f32) -> Vec<Point> {
    let mut points = vec![Point::new(0.5, 0.5); landmarks::COUNT];
    let mut ring = |range: std::ops::Range<usize>, middle: f32, across: f32, down: f32| {
        let count = range.len() as f32;
        for (k, i) in range.enumerate() {
            let (sin, cos) = (TAU * k as f32 / count).sin_cos();
            points[i] = Point::new(0.5 - across * cos, middle - down * sin);
        }
    };
    ring(landmarks::LIPS_OUTER, 0.62, 0.15, 0.05 + open / 2.0);
    ring(landmarks::LIPS_INNER, 0.62, 0.12, 0.003 + open / 2.0);
    ring(landmarks::CHIN, 0.75, 0.08, 0.05);
    for (k, i) in landmarks::JAW.enumerate() {
        let (sin, cos) = (PI * k as f32 / 20.0).sin_cos();
        points[i] = Point::new(0.5 + 0.42 * cos, 0.4 + (0.5 + open / 2.0) * sin);
    }
    points[landmarks::FOREHEAD].fill(Point::new(0.5, -0.25));
    // From its root to its tip, then below it from the middle to its wings.
    let nose = [
        [0.5, 0.12],
        [0.5, 0.18],
        [0.5, 0.24],
        [0.5, 0.35],
        [0.5, 0.37],
        [0.5, 0.396],
        [0.405, 0.386],
        [0.595, 0.386],
        [0.39, 0.36],
        [0.61, 0.36],
    ];
    let eyes = [[0.2435, 0.13], [0.4003, 0.139], [0.5997, 0.139], [0.7565, 0.13]];
    let lids = [[0.32, 0.11], [0.32, 0.15], [0.68, 0.11], [0.68, 0.15]];
    let brows = [[0.3, 0.02], [0.4, 0.04], [0.7, 0.02], [0.6, 0.04]];
    let known = [
        (landmarks::NOSE, &nose[..]),
        (landmarks::EYE_CORNERS, &eyes),
        (landmarks::EYELIDS, &lids),
        (landmarks::BROWS, &brows),
    ];
    for (range, places) in known {
        range.zip(places).for_each(|(i, [x, y])| points[i] = Point::new(*x, *y));
    }
    let [right, .., left] = landmarks::OUTLINE_OVER;
    (points[right], points[left]) = (Point::new(0.28, 0.5), Point::new(0.72, 0.5));
    points
}
