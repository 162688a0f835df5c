use std::{path::Path, sync::Arc};

use safetensors::SafeTensors;

use super::{super::Ports, *};
use crate::{
    image::{Format, FrameMut, Matrix, PlaneMut, Range},
    import::onnx::{Conv, Dim, Graph, Precision},
    runtime::{Device, Options},
};

fn load(graph: Graph) -> Arc<Model> {
    let options = Options { device: Device::Cpu, ..Options::default() };
    Model::load("masker", &graph.finish()[..], &options).unwrap()
}

/// What is green is face.
fn xseg() -> Arc<Model> {
    let mut graph = Graph::new("xseg", Precision::Fp32);
    let sides = [Dim::Fixed(256), Dim::Fixed(256)];
    let x = graph.input("input", &[Dim::Free("batch"), sides[0], sides[1], Dim::Fixed(3)]);
    let y = graph.linear(&x, [1, 3], &[0.0, 1.0, 0.0], None).unwrap();
    graph.output("output", &[Dim::Free("batch"), sides[0], sides[1], Dim::Fixed(1)], y);
    load(graph)
}

/// What is more green than blue is skin, and hair else.
fn parser() -> Arc<Model> {
    let mut graph = Graph::new("bisenet", Precision::Fp32);
    let sides = [Dim::Fixed(512), Dim::Fixed(512)];
    let x = graph.input("input", &[Dim::Free("batch"), Dim::Fixed(3), sides[0], sides[1]]);
    let (mut weight, mut bias) = (vec![0.0; CLASSES * 3], vec![-10.0; CLASSES]);
    for (class, channel) in [(1, 1), (17, 2)] {
        (weight[class * 3 + channel], bias[class]) = (1.0, 0.0);
    }
    let conv = Conv { shape: [CLASSES, 3, 1, 1], weight, bias, stride: [1; 2], padding: [0; 2], groups: 1 };
    let y = graph.conv(&x, conv).unwrap();
    graph.output("output", &[Dim::Free("batch"), Dim::Fixed(CLASSES), sides[0], sides[1]], y);
    load(graph)
}

/// A picture of 200 by 160 pixels, R, G, B by the place.
fn with_picture<T>(paint: impl Fn(usize, usize) -> [u8; 3], f: impl FnOnce(&FrameView) -> T) -> T {
    let mut data: Vec<u8> = (0..160).flat_map(|y| (0..200).flat_map(|x| paint(x, y)).collect::<Vec<_>>()).collect();
    with_bytes(&mut data, f)
}

fn with_bytes<T>(data: &mut [u8], f: impl FnOnce(&FrameView) -> T) -> T {
    let planes = vec![PlaneMut { data, stride: 600 }];
    f(&FrameMut::new(Format::Rgb, (200, 160), Matrix::Bt709, Range::Full, planes).unwrap().view())
}

/// Eyes, nose and mouth of a face whose crop of 512 shows the frame from (50, 30) on, a hundred pixels wide.
fn five() -> [Point; 5] {
    ffhq(100).map(|p| p + Point::new(50.0, 30.0))
}

#[test]
fn what_lies_over_the_face_is_found_where_it_is() {
    // Something blue from the frame's column 110 on.
    let paint = |x: usize, _: usize| if x < 110 { [0, 255, 0] } else { [0, 0, 255] };
    // The unit crop shows the frame from (40, 20) on, 120 pixels wide: more than what the masker sees.
    let scale = 1.0 / 120.0;
    let place = Similarity { a: scale, b: 0.0, tx: -40.0 * scale, ty: -20.0 * scale };
    for (model, masker) in [(xseg(), Masker::Xseg), (parser(), Masker::BiSeNet)] {
        assert_eq!(Ports::of(model.signature()), Some(Ports::Published(masker)));
        let (to_crop, shown) = with_picture(paint, |frame| masker.prepared(frame, &five())).unwrap();
        let other = vec![0.0; shown.len()];
        let mut faces = masker.run(&model, &[shown, other]).unwrap();
        assert_eq!(faces.len(), 2);
        let chance = masker.covered(&faces.swap_remove(0), &to_crop, &place);
        let at = |x: f32, y: f32| chance[((y - 20.0) * 0.8) as usize * SIDE + ((x - 40.0) * 0.8) as usize];
        for y in [35.0, 80.0, 125.0] {
            assert_eq!((at(60.0, y), at(105.0, y), at(116.0, y), at(145.0, y)), (0.0, 0.0, 1.0, 1.0), "{masker:?} {y}");
            assert_eq!((at(44.0, y), at(156.0, y)), (0.0, 0.0), "{masker:?}: nothing is known beyond the crop");
        }
        let edge = (0..SIDE).filter(|x| (0.02..0.98).contains(&chance[50 * SIDE + x])).count();
        assert!(edge <= 4, "{masker:?}: the edge is {edge} pixels wide");
    }
}

#[test]
fn maskers_are_shown_what_the_published_program_shows_them() {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).map(|parent| parent.join("shared"));
    let Some(shared) = std::env::var_os("LIPSTREAM_SHARED").map(Into::into).or_else(beside) else { return };
    let folder = shared.join("golden/enhancers");
    let Ok(bytes) = std::fs::read(folder.join("golden.safetensors")) else {
        println!("skipped: {} is not there (LIPSTREAM_SHARED)", folder.display());
        return;
    };
    let golden = SafeTensors::deserialize(&bytes).unwrap();
    let numbers = |name: &str| -> Vec<f32> {
        golden.tensor(name).unwrap().data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    let mut frame = golden.tensor("frame").unwrap().data().to_vec();
    frame.as_chunks_mut::<3>().0.iter_mut().for_each(|p| p.swap(0, 2));
    let points = numbers("landmark5");
    let points: [Point; 5] = std::array::from_fn(|i| Point::new(points[2 * i], points[2 * i + 1]));
    // Every fourth row and column of 256, every eighth of 512; a code of BiSeNet's input is 1 / 255 of the range over a deviation.
    for (masker, name, code) in
        [(Masker::Xseg, "xseg/input", 1.0 / 255.0), (Masker::BiSeNet, "bisenet/input", 1.0 / 255.0 / 0.224)]
    {
        let (_, shown) = with_bytes(&mut frame, |frame| masker.prepared(frame, &points)).unwrap();
        let thinned: Vec<f32> = match masker {
            Masker::Xseg => {
                (0..64 * 64 * 3).map(|i| shown[((i / 192) * 4 * 256 + (i / 3 % 64) * 4) * 3 + i % 3]).collect()
            }
            Masker::BiSeNet => (0..3 * 64 * 64)
                .map(|i| shown[(i / 4096) * 512 * 512 + (i / 64 % 64) * 8 * 512 + (i % 64) * 8])
                .collect(),
        };
        let apart: Vec<f32> = thinned.iter().zip(numbers(name)).map(|(a, b)| (a - b).abs() / code).collect();
        let (mean, most) = (apart.iter().sum::<f32>() / apart.len() as f32, apart.iter().copied().fold(0.0, f32::max));
        assert!(mean <= 1.0 && most <= 4.5, "{name}: {mean:.3} codes in the mean, {most:.2} at most");
    }
    let model = |file: &str| {
        let options = Options { device: Device::Cpu, ..Options::default() };
        Ports::of(Model::open(&folder.join(file), &options).unwrap().signature())
    };
    assert_eq!(model("xseg_1.onnx"), Some(Ports::Published(Masker::Xseg)));
    assert_eq!(model("bisenet_resnet_34.onnx"), Some(Ports::Published(Masker::BiSeNet)));
    assert_eq!((model("gfpgan_1.4.onnx"), model("wav2lip_gan_96.onnx")), (None, None));
}
