/// Luma coefficients of a YUV signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matrix {
    Bt601,
    Bt709,
    Bt2020,
}

/// Quantisation of a YUV signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// Luma 16..235, chroma 16..240.
    Limited,
    /// 0..255.
    Full,
}

/// What the three channels of a [`super::Crop`] mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColorSpace {
    /// Full-range R, G, B.
    Rgb,
    /// Y, Cb, Cr.
    Yuv(Matrix, Range),
}

impl Matrix {
    /// (Kr, Kb) of ITU-R BT.601-7, BT.709-6 and BT.2020-2.
    fn coefficients(self) -> (f32, f32) {
        match self {
            Self::Bt601 => (0.299, 0.114),
            Self::Bt709 => (0.2126, 0.0722),
            Self::Bt2020 => (0.2627, 0.0593),
        }
    }
}

impl Range {
    /// (luma offset, luma span, chroma span) in 8-bit codes.
    fn quantisation(self) -> (f32, f32, f32) {
        match self {
            Self::Limited => (16.0, 219.0, 224.0),
            Self::Full => (0.0, 255.0, 255.0),
        }
    }
}

impl ColorSpace {
    /// One pixel to full-range RGB, 0..255 but not rounded; out-of-gamut values are clamped.
    pub fn to_rgb(self, p: [f32; 3]) -> [f32; 3] {
        let Self::Yuv(matrix, range) = self else { return p };
        let (kr, kb) = matrix.coefficients();
        let (offset, luma, chroma) = range.quantisation();
        let y = (p[0] - offset) * (255.0 / luma);
        let cb = (p[1] - 128.0) * (255.0 / chroma);
        let cr = (p[2] - 128.0) * (255.0 / chroma);
        let r = y + 2.0 * (1.0 - kr) * cr;
        let b = y + 2.0 * (1.0 - kb) * cb;
        let g = (y - kr * r - kb * b) / (1.0 - kr - kb);
        [r, g, b].map(|v| v.clamp(0.0, 255.0))
    }

    /// Kr, Kb, luma offset, luma span and chroma span of a YUV signal.
    pub(crate) fn coefficients(self) -> Option<[f32; 5]> {
        let Self::Yuv(matrix, range) = self else { return None };
        let ((kr, kb), (offset, luma, chroma)) = (matrix.coefficients(), range.quantisation());
        Some([kr, kb, offset, luma, chroma])
    }

    /// The affine map behind [`ColorSpace::to_rgb`]: a row of weights and an offset for each of R, G, B.
    pub(crate) fn rgb_matrix(self) -> ([[f32; 3]; 3], [f32; 3]) {
        let Self::Yuv(matrix, range) = self else {
            return ([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], [0.0; 3]);
        };
        let (kr, kb) = matrix.coefficients();
        let (offset, luma, chroma) = range.quantisation();
        let (y, c) = (255.0 / luma, 255.0 / chroma);
        let (red, blue) = (2.0 * (1.0 - kr) * c, 2.0 * (1.0 - kb) * c);
        let kg = 1.0 - kr - kb;
        let rows = [[y, 0.0, red], [y, -kb * blue / kg, -kr * red / kg], [y, blue, 0.0]];
        (rows, rows.map(|r| -r[0] * offset - (r[1] + r[2]) * 128.0))
    }

    /// One full-range RGB pixel, 0..255, to this space.
    pub fn from_rgb(self, [r, g, b]: [f32; 3]) -> [f32; 3] {
        let Self::Yuv(matrix, range) = self else { return [r, g, b] };
        let (kr, kb) = matrix.coefficients();
        let (offset, luma, chroma) = range.quantisation();
        let y = kr * r + (1.0 - kr - kb) * g + kb * b;
        let cb = (b - y) / (2.0 * (1.0 - kb));
        let cr = (r - y) / (2.0 * (1.0 - kr));
        [offset + y * (luma / 255.0), 128.0 + cb * (chroma / 255.0), 128.0 + cr * (chroma / 255.0)]
    }

    /// A pixel of this space in `other`.
    pub fn convert(self, other: Self, p: [f32; 3]) -> [f32; 3] {
        if self == other { p } else { other.from_rgb(self.to_rgb(p)) }
    }
}
