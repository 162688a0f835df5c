//! What TensorRT's provider is asked for, key by key. It refuses a session with a key that it does not know.

use super::super::{Precision, Tuning};
use super::Program;

/// `half`: the graph's weights are fp16. Without a program nothing is kept.
pub(in super::super) fn settings(
    card: u32,
    precision: Precision,
    half: bool,
    tuning: Tuning,
    program: Option<&Program>,
) -> Vec<(&'static str, String)> {
    let switch = |on: bool| String::from(if on { "1" } else { "0" });
    let mut settings = vec![
        ("device_id", card.to_string()),
        // A graph of fp16 is typed, and is not taken without.
        ("trt_fp16_enable", switch(precision == Precision::Fp16 || half)),
        ("trt_bf16_enable", switch(precision == Precision::Bf16)),
        // The sums of squares of a norm leave the range of fp16.
        ("trt_layer_norm_fp32_fallback", switch(precision == Precision::Fp16 || half)),
    ];
    let Some(program) = program else { return settings };
    let path = |path: &std::path::Path| path.display().to_string();
    settings.extend([
        ("trt_engine_cache_enable", switch(true)),
        ("trt_engine_cache_path", path(&program.folder)),
        ("trt_timing_cache_enable", switch(true)),
        ("trt_timing_cache_path", path(&program.timing)),
        // A graph of kernels is of one shape.
        ("trt_cuda_graph_enable", switch(tuning.graphs && program.profile.is_fixed())),
    ]);
    if let Some([min, best, max]) = program.profile.explicit() {
        settings.extend([
            ("trt_profile_min_shapes", min),
            ("trt_profile_opt_shapes", best),
            ("trt_profile_max_shapes", max),
        ]);
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::{Dtype, Port, Signature},
        super::{Batch, Profile},
        *,
    };

    fn program(batch: Option<Batch>) -> Program {
        let port = Port {
            name: "x".into(),
            shape: vec![None, Some(3)],
            dtype: Dtype::F32,
            symbols: vec!["batch".into(), String::new()],
        };
        let profile = Profile::new(&Signature { inputs: vec![port], outputs: Vec::new() }, &[vec![2, 3]], batch);
        Program { profile, folder: "/cache/p/n/b".into(), timing: "/cache/p/timing".into() }
    }

    fn told<'a>(settings: &'a [(&'static str, String)], key: &str) -> Option<&'a str> {
        settings.iter().find(|(known, _)| *known == key).map(|(_, value)| value.as_str())
    }

    #[test]
    fn an_engine_of_one_shape_is_kept_in_its_folder_and_may_be_replayed() {
        let graphs = Tuning { graphs: true, ..Tuning::default() };
        let settings = settings(1, Precision::Fp16, false, graphs, Some(&program(None)));
        for (key, value) in [
            ("device_id", "1"),
            ("trt_fp16_enable", "1"),
            ("trt_bf16_enable", "0"),
            ("trt_layer_norm_fp32_fallback", "1"),
            ("trt_engine_cache_enable", "1"),
            ("trt_engine_cache_path", "/cache/p/n/b"),
            ("trt_timing_cache_path", "/cache/p/timing"),
            ("trt_cuda_graph_enable", "1"),
        ] {
            assert_eq!(told(&settings, key), Some(value), "{key}");
        }
        assert_eq!(told(&settings, "trt_profile_min_shapes"), None);
    }

    #[test]
    fn an_engine_of_several_batches_has_a_profile_and_is_not_replayed() {
        let graphs = Tuning { graphs: true, ..Tuning::default() };
        let settings = settings(0, Precision::Fp32, false, graphs, Some(&program(Some("1..2..4".parse().unwrap()))));
        for (key, value) in [
            ("trt_profile_min_shapes", "x:1x3"),
            ("trt_profile_opt_shapes", "x:2x3"),
            ("trt_profile_max_shapes", "x:4x3"),
            ("trt_cuda_graph_enable", "0"),
            ("trt_fp16_enable", "0"),
        ] {
            assert_eq!(told(&settings, key), Some(value), "{key}");
        }
    }

    #[test]
    fn graphs_of_fp16_are_typed_and_bf16_needs_no_care_of_norms() {
        let half = settings(0, Precision::Bf16, true, Tuning::default(), None);
        assert_eq!((told(&half, "trt_fp16_enable"), told(&half, "trt_bf16_enable")), (Some("1"), Some("1")));
        let wide = settings(0, Precision::Bf16, false, Tuning::default(), None);
        assert_eq!(told(&wide, "trt_layer_norm_fp32_fallback"), Some("0"));
        assert_eq!(told(&wide, "trt_engine_cache_enable"), None, "a trial keeps nothing");
    }
}
