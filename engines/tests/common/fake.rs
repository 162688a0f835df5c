//! An engine of stages that a test gives, for the tests of all three crates.

use std::{sync::Arc, time::Duration};

use lipstream_engines::{
    Error, Result,
    audio::{Pick, Tail, WindowSpec},
    bank::ReferenceBank,
    engine::{Actor, Clip, Engine, Identity, Sampling, Spec, Stage},
    manifest::{Family, Package},
};

pub struct Fake {
    pub spec: Spec,
    pub stages: Vec<Box<dyn Stage>>,
    /// What begins a stream; `None` where none is begun.
    pub actor: Option<fn() -> Box<dyn Actor>>,
}

impl Engine for Fake {
    fn spec(&self) -> &Spec {
        &self.spec
    }
    fn stages(&self) -> &[Box<dyn Stage>] {
        &self.stages
    }
    fn lanes(&self) -> usize {
        1
    }
    fn prepare(&self, _: &ReferenceBank) -> Result<Identity> {
        Ok(Arc::new(()))
    }
    fn actor(self: Arc<Self>, _: u64, _: &Sampling) -> Result<Box<dyn Actor>> {
        self.actor.map(|actor| actor()).ok_or_else(|| Error::invalid("has no actors"))
    }
}

/// An engine `fake` that denoises in one step, a frame at a time, and hears one number each 20 ms.
pub fn spec() -> Spec {
    Spec {
        name: "fake".into(),
        family: Family::Compact,
        front_end: "none".into(),
        window: WindowSpec {
            hop: Duration::from_millis(20),
            overhang: Duration::ZERO,
            taps: vec![0],
            look_ahead: Duration::ZERO,
            dims: 1,
            silence: vec![0.0].into(),
            pick: Pick::Between,
            tail: Tail::Silence,
        },
        steps: Some(1),
        passes: 1,
        references: false,
        exact: false,
        rates: None,
        later: 0,
        clip: Clip::SINGLE,
        crop: 256,
        alignment: Package::find("compact").unwrap().manifest().geometry.alignment.clone(),
        gflop: 0.0,
    }
}
