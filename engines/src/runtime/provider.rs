//! Execution providers: how a device and a precision become one, and which of them work here.

use std::sync::OnceLock;

use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider as _, ExecutionProviderDispatch};

use super::{
    Device, Options, Precision, Search, Source, Tuning, cache_dir, session, signature, tensorrt, tuning::ROOMY,
};
use crate::{Error, Result, cuda::memory_of};

/// Whether a device works, and if not, why.
#[derive(Clone, Debug)]
pub struct Availability {
    pub device: Device,
    /// `Err` holds the cause.
    pub works: Result<(), String>,
}

/// A model of one `Identity` node, f32 `[1]` to `[1]`: what a provider is tried with.
const PROBE: &[u8] = include_bytes!("probe.onnx");

/// An error unless the device of `options` (not `auto`) works.
pub fn probe(options: &Options) -> Result<()> {
    session::build("probe", &Source::Static(PROBE), options, &[], None).map(drop)
}

/// Tries every device once a process.
pub fn survey() -> &'static [Availability] {
    static SURVEY: OnceLock<Vec<Availability>> = OnceLock::new();
    SURVEY.get_or_init(|| {
        Device::CANDIDATES
            .into_iter()
            .map(|device| {
                let options = Options { device, ..Options::default() };
                let works = probe(&options).map_err(|e| match e {
                    Error::Device { cause, .. } => cause,
                    other => other.to_string(),
                });
                Availability { device, works }
            })
            .collect()
    })
}

/// What `auto` takes: the first that works, but TensorRT, whose engines must be built before.
pub fn automatic() -> Option<Device> {
    let taken = |a: &&Availability| a.works.is_ok() && !matches!(a.device, Device::TensorRt(_));
    survey().iter().find(taken).map(|a| a.device)
}

/// Networks smaller than this run on ONNX Runtime's own kernels where `auto` would take OpenVINO: their runs take less
/// than handing them to OpenVINO's threads does, and each program has threads of its own.
const SMALL: usize = 4 << 20;

/// Threads of one run where nobody says: small networks gain nothing by a second, and many run side by side.
pub(super) fn threads(model_bytes: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    if model_bytes < SMALL { 1 } else { cores.min(AT_A_TIME) }
}

/// What `device` stands for on this machine for a model of `model_bytes` at a precision.
pub fn taken(device: Device, precision: Precision, model_bytes: usize) -> Result<Device> {
    let first = resolve(device)?;
    let plain = matches!(precision, Precision::Auto | Precision::Fp32);
    let small = device == Device::Auto && first == Device::OpenVino && plain && model_bytes < SMALL;
    Ok(if small { Device::Cpu } else { first })
}

/// What `auto` stands for on this machine.
fn resolve(device: Device) -> Result<Device> {
    static CHOICE: OnceLock<Device> = OnceLock::new();
    if device != Device::Auto {
        return Ok(device);
    }
    if let Some(choice) = CHOICE.get() {
        return Ok(*choice);
    }
    let survey = survey();
    let Some(taken) = automatic() else {
        let cause = survey.last().and_then(|a| a.works.clone().err()).unwrap_or_default();
        return Err(Error::Device { device: "auto".into(), cause, cure: "run `lipstream doctor`".into() });
    };
    Ok(*CHOICE.get_or_init(|| {
        let passed_over: Vec<String> = survey
            .iter()
            .take_while(|a| a.device != taken)
            .map(|a| format!("{}: {}", a.device, a.works.as_ref().err().map_or("taken by name alone", String::as_str)))
            .collect();
        tracing::info!(
            device = %taken,
            precision = %precision(taken, Precision::Auto).unwrap_or_default(),
            passed_over = passed_over.join("; "),
            "device chosen"
        );
        taken
    }))
}

/// What `auto` means for a device; an error when the device cannot compute at the precision that was named.
pub(super) fn precision(device: Device, asked: Precision) -> Result<Precision> {
    use Precision::*;
    let offers: &[Precision] = match device {
        Device::Cpu | Device::Auto => &[Fp32],
        Device::Cuda(_) => &[Fp32, Tf32],
        Device::OpenVino => &[Fp32, Bf16, Fp16],
        Device::TensorRt(_) => &[Fp32, Fp16, Bf16],
    };
    match asked {
        Auto => Ok(match device {
            Device::OpenVino if cpu_multiplies_bf16() => Bf16,
            Device::TensorRt(_) => Fp16,
            _ => Fp32,
        }),
        named if offers.contains(&named) => Ok(named),
        named => Err(Error::Device {
            device: device.to_string(),
            cause: format!("precision {named} is not offered for this model"),
            cure: format!("use one of {}", offers.iter().map(|p| p.to_string()).collect::<Vec<_>>().join(", ")),
        }),
    }
}

/// Most programs of one model that run at the same time under CPU providers of one thread each: every one has buffers.
const AT_A_TIME: usize = 8;

/// How many runs of a model the device takes at a time.
pub(super) fn at_a_time(options: &Options) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    match options.device {
        Device::Cpu => (cores / options.threads.max(1)).clamp(1, AT_A_TIME),
        _ => 1,
    }
}

/// AMX or AVX512-BF16: without either, a bf16 hint only costs conversions.
fn cpu_multiplies_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// OpenVINO compiles a smaller model as quickly as it reads its program back from a cache.
const CACHED_FROM: usize = 16 << 20;

/// The providers to register for a model, best first; none for ONNX Runtime's own CPU kernels. TensorRT's reads and writes the engine
/// of `program`.
pub(super) fn dispatch(
    options: &Options,
    precision: Precision,
    threads: usize,
    source: &Source,
    program: Option<&tensorrt::Program>,
) -> Vec<ExecutionProviderDispatch> {
    let built = match options.device {
        Device::Auto | Device::Cpu => return Vec::new(),
        Device::OpenVino => {
            let hint = match precision {
                Precision::Bf16 => "bf16",
                Precision::Fp16 => "f16",
                _ => "f32",
            };
            let provider = ep::OpenVINO::default()
                .with_device_type("CPU")
                .with_num_threads(threads)
                .with_num_streams(1)
                .with_arbitrary_config(
                    "load_config",
                    format!(r#"{{"CPU":{{"INFERENCE_PRECISION_HINT":"{hint}","INFERENCE_NUM_THREADS":"{threads}"}}}}"#),
                );
            match (source.size() >= CACHED_FROM).then(|| cache_dir("openvino")).flatten() {
                Some(dir) => provider.with_cache_dir(dir.display()).build(),
                None => provider.build(),
            }
        }
        Device::Cuda(n) => cuda(n, options.tuning, tensor_cores(options.tuning, precision, source), source),
        Device::TensorRt(n) => {
            let half = source.graph().is_ok_and(|graph| signature::is_half(&graph));
            let settings = tensorrt::settings(n, precision, half, options.tuning, program);
            let provider = settings
                .into_iter()
                .fold(ep::TensorRT::default(), |provider, (name, value)| provider.with_arbitrary_config(name, value));
            // What TensorRT does not take stays on the card.
            let rest = cuda(n, options.tuning, tensor_cores(options.tuning, precision, source), source);
            return vec![provider.build().error_on_failure(), rest.error_on_failure()];
        }
    };
    vec![built.error_on_failure()]
}

/// Whether the CUDA provider may take plans of cuDNN that use tensor cores. Without `use_tf32` it takes none of them, of f32 and of
/// fp16 alike (onnxruntime/core/providers/cuda/nn/conv.cc, `CreateCudnnFeExecutionPlan`), and those that are left for fp16 are slow.
fn tensor_cores(tuning: Tuning, precision: Precision, source: &Source) -> bool {
    precision == Precision::Tf32
        || (tuning.tensor_cores && source.graph().is_ok_and(|graph| signature::is_half(&graph)))
}

/// The CUDA provider of a card. ONNX Runtime rounds to tf32 unless it is told not to, and asks cuDNN's slower heuristic on the first run
/// of each shape, which takes a second for networks as small as the tracker's.
fn cuda(card: u32, tuning: Tuning, tensor_cores: bool, source: &Source) -> ExecutionProviderDispatch {
    let free = memory_of(card).map(|(free, _)| free);
    let settings = cuda_settings(card, tuning, tensor_cores, source.size() as u64, free);
    let provider = settings
        .into_iter()
        .fold(ep::CUDA::default(), |provider, (name, value)| provider.with_arbitrary_config(name, value));
    provider.build()
}

/// What the CUDA provider is asked for, key by key, of a network of so many bytes on a card with so many free.
fn cuda_settings(
    card: u32,
    tuning: Tuning,
    tensor_cores: bool,
    weights: u64,
    free: Option<u64>,
) -> Vec<(&'static str, String)> {
    let switch = |on: bool| String::from(if on { "1" } else { "0" });
    let roomy = free.is_none_or(|free| weights.saturating_mul(ROOMY) <= free);
    let search = match tuning.search {
        Search::Heuristic => "HEURISTIC",
        Search::Exhaustive => "EXHAUSTIVE",
        Search::Fallback => "DEFAULT",
    };
    let arena = if tuning.tight_arena.unwrap_or(!roomy) { "kSameAsRequested" } else { "kNextPowerOfTwo" };
    let mut settings = vec![
        ("device_id", card.to_string()),
        ("use_tf32", switch(tensor_cores)),
        ("cudnn_conv_algo_search", search.to_owned()),
        ("cudnn_conv_use_max_workspace", switch(tuning.max_workspace)),
        ("prefer_nhwc", switch(tuning.channels_last)),
        ("fuse_conv_bias", switch(tuning.fuse_bias)),
        ("arena_extend_strategy", arena.to_owned()),
        ("enable_cuda_graph", switch(tuning.graphs)),
    ];
    settings.extend(tuning.memory.bytes(free).map(|bytes| ("gpu_mem_limit", bytes.to_string())));
    settings
}

pub(super) fn cure(device: Device) -> String {
    match device {
        Device::Cuda(_) => "run `make setup-gpu`, or use device=auto".into(),
        Device::TensorRt(_) => {
            "run `make setup-gpu TENSORRT=FOLDER` with the folder of TensorRT 10, or use device=auto".into()
        }
        _ => "run `make setup`, or use device=auto".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told<'a>(settings: &'a [(&'static str, String)], key: &str) -> Option<&'a str> {
        settings.iter().find(|(known, _)| *known == key).map(|(_, value)| value.as_str())
    }

    #[test]
    fn memory_of_a_card_is_bounded_by_what_is_free_and_grows_tightly_where_that_is_little() {
        let (network, free) = (3_400_000_000, 80_000_000_000);
        let of = |text: &str, weights| cuda_settings(2, text.parse().unwrap(), false, weights, Some(free));
        let large = of("", network);
        assert_eq!(told(&large, "gpu_mem_limit"), Some("75000000000"));
        assert_eq!(told(&large, "arena_extend_strategy"), Some("kSameAsRequested"));
        assert_eq!(told(&large, "cudnn_conv_use_max_workspace"), Some("1"));
        assert_eq!(told(&large, "device_id"), Some("2"));
        assert_eq!(told(&of("", 3_000_000), "arena_extend_strategy"), Some("kNextPowerOfTwo"));
        let bound = of("memory=8000,max-workspace=0,tight-arena=0", network);
        assert_eq!(told(&bound, "gpu_mem_limit"), Some("8000000000"));
        assert_eq!(told(&bound, "cudnn_conv_use_max_workspace"), Some("0"));
        assert_eq!(told(&bound, "arena_extend_strategy"), Some("kNextPowerOfTwo"));
        assert_eq!(told(&of("memory=none", network), "gpu_mem_limit"), None);
        let unknown = cuda_settings(0, Tuning::default(), false, network, None);
        assert_eq!(told(&unknown, "gpu_mem_limit"), None, "where nobody says what is free nothing is bounded");
    }

    #[test]
    fn graphs_of_kernels_are_replayed_where_it_is_asked_for_alone() {
        let of = |text: &str| cuda_settings(0, text.parse().unwrap(), true, 1, None);
        assert_eq!(told(&of(""), "enable_cuda_graph"), Some("0"));
        assert_eq!(told(&of("graphs=1"), "enable_cuda_graph"), Some("1"));
        assert_eq!(told(&of("search=exhaustive"), "cudnn_conv_algo_search"), Some("EXHAUSTIVE"));
        assert_eq!(told(&of(""), "use_tf32"), Some("1"));
    }
}
