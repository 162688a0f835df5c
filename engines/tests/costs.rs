//! What engines cost by stage and in memory, and what is refused for it.

mod common;
#[path = "common/narrow.rs"]
mod narrow;

use std::{
    fs,
    path::{Path, PathBuf},
};

use lipstream_engines::{
    Error,
    engine::{self, NetworkStage, Noise, Stage, StageKind, Work},
    import::{
        self, Imported, Request,
        onnx::{Conv, Dim, Graph, Precision, cost_of},
    },
    manifest::{Manifest, Package},
    runtime::{Device, Input, Model, Options, Tensor},
};
use narrow::Narrow;

const CONFIG: &str = r#"{"model": {"norm_num_groups": 8, "attention_head_dim": 4}, "data": {"num_frames": 8, "resolution": 128},
    "run": {"guidance_scale": 1.25, "inference_steps": 10}}"#;

fn cpu() -> Options {
    Options { device: Device::Cpu, ..Options::default() }
}

/// LatentSync's files of few channels, with another configuration of the autoencoder's or of its own.
fn import(home: &Path, config: &str, vae: &str) -> lipstream_engines::Result<Imported> {
    let narrow = Narrow::open();
    let mut files: Vec<PathBuf> = Vec::new();
    for (network, config) in
        [("latentsync", config), ("vae", vae), ("taesd", "{}"), ("whisper", r#"{"encoder_attention_heads": 4}"#)]
    {
        let file = home.join(network).join("model.safetensors");
        fs::create_dir_all(home.join(network)).unwrap();
        fs::write(&file, narrow::file(&narrow.checkpoint(network))).unwrap();
        fs::write(file.with_file_name("config.json"), config).unwrap();
        files.push(file);
    }
    let request = Request {
        family: None,
        files: &files,
        name: Some("face"),
        precision: Precision::Fp32,
        features: None,
        licence: None,
        replace: true,
    };
    import::import(&request, &home.join("engines"), &mut |_, _| Ok(()))
}

#[test]
fn the_built_in_engine_states_what_its_graphs_cost() {
    let package = Package::find("compact").unwrap();
    let gflop = package.manifest().cost.as_ref().unwrap().gflop;
    let of = |part: &str| cost_of(&package.file(part).unwrap()).unwrap().gflop();
    // Two hops of 20 ms in a frame of 40 ms.
    for (stated, counted) in
        [(gflop.front_end, 2.0 * of("audio")), (gflop.step, of("motion")), (gflop.refine, of("refine"))]
    {
        assert!((stated.unwrap() - counted).abs() < 0.01 * counted, "{stated:?} is not {counted}");
    }
    let manifest = package.manifest();
    assert!((manifest.frame_gflop(None) - manifest.gflop).abs() < 0.02 * manifest.gflop);
    let more = manifest.frame_gflop(Some(4)) - manifest.frame_gflop(Some(2));
    assert!((more - 2.0 * gflop.step.unwrap()).abs() < 1e-5, "{more}");
}

#[test]
fn an_imported_engine_says_what_its_stages_cost_and_what_memory_it_needs() {
    let home = tempfile::tempdir().unwrap();
    let imported = import(home.path(), CONFIG, r#"{"norm_num_groups": 4}"#).unwrap();
    let package = Package::open(&imported.folder).unwrap();
    let manifest = package.manifest();
    let cost = manifest.cost.as_ref().unwrap();
    let names: Vec<&str> = cost.gflop.named().map(|(name, _)| name).collect();
    assert_eq!(names, ["front_end", "encode", "step", "decode", "decode_tiny"]);
    let stage = |name: &str| cost.gflop.named().find(|(own, _)| *own == name).unwrap().1;
    // Ten steps, each guided, are twenty evaluations.
    let whole = stage("front_end") + stage("encode") + 20.0 * stage("step") + stage("decode");
    assert!((manifest.gflop - whole).abs() < 1e-3 * whole);
    // Live are two, the second guided, of eight frames for four.
    let live = stage("front_end") + stage("encode") + 6.0 * stage("step") + stage("decode");
    assert!((manifest.frame_gflop(None) - live).abs() < 1e-3 * live, "{} {live}", manifest.frame_gflop(None));
    assert!(cost.held_mb.len() == 5 && cost.held_mb.values().all(|megabytes| *megabytes > 0.0), "{cost:?}");
    let text = fs::read_to_string(imported.folder.join("engine.toml")).unwrap();
    let parse = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        Manifest::parse("x", &text.replacen(from, to, 1))
    };
    let tiny = parse("decoder = \"vae\"", "decoder = \"taesd\"").unwrap();
    let saved = manifest.frame_gflop(None) - tiny.frame_gflop(None);
    assert!((saved - stage("decode") + stage("decode_tiny")).abs() < 1e-3 * whole);
    // An engine of before is as good.
    let table: toml::Table = text.parse().unwrap();
    let old = table.clone().into_iter().filter(|(key, _)| key != "cost").collect::<toml::Table>();
    let old = Manifest::parse("x", &toml::to_string(&old).unwrap()).unwrap();
    assert_eq!((old.frame_gflop(None), old.cost), (manifest.gflop, None));
    for (from, to, cause) in [
        ("encode = ", "encode = -", "`cost.gflop.encode`: -"),
        ("[cost.held_mb]\n", "[cost.held_mb]\nnose = 1.0\n", "`cost.held_mb.nose`: is of no file"),
        ("step = ", "stop = ", "`cost.gflop.stop`: unknown field"),
    ] {
        let error = parse(from, to).unwrap_err().to_string();
        assert!(error.contains(cause), "{error}");
    }

    // One byte too few is refused before anything is loaded, with both figures.
    let needs = engine::memory(&package);
    let weights: u64 = ["whisper", "encoder", "unet", "decoder"].iter().map(|part| package.size_of(part)).sum();
    assert!(needs > weights, "{needs} of {weights}");
    let refused = |free| engine::load_within(&package, &cpu(), free).err();
    let error = refused(Some(needs - 1)).unwrap();
    assert!(matches!(error, Error::Memory { needs: own, free, .. } if own == needs && free == needs - 1), "{error}");
    // The U-Net's values are those of one clip at a time, guided or not: twice as many in clips of sixteen frames as in those
    // of eight, for which it was imported.
    let held = f64::from(cost.held_mb["unet"]) * 1e6 * 1.1;
    let with = |from: &str, to: &str| {
        assert!(text_of(&imported.folder).contains(from), "{from}");
        let other = home.path().join("changed");
        let _ = fs::remove_dir_all(&other);
        copied(&imported.folder, &other);
        fs::write(other.join("engine.toml"), text_of(&imported.folder).replacen(from, to, 1)).unwrap();
        Package::open(&other).unwrap()
    };
    let clips = |package: &Package| (engine::memory(package) as f64 - needs as f64) / held;
    assert!(clips(&with("guided = \"last\"", "guided = \"none\"")).abs() < 0.01);
    assert!((clips(&with("clip = 8", "clip = 16")) - 1.0).abs() < 0.01);
    assert!((clips(&with("clip = 8", "clip = 4")) + 0.5).abs() < 0.01);
    assert!((clips(&with("clip = 8", "clip = 4").exact().unwrap())).abs() < 0.01, "exact clips are whole");
    let text = error.to_string();
    assert!(text.starts_with("engine `face` needs 0.") && text.contains(" GB are free; ") && text.lines().count() == 1);
    for enough in [Some(needs), None] {
        assert!(!matches!(refused(enough), Some(Error::Memory { .. })), "{enough:?}");
    }

    // A part that is gone is named, with the way to get it back.
    fs::remove_file(imported.folder.join("unet.onnx.data")).unwrap();
    let error = package.network("unet", &cpu()).err().unwrap().to_string();
    assert!(
        error.contains("engine `face`: `files.unet`: ")
            && error
                .contains("unet.onnx.data is missing; import it again: lipstream import --replace --name face --from ")
            && error.lines().count() == 1,
        "{error}"
    );
}

fn text_of(folder: &Path) -> String {
    fs::read_to_string(folder.join("engine.toml")).unwrap()
}

fn copied(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[test]
fn files_of_different_versions_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let small = CONFIG.replace("\"norm_num_groups\"", "\"cross_attention_dim\": 768, \"norm_num_groups\"");
    let scaled = CONFIG.replace("\"run\"", "\"vae\": {\"scaling_factor\": 0.18215}, \"run\"");
    for (config, vae, cause) in [
        (small.as_str(), r#"{"norm_num_groups": 4}"#, "is of a U-Net that hears 768 numbers, and "),
        (&scaled, r#"{"norm_num_groups": 4, "scaling_factor": 0.13025}"#, "scales latents by 0.13025, and "),
    ] {
        let error = import(home.path(), config, vae).unwrap_err().to_string();
        assert!(error.contains(cause) && error.ends_with("they are of different versions"), "{error}");
        assert_eq!(error.lines().count(), 1);
    }
    import(home.path(), &scaled, r#"{"norm_num_groups": 4, "scaling_factor": 0.18215}"#).unwrap();
}

/// CUDA's kernel of the usual operation makes 0 / 0 of it.
#[test]
fn a_group_of_one_channel_is_normed_without_the_kernel_that_divides_by_one_number_less() {
    let norm = |channels: usize, groups: usize| {
        let mut graph = Graph::new("norm", Precision::Fp32);
        let x =
            graph.input("x", &[Dim::Free("batch"), Dim::Fixed(channels), Dim::Nominal("h", 1), Dim::Nominal("w", 1)]);
        let (gain, shift): (Vec<f32>, Vec<f32>) = (0..channels).map(|i| (1.0 + i as f32, 0.5 * i as f32)).unzip();
        let y = graph.group_norm(&x, groups, 1e-6, &gain, &shift).unwrap();
        graph.output("y", &[Dim::Free("batch"), Dim::Fixed(channels), Dim::Free("h"), Dim::Free("w")], y);
        graph.finish()
    };
    let holds = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains("InstanceNormalization");
    assert!(holds(&norm(4, 2)) && !holds(&norm(4, 4)));
    let run = |bytes: &[u8], shape: [usize; 4], data: &[f32]| {
        let model = Model::load("norm", bytes, &cpu()).unwrap();
        model.run(&[Input { name: "x", shape: &shape, data }]).unwrap().remove(0).data
    };
    // One pixel is its own mean, two are one deviation from theirs.
    assert_eq!(run(&norm(2, 2), [2, 2, 1, 1], &[3.0, -7.0, 9.0, 1e4]), [0.0, 0.5, 0.0, 0.5]);
    let two = run(&norm(2, 2), [1, 2, 1, 2], &[1.0, 5.0, -3.0, 3.0]);
    assert!(two.iter().zip([-1.0, 1.0, -1.5, 2.5]).all(|(a, b)| (a - b).abs() < 1e-5), "{two:?}");
}

#[test]
fn a_program_for_each_shape_is_made_where_that_is_asked_for() {
    let network = |tuning: &str| {
        let mut graph = Graph::new("small", Precision::Fp32);
        let x = graph.input("x", &[Dim::Free("batch"), Dim::Fixed(1)]);
        let y = graph.affine(&x, 2.0, 1.0);
        graph.output("y", &[Dim::Free("batch"), Dim::Fixed(1)], y);
        let options = Options { tuning: tuning.parse().unwrap(), ..cpu() };
        Model::load("small", &graph.finish()[..], &options).unwrap()
    };
    for (tuning, programs) in [("", 1), ("apart=0", 1), ("apart=1", 3)] {
        let model = network(tuning);
        for rows in [1, 2, 3, 2, 1] {
            let data = vec![3.0; rows];
            let said = model.run(&[Input { name: "x", shape: &[rows, 1], data: &data }]).unwrap();
            assert_eq!(said[0].data, vec![7.0; rows]);
        }
        assert_eq!(model.programs(), programs, "{tuning}");
    }
    let replayed =
        network("graphs=1").run(&[Input { name: "x", shape: &[1, 1], data: &[1.0] }]).unwrap_err().to_string();
    assert!(replayed.contains("leave graphs=0") && replayed.lines().count() == 1, "{replayed}");
}

/// A network of one operation.
fn network(build: impl FnOnce(&mut Graph)) -> std::sync::Arc<Model> {
    let mut graph = Graph::new("small", Precision::Fp32);
    build(&mut graph);
    Model::load("small", &graph.finish()[..], &cpu()).unwrap()
}

#[test]
fn cost_is_counted_from_operations_and_sizes() {
    let mut graph = Graph::new("small", Precision::Fp32);
    let sides = [Dim::Nominal("height", 6), Dim::Nominal("width", 8)];
    let x = graph.input("x", &[Dim::Free("batch"), Dim::Fixed(2), sides[0], sides[1]]);
    let conv = Conv {
        shape: [4, 2, 3, 3],
        weight: vec![0.0; 72],
        bias: vec![0.0; 4],
        stride: [2; 2],
        padding: [1; 2],
        groups: 1,
    };
    let y = graph.conv(&x, conv).unwrap();
    let rows = graph.reshape(&y, &[0, 4, -1]);
    let columns = graph.transpose(&rows, &[0, 2, 1]);
    let all = graph.product(&rows, &columns);
    graph.output("y", &[Dim::Free("batch"), Dim::Fixed(4), Dim::Fixed(4)], all);
    let cost = graph.cost().unwrap();
    // Four channels of 3 x 4 from 18 numbers each, then 4 x 4 sums of 12.
    assert_eq!(cost.multiplications, 4 * 12 * 18 + 4 * 4 * 12);
    // While the convolution runs: 2 x 6 x 8 numbers go in and 4 x 12 come out; later fewer are held.
    assert_eq!(cost.held, 4 * (96 + 48));
    // A file of it has no nominal sizes: a pixel is left.
    assert_eq!(cost_of(&graph.finish()).unwrap().multiplications, 4 * 18 + 4 * 4);
    for hostile in [&b"no graph"[..], &[0x3a, 0x02, 0x0a, 0x00]] {
        assert!(cost_of(hostile).is_err());
    }
}

#[test]
fn a_batch_in_pieces_says_what_it_says_at_once() {
    let model = network(|graph| {
        let x = graph.input("x", &[Dim::Free("batch"), Dim::Fixed(1), Dim::Fixed(2), Dim::Fixed(2)]);
        let y = graph.affine(&x, 2.0, 1.0);
        graph.output("y", &[Dim::Free("batch"), Dim::Fixed(1), Dim::Fixed(2), Dim::Fixed(2)], y);
    });
    let stage = |piece: usize| {
        NetworkStage::new(StageKind::Decode, model.clone(), &["x"], &["y"], vec![1, 2, 4, 8]).in_pieces(piece)
    };
    let item = |rows: usize, from: f32| {
        let data = (0..4 * rows).map(|i| from + i as f32).collect();
        Work::new(Noise::default()).with("x", Tensor { shape: vec![rows, 1, 2, 2], data })
    };
    for piece in [1, 2, 5, 7, 100] {
        let mut batch = [item(3, 0.0), item(2, 50.0)];
        stage(piece).run(&mut batch).unwrap();
        for (work, rows, from) in [(&batch[0], 3, 0.0), (&batch[1], 2, 50.0)] {
            let y = work.tensor("y").unwrap();
            let wanted: Vec<f32> = (0..4 * rows).map(|i| 2.0 * (from + i as f32) + 1.0).collect();
            assert_eq!((&y.shape[..], &y.data), (&[rows, 1, 2, 2][..], &wanted), "pieces of {piece}");
        }
    }
}

#[test]
fn a_run_without_memory_and_one_that_overflows_are_errors_of_their_own() {
    let large = network(|graph| {
        let x = graph.input("x", &[Dim::Free("batch"), Dim::Fixed(1)]);
        let shape = graph.integers(&[1 << 24, 1 << 24]);
        let y = graph.expand(&x, &shape);
        graph.output("y", &[Dim::Free("rows"), Dim::Free("columns")], y);
    });
    let one = [Input { name: "x", shape: &[1, 1], data: &[1.0] }];
    let error = large.run(&one).unwrap_err();
    assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
    let text = error.to_string();
    assert!(text.starts_with("small: there was no memory left") && text.lines().count() == 1, "{text}");

    let network = network(|graph| {
        let x = graph.input("x", &[Dim::Free("batch"), Dim::Fixed(1)]);
        let y = graph.affine(&x, 1e38, 0.0);
        graph.output("y", &[Dim::Free("batch"), Dim::Fixed(1)], y);
    });
    let stage = NetworkStage::new(StageKind::Forward, network, &["x"], &["y"], vec![1, 2]);
    let item = |x: f32| Work::new(Noise::default()).with("x", Tensor { shape: vec![1, 1], data: vec![x] });
    stage.run(&mut [item(1.0)]).unwrap();
    let error = stage.run(&mut [item(1.0), item(100.0)]).unwrap_err();
    assert!(matches!(&error, Error::NotFinite { output, .. } if output == "y"), "{error}");
    assert!(error.to_string().contains("fp16") && error.to_string().contains("precision=fp32"), "{error}");
}
