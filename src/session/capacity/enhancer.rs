//! What an enhancer takes: of a processor as often as it is evaluated, or of a card, and of its memory once for all sessions.

use std::time::Duration;

use lipstream_engines::enhance;

use super::{CONTENTION, CapacityMeter, Demand, measure};
use crate::session::Refusal;

/// The network that restores the faces of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enhancing {
    pub name: String,
    /// Frames of a face for one evaluation; as the device keeps up where nobody says.
    pub every: Option<usize>,
}

/// What an evaluation takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EnhancerPrice {
    /// Seconds of a processor, and of the clock.
    pub cpu: f64,
    pub wall: f64,
    /// The card that it runs on, by CUDA's number, and the bytes of it that the network takes.
    pub card: Option<(u32, u64)>,
}

impl CapacityMeter {
    /// Measures what an evaluation of an enhancer takes, on the first call.
    pub fn price_enhancer(&self, enhancer: &Enhancing, device: &str) -> Result<(), Refusal> {
        let name = &enhancer.name;
        if self.enhancers.lock().contains_key(name) {
            return Ok(());
        }
        let _measuring = self.measuring.lock();
        if self.enhancers.lock().contains_key(name) {
            return Ok(());
        }
        let beside = self.load.lock().own;
        let price = measure::enhancer(name, device, beside, &*self.gauge)
            .map_err(|error| Refusal::Invalid(format!("enhance: `{name}`: {error}")))?;
        let place = price.card.map_or_else(String::new, |(card, bytes)| {
            format!(" of cuda:{card}, whose memory it takes {} MB of", bytes / 1_000_000)
        });
        tracing::info!(
            "an evaluation of the enhancer `{name}` takes {:.0} ms{place}, {:.0} ms of a processor",
            price.wall * 1e3,
            price.cpu * 1e3
        );
        self.enhancers.lock().insert(name.clone(), EnhancerPrice { cpu: price.cpu * CONTENTION, ..price });
        Ok(())
    }

    /// The price of a session's enhancer, and its evaluations of a frame: of as many faces as it has mouths.
    pub(super) fn evaluations(&self, demand: &Demand) -> Option<(EnhancerPrice, f64)> {
        let enhancer = demand.enhancer.as_ref()?;
        let price = self.enhancers.lock().get(&enhancer.name).copied()?;
        let faces = demand.mouths.max(1) as f64;
        let frame = Duration::from_secs_f64(1.0 / demand.fps().max(1.0));
        let every = enhancer.every.unwrap_or_else(|| enhance::fitting(price.wall * faces, frame));
        Some((price, faces / every.max(1) as f64))
    }

    /// CPU seconds a frame that enhancing its faces takes.
    pub(super) fn enhancing(&self, demand: &Demand) -> f64 {
        self.evaluations(demand).map_or(0.0, |(price, count)| price.cpu * count)
    }

    /// Seconds of the time of a card that enhancing a session's faces takes a second.
    pub(super) fn enhancing_on(&self, card: u32, demand: &Demand) -> f64 {
        let of = self.evaluations(demand).filter(|(price, _)| price.card.is_some_and(|(own, _)| own == card));
        of.map_or(0.0, |(price, count)| price.wall * count * demand.fps())
    }
}
