//! NVIDIA's cards as their management library (NVML) describes them. It comes with the driver, and is loaded when it is first asked.

use std::{ffi::OsStr, sync::OnceLock};

use nvml_wrapper::{
    Nvml, cuda_driver_version_major, cuda_driver_version_minor, enum_wrappers::device::TemperatureSensor,
    error::NvmlError,
};

/// The first driver that runs CUDA 13, which the CUDA build of ONNX Runtime is for.
pub const OLDEST_DRIVER: u32 = 580;

/// The driver and its cards.
#[derive(Clone, Debug, PartialEq)]
pub struct Cards {
    /// Of the driver, as `580.159.03`.
    pub driver: String,
    /// The newest CUDA that the driver runs, major and minor.
    pub cuda: (i32, i32),
    /// In the order of their PCI addresses. CUDA counts the fastest first unless `CUDA_DEVICE_ORDER` is `PCI_BUS_ID`.
    pub cards: Vec<Card>,
}

/// A card at the moment of the question. What a card does not say (a virtual one has no power) is `None`.
#[derive(Clone, Debug, PartialEq)]
pub struct Card {
    pub number: u32,
    pub name: String,
    /// Major and minor, as 9.0 of an H100.
    pub capability: Option<(i32, i32)>,
    /// Bytes.
    pub memory: u64,
    /// Bytes, of all programs.
    pub memory_used: u64,
    /// The part of the last moments (a sixth of a second to a second) in which a kernel ran, 0 to 1.
    pub busy: Option<f64>,
    /// Watts.
    pub power: Option<f64>,
    /// Degrees Celsius.
    pub temperature: Option<f64>,
}

impl Cards {
    /// Why the driver is too old for CUDA 13, where it is.
    pub fn too_old(&self) -> Option<String> {
        let major: u32 = self.driver.split('.').next()?.parse().ok()?;
        (major < OLDEST_DRIVER)
            .then(|| format!("driver {} is older than {OLDEST_DRIVER}, which CUDA 13 needs", self.driver))
    }
}

/// The cards of this machine; `Err` holds the cause where the library is missing or its driver is not loaded.
pub fn cards() -> Result<Cards, String> {
    static NVML: OnceLock<Result<Nvml, String>> = OnceLock::new();
    let nvml = NVML.get_or_init(|| {
        // The name without a number is part of the development files.
        Nvml::builder().lib_path(OsStr::new("libnvidia-ml.so.1")).init().map_err(|error| match error {
            NvmlError::LibloadingError(_) => "NVIDIA's driver is not installed (no libnvidia-ml.so.1)".to_owned(),
            other => format!("NVIDIA's driver does not answer: {other}"),
        })
    });
    read(nvml.as_ref().map_err(Clone::clone)?).map_err(|error| format!("NVIDIA's driver does not answer: {error}"))
}

fn read(nvml: &Nvml) -> Result<Cards, NvmlError> {
    let cuda = nvml.sys_cuda_driver_version()?;
    Ok(Cards {
        driver: nvml.sys_driver_version()?,
        cuda: (cuda_driver_version_major(cuda), cuda_driver_version_minor(cuda)),
        cards: (0..nvml.device_count()?).map(|number| card(nvml, number)).collect::<Result<_, _>>()?,
    })
}

fn card(nvml: &Nvml, number: u32) -> Result<Card, NvmlError> {
    let device = nvml.device_by_index(number)?;
    let memory = device.memory_info()?;
    Ok(Card {
        number,
        name: device.name()?,
        capability: device.cuda_compute_capability().ok().map(|c| (c.major, c.minor)),
        memory: memory.total,
        memory_used: memory.used,
        busy: device.utilization_rates().ok().map(|rates| f64::from(rates.gpu) / 100.0),
        power: device.power_usage().ok().map(|milliwatts| f64::from(milliwatts) / 1e3),
        temperature: device.temperature(TemperatureSensor::Gpu).ok().map(f64::from),
    })
}
