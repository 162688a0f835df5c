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

/// Where lasting silence leads.
pub struct Settled {
    pub ring: Ring,
    pub state: Vec<f32>,
    pub feature: Vec<f32>,
}

impl Settled {
    pub(super) fn of(network: &Network) -> Result<Self> {
        let (mut ring, mut state, mut feature) = (network.ring(), vec![0.0; network.sizes.state], Vec::new());
        for _ in 0..TOKENS / AT_ONCE {
            let mel = vec![Mel::SILENCE; (2 * AT_ONCE + REACH) * BINS];
            let (call, heard) = network.hear(Call { ring, mel, state });
            let heard = heard?;
            ring = call.ring;
            ring.write(&heard.fresh, AT_ONCE);
            state = heard.state;
            feature = heard.features[(AT_ONCE - 1) * network.sizes.features..].to_vec();
        }
        Ok(Self { ring, state, feature })
    }
}
