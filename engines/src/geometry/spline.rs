//! Smooth warps of the plane that take given points to given places.

use nalgebra::{Cholesky, DMatrix, DVector, Dyn};

use super::Point;

/// Control points nearer to each other than this are one point (unit crop coordinates: half a pixel of 256).
const MERGE: f32 = 0.002;

/// A thin-plate spline: the map of least bending energy through the given points (F. Bookstein, "Principal warps",
/// PAMI 11(6), 1989), `f(p) = A p + t + sum_i w_i U(|p - p_i|)` with `U(r) = r^2 ln r^2`.
#[derive(Clone, Debug)]
pub struct ThinPlate {
    /// Coordinates of the control points.
    x: Vec<f32>,
    y: Vec<f32>,
    /// Weights for the two coordinates of the result.
    wx: Vec<f32>,
    wy: Vec<f32>,
    /// Offset, factor of x and factor of y for the two coordinates of the result.
    affine: [[f32; 3]; 2],
}

/// Control points whose equations are solved but for the places that they shall go to: several splines from the same
/// points cost little more than one.
#[derive(Clone, Debug)]
pub struct Anchored {
    /// Of each point given, the control point that it is merged into.
    places: Vec<usize>,
    /// The control points.
    from: Vec<Point>,
    /// `Q' K Q`.
    kernel: DMatrix<f64>,
    reflections: Vec<DVector<f64>>,
    /// Of the lower right block of `kernel`; `None` where there are three points.
    cholesky: Option<Cholesky<f64, Dyn>>,
    /// The upper triangle of P's decomposition, `[3, 3]`.
    affine: DMatrix<f64>,
}

impl Anchored {
    /// `lambda` >= 0 trades exactness for smoothness (0: through the points). Points that coincide are merged and go to
    /// the mean of their places. `None` when fewer than three points off one line are given, or any is not finite.
    pub fn new(from: &[Point], lambda: f32) -> Option<Self> {
        if !from.iter().all(Point::is_finite) {
            return None;
        }
        let (places, from) = merged(from);
        let n = from.len();
        if n < 3 {
            return None;
        }
        let lambda = f64::from(lambda.max(0.0));
        // K is positive definite on what is orthogonal to the affine maps P. With the Householder reflections Q of P's
        // QR decomposition, the lower right block of Q' K Q is that part: a Cholesky of n - 3 rows instead of an LU of
        // n + 3, and without pivots.
        let mut k = kernel_matrix(&from, lambda);
        let mut p = DMatrix::from_fn(n, 3, |i, j| [1.0, f64::from(from[i].x), f64::from(from[i].y)][j]);
        let mut reflections = Vec::with_capacity(3);
        for c in 0..3 {
            let v = householder(&p, c)?;
            reflect_left(&mut p, &v);
            reflect_both(&mut k, &v);
            reflections.push(v);
        }
        let cholesky = match n {
            3 => None,
            _ => Some(k.view((3, 3), (n - 3, n - 3)).into_owned().cholesky()?),
        };
        let affine = p.view((0, 0), (3, 3)).into_owned();
        Some(Self { places, from, kernel: k, reflections, cholesky, affine })
    }

    /// The spline that takes each of the points to its place in `to`. `None` when there are not as many places, or one is
    /// not finite.
    pub fn onto(&self, to: &[Point]) -> Option<ThinPlate> {
        if to.len() != self.places.len() || !to.iter().all(Point::is_finite) {
            return None;
        }
        let (n, to) = (self.from.len(), self.means(to));
        let mut t = DMatrix::from_fn(n, 2, |i, j| f64::from([to[i].x, to[i].y][j]));
        self.reflections.iter().for_each(|v| reflect_left(&mut t, v));
        let mut w = DMatrix::<f64>::zeros(n, 2);
        if let Some(cholesky) = &self.cholesky {
            let solved = cholesky.solve(&t.rows(3, n - 3).into_owned());
            w.rows_mut(3, n - 3).copy_from(&solved);
        }
        // R a = (Q' t - Q' K Q w)'s first three rows.
        let rest = t.rows(0, 3) - self.kernel.rows(0, 3) * &w;
        let affine = self.affine.solve_upper_triangular(&rest)?;
        self.reflections.iter().rev().for_each(|v| reflect_left(&mut w, v));
        if w.iter().chain(affine.iter()).any(|v| !v.is_finite()) {
            return None;
        }
        let column = |c: usize| w.column(c).iter().map(|v| *v as f32).collect();
        Some(ThinPlate {
            x: self.from.iter().map(|p| p.x).collect(),
            y: self.from.iter().map(|p| p.y).collect(),
            wx: column(0),
            wy: column(1),
            affine: std::array::from_fn(|c| std::array::from_fn(|i| affine[(i, c)] as f32)),
        })
    }

    /// Of each control point the mean place of those that were merged into it.
    fn means(&self, to: &[Point]) -> Vec<Point> {
        let mut means = vec![(Point::default(), 0.0); self.from.len()];
        for (place, t) in self.places.iter().zip(to) {
            let (mean, count) = &mut means[*place];
            *count += 1.0;
            *mean = *mean + (*t - *mean) * (1.0 / *count);
        }
        means.into_iter().map(|(mean, _)| mean).collect()
    }
}

impl ThinPlate {
    /// The spline that takes `from[i]` to `to[i]`: see [`Anchored`].
    pub fn fit(from: &[Point], to: &[Point], lambda: f32) -> Option<Self> {
        Anchored::new(from, lambda)?.onto(to)
    }

    pub fn apply(&self, p: Point) -> Point {
        self.at(p)
    }

    /// Coordinates of the control points, their weights, and the affine part: offset, factor of x and factor of y for each
    /// coordinate.
    pub(crate) fn parts(&self) -> ([&[f32]; 4], [[f32; 3]; 2]) {
        ([&self.x, &self.y, &self.wx, &self.wy], self.affine)
    }

    /// [`ThinPlate::apply`] to all of `points`, in the widest vectors that the processor has.
    pub fn apply_all(&self, points: &mut [Point]) {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx512vl")
            && std::arch::is_x86_feature_detected!("avx512dq")
            && std::arch::is_x86_feature_detected!("avx512bw")
        {
            // SAFETY: the processor has been asked for the features (avx512f comes with the others).
            return unsafe { self.apply_all_avx512(points) };
        } else if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { self.apply_all_avx2(points) };
        }
        points.iter_mut().for_each(|p| *p = self.at(*p));
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn apply_all_avx2(&self, points: &mut [Point]) {
        points.iter_mut().for_each(|p| *p = self.at(*p));
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw")]
    fn apply_all_avx512(&self, points: &mut [Point]) {
        points.iter_mut().for_each(|p| *p = self.at(*p));
    }

    #[inline(always)]
    fn at(&self, p: Point) -> Point {
        const LANES: usize = 16;
        let (mut sx, mut sy) = ([0.0f32; LANES], [0.0f32; LANES]);
        let (x, x_rest) = self.x.as_chunks::<LANES>();
        let (y, y_rest) = self.y.as_chunks::<LANES>();
        let (wx, wx_rest) = self.wx.as_chunks::<LANES>();
        let (wy, wy_rest) = self.wy.as_chunks::<LANES>();
        for (((x, y), wx), wy) in x.iter().zip(y).zip(wx).zip(wy) {
            for i in 0..LANES {
                let (dx, dy) = (p.x - x[i], p.y - y[i]);
                let u = kernel(dx * dx + dy * dy);
                sx[i] += wx[i] * u;
                sy[i] += wy[i] * u;
            }
        }
        for (i, (x, y)) in x_rest.iter().zip(y_rest).enumerate() {
            let (dx, dy) = (p.x - x, p.y - y);
            let u = kernel(dx * dx + dy * dy);
            sx[i] += wx_rest[i] * u;
            sy[i] += wy_rest[i] * u;
        }
        let line = |a: &[f32; 3]| a[0] + a[1] * p.x + a[2] * p.y;
        Point::new(line(&self.affine[0]) + sx.iter().sum::<f32>(), line(&self.affine[1]) + sy.iter().sum::<f32>())
    }
}

/// `r^2 ln r^2` of a squared distance, 0 at 0.
#[inline(always)]
fn kernel(d: f32) -> f32 {
    // Below 1e-12 the product is nothing; the bound keeps the logarithm finite.
    d * ln(d.max(1e-12))
}

/// The natural logarithm of a positive normal number to 1e-7, without branches so that loops over it are vectorised:
/// ln m = 2 artanh((m - 1) / (m + 1)) for a mantissa in 0.7..1.4.
#[inline(always)]
fn ln(v: f32) -> f32 {
    const ROOT_HALF: u32 = 0x3f35_04f3;
    let bits = v.to_bits().wrapping_sub(ROOT_HALF);
    let exponent = (bits as i32 >> 23) as f32;
    let m = f32::from_bits((bits & 0x007f_ffff).wrapping_add(ROOT_HALF));
    let s = (m - 1.0) / (m + 1.0);
    let q = s * s;
    let series = 2.0 + q * (2.0 / 3.0 + q * (2.0 / 5.0 + q * (2.0 / 7.0 + q * (2.0 / 9.0))));
    exponent * std::f32::consts::LN_2 + s * series
}

/// The points without those that coincide with an earlier one, and of each point the place of the one that stands for it.
fn merged(points: &[Point]) -> (Vec<usize>, Vec<Point>) {
    let mut kept: Vec<Point> = Vec::with_capacity(points.len());
    let place = |p: &Point| {
        kept.iter().position(|k| k.distance(*p) < MERGE).unwrap_or_else(|| {
            kept.push(*p);
            kept.len() - 1
        })
    };
    (points.iter().map(place).collect(), kept)
}

fn kernel_matrix(points: &[Point], lambda: f64) -> DMatrix<f64> {
    let n = points.len();
    let mut k = DMatrix::zeros(n, n);
    for i in 0..n {
        k[(i, i)] = lambda;
        for j in 0..i {
            let (dx, dy) = (points[i].x - points[j].x, points[i].y - points[j].y);
            let u = f64::from(kernel(dx * dx + dy * dy));
            k[(i, j)] = u;
            k[(j, i)] = u;
        }
    }
    k
}

/// The unit vector whose reflection clears column `c` of `m` below its diagonal; `None` when that column depends on
/// those before it.
fn householder(m: &DMatrix<f64>, c: usize) -> Option<DVector<f64>> {
    let mut v = m.column(c).into_owned();
    v.rows_mut(0, c).fill(0.0);
    let norm = v.norm();
    if norm < 1e-6 * (m.nrows() as f64).sqrt() {
        return None;
    }
    v[c] += norm.copysign(v[c]);
    v.normalize_mut();
    Some(v)
}

fn reflect_left(m: &mut DMatrix<f64>, v: &DVector<f64>) {
    for mut column in m.column_iter_mut() {
        let d = 2.0 * column.dot(v);
        column.axpy(-d, v, 1.0);
    }
}

/// `H m H` of a symmetric matrix: `m - v u' - u v'` with `u = 2 (m v - (v' m v) v)`.
fn reflect_both(m: &mut DMatrix<f64>, v: &DVector<f64>) {
    let mv = &*m * v;
    let u = (&mv - v * v.dot(&mv)) * 2.0;
    m.ger(-1.0, v, &u, 1.0);
    m.ger(-1.0, &u, v, 1.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points scattered evenly and without a pattern.
    fn scatter(n: usize) -> Vec<Point> {
        let halton = |mut i: usize, base: usize| {
            let (mut f, mut v) = (1.0, 0.0);
            while i > 0 {
                f /= base as f32;
                v += f * (i % base) as f32;
                i /= base;
            }
            v
        };
        (1..=n).map(|i| Point::new(halton(i, 2), halton(i, 3))).collect()
    }

    fn moved(points: &[Point], by: f32) -> Vec<Point> {
        points.iter().map(|p| *p + Point::new((p.y * 9.0).sin() * by, (p.x * 7.0).cos() * by)).collect()
    }

    #[test]
    fn the_logarithm_is_good_to_seven_digits() {
        for i in 1..2000 {
            let v = (i as f32 * 0.01).powi(3);
            assert!((f64::from(ln(v)) - f64::from(v).ln()).abs() < 3e-7 * f64::from(v).ln().abs().max(1.0), "{v}");
        }
    }

    #[test]
    fn a_spline_passes_through_its_points() {
        for n in [3, 4, 17, 130] {
            let from = scatter(n);
            let to = moved(&from, 0.05);
            let plate = ThinPlate::fit(&from, &to, 0.0).unwrap();
            let worst = from.iter().zip(&to).map(|(f, t)| plate.apply(*f).distance(*t)).fold(0.0, f32::max);
            assert!(worst < 2e-4, "{n} points: {worst}");
        }
    }

    #[test]
    fn affine_maps_come_back_exactly_whatever_lambda() {
        let from = scatter(60);
        let affine = |p: Point| Point::new(0.1 + 0.9 * p.x - 0.2 * p.y, -0.05 + 0.15 * p.x + 1.1 * p.y);
        let to: Vec<Point> = from.iter().map(|p| affine(*p)).collect();
        for lambda in [0.0, 1e-3, 10.0] {
            let plate = ThinPlate::fit(&from, &to, lambda).unwrap();
            for p in scatter(200) {
                let p = p * 1.4 - Point::new(0.2, 0.2);
                assert!(plate.apply(p).distance(affine(p)) < 1e-4);
            }
        }
    }

    #[test]
    fn lambda_smooths() {
        let from = scatter(80);
        let mut to = from.clone();
        to[40].x += 0.1;
        let error = |lambda| ThinPlate::fit(&from, &to, lambda).unwrap().apply(from[40]).distance(to[40]);
        assert!(error(0.0) < 1e-3 && error(0.01) > error(0.001) && error(0.001) > 5e-3);
    }

    #[test]
    fn coinciding_points_are_merged_and_lines_refused() {
        let mut from = scatter(30);
        let mut to = from.clone();
        from.push(from[5]);
        to.push(to[5] + Point::new(0.02, 0.0));
        let plate = ThinPlate::fit(&from, &to, 0.0).unwrap();
        assert!((plate.apply(from[5]).x - from[5].x - 0.01).abs() < 1e-3);
        let line: Vec<Point> = (0..10).map(|i| Point::new(i as f32 * 0.1, i as f32 * 0.05)).collect();
        assert!(ThinPlate::fit(&line, &line, 0.0).is_none());
        assert!(ThinPlate::fit(&line[..2], &line[..2], 0.0).is_none());
        let bad = [Point::new(f32::NAN, 0.0), Point::new(1.0, 0.0), Point::new(0.0, 1.0)];
        assert!(ThinPlate::fit(&bad, &bad, 0.0).is_none());
    }
}
