use super::mel::{Column, peak};

/// The greatest value heard, which falls slowly: the causal stand-in for the maximum of the whole recording.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loudest(f32);

impl Default for Loudest {
    fn default() -> Self {
        Self(Self::START)
    }
}

impl Loudest {
    /// What the maximum is before anything was heard. In 26 recordings of 4 to 60 s, whose maxima were 0.6 to 2.2, the bins
    /// are then 0.006 from those by the maximum of the whole recording in the mean, of a range of 2; a start of 0 doubles
    /// that.
    pub const START: f32 = 1.5;
    /// What it falls by in a column: 1 dB a second. 5 dB a second double the same mean.
    const FALL: f32 = 0.001;
    /// What it does not fall below: in lasting silence the noise of a room would come up to the level of a voice.
    pub const LEAST: f32 = 0.0;

    /// Takes the next column.
    pub fn hear(&mut self, column: &Column) {
        self.0 = peak(column).max(self.0 - Self::FALL).max(Self::LEAST);
    }

    /// The maximum to normalise by.
    pub fn value(&self) -> f32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::{super::super::BINS, super::mel::NOTHING, *};

    #[test]
    fn the_maximum_is_that_of_the_past_and_falls_slowly() {
        let mut loudest = Loudest::default();
        let quiet = [NOTHING; BINS];
        loudest.hear(&[2.5; BINS]);
        assert_eq!(loudest.value(), 2.5);
        (0..1000).for_each(|_| loudest.hear(&quiet));
        assert!((loudest.value() - 1.5).abs() < 1e-3);
        (0..10_000).for_each(|_| loudest.hear(&quiet));
        assert_eq!(loudest.value(), Loudest::LEAST);
    }
}
