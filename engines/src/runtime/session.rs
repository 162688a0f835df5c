use ort::session::{Session, builder::GraphOptimizationLevel};

use super::{Device, Fusions, Options, Source, library, nvidia, provider, tensorrt::Program};
use crate::{Error, Result};

/// Weights from so many bytes on stay in their file, which is mapped. Of smaller networks the CPU provider lays the weights of
/// convolutions and products out anew, which makes a run shorter by some parts of a hundred and takes memory for copies.
const MAPPED_FROM: u64 = 1 << 30;

/// Builds a session on exactly the device of `options` (not `auto`), with the symbolic dimensions named in `fixed` set, and of
/// TensorRT the engine of `program`.
// The error of a refused option carries the builder back; it is made once, when a model is loaded.
#[allow(clippy::result_large_err)]
pub(super) fn build(
    name: &str,
    source: &Source,
    options: &Options,
    fixed: &[(String, i64)],
    program: Option<&Program>,
) -> Result<Session> {
    let device = options.device;
    let precision = provider::precision(device, options.precision)?;
    let threads = options.threads.max(1);
    if let Some((cause, cure)) = nvidia::refused(device) {
        return Err(Error::Device { device: device.to_string(), cause, cure: cure.into() });
    }
    let environment = library::environment()?;
    let runtime = |e: ort::Error<_>| Error::Runtime { model: name.into(), cause: one_line(&e.to_string()) };
    let mapped = device == Device::Cpu && source.beside() >= MAPPED_FROM;
    let mut builder = Session::builder(environment)
        .map_err(|e| Error::Runtime { model: name.into(), cause: one_line(&e.to_string()) })?
        .with_optimization_level(if mapped { GraphOptimizationLevel::Level2 } else { level(options.tuning.fusions) })
        .and_then(|b| b.with_prepacking(!mapped))
        .and_then(|b| b.with_intra_threads(threads))
        .and_then(|b| b.with_inter_threads(1))
        .and_then(|b| b.with_intra_op_spinning(false))
        .map_err(runtime)?;
    for (dimension, size) in fixed {
        builder = builder.with_dimension_override(dimension, *size).map_err(runtime)?;
    }
    let providers = provider::dispatch(options, precision, threads, source, program);
    if !providers.is_empty() {
        builder = builder.with_execution_providers(providers).map_err(|e| {
            let (lacks, said) = (nvidia::lacks(device), one_line(&e.to_string()));
            let cause = if lacks.is_empty() { said } else { format!("{lacks}: {said}") };
            Error::Device { device: device.to_string(), cause, cure: provider::cure(device) }
        })?;
    }
    source.commit(builder).map_err(|e| match device {
        _ if is_lack_of_memory(&e.to_string()) => failed(name, &e),
        Device::Cpu | Device::Auto => failed(name, &e),
        _ => Error::Device {
            device: device.to_string(),
            cause: format!("{name}: {}", one_line(&e.to_string())),
            cure: provider::cure(device),
        },
    })
}

fn level(fusions: Fusions) -> GraphOptimizationLevel {
    match fusions {
        Fusions::None => GraphOptimizationLevel::Disable,
        Fusions::Basic => GraphOptimizationLevel::Level1,
        Fusions::Extended => GraphOptimizationLevel::Level2,
        Fusions::All => GraphOptimizationLevel::All,
    }
}

/// An error of the runtime's as one of ours.
pub(super) fn failed(model: &str, error: &dyn std::fmt::Display) -> Error {
    let text = error.to_string();
    let (model, cause) = (model.to_owned(), one_line(&text));
    if is_lack_of_memory(&text) { Error::OutOfMemory { model, cause } } else { Error::Runtime { model, cause } }
}

/// Whether a message is of an allocation that failed: ONNX Runtime has one code for all that fails in a run, and only its
/// words tell (its arena's, the C++ library's, CUDA's).
fn is_lack_of_memory(message: &str) -> bool {
    ["Failed to allocate memory", "bad_alloc", "bad allocation", "out of memory"]
        .iter()
        .any(|words| message.contains(words))
}

/// ONNX Runtime's messages run over lines, and some begin with the place in its source; ours do not.
pub(super) fn one_line(message: &str) -> String {
    let mut text = message.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((place, rest)) = text.split_once("[ONNXRuntimeError] : ")
        && place.starts_with("/onnxruntime_src/")
    {
        // A number and the name of the kind come first.
        text = rest.splitn(3, " : ").last().unwrap_or(rest).to_owned();
    }
    if let Some((cut, _)) = text.char_indices().nth(300) {
        text.truncate(cut);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_begins_with_its_cause() {
        let place = "/onnxruntime_src/onnxruntime/core/a.cc:2043 Provider& Get()";
        let said = format!("{place} [ONNXRuntimeError] : 1 : FAIL : Failed to load library libx.so:\n  no file : here");
        assert_eq!(one_line(&said), "Failed to load library libx.so: no file : here");
        assert_eq!(one_line("Non-zero status\n code"), "Non-zero status code");
    }
}
