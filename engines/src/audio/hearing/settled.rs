use super::{
    super::BINS,
    mel::Mel,
    network::{Call, Network, REACH},
    ring::Ring,
};
use crate::Result;

/// Tokens of silence after which nothing changes any more: two seconds of memory, and as much again for the recurrent state.
const TOKENS: usize = 250;
/// Tokens of a call.
const AT_ONCE: usize = 25;

/// Tokens of silence that a stream begins with: 500 ms. The network learnt from sound in the midst of a stream, and hears the first
/// syllables worse with no memory at all.
pub const BEGUN: usize = AT_ONCE;

/// Where silence leads.
pub struct Settled {
    /// After [`BEGUN`] tokens,
    pub begun: (Ring, Vec<f32>),
    /// and where it lasts.
    pub ring: Ring,
    pub state: Vec<f32>,
    pub feature: Vec<f32>,
}

impl Settled {
    pub(super) fn of(network: &Network) -> Result<Self> {
        let (mut ring, mut state, mut feature) = (network.ring(), vec![0.0; network.sizes.state], Vec::new());
        let mut begun = (network.ring(), state.clone());
        for calls in 1..=TOKENS / AT_ONCE {
            let mel = vec![Mel::SILENCE; (2 * AT_ONCE + REACH) * BINS];
            let (call, heard) = network.hear(Call { ring, mel, state });
            let heard = heard?;
            ring = call.ring;
            ring.write(&heard.fresh, AT_ONCE);
            state = heard.state;
            feature = heard.features[(AT_ONCE - 1) * network.sizes.features..].to_vec();
            if calls * AT_ONCE == BEGUN {
                begun = (ring.clone(), state.clone());
            }
        }
        Ok(Self { begun, ring, state, feature })
    }
}
