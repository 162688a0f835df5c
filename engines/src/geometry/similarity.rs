use super::Point;

/// A similarity of the plane (rotation, uniform scale, translation; no reflection):
/// `x' = a x - b y + tx`, `y' = b x + a y + ty`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Similarity {
    pub a: f32,
    pub b: f32,
    pub tx: f32,
    pub ty: f32,
}

impl Similarity {
    pub const IDENTITY: Self = Self { a: 1.0, b: 0.0, tx: 0.0, ty: 0.0 };

    pub fn apply(&self, p: Point) -> Point {
        Point::new(self.a * p.x - self.b * p.y + self.tx, self.b * p.x + self.a * p.y + self.ty)
    }

    pub fn scale(&self) -> f32 {
        self.a.hypot(self.b)
    }

    /// Rotation in radians, clockwise as seen on a screen (y down).
    pub fn angle(&self) -> f32 {
        self.b.atan2(self.a)
    }

    /// `None` for a degenerate map (scale zero or not finite).
    pub fn inverse(&self) -> Option<Self> {
        let d = self.a * self.a + self.b * self.b;
        if !d.is_normal() {
            return None;
        }
        let (a, b) = (self.a / d, -self.b / d);
        Some(Self { a, b, tx: -(a * self.tx - b * self.ty), ty: -(b * self.tx + a * self.ty) })
    }

    /// The map that applies `self` first and `next` after it.
    pub fn then(&self, next: &Self) -> Self {
        let t = next.apply(Point::new(self.tx, self.ty));
        Self { a: next.a * self.a - next.b * self.b, b: next.b * self.a + next.a * self.b, tx: t.x, ty: t.y }
    }

    /// The least-squares similarity from `from` to `to` (S. Umeyama, PAMI 13(4), 1991, without reflection).
    /// `None` when fewer than two distinct finite points are given.
    pub fn fit(from: &[Point], to: &[Point]) -> Option<Self> {
        let n = from.len().min(to.len());
        if n < 2 {
            return None;
        }
        let mean = |ps: &[Point]| ps[..n].iter().fold(Point::default(), |s, p| s + *p) * (1.0 / n as f32);
        let (mf, mt) = (mean(from), mean(to));
        let (mut dot, mut cross, mut norm) = (0.0, 0.0, 0.0);
        for (f, t) in from.iter().zip(to) {
            let (f, t) = (*f - mf, *t - mt);
            dot += f.x * t.x + f.y * t.y;
            cross += f.x * t.y - f.y * t.x;
            norm += f.x * f.x + f.y * f.y;
        }
        let (a, b) = (dot / norm, cross / norm);
        let fit = Self { a, b, tx: mt.x - (a * mf.x - b * mf.y), ty: mt.y - (b * mf.x + a * mf.y) };
        (fit.scale().is_normal() && fit.tx.is_finite() && fit.ty.is_finite()).then_some(fit)
    }
}
