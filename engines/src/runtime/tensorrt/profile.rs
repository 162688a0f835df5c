//! Shapes that an engine takes.

use std::{fmt, ops::RangeInclusive, str::FromStr};

use serde::{Deserialize, Serialize};

use super::super::{Port, Signature};
use crate::{Error, Result};

/// Largest batch that can be asked for.
const MOST: usize = 256;

/// Sizes of a batch: the smallest, the one that an engine is tuned for, the largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Batch {
    min: usize,
    best: usize,
    max: usize,
}

impl Batch {
    pub fn range(&self) -> RangeInclusive<usize> {
        self.min..=self.max
    }
}

impl FromStr for Batch {
    type Err = Error;

    /// `MIN..MAX`, tuned for the largest, or `MIN..BEST..MAX`.
    fn from_str(text: &str) -> Result<Self> {
        let numbers: Option<Vec<usize>> = text.split("..").map(|n| n.trim().parse().ok()).collect();
        let batch = match numbers.as_deref() {
            Some([min, max]) => Some(Self { min: *min, best: *max, max: *max }),
            Some([min, best, max]) => Some(Self { min: *min, best: *best, max: *max }),
            _ => None,
        };
        let ascends = |b: &Self| 1 <= b.min && b.min <= b.best && b.best <= b.max && b.max <= MOST;
        batch.filter(ascends).ok_or_else(|| {
            Error::invalid(format!(
                "batches `{text}` are not MIN..MAX or MIN..BEST..MAX, ascending from 1 to at most {MOST}"
            ))
        })
    }
}

/// Of each input of a network, in its order, the smallest, the best and the largest shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    inputs: Vec<Shapes>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Shapes {
    name: String,
    min: Vec<usize>,
    best: Vec<usize>,
    max: Vec<usize>,
    /// Dimensions that are free in the graph and have no name, so that a session cannot fix them.
    nameless: bool,
}

impl Profile {
    /// That of inputs of `shapes`; in the place of a batch that is one of `batch`, all of these.
    pub fn new(signature: &Signature, shapes: &[Vec<usize>], batch: Option<Batch>) -> Self {
        let first = signature.inputs.first().filter(|port| port.shape.first() == Some(&None));
        let symbol = first.and_then(|port| port.symbols.first()).cloned().unwrap_or_default();
        let rows = shapes.first().and_then(|shape| shape.first()).copied();
        let batch = batch.filter(|b| first.is_some() && rows.is_some_and(|rows| b.range().contains(&rows)));
        let sized = |port: &Port, shape: &[usize], size: fn(&Batch) -> usize| {
            let dim = |(i, n): (usize, &usize)| {
                let own = port.symbols.get(i).is_some_and(|s| *s == symbol) && port.shape.get(i) == Some(&None);
                let same = if symbol.is_empty() { own && i == 0 } else { own };
                batch.as_ref().filter(|_| same).map_or(*n, size)
            };
            shape.iter().enumerate().map(dim).collect::<Vec<_>>()
        };
        let of = |(port, shape): (&Port, &Vec<usize>)| Shapes {
            name: port.name.clone(),
            min: sized(port, shape, |b| b.min),
            best: sized(port, shape, |b| b.best),
            max: sized(port, shape, |b| b.max),
            nameless: port
                .shape
                .iter()
                .enumerate()
                .any(|(i, d)| d.is_none() && port.symbols.get(i).is_none_or(String::is_empty)),
        };
        Self { inputs: signature.inputs.iter().zip(shapes).map(of).collect() }
    }

    /// Whether it takes inputs of these shapes.
    pub fn covers(&self, shapes: &[Vec<usize>]) -> bool {
        let within = |(own, shape): (&Shapes, &Vec<usize>)| {
            own.min.len() == shape.len()
                && own.max.len() == shape.len()
                && shape.iter().zip(own.min.iter().zip(&own.max)).all(|(n, (min, max))| min <= n && n <= max)
        };
        self.inputs.len() == shapes.len() && self.inputs.iter().zip(shapes).all(within)
    }

    /// Whether it takes one shape alone.
    pub fn is_fixed(&self) -> bool {
        self.inputs.iter().all(|input| input.min == input.max)
    }

    /// Whether it takes batches of so many rows.
    pub fn takes(&self, rows: usize) -> bool {
        self.batches().contains(&rows)
    }

    pub fn batches(&self) -> RangeInclusive<usize> {
        let of = |shape: fn(&Shapes) -> &Vec<usize>| self.inputs.first().and_then(|i| shape(i).first()).copied();
        of(|i| &i.min).unwrap_or(1)..=of(|i| &i.max).unwrap_or(1)
    }

    /// The dimensions of `signature` that have a name and one size.
    pub(in super::super) fn fixed(&self, signature: &Signature) -> Vec<(String, i64)> {
        let mut fixed: Vec<(String, i64)> = Vec::new();
        for (port, own) in signature.inputs.iter().zip(&self.inputs) {
            for (symbol, (min, max)) in port.symbols.iter().zip(own.min.iter().zip(&own.max)) {
                if min == max && !symbol.is_empty() && !fixed.iter().any(|(known, _)| known == symbol) {
                    fixed.push((symbol.clone(), *min as i64));
                }
            }
        }
        fixed
    }

    /// The shapes as the provider's options have them, smallest, best and largest: `name:1x3x96x96,…`. `None` where the session
    /// fixes all dimensions.
    pub(in super::super) fn explicit(&self) -> Option<[String; 3]> {
        if self.is_fixed() && !self.inputs.iter().any(|input| input.nameless) {
            return None;
        }
        let text = |shape: fn(&Shapes) -> &Vec<usize>| {
            let one = |input: &Shapes| {
                let dims: Vec<String> = shape(input).iter().map(usize::to_string).collect();
                format!("{}:{}", input.name, dims.join("x"))
            };
            // A scalar has no shape to give.
            let inputs = self.inputs.iter().filter(|input| !input.min.is_empty());
            inputs.map(one).collect::<Vec<_>>().join(",")
        };
        Some([text(|i| &i.min), text(|i| &i.best), text(|i| &i.max)])
    }

    /// Shapes that no other profile has, for a shelf of programs.
    pub(in super::super) fn key(&self) -> Vec<Vec<usize>> {
        let mut key: Vec<Vec<usize>> = self.inputs.iter().map(|input| input.min.clone()).collect();
        if !self.is_fixed() {
            key.extend(self.inputs.iter().map(|input| input.max.clone()));
        }
        key
    }
}

/// `batch 4`, or `batches 1 to 8`.
impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (min, max) = self.batches().into_inner();
        if min == max { write!(f, "batch {min}") } else { write!(f, "batches {min} to {max}") }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::super::Dtype, *};

    fn port(name: &str, shape: &[Option<usize>], symbols: &[&str]) -> Port {
        Port {
            name: name.into(),
            shape: shape.to_vec(),
            dtype: Dtype::F32,
            symbols: symbols.iter().map(|s| (*s).into()).collect(),
        }
    }

    fn signature() -> Signature {
        let face = port("face", &[None, Some(6), None], &["batch", "", "width"]);
        Signature { inputs: vec![face, port("audio", &[None, Some(80)], &["batch", ""])], outputs: Vec::new() }
    }

    fn shapes(rows: usize) -> Vec<Vec<usize>> {
        vec![vec![rows, 6, 96], vec![rows, 80]]
    }

    #[test]
    fn batches_are_read_and_what_does_not_ascend_is_refused() {
        assert_eq!("1..8".parse::<Batch>().unwrap(), Batch { min: 1, best: 8, max: 8 });
        assert_eq!("1..4..8".parse::<Batch>().unwrap(), Batch { min: 1, best: 4, max: 8 });
        for text in ["", "4", "0..8", "8..1", "1..9..8", "1..1000", "1..2..3..4", "a..b"] {
            let error = text.parse::<Batch>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")) && error.contains("MIN..BEST..MAX"), "{error}");
        }
    }

    #[test]
    fn one_shape_is_fixed_by_the_session_and_a_range_is_told_to_the_provider() {
        let one = Profile::new(&signature(), &shapes(4), None);
        assert!(one.is_fixed() && one.covers(&shapes(4)) && !one.covers(&shapes(2)));
        assert_eq!(one.fixed(&signature()), [("batch".into(), 4), ("width".into(), 96)]);
        assert_eq!(one.explicit(), None);
        assert_eq!(one.to_string(), "batch 4");

        let many = Profile::new(&signature(), &shapes(4), Some("1..4..8".parse().unwrap()));
        assert!(!many.is_fixed() && many.covers(&shapes(1)) && many.covers(&shapes(8)) && !many.covers(&shapes(9)));
        assert_eq!(many.fixed(&signature()), [("width".into(), 96)], "the batch stays open");
        let told = ["face:1x6x96,audio:1x80", "face:4x6x96,audio:4x80", "face:8x6x96,audio:8x80"];
        assert_eq!(many.explicit().unwrap(), told);
        assert_eq!(many.to_string(), "batches 1 to 8");
        assert_ne!(many.key(), Profile::new(&signature(), &shapes(1), None).key());

        let beyond = Profile::new(&signature(), &shapes(16), Some("1..8".parse().unwrap()));
        assert!(beyond.is_fixed(), "a batch outside the range has an engine of its own");
    }

    #[test]
    fn dimensions_without_a_name_are_told_to_the_provider() {
        let signature = Signature { inputs: vec![port("x", &[None, None], &["", ""])], outputs: Vec::new() };
        let profile = Profile::new(&signature, &[vec![2, 5]], None);
        assert_eq!(profile.fixed(&signature), []);
        assert_eq!(profile.explicit().unwrap(), ["x:2x5", "x:2x5", "x:2x5"]);
    }
}
