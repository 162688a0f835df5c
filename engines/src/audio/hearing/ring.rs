/// Tokens before a call that its tokens see: two seconds.
pub const PAST: usize = 100;
/// Added to the scores of an empty place, and to those of one that holds a token.
const CLOSED: f32 = -1e9;
const OPEN: f32 = 0.0;

/// Keys and values of the last [`PAST`] tokens of one stream. The place of a token is its position modulo [`PAST`]: positions are
/// part of what is kept, so the order of places says nothing.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    /// `[rows, PAST, depth]`, a row for the keys and one for the values of each head of each layer.
    pub past: Vec<f32>,
    /// Of the next token in Whisper's table of positions.
    pub position: usize,
    depth: usize,
}

impl Ring {
    pub fn new(rows: usize, depth: usize) -> Self {
        Self { past: vec![0.0; rows * PAST * depth], position: 0, depth }
    }

    /// Takes the keys and values of new tokens, `[rows, tokens, depth]`, in the places of the oldest.
    pub fn write(&mut self, fresh: &[f32], tokens: usize) {
        let Self { past, position, depth } = self;
        let rows = past.chunks_exact_mut(PAST * *depth).zip(fresh.chunks_exact(tokens * *depth));
        for (row, fresh) in rows {
            for (k, token) in fresh.chunks_exact(*depth).enumerate() {
                row[(*position + k) % PAST * *depth..][..*depth].copy_from_slice(token);
            }
        }
        *position += tokens;
    }

    /// Adds to `mask` what is added to the scores of new tokens, `[tokens, PAST + tokens]`: each sees the places that hold a
    /// token, itself, and those before it.
    pub fn mask(&self, tokens: usize, mask: &mut Vec<f32>) {
        for token in 0..tokens {
            let open = |is: bool| if is { OPEN } else { CLOSED };
            mask.extend((0..PAST).map(|place| open(place < self.position)));
            mask.extend((0..tokens).map(|other| open(other <= token)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_tokens_take_the_places_of_the_oldest() {
        let mut ring = Ring::new(2, 1);
        // Keys are positions, values their negatives.
        for start in (0..198).step_by(2) {
            let (a, b) = (start as f32, start as f32 + 1.0);
            ring.write(&[a, b, -a, -b], 2);
            let mut mask = Vec::new();
            ring.mask(2, &mut mask);
            let open = |row: &[f32]| row.iter().filter(|place| **place == OPEN).count();
            let known = PAST.min(start + 2);
            assert_eq!((open(&mask[..PAST + 2]), open(&mask[PAST + 2..])), (known + 1, known + 2));
        }
        let mut keys = ring.past[..PAST].to_vec();
        assert!(keys.iter().zip(&ring.past[PAST..]).all(|(key, value)| *value == -key));
        keys.sort_by(f32::total_cmp);
        assert_eq!(keys, (98..198).map(|position| position as f32).collect::<Vec<_>>());
    }
}
