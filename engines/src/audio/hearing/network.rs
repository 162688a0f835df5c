use std::sync::{Arc, OnceLock};

use super::{
    super::BINS,
    ring::{PAST, Ring},
    settled::Settled,
};
use crate::{
    Error, Result,
    manifest::Package,
    runtime::{Batches, Device, Input, Model, Options, PerModel, Port, Tensor, taken},
};

/// Mel frames that tokens take besides two for each: those that the convolutions reach over.
pub const REACH: usize = 3;

/// Sizes of a network, as its ports tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Inputs of keys and values of the tokens before: a layer's, the next layer's.
    past: Vec<String>,
    pub heads: usize,
    /// Numbers of a head's key or value.
    pub depth: usize,
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
    /// Keys and values, `[layers, 2, heads, tokens, depth]`.
    pub fresh: Vec<f32>,
    /// `[state]`
    pub state: Vec<f32>,
}

/// The network for all streams of a process, whose calls go together in [batches](Batches).
///
/// Inputs are f32: `mel` `[batch, 2 tokens + 3, 80]`, `key.0`, `value.0`, `key.1` and so on, `[batch, heads, 100, depth]`, `mask`
/// `[batch, tokens, 100 + tokens]`, `position` `[batch, tokens]` and `state` `[batch, S]`; outputs `feature` `[batch, tokens, F]`,
/// `fresh` `[batch, layers * 2 * heads, tokens, depth]` and `next_state` `[batch, S]`.
pub struct Network {
    pub sizes: Sizes,
    batches: Batches<Call, Heard>,
    settled: OnceLock<Arc<Settled>>,
}

static NETWORKS: PerModel<Network> = PerModel::new();

impl Network {
    /// The network `audio` of an engine, whose features have so many numbers.
    ///
    /// Errors: a file that is not such a network.
    pub fn load(package: &Package, options: &Options, features: usize) -> Result<Arc<Self>> {
        Self::of(&package.network("audio", &options_of(package, options)?)?, features)
    }

    /// As [`load`](Self::load), of a model that is there.
    pub(super) fn of(model: &Arc<Model>, features: usize) -> Result<Arc<Self>> {
        let sizes = sizes(model, features)?;
        Ok(NETWORKS.of(model, || {
            let (lanes, name) = (model.at_a_time(), model.name().to_owned());
            // Programs for each number of streams would take long to build.
            let most = if model.device().wants_fixed_shapes() { 1 } else { MOST };
            let (network, known) = (model.clone(), sizes.clone());
            let run = move |calls: &[Call]| run(&network, &known, calls);
            let batches = Batches::new(&name, lanes, Call::tokens, Box::new(run)).of_at_most(most);
            Self { sizes, batches, settled: OnceLock::new() }
        }))
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
        Ring::new(self.sizes.past.len() * self.sizes.heads, self.sizes.depth)
    }
}

/// How the network `audio` of an engine runs.
pub(super) fn options_of(package: &Package, options: &Options) -> Result<Options> {
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
    Ok(options)
}

/// Most streams in one evaluation.
const MOST: usize = 16;

fn run(model: &Model, sizes: &Sizes, calls: &[Call]) -> Result<Vec<Heard>> {
    let Some(first) = calls.first() else { return Ok(Vec::new()) };
    let (batch, tokens) = (calls.len(), first.tokens());
    let places = calls.iter().flat_map(|call| call.ring.position..call.ring.position + tokens);
    let positions: Vec<f32> = places.map(|position| position as f32).collect();
    let mut mask = Vec::with_capacity(batch * tokens * (PAST + tokens));
    calls.iter().for_each(|call| call.ring.mask(tokens, &mut mask));
    // Of one stream all is lent.
    let joined = |of: &dyn Fn(&Call) -> &[f32]| match calls {
        [_] => Vec::new(),
        _ => calls.iter().map(of).collect::<Vec<_>>().concat(),
    };
    let size = sizes.heads * PAST * sizes.depth;
    let mel = joined(&|call| &call.mel);
    let state = joined(&|call| &call.state);
    let past: Vec<Vec<f32>> =
        (0..sizes.past.len()).map(|k| joined(&|call| &call.ring.past[k * size..][..size])).collect();
    let (mel, state) = if batch == 1 { (&first.mel, &first.state) } else { (&mel, &state) };
    let shapes: [&[usize]; 5] = [
        &[batch, 2 * tokens + REACH, BINS],
        &[batch, tokens, PAST + tokens],
        &[batch, tokens],
        &[batch, sizes.state],
        &[batch, sizes.heads, PAST, sizes.depth],
    ];
    let mut inputs = vec![
        Input { name: "mel", shape: shapes[0], data: mel },
        Input { name: "mask", shape: shapes[1], data: &mask },
        Input { name: "position", shape: shapes[2], data: &positions },
        Input { name: "state", shape: shapes[3], data: state },
    ];
    inputs.extend(
        sizes.past.iter().zip(&past).zip(first.ring.past.chunks_exact(size)).map(|((name, joined), own)| Input {
            name,
            shape: shapes[4],
            data: if batch == 1 { own } else { joined },
        }),
    );
    let outputs = model.run(&inputs)?;
    let fresh = sizes.past.len() * sizes.heads * tokens * sizes.depth;
    let wanted = [tokens * sizes.features, fresh, sizes.state];
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
        found
            .ok_or_else(|| refuse("inputs", "mel, key.0, value.0, .., mask, position, state", names(&signature.inputs)))
    };
    let past = port("key.0")?;
    let [_, Some(heads @ 1..=64), None | Some(PAST), Some(depth @ 1..=4096)] = past.shape[..] else {
        return Err(refuse("input `key.0`", "[batch, heads, 100, depth]", past.describe()));
    };
    let layers = signature.inputs.iter().filter(|port| port.name.starts_with("key.")).count();
    if layers > 64 {
        return Err(refuse("inputs", "keys of at most 64 layers", layers.to_string()));
    }
    let kept: Vec<String> = (0..layers).flat_map(|k| [format!("key.{k}"), format!("value.{k}")]).collect();
    for name in &kept {
        let one = port(name)?;
        if one.shape != past.shape {
            return Err(refuse(&format!("input `{name}`"), &past.describe(), one.describe()));
        }
    }
    let state = port("state")?;
    let [_, Some(size @ 1..=65_536)] = state.shape[..] else {
        return Err(refuse("input `state`", "[batch, S]", state.describe()));
    };
    let found = &signature.outputs[0];
    if found.shape.len() != 3 || found.shape[2] != Some(features) {
        return Err(refuse("output `feature`", &format!("[batch, tokens, {features}]"), found.describe()));
    }
    for (name, rank) in [("mel", 3), ("mask", 3), ("position", 2)] {
        let port = port(name)?;
        if port.shape.len() != rank {
            return Err(refuse(&format!("input `{name}`"), &format!("{rank} dimensions"), port.describe()));
        }
    }
    Ok(Sizes { past: kept, heads, depth, features, state: size })
}
