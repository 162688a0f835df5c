//! Execution providers: how a device and a precision become one, and which of them work here.

use std::sync::OnceLock;

use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider as _, ExecutionProviderDispatch};

use super::{Device, Options, Precision, Search, Source, Tuning, cache_dir, session, signature};
use crate::{Error, Result};

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
pub(super) fn probe(options: &Options) -> Result<()> {
    session::build("probe", &Source::Static(PROBE), options, &[]).map(drop)
}

/// Tries every device once a process; the first that works is what `auto` takes.
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
    let Some(taken) = survey.iter().find(|a| a.works.is_ok()) else {
        let cause = survey.last().and_then(|a| a.works.clone().err()).unwrap_or_default();
        return Err(Error::Device { device: "auto".into(), cause, cure: "run `lipstream doctor`".into() });
    };
    Ok(*CHOICE.get_or_init(|| {
        let passed_over: Vec<String> = survey
            .iter()
            .take_while(|a| a.works.is_err())
            .map(|a| format!("{}: {}", a.device, a.works.as_ref().err().map_or("", String::as_str)))
            .collect();
        tracing::info!(
            device = %taken.device,
            precision = %precision(taken.device, Precision::Auto).unwrap_or_default(),
            passed_over = passed_over.join("; "),
            "device chosen"
        );
        taken.device
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

/// The provider to register for a model, or `None` for ONNX Runtime's own CPU kernels.
pub(super) fn dispatch(
    options: &Options,
    precision: Precision,
    threads: usize,
    source: &Source,
) -> Option<ExecutionProviderDispatch> {
    let built = match options.device {
        Device::Auto | Device::Cpu => return None,
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
        Device::Cuda(n) => cuda(n, options.tuning, tensor_cores(options.tuning, precision, source)).build(),
        Device::TensorRt(n) => {
            let provider = ep::TensorRT::default()
                .with_device_id(n as i32)
                .with_fp16(precision == Precision::Fp16)
                .with_bf16(precision == Precision::Bf16);
            match cache_dir("tensorrt") {
                Some(dir) => provider
                    .with_engine_cache(true)
                    .with_engine_cache_path(dir.display())
                    .with_timing_cache(true)
                    .with_timing_cache_path(dir.display())
                    .build(),
                None => provider.build(),
            }
        }
    };
    Some(built.error_on_failure())
}

/// Whether the CUDA provider may take plans of cuDNN that use tensor cores. Without `use_tf32` it takes none of them, of f32 and of
/// fp16 alike (onnxruntime/core/providers/cuda/nn/conv.cc, `CreateCudnnFeExecutionPlan`), and those that are left for fp16 are slow.
fn tensor_cores(tuning: Tuning, precision: Precision, source: &Source) -> bool {
    precision == Precision::Tf32
        || (tuning.tensor_cores && source.graph().is_ok_and(|graph| signature::is_half(&graph)))
}

/// ONNX Runtime rounds to tf32 unless it is told not to, and asks cuDNN's slower heuristic on the first run of each shape, which takes
/// a second for networks as small as the tracker's.
fn cuda(card: u32, tuning: Tuning, tensor_cores: bool) -> ep::CUDA {
    use ep::{ArenaExtendStrategy::*, cuda::ConvAlgorithmSearch};
    let search = match tuning.search {
        Search::Heuristic => ConvAlgorithmSearch::Heuristic,
        Search::Exhaustive => ConvAlgorithmSearch::Exhaustive,
        Search::Fallback => ConvAlgorithmSearch::Default,
    };
    ep::CUDA::default()
        .with_device_id(card as i32)
        .with_tf32(tensor_cores)
        .with_conv_algorithm_search(search)
        .with_prefer_nhwc(tuning.channels_last)
        .with_fuse_conv_bias(tuning.fuse_bias)
        .with_arena_extend_strategy(if tuning.tight_arena { SameAsRequested } else { NextPowerOfTwo })
        .with_cuda_graph(tuning.graphs)
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
