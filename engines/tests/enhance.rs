//! Face restoration by published networks, beside what facefusion makes of the same frame.

mod common;

use std::path::Path;

use lipstream_engines::{
    enhance::Network,
    geometry::Point,
    image::{Format, FrameMut, Matrix, PlaneMut, Range},
    runtime::{Device, Options, Precision},
};
use safetensors::SafeTensors;

fn cpu() -> Options {
    Options { device: Device::Cpu, ..Options::default() }
}

struct Golden {
    bytes: Vec<u8>,
}

impl Golden {
    fn read(folder: &Path) -> Self {
        Self { bytes: std::fs::read(folder.join("golden.safetensors")).unwrap() }
    }

    fn f32(&self, name: &str) -> Vec<f32> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let data = file.tensor(name).unwrap().data().to_vec();
        data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    fn u8(&self, name: &str) -> Vec<u8> {
        SafeTensors::deserialize(&self.bytes).unwrap().tensor(name).unwrap().data().to_vec()
    }

    /// B, G, R as R, G, B.
    fn picture(&self, name: &str) -> Vec<u8> {
        let mut data = self.u8(name);
        data.as_chunks_mut::<3>().0.iter_mut().for_each(|p| p.swap(0, 2));
        data
    }

    fn points(&self) -> [Point; 5] {
        let all = self.f32("landmark5");
        std::array::from_fn(|i| Point::new(all[2 * i], all[2 * i + 1]))
    }
}

/// The mean and the largest difference, in 1/255.
fn apart(a: &[u8], b: &[u8]) -> (f64, u8) {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| a.abs_diff(*b));
    (differences.clone().map(f64::from).sum::<f64>() / a.len() as f64, differences.max().unwrap_or(0))
}

fn with_frame<T>(data: &mut [u8], f: impl FnOnce(&mut FrameMut) -> T) -> T {
    let planes = vec![PlaneMut { data, stride: 600 }];
    f(&mut FrameMut::new(Format::Rgb, (200, 160), Matrix::Bt709, Range::Full, planes).unwrap())
}

#[test]
fn frames_are_those_of_the_published_program() {
    let Some(folder) = common::shared("golden/enhancers") else { return };
    let golden = Golden::read(&folder);
    for (file, result, strength, weight) in [
        ("gfpgan_1.4", "result/gfpgan_1.4_blend80", 0.8, 0.5),
        ("codeformer", "result/codeformer_blend80_weight0.7", 0.8, 0.7),
        ("gpen_bfr_256", "result/gpen_bfr_256_blend80", 0.8, 0.5),
        ("gpen_bfr_512", "result/gpen_bfr_512_blend50", 0.5, 0.5),
    ] {
        let network = Network::open(&folder.join(format!("{file}.onnx")), &cpu()).unwrap();
        let mut frame = golden.picture("frame");
        with_frame(&mut frame, |frame| network.enhance(frame, &golden.points(), strength, weight)).unwrap();
        let (mean, most) = apart(&frame, &golden.picture(result));
        assert!(mean <= 1.0 && most <= 4, "{file}: {mean:.3} in the mean, {most} at most");
        let (before, _) = apart(&golden.picture("frame"), &golden.picture(result));
        assert!(before > 2.0, "{file}: the frame is the same without the network");
    }
}

#[test]
fn crops_are_those_of_the_published_program() {
    let Some(folder) = common::shared("golden/enhancers") else { return };
    let golden = Golden::read(&folder);
    for (file, crop, step) in [("gfpgan_1.4", "crop/ffhq_512_512", 2), ("gpen_bfr_256", "crop/arcface_128_256", 1)] {
        let network = Network::open(&folder.join(format!("{file}.onnx")), &cpu()).unwrap();
        let side = network.side();
        let mut frame = golden.picture("frame");
        let prepared = with_frame(&mut frame, |frame| network.prepare(&frame.view(), &golden.points())).unwrap();
        let taken: Vec<u8> = (0..side / step * (side / step))
            .flat_map(|i| {
                let at = (i / (side / step)) * step * side + (i % (side / step)) * step;
                [0, 1, 2].map(|c| ((prepared.pixels[c * side * side + at] * 0.5 + 0.5) * 255.0).round() as u8)
            })
            .collect();
        let (mean, most) = apart(&taken, &golden.picture(crop));
        assert!(mean <= 1.0 && most <= 4, "{file}: {mean:.3} in the mean, {most} at most");
    }
}

#[test]
fn what_is_no_enhancer_or_would_break_one_is_refused() {
    let Some(folder) = common::shared("golden/enhancers") else { return };
    let refused = |file: &str, options: &Options| Network::open(&folder.join(file), options).err().unwrap().to_string();
    assert!(refused("wav2lip_gan_96.onnx", &cpu()).contains("[1, 3, 512, 512]"));
    assert!(refused("xseg_1.onnx", &cpu()).contains("input"));
    let half = Options { precision: Precision::Fp16, ..cpu() };
    assert!(refused("gfpgan_1.4.onnx", &half).contains("precision"));
}
