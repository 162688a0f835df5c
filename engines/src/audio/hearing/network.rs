use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, OnceLock, Weak},
};

use parking_lot::Mutex;

use super::{
    super::{BINS, batches::Batches},
    ring::{PAST, Ring},
    settled::Settled,
};
use crate::{
    Error, Result,
    manifest::Package,
    runtime::{Device, Input, Model, Options, Port, Tensor, taken},
};

/// Mel frames that tokens take besides two for each: those that the convolutions reach over.
pub const REACH: usize = 3;

/// Sizes of a network, as its ports tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub layers: usize,
    pub width: usize,
    /// Numbers of a feature and of the recurrent state.
    pub features: usize,
    pub state: usize,
}

/// New tokens of one stream.
pub struct Call {
    pub ring: Ring,
    /// `[2 * tokens + 3, 80]`
    pub mel: Vec<f32>,
    /// `[state]`
    pub state: Vec<f32>,
}

impl Call {
    pub fn tokens(&self) -> usize {
        (self.mel.len() / BINS).saturating_sub(REACH) / 2
    }
}

/// What the network makes of a call.
pub struct Heard {
    /// `[tokens, features]`
    pub features: Vec<f32>,
    /// Keys and values, `[layers, 2, tokens, width]`.
    pub fresh: Vec<f32>,
    /// `[state]`
    pub state: Vec<f32>,
}

/// The network for all streams of a process, whose calls go together in [batches](Batches).
///
/// Inputs are `mel` f32 `[batch, 2 tokens + 3, 80]`, `past` f32 `[batch, layers, 2, 100, width]`, `mask` f32 `[batch, 100]`, `position`
/// i64 `[batch]` and `state` f32 `[batch, S]`; outputs `feature` f32 `[batch, tokens, F]`, `fresh` f32
/// `[batch, layers, 2, tokens, width]` and `next_state` f32 `[batch, S]`.
pub struct Network {
    pub sizes: Sizes,
    batches: Batches<Call, Heard>,
    settled: OnceLock<Arc<Settled>>,
}

/// Networks by the address of their model, which each of them keeps.
static NETWORKS: LazyLock<Mutex<HashMap<usize, Weak<Network>>>> = LazyLock::new(Default::default);

impl Network {
    /// The network `audio` of an engine, whose features have so many numbers.
    ///
    /// Errors: a file that is not such a network.
    pub fn load(package: &Package, options: &Options, features: usize) -> Result<Arc<Self>> {
        let mut options = *options;
        if options.threads == 0 {
            // A call is too short to be shared by threads; streams are.
            options.threads = 1;
        }
        let bytes = package.size_of("audio") as usize;
        if options.device == Device::Auto && taken(options.device, options.precision, bytes)? == Device::OpenVino {
            // It compiles a program for each number of streams and tokens.
            options.device = Device::Cpu;
        }
        Self::of(&package.network("audio", &options)?, features)
    }

    /// As [`load`](Self::load), of a model that is there.
    pub(super) fn of(model: &Arc<Model>, features: usize) -> Result<Arc<Self>> {
        let sizes = sizes(model, features)?;
        let mut networks = NETWORKS.lock();
        let address = Arc::as_ptr(model) as usize;
        if let Some(known) = networks.get(&address).and_then(Weak::upgrade) {
            return Ok(known);
        }
        networks.retain(|_, network| network.strong_count() > 0);
        let (lanes, name) = (model.at_a_time(), model.name().to_owned());
        // Programs for each number of streams would take long to build.
        let most = if model.device().wants_fixed_shapes() { 1 } else { MOST };
        let network = model.clone();
        let run = move |calls: &[Call]| run(&network, &sizes, calls);
        let batches = Batches::new(&name, lanes, Call::tokens, Box::new(run)).of_at_most(most);
        let network = Arc::new(Self { sizes, batches, settled: OnceLock::new() });
        networks.insert(address, Arc::downgrade(&network));
        Ok(network)
    }

    /// Where lasting silence leads, found once.
    pub fn settled(&self) -> Result<Arc<Settled>> {
        if let Some(settled) = self.settled.get() {
            return Ok(settled.clone());
        }
        let settled = Arc::new(Settled::of(self)?);
        Ok(self.settled.get_or_init(|| settled).clone())
    }

    /// The call comes back with what was heard.
    pub fn hear(&self, call: Call) -> (Call, Result<Heard>) {
        self.batches.ask(call)
    }

    pub fn ring(&self) -> Ring {
        Ring::new(self.sizes.layers, self.sizes.width)
    }
}

/// Most streams in one evaluation.
const MOST: usize = 16;

fn run(model: &Model, sizes: &Sizes, calls: &[Call]) -> Result<Vec<Heard>> {
    let Some(first) = calls.first() else { return Ok(Vec::new()) };
    let (batch, tokens) = (calls.len(), first.tokens());
    let positions: Vec<f32> = calls.iter().map(|call| call.ring.position as f32).collect();
    let (mel, past, mask, state);
    let [mel, past, mask, state]: [&[f32]; 4] = match calls {
        [one] => [&one.mel, &one.ring.past, &one.ring.mask, &one.state],
        _ => {
            let joined =
                |of: fn(&Call) -> &Vec<f32>| calls.iter().map(of).map(Vec::as_slice).collect::<Vec<_>>().concat();
            (mel, past) = (joined(|call| &call.mel), joined(|call| &call.ring.past));
            (mask, state) = (joined(|call| &call.ring.mask), joined(|call| &call.state));
            [&mel, &past, &mask, &state]
        }
    };
    let outputs = model.run(&[
        Input { name: "mel", shape: &[batch, 2 * tokens + REACH, BINS], data: mel },
        Input { name: "past", shape: &[batch, sizes.layers, 2, PAST, sizes.width], data: past },
        Input { name: "mask", shape: &[batch, PAST], data: mask },
        Input { name: "position", shape: &[batch], data: &positions },
        Input { name: "state", shape: &[batch, sizes.state], data: state },
    ])?;
    let wanted = [tokens * sizes.features, sizes.layers * 2 * tokens * sizes.width, sizes.state];
    let fits = |(tensor, wanted): (&Tensor, usize)| {
        tensor.data.len() == batch * wanted && tensor.data.iter().all(|v| v.is_finite())
    };
    let [feature, fresh, next] = match <[Tensor; 3]>::try_from(outputs) {
        Ok(outputs) if outputs.iter().zip(wanted).all(fits) => outputs,
        _ => {
            return Err(Error::Runtime {
                model: model.name().into(),
                cause: format!("gave not {wanted:?} finite numbers for each of {batch} streams with {tokens} tokens"),
            });
        }
    };
    let part = |tensor: &Tensor, i: usize| {
        let size = tensor.data.len() / batch;
        tensor.data[i * size..][..size].to_vec()
    };
    Ok((0..batch)
        .map(|i| Heard { features: part(&feature, i), fresh: part(&fresh, i), state: part(&next, i) })
        .collect())
}

/// Checks the ports of the model.
fn sizes(model: &Model, features: usize) -> Result<Sizes> {
    let signature = model.signature();
    let refuse = |what: &str, expected: &str, found: String| Error::Mismatch {
        model: model.name().into(),
        what: what.into(),
        expected: expected.into(),
        found,
    };
    let names = |ports: &[Port]| ports.iter().map(|port| port.name.clone()).collect::<Vec<_>>().join(", ");
    if names(&signature.outputs) != "feature, fresh, next_state" {
        return Err(refuse("outputs", "feature, fresh, next_state", names(&signature.outputs)));
    }
    let port = |name: &str| {
        let found = signature.inputs.iter().find(|port| port.name == name);
        found.ok_or_else(|| refuse("inputs", "mel, past, mask, position, state", names(&signature.inputs)))
    };
    let past = port("past")?;
    let [_, Some(layers @ 1..=64), Some(2), None | Some(PAST), Some(width @ 1..=4096)] = past.shape[..] else {
        return Err(refuse("input `past`", "[batch, layers, 2, 100, width]", past.describe()));
    };
    let state = port("state")?;
    let [_, Some(size @ 1..=65_536)] = state.shape[..] else {
        return Err(refuse("input `state`", "[batch, S]", state.describe()));
    };
    let found = &signature.outputs[0];
    if found.shape.len() != 3 || found.shape[2] != Some(features) {
        return Err(refuse("output `feature`", &format!("[batch, tokens, {features}]"), found.describe()));
    }
    for (name, rank) in [("mel", 3), ("mask", 2), ("position", 1)] {
        let port = port(name)?;
        if port.shape.len() != rank {
            return Err(refuse(&format!("input `{name}`"), &format!("{rank} dimensions"), port.describe()));
        }
    }
    Ok(Sizes { layers, width, features, state: size })
}
