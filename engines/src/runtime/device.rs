use std::{fmt, str::FromStr};

use super::{Tuning, tensorrt};
use crate::{Error, Result};

/// Where a model runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Device {
    /// The first that works of CUDA, OpenVINO, CPU; networks below 4 MiB skip OpenVINO. TensorRT is taken by name alone, since its
    /// engines are built before.
    #[default]
    Auto,
    /// ONNX Runtime's own CPU kernels.
    Cpu,
    /// OpenVINO on the CPU.
    OpenVino,
    /// CUDA, with the number of the GPU.
    Cuda(u32),
    /// TensorRT, with the number of the GPU: runs engines that were built, see [`tensorrt`].
    TensorRt(u32),
}

impl Device {
    /// What is tried, best first.
    pub(super) const CANDIDATES: [Self; 4] = [Self::TensorRt(0), Self::Cuda(0), Self::OpenVino, Self::Cpu];

    /// Whether the provider compiles a program for one input shape and is slow, or refuses, when a shape changes.
    pub(crate) fn wants_fixed_shapes(self) -> bool {
        matches!(self, Self::OpenVino | Self::TensorRt(_))
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::OpenVino => f.write_str("openvino"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
            Self::TensorRt(n) => write!(f, "tensorrt:{n}"),
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let (name, index) = match s.split_once(':') {
            Some((name, index)) => (name, Some(index)),
            None => (s, None),
        };
        let gpu = || index.map_or(Ok(0), str::parse::<u32>).ok().filter(|n| *n < 64);
        let device = match (name, index) {
            ("auto", None) => Some(Self::Auto),
            ("cpu", None) => Some(Self::Cpu),
            ("openvino", None) => Some(Self::OpenVino),
            ("cuda", _) => gpu().map(Self::Cuda),
            ("tensorrt", _) => gpu().map(Self::TensorRt),
            _ => None,
        };
        device.ok_or_else(|| {
            Error::invalid(format!("device `{s}` is not one of auto, cpu, openvino, cuda[:n], tensorrt[:n]"))
        })
    }
}

/// The arithmetic that a provider may use inside; inputs and outputs stay f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// bf16 with OpenVINO where the CPU multiplies it in hardware, fp16 with TensorRT, fp32 otherwise.
    #[default]
    Auto,
    Fp32,
    /// Products of f32 rounded to 10 bits of fraction, summed in f32, where the GPU has units for it; with CUDA alone.
    Tf32,
    Fp16,
    Bf16,
    Int8,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Fp32 => "fp32",
            Self::Tf32 => "tf32",
            Self::Fp16 => "fp16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        })
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        [Self::Auto, Self::Fp32, Self::Tf32, Self::Fp16, Self::Bf16, Self::Int8]
            .into_iter()
            .find(|p| p.to_string() == s)
            .ok_or_else(|| Error::invalid(format!("precision `{s}` is not one of auto, fp32, tf32, fp16, bf16, int8")))
    }
}

/// How to run a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Options {
    pub device: Device,
    pub precision: Precision,
    /// CPU threads of one model; 0 chooses 1, since the stages of a pipeline already run side by side.
    pub threads: usize,
    /// Of the providers of NVIDIA's cards.
    pub tuning: Tuning,
    /// Whether engines of TensorRT that are missing are built, in the place of an error, and for which batches.
    pub build: Option<tensorrt::Build>,
}

impl Options {
    /// The same for networks beside those that paint, which follow faces or hear: they are small, and TensorRT has no engines of them.
    pub fn beside(&self) -> Self {
        match self.device {
            Device::TensorRt(card) => Self { device: Device::Cuda(card), precision: Precision::Auto, ..*self },
            _ => *self,
        }
    }

    /// The same for networks whose inputs and outputs do not stay where they are.
    pub(crate) fn without_graphs(&self) -> Self {
        Self { tuning: Tuning { graphs: false, ..self.tuning }, ..*self }
    }

    /// Whether a program is made for each shape of the inputs of a model, which has convolutions or not.
    pub(super) fn by_shape(&self, convolves: bool) -> bool {
        let cuda = matches!(self.device, Device::Cuda(_));
        self.device.wants_fixed_shapes() || self.tuning.apart.unwrap_or(cuda && convolves)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_read_back_as_they_print() {
        for text in ["auto", "cpu", "openvino", "cuda:0", "cuda:3", "tensorrt:1"] {
            assert_eq!(text.parse::<Device>().unwrap().to_string(), text);
        }
        assert_eq!("cuda".parse::<Device>().unwrap(), Device::Cuda(0));
    }

    #[test]
    fn a_wrong_device_is_named_with_the_choices() {
        for text in ["gpu", "cuda:x", "cpu:1", "", "cuda:9999"] {
            let error = text.parse::<Device>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")) && error.contains("openvino"), "{error}");
        }
    }
}
