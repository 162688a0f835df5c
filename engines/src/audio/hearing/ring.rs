/// Tokens before a call that its tokens see: two seconds.
pub const PAST: usize = 100;
/// Added to the scores of an empty place, and to those of one that holds a token.
const CLOSED: f32 = -1e9;
const OPEN: f32 = 0.0;

/// Keys and values of the last [`PAST`] tokens of one stream. The place of a token is its position modulo [`PAST`]: positions are
/// part of what is kept, so the order of places says nothing.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    /// `[layers, 2, PAST, width]`
    pub past: Vec<f32>,
    /// `[PAST]`, added to the scores.
    pub mask: Vec<f32>,
    /// Of the next token in Whisper's table of positions.
    pub position: usize,
    width: usize,
}

impl Ring {
    pub fn new(layers: usize, width: usize) -> Self {
        Self { past: vec![0.0; layers * 2 * PAST * width], mask: vec![CLOSED; PAST], position: 0, width }
    }

    /// Takes the keys and values of new tokens, `[layers, 2, tokens, width]`, in the places of the oldest.
    pub fn write(&mut self, fresh: &[f32], tokens: usize) {
        let Self { past, mask, position, width } = self;
        let rows = past.chunks_exact_mut(PAST * *width).zip(fresh.chunks_exact(tokens * *width));
        for (row, fresh) in rows {
            for (k, token) in fresh.chunks_exact(*width).enumerate() {
                row[(*position + k) % PAST * *width..][..*width].copy_from_slice(token);
            }
        }
        (*position..*position + tokens).for_each(|position| mask[position % PAST] = OPEN);
        *position += tokens;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_tokens_take_the_places_of_the_oldest() {
        let mut ring = Ring::new(1, 1);
        // Keys are positions, values their negatives.
        for start in (0..198).step_by(2) {
            let (a, b) = (start as f32, start as f32 + 1.0);
            ring.write(&[a, b, -a, -b], 2);
            let open = ring.mask.iter().filter(|place| **place == OPEN).count();
            assert_eq!(open, PAST.min(start + 2));
        }
        let mut keys = ring.past[..PAST].to_vec();
        assert!(keys.iter().zip(&ring.past[PAST..]).all(|(key, value)| *value == -key));
        keys.sort_by(f32::total_cmp);
        assert_eq!(keys, (98..198).map(|position| position as f32).collect::<Vec<_>>());
    }
}
