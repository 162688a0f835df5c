//! Metrics of NVIDIA's cards, as the driver says them at the moment of the question.

use lipstream_engines::runtime::cards::{self, Card};
use prometheus::proto::{MetricFamily, MetricType};

use super::collect::{family, metric};

/// A metric of a card: name, help and how it is read.
type Reading = (&'static str, &'static str, fn(&Card) -> Option<f64>);

const READINGS: [Reading; 5] = [
    ("lipstream_gpu_memory_bytes", "Memory of the card", |c| Some(c.memory as f64)),
    ("lipstream_gpu_memory_used_bytes", "Memory that all programs have taken", |c| Some(c.memory_used as f64)),
    ("lipstream_gpu_utilisation_ratio", "Part of the last moments in which a kernel ran", |c| c.busy),
    ("lipstream_gpu_power_watts", "Power that the card draws", |c| c.power),
    ("lipstream_gpu_temperature_celsius", "Temperature of the chip", |c| c.temperature),
];

/// Nothing where no driver is.
pub fn families() -> Vec<MetricFamily> {
    let cards = cards::cards().map(|found| found.cards).unwrap_or_default();
    let family_of = |(name, help, read): &Reading| {
        let of = |card: &Card| {
            let number = card.number.to_string();
            Some(metric(MetricType::GAUGE, &[("gpu", &number), ("name", &card.name)], read(card)?))
        };
        family(name, help, MetricType::GAUGE, cards.iter().filter_map(of).collect())
    };
    READINGS.iter().map(family_of).collect()
}
