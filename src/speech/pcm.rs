//! 16-bit samples, lower byte first, out of pieces of any size.

/// Keeps the first byte of a sample that a piece was cut in.
#[derive(Default)]
pub struct Pcm {
    odd: Option<u8>,
}

impl Pcm {
    /// The samples that are complete with `bytes`, -1..1.
    pub fn samples<'a>(&'a mut self, bytes: &'a [u8]) -> impl Iterator<Item = f32> + 'a {
        let mut bytes = bytes.iter().copied();
        std::iter::from_fn(move || {
            let low = self.odd.take().or_else(|| bytes.next())?;
            let Some(high) = bytes.next() else {
                self.odd = Some(low);
                return None;
            };
            Some(f32::from(i16::from_le_bytes([low, high])) / 32_768.0)
        })
        .fuse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_may_be_cut_anywhere() {
        let bytes: Vec<u8> = [0, 16_384, -32_768, 32_767, -1].iter().flat_map(|s: &i16| s.to_le_bytes()).collect();
        let wanted: Vec<f32> = Pcm::default().samples(&bytes).collect();
        assert_eq!(wanted[..3], [0.0, 0.5, -1.0]);
        for size in 1..=bytes.len() {
            let mut pcm = Pcm::default();
            let got: Vec<f32> = bytes.chunks(size).flat_map(|c| pcm.samples(c).collect::<Vec<_>>()).collect();
            assert_eq!(got, wanted, "pieces of {size}");
        }
    }
}
