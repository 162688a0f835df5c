use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, OnceLock, Weak},
    time::Instant,
};

use ort::{
    session::{Session, SessionInputValue},
    value::TensorRef,
};
use parking_lot::Mutex;

use super::{
    Device, Options, Precision, Source,
    pool::{Pool, Shapes},
    provider,
    session::{self, build},
    signature,
    tensorrt::{self, Platform, Profile, Program, Store},
};
use crate::{Error, Result, digest::sha256};

/// Element type of a model's port. The caller's numbers are f32; what goes in is rounded to the port's type, and what comes
/// out is widened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    F64,
    F32,
    F16,
    I64,
    I32,
    U8,
    /// One that cannot be fed.
    Other(&'static str),
}

/// An input or an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    pub name: String,
    /// `None` for a dimension that the caller chooses.
    pub shape: Vec<Option<usize>>,
    pub dtype: Dtype,
    /// Names of the dimensions that have one.
    pub(super) symbols: Vec<String>,
}

impl Port {
    pub(super) fn fits(&self, shape: &[usize]) -> bool {
        self.shape.len() == shape.len() && self.shape.iter().zip(shape).all(|(want, is)| want.is_none_or(|w| w == *is))
    }

    /// The shape for one item where at most the first dimension is free.
    fn at_batch_1(&self) -> Option<Vec<usize>> {
        self.shape.iter().enumerate().map(|(i, d)| d.or((i == 0).then_some(1))).collect()
    }

    /// The shape in words: `[batch, 3, ?, ?]`.
    pub fn describe(&self) -> String {
        let dims = self.shape.iter().enumerate().map(|(i, d)| match d {
            Some(d) => d.to_string(),
            None => self.symbols.get(i).filter(|s| !s.is_empty()).cloned().unwrap_or_else(|| "?".into()),
        });
        format!("[{}]", dims.collect::<Vec<_>>().join(", "))
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signature {
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
}

/// A named input of a run.
pub struct Input<'a> {
    pub name: &'a str,
    pub shape: &'a [usize],
    pub data: &'a [f32],
}

#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub data: Vec<f32>,
}

/// Most numbers of an input that is made up to try a network.
const LARGEST_EXAMPLE: usize = 1 << 26;

/// A model on a device. [`Model::run`] may be called from any thread: on the CPU as many at a time as it has cores, eight
/// at most, on other devices in turns.
pub struct Model {
    name: String,
    source: Source,
    options: Options,
    signature: Signature,
    /// Whether it makes a program for each shape of its inputs.
    by_shape: bool,
    /// Engines of TensorRT, which alone are run there.
    store: Option<Store>,
    /// Compiled programs by the shapes of their inputs, or by none where any shape will do.
    sessions: Pool<Session>,
}

impl Model {
    /// Reads and loads an ONNX file.
    pub fn open(path: &Path, options: &Options) -> Result<Arc<Self>> {
        Self::load(&path.display().to_string(), Source::File(path.into()), options)
    }

    /// Loads an ONNX model. `auto` moves on to the next device when one refuses this model; a named device that
    /// refuses is an error. `name` is what errors call it.
    pub fn load(name: &str, source: impl Into<Source>, options: &Options) -> Result<Arc<Self>> {
        Self::load_of(name, &Origin { engine: name, digest: "" }, source.into(), options)
    }

    fn load_of(name: &str, origin: &Origin, source: Source, options: &Options) -> Result<Arc<Self>> {
        let graph = source.graph()?;
        let mut options =
            Options { device: provider::taken(options.device, options.precision, source.size())?, ..*options };
        if options.threads == 0 {
            options.threads = provider::threads(source.size());
        }
        let mut plain = None;
        let signature = match signature::of(&graph) {
            Some(signature) => signature,
            // What the graph does not say, and whether it is one at all, the CPU provider tells: it always works.
            None => {
                let on_cpu = Options { device: Device::Cpu, threads: 1, ..Options::default() };
                let session = plain.insert(build(name, &source, &on_cpu, &[], None)?);
                Signature {
                    inputs: session.inputs().iter().map(signature::of_outlet).collect(),
                    outputs: session.outputs().iter().map(signature::of_outlet).collect(),
                }
            }
        };
        let by_shape = options.by_shape(signature::convolves(&graph));
        let store = store(name, origin, (&source, &graph), &options)?;
        drop(graph);
        for port in signature.inputs.iter().chain(&signature.outputs) {
            if let Dtype::Other(found) = port.dtype {
                return Err(Error::Mismatch {
                    model: name.into(),
                    what: format!("`{}`", port.name),
                    expected: "f32, f16, i64, i32 or u8".into(),
                    found: found.into(),
                });
            }
        }
        provider::precision(options.device, options.precision)?;
        let sessions = Pool::new(provider::at_a_time(&options));
        if let Some(store) = &store {
            if options.build.is_none() && store.is_empty() {
                return Err(store.missing(None));
            }
        } else if !by_shape {
            let session = match plain.filter(|_| options.device == Device::Cpu && options.threads <= 1) {
                Some(plain) => plain,
                None => build(name, &source, &options, &[], None)?,
            };
            sessions.add(Shapes::new(), session);
        } else if let Some(shapes) = signature.inputs.iter().map(Port::at_batch_1).collect::<Option<Vec<_>>>() {
            // Compiled now, so that the first frame does not wait for it.
            let fixed = dimensions(&signature, &shapes);
            sessions.add(shapes, build(name, &source, &options, &fixed, None)?);
        } else {
            // Its programs are built when their shapes are known; that the device works at all must be known now.
            provider::probe(&options)?;
        }
        Ok(Arc::new(Self { name: name.into(), source, options, signature, by_shape, store, sessions }))
    }

    /// As [`Model::load`], but networks with the same `hash` under equal options are loaded once a process, for as long as
    /// somebody holds them.
    pub fn shared(
        name: &str,
        hash: &str,
        origin: &Origin,
        source: impl Into<Source>,
        options: &Options,
    ) -> Result<Arc<Self>> {
        type Loaded = HashMap<(String, Options), Weak<Model>>;
        static LOADED: OnceLock<Mutex<Loaded>> = OnceLock::new();
        let key = (hash.to_owned(), *options);
        // Held while loading: two elements that start together must not load the model twice.
        let mut loaded = LOADED.get_or_init(Default::default).lock();
        if let Some(model) = loaded.get(&key).and_then(Weak::upgrade) {
            return Ok(model);
        }
        loaded.retain(|_, model| model.strong_count() > 0);
        let model = Self::load_of(name, origin, source.into(), options)?;
        loaded.insert(key, Arc::downgrade(&model));
        Ok(model)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The device that it runs on, never `auto`.
    pub fn device(&self) -> Device {
        self.options.device
    }

    /// Whether it makes a program for each shape of its inputs.
    pub(crate) fn by_shape(&self) -> bool {
        self.by_shape
    }

    /// Whether it runs batches of so many rows: with TensorRT those that engines were built for.
    pub fn takes(&self, rows: usize) -> bool {
        self.options.build.is_some() || self.store.as_ref().is_none_or(|store| store.takes(rows))
    }

    /// Those of `sizes` that it [takes](Self::takes), or all where it takes none, which an error then says when it runs.
    pub(crate) fn taken_of(&self, sizes: Vec<usize>) -> Vec<usize> {
        let taken: Vec<usize> = sizes.iter().copied().filter(|rows| self.takes(*rows)).collect();
        if taken.is_empty() { sizes } else { taken }
    }

    /// Whether it runs programs that were built before, and no others.
    pub(crate) fn is_built(&self) -> bool {
        self.store.is_some() && self.options.build.is_none()
    }

    /// Whether its runs are replayed: then inputs and outputs of a shape must lie where those of its first run did.
    pub(crate) fn replays(&self) -> bool {
        self.options.tuning.graphs
    }

    /// Programs that it has compiled and keeps, idle ones: one for all shapes, or one for each that it was run with.
    pub fn programs(&self) -> usize {
        self.sessions.idle()
    }

    /// Runs that the device takes at a time.
    pub fn at_a_time(&self) -> usize {
        provider::at_a_time(&self.options)
    }

    /// An error unless there is the input `name` of `shape` after the batch.
    pub fn expect_input(&self, name: &str, shape: &[usize]) -> Result<()> {
        expect(&self.name, &self.signature.inputs, name, shape)
    }

    /// As [`expect_input`](Self::expect_input), of an output.
    pub fn expect_output(&self, name: &str, shape: &[usize]) -> Result<()> {
        expect(&self.name, &self.signature.outputs, name, shape)
    }

    /// Inputs of the smallest shapes that it takes, `size` of the name of every dimension that the caller chooses, filled by
    /// `fill`. An error where one has more numbers than a network of frames or sound has.
    pub fn example(
        &self,
        size: impl Fn(&str) -> usize,
        mut fill: impl FnMut() -> f32,
    ) -> Result<Vec<(String, Tensor)>> {
        let mut input = |port: &Port| {
            let symbols = port.symbols.iter().map(String::as_str).chain(std::iter::repeat(""));
            let shape: Vec<usize> =
                port.shape.iter().zip(symbols).map(|(d, name)| d.unwrap_or_else(|| size(name))).collect();
            let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= LARGEST_EXAMPLE);
            let count = count.ok_or_else(|| Error::Mismatch {
                model: self.name.clone(),
                what: format!("input `{}`", port.name),
                expected: format!("at most {LARGEST_EXAMPLE} numbers"),
                found: port.describe(),
            })?;
            Ok((port.name.clone(), Tensor { shape, data: (0..count).map(|_| fill()).collect() }))
        };
        self.signature.inputs.iter().map(&mut input).collect()
    }

    /// Runs the model once. `inputs` in any order; all outputs come back in the model's order.
    ///
    /// Errors: what does not fit the ports, a model whose runs are replayed, what the runtime says.
    pub fn run(&self, inputs: &[Input]) -> Result<Vec<Tensor>> {
        if self.replays() {
            return Err(Error::invalid(format!(
                "{}: a CUDA graph reads and writes the memory of its card alone; leave graphs=0",
                self.name
            )));
        }
        let shapes = self.check(inputs)?;
        let key = if self.by_shape { shapes } else { Shapes::new() };
        self.with_session(key, |session| self.infer(session, inputs))
    }

    /// Lets `run` use a program for inputs of these shapes; of none where any will do.
    pub(super) fn with_session<R>(&self, key: Shapes, run: impl FnOnce(&mut Session) -> Result<R>) -> Result<R> {
        if let Some(store) = &self.store {
            let program = match (store.find(&key), self.options.build) {
                (Some(program), _) => program,
                (None, Some(asked)) => self.built(store, Profile::new(&self.signature, &key, asked.batch))?,
                (None, None) => return Err(store.missing(key.first().and_then(|shape| shape.first()).copied())),
            };
            return self.sessions.with(program.profile.key(), |_| self.session_of(&program), run);
        }
        let make =
            |key: &Shapes| build(&self.name, &self.source, &self.options, &dimensions(&self.signature, key), None);
        self.sessions.with(key, make, run)
    }

    fn session_of(&self, program: &Program) -> Result<Session> {
        let fixed = program.profile.fixed(&self.signature);
        build(&self.name, &self.source, &self.options, &fixed, Some(program))
    }

    /// Builds an engine, which takes seconds to many minutes.
    fn built(&self, store: &Store, profile: Profile) -> Result<Arc<Program>> {
        let (begun, draft) = (Instant::now(), store.begin(profile)?);
        let session = self.session_of(draft.program())?;
        let program = draft.finish(begun.elapsed().as_secs_f64())?;
        self.sessions.add(program.profile.key(), session);
        Ok(program)
    }

    fn infer(&self, session: &mut Session, inputs: &[Input]) -> Result<Vec<Tensor>> {
        let failed = |e: &dyn std::fmt::Display| session::failed(&self.name, e);
        let mut values: Vec<(&str, SessionInputValue)> = Vec::with_capacity(inputs.len());
        for i in inputs {
            let dtype =
                self.signature.inputs.iter().find(|port| port.name == i.name).map_or(Dtype::F32, |port| port.dtype);
            values.push((i.name, fed(dtype, i).map_err(|e| failed(&e))?));
        }
        let outputs = session.run(values).map_err(|e| failed(&e))?;
        let mut tensors = Vec::with_capacity(self.signature.outputs.len());
        for port in &self.signature.outputs {
            tensors.push(given(port.dtype, &outputs[port.name.as_str()]).map_err(|e| failed(&e))?);
        }
        Ok(tensors)
    }

    /// The inputs' shapes in the model's order, once they have been found to fit.
    fn check(&self, inputs: &[Input]) -> Result<Vec<Vec<usize>>> {
        if inputs.len() != self.signature.inputs.len() {
            return Err(Error::Mismatch {
                model: self.name.clone(),
                what: "inputs".into(),
                expected: self.signature.inputs.len().to_string(),
                found: inputs.len().to_string(),
            });
        }
        self.signature
            .inputs
            .iter()
            .map(|port| {
                let given = inputs.iter().find(|i| i.name == port.name);
                match given {
                    Some(i) if port.fits(i.shape) && i.shape.iter().product::<usize>() == i.data.len() => {
                        Ok(i.shape.to_vec())
                    }
                    _ => Err(Error::Mismatch {
                        model: self.name.clone(),
                        what: format!("input `{}`", port.name),
                        expected: port.describe(),
                        found: given.map_or("nothing".into(), |i| format!("{:?} ({} numbers)", i.shape, i.data.len())),
                    }),
                }
            })
            .collect()
    }
}

#[cfg(test)]
impl Model {
    /// One that stands in for a network whose engines were built for these batches: it runs on the device of `options`, and as with
    /// TensorRT in no other batches.
    pub(crate) fn as_built(
        name: &str,
        bytes: Vec<u8>,
        options: &Options,
        folder: &Path,
        batches: &[usize],
    ) -> Result<Arc<Self>> {
        let source = Source::from(&bytes[..]);
        let signature = signature::of(&source.graph()?).unwrap();
        let platform = Platform {
            card: "NVIDIA H100".into(),
            capability: (9, 0),
            tensorrt: "10.13.3".into(),
            onnxruntime: "1.31.1".into(),
        };
        let network = tensorrt::Network { name: name.into(), engine: name.into(), digest: "ab".repeat(32) };
        let store = Store::open(folder, "tensorrt:0", platform, network, Precision::Fp16);
        for rows in batches {
            let shapes = signature
                .inputs
                .iter()
                .map(|port| port.shape.iter().map(|size| size.unwrap_or(*rows)).collect::<Vec<_>>());
            let draft = store.begin(Profile::new(&signature, &shapes.collect::<Vec<_>>(), None))?;
            std::fs::write(draft.program().folder.join("x.engine"), [7]).unwrap();
            draft.finish(1.0)?;
        }
        let sessions = Pool::new(provider::at_a_time(options));
        let (name, options) = (name.into(), *options);
        Ok(Arc::new(Self { name, source, options, signature, by_shape: true, store: Some(store), sessions }))
    }
}

/// Where a network comes from, as those who build engines of it name it.
pub struct Origin<'a> {
    /// The name of an engine, or a file.
    pub engine: &'a str,
    /// Of its graph and its weights; empty where nobody knows.
    pub digest: &'a str,
}

/// An error where TensorRT is to run a network of which nothing was built.
pub(crate) fn check_built(name: &str, origin: &Origin, source: &Source, options: &Options) -> Result<()> {
    match store(name, origin, (source, &*source.graph()?), options)? {
        Some(store) if store.is_empty() => Err(store.missing(None)),
        _ => Ok(()),
    }
}

/// The engines of a network where TensorRT runs it.
fn store(name: &str, origin: &Origin, (source, graph): (&Source, &[u8]), options: &Options) -> Result<Option<Store>> {
    let Device::TensorRt(card) = options.device else { return Ok(None) };
    let device = options.device.to_string();
    let precision = provider::precision(options.device, options.precision)?;
    if precision == Precision::Fp32 && signature::is_half(graph) {
        let cause = format!("the weights of {name} are fp16");
        let cure = "use precision=fp16 or auto, or import it again without --precision fp16".into();
        return Err(Error::Device { device, cause, cure });
    }
    let platform = Platform::here(card)?;
    let folder = tensorrt::folder().ok_or_else(|| Error::Device {
        device: device.clone(),
        cause: "there is no folder for its engines".into(),
        cure: "set XDG_CACHE_HOME to one that can be written".into(),
    })?;
    let digest = match origin.digest {
        "" => sha256(format!("{} {} {:?}", sha256(graph), source.beside(), source.written()).as_bytes()),
        known => known.to_owned(),
    };
    let network = tensorrt::Network { name: name.into(), engine: origin.engine.into(), digest };
    Ok(Some(Store::open(&folder, &device, platform, network, precision)))
}

/// An input as its port wants it; f32 is lent.
fn fed<'a>(dtype: Dtype, input: &Input<'a>) -> ort::Result<SessionInputValue<'a>> {
    fn cast<'a, T: ort::value::PrimitiveTensorElementType + std::fmt::Debug + Clone + 'static>(
        input: &Input,
        of: impl Fn(f32) -> T,
    ) -> ort::Result<SessionInputValue<'a>> {
        let data: Vec<T> = input.data.iter().map(|v| of(*v)).collect();
        Ok(ort::value::Tensor::from_array((input.shape.to_vec(), data))?.into())
    }
    match dtype {
        Dtype::F32 | Dtype::Other(_) => Ok(TensorRef::from_array_view((input.shape, input.data))?.into()),
        Dtype::F64 => cast(input, f64::from),
        Dtype::F16 => cast(input, half::f16::from_f32),
        // A cast saturates, and makes 0 of what is no number.
        Dtype::I64 => cast(input, |v| v.round() as i64),
        Dtype::I32 => cast(input, |v| v.round() as i32),
        Dtype::U8 => cast(input, |v| v.round() as u8),
    }
}

/// An output as f32.
fn given(dtype: Dtype, value: &ort::value::DynValue) -> ort::Result<Tensor> {
    fn widened<T: ort::value::PrimitiveTensorElementType + Copy>(
        value: &ort::value::DynValue,
        of: impl Fn(T) -> f32,
    ) -> ort::Result<Tensor> {
        let (shape, data) = value.try_extract_tensor::<T>()?;
        Ok(Tensor { shape: shape.iter().map(|d| *d as usize).collect(), data: data.iter().map(|v| of(*v)).collect() })
    }
    match dtype {
        Dtype::F32 | Dtype::Other(_) => widened::<f32>(value, |v| v),
        Dtype::F64 => widened::<f64>(value, |v| v as f32),
        Dtype::F16 => widened::<half::f16>(value, half::f16::to_f32),
        Dtype::I64 => widened::<i64>(value, |v| v as f32),
        Dtype::I32 => widened::<i32>(value, |v| v as f32),
        Dtype::U8 => widened::<u8>(value, f32::from),
    }
}

/// Refuses ports without `wanted` of `shape` after the batch.
fn expect(model: &str, ports: &[Port], wanted: &str, shape: &[usize]) -> Result<()> {
    let port = ports.iter().find(|p| p.name == wanted);
    let fits = port.is_some_and(|p| {
        p.shape.len() == shape.len() + 1 && p.shape[1..].iter().zip(shape).all(|(is, want)| *is == Some(*want))
    });
    if fits {
        return Ok(());
    }
    Err(Error::Mismatch {
        model: model.into(),
        what: format!("`{wanted}`"),
        expected: format!("[batch{}]", shape.iter().map(|d| format!(", {d}")).collect::<String>()),
        found: port.map_or("nothing".into(), Port::describe),
    })
}

/// The named dimensions with the sizes that `shapes` gives them.
fn dimensions(signature: &Signature, shapes: &[Vec<usize>]) -> Vec<(String, i64)> {
    let mut fixed: Vec<(String, i64)> = Vec::new();
    for (port, shape) in signature.inputs.iter().zip(shapes) {
        for (symbol, size) in port.symbols.iter().zip(shape) {
            if !symbol.is_empty() && !fixed.iter().any(|(known, _)| known == symbol) {
                fixed.push((symbol.clone(), *size as i64));
            }
        }
    }
    fixed
}
