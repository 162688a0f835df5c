use std::{fs, thread};

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
        let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = text.lines().find(|l| l.split(':').next().is_some_and(|key| key.trim() == name));
            line.and_then(|l| l.split_once(':')).map(|(_, v)| v.trim().to_owned()).unwrap_or_default()
        };
        let flags = field("flags");
        let has = |feature: &&&str| flags.split(' ').any(|flag| flag == **feature);
        Self {
            cpu: field("model name"),
            cores: thread::available_parallelism().map_or(1, usize::from),
            features: FEATURES.iter().filter(has).map(|f| (*f).to_owned()).collect(),
            gstreamer: gst::version_string().to_string(),
        }
    }
}
