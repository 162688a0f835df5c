use std::fs;

use lipstream_engines::{
    engine::pixel::Pixel,
    import::onnx::{Conv, Dim, Graph, Precision},
    manifest::Package,
};

use super::{pixel::*, *};

/// Numbers of a row: the mel, the face hidden and whole, the picture.
const ROW: usize = 80 * 16 + 9 * 96 * 96;

fn narrow_package(home: &Path) -> Package {
    imported(home, &[tiny::wav2lip(home)], None)
}

#[test]
fn wav2lip_in_the_memory_of_a_device_is_that_of_the_processor_in_all_formats() {
    let home = tempfile::tempdir().unwrap();
    streams(&narrow_package(home.path()));
}

/// A graph whose ports have names of their own: what is heard brightens what is seen.
fn named() -> Vec<u8> {
    let mut graph = Graph::new("named", Precision::Fp32);
    let shape = |shape: [usize; 3]| [&[Dim::Free("batch")][..], &shape.map(Dim::Fixed)].concat();
    let conv = |shape: [usize; 4], scale: f32, padding: [usize; 2]| Conv {
        shape,
        weight: (0..shape.iter().product()).map(|i| scale * (i as f32 * 0.7).sin()).collect(),
        bias: vec![0.1; shape[0]],
        stride: [1; 2],
        padding,
        groups: 1,
    };
    let (sound, seen) = (graph.input("source", &shape([1, 80, 16])), graph.input("target", &shape([6, 96, 96])));
    let sound = graph.conv(&sound, conv([3, 1, 80, 16], 0.05, [0; 2])).unwrap();
    let seen = graph.conv(&seen, conv([3, 6, 3, 3], 0.4, [1; 2])).unwrap();
    let both = graph.add(&seen, &sound);
    let picture = graph.sigmoid(&both);
    graph.output("said", &shape([3, 96, 96]), picture);
    graph.finish()
}

#[test]
fn a_graph_of_wav2lip_as_it_was_published_keeps_the_names_of_its_ports() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("named.onnx");
    fs::write(&file, named()).unwrap();
    let package = imported(home.path(), &[file], None);
    assert_eq!(package.manifest().wav2lip.as_ref().unwrap().ports.picture, "said");
    alike(&both(&package, &cpu()), &FORMATS[2..], 3);
}

#[test]
fn golden_checkpoints_of_wav2lip_in_the_memory_of_a_device_are_those_of_the_processor() {
    for file in ["wav2lip/wav2lip.pth", "wav2lip256/wav2lip256.pth", "enhancers/wav2lip_gan_96.onnx"] {
        let home = tempfile::tempdir().unwrap();
        let Some(package) = golden(home.path(), &[file]) else { return };
        println!("{file}");
        alike(&both(&package, &cpu()), &FORMATS, 2);
    }
}

#[test]
fn streams_of_wav2lip_share_a_run_and_a_batch_without_memory_is_halved_once() {
    let home = tempfile::tempdir().unwrap();
    batches(&narrow_package(home.path()), 4 * ROW);
}

#[test]
fn regions_of_wav2lip_travel_and_the_mask_does_not() {
    let home = tempfile::tempdir().unwrap();
    // A jaw of 100 pixels is a box 151 high, its crop 169 square, of which the lower half is pasted; beside them the mel, shares of 192
    // columns and rows, and where rows begin.
    let (region, beside) = (171 * 171 * 3 / 2, 80 * 16 * 4 + 2 * 192 * 4 + 2 * 192 * 8 + 2 * 100 * 16);
    travels(&narrow_package(home.path()), [region + region / 2 + beside, region / 2 + 64]);
}

#[test]
fn what_wav2lip_showed_last_is_held_and_frames_without_memory_are_left() {
    let home = tempfile::tempdir().unwrap();
    let package = narrow_package(home.path());
    held_and_left(&package, 192);
    let refused = Pixel::load_in(&package.exact().unwrap(), &cpu(), host()).err().unwrap();
    assert!(refused.to_string().contains("leave exact=false"), "{refused}");
}
