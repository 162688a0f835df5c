use std::thread;

use procfs::{CpuInfo, Current};
use serde::Serialize;

/// What decides how fast it can be.
#[derive(Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    /// Instruction sets that matter to the networks.
    pub features: Vec<String>,
    pub gstreamer: String,
}

const FEATURES: [&str; 6] = ["avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8"];

impl Machine {
    pub fn here() -> Self {
        // Absent on a system that is not Linux: the report then says less.
        let cpu = CpuInfo::current().ok();
        let flags = cpu.as_ref().and_then(|cpu| cpu.flags(0)).unwrap_or_default();
        let has = |feature: &&&str| flags.contains(*feature);
        Self {
            cpu: cpu.as_ref().and_then(|cpu| cpu.model_name(0)).unwrap_or_default().to_owned(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            features: FEATURES.iter().filter(has).map(|f| (*f).to_owned()).collect(),
            gstreamer: gst::version_string().to_string(),
        }
    }
}
