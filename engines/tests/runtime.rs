//! The runtime with the models that are built in. Needs libonnxruntime (`make setup`).

use lipstream_engines::{
    manifest::Package,
    runtime::{Device, Input, Model, Options, Origin, Precision, survey},
};

fn motion(options: &Options) -> lipstream_engines::Result<std::sync::Arc<Model>> {
    Model::load("motion", Package::find("compact")?.file("motion")?, options)
}

fn on(device: Device) -> Options {
    Options { device, ..Options::default() }
}

fn run(model: &Model, batch: usize) -> Vec<f32> {
    let sizes = |name: &str| {
        let port = model.signature().inputs.iter().find(|p| p.name == name).unwrap();
        port.shape.iter().map(|d| d.unwrap_or(batch)).collect::<Vec<usize>>()
    };
    let wave = |n: usize| (0..n).map(|i| (i as f32 * 0.37).sin()).collect::<Vec<f32>>();
    let (latent, timestep, cond) = (sizes("latent"), sizes("timestep"), sizes("cond"));
    let outputs = model
        .run(&[
            Input { name: "cond", shape: &cond, data: &wave(cond.iter().product()) },
            Input { name: "latent", shape: &latent, data: &wave(latent.iter().product()) },
            Input { name: "timestep", shape: &timestep, data: &vec![0.5; batch] },
        ])
        .unwrap();
    assert_eq!(outputs[0].shape, latent);
    outputs[0].data.clone()
}

#[test]
fn auto_takes_the_first_device_that_works() {
    let first = survey().iter().find(|a| a.works.is_ok()).expect("no device at all").device;
    let large = lipstream_engines::runtime::taken(Device::Auto, Precision::Auto, 100 << 20).unwrap();
    assert_eq!(large, first);
    // This one is small: OpenVINO is passed over.
    let small = if first == Device::OpenVino { Device::Cpu } else { first };
    assert_eq!(motion(&Options::default()).unwrap().device(), small);
}

#[test]
fn every_device_that_works_computes_the_same() {
    let reference = run(&motion(&on(Device::Cpu)).unwrap(), 4);
    for availability in survey().iter().filter(|a| a.works.is_ok()) {
        let options = Options { precision: Precision::Fp32, ..on(availability.device) };
        let model = motion(&options).unwrap();
        for (a, b) in run(&model, 4).iter().zip(&reference) {
            assert!((a - b).abs() < 1e-3, "{}: {a} instead of {b}", availability.device);
        }
    }
}

#[test]
fn a_named_device_that_fails_is_an_error_with_a_cure() {
    for failing in survey().iter().filter(|a| a.works.is_err()) {
        let error = motion(&on(failing.device)).err().expect("a device that does not work was taken").to_string();
        assert!(error.contains(&failing.device.to_string()), "{error}");
        assert!(error.contains("make setup") && !error.contains('\n'), "{error}");
    }
    let error = motion(&Options { precision: Precision::Int8, ..on(Device::Cpu) }).err().unwrap().to_string();
    assert!(error.contains("cpu") && error.contains("int8") && error.contains("fp32"), "{error}");
}

#[test]
fn wrong_shapes_are_refused_with_expected_and_found() {
    let model = motion(&on(Device::Cpu)).unwrap();
    let error = model
        .run(&[
            Input { name: "latent", shape: &[1, 3], data: &[0.0; 3] },
            Input { name: "timestep", shape: &[1], data: &[0.0] },
            Input { name: "cond", shape: &[1, 1], data: &[0.0] },
        ])
        .unwrap_err()
        .to_string();
    assert!(error.contains("`latent`") && error.contains("[batch, 12]") && error.contains("[1, 3]"), "{error}");
    assert!(model.run(&[]).unwrap_err().to_string().contains("inputs: expected 3, found 0"));
}

#[test]
fn bytes_that_are_no_model_are_an_error() {
    for bytes in [&b""[..], b"not a model", &[0u8; 4096]] {
        let error = Model::load("broken.onnx", bytes, &on(Device::Cpu)).err().unwrap().to_string();
        assert!(error.starts_with("broken.onnx: ") && !error.contains('\n'), "{error}");
    }
}

#[test]
fn equal_models_are_loaded_once() {
    let bytes = Package::find("compact").unwrap().file("motion").unwrap();
    let origin = Origin { engine: "compact", digest: "its hash" };
    let load = |device| Model::shared("motion", "its hash", &origin, bytes.clone(), &on(device)).unwrap();
    let first = load(Device::Cpu);
    assert!(std::sync::Arc::ptr_eq(&first, &load(Device::Cpu)));
}

#[test]
fn ports_of_other_types_are_fed_and_read_as_f32() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/types.onnx");
    let model = Model::open(&path, &on(Device::Cpu)).unwrap();
    let data = [2.6f32, 1e10];
    let inputs = ["a", "b", "c", "d"].map(|name| Input { name, shape: &[1, 2], data: &data });
    let outputs: Vec<Vec<f32>> = model.run(&inputs).unwrap().into_iter().map(|tensor| tensor.data).collect();
    // f16 rounds, integers round and saturate.
    assert!((outputs[0][0] - 2.6).abs() < 1e-3 && outputs[0][1] == f32::INFINITY, "{outputs:?}");
    assert_eq!(outputs[1..], [vec![3.0, 1e10], vec![3.0, 2147483648.0], vec![3.0, 255.0]]);
}
