use std::fs;

use lipstream_engines::manifest::{Features, Package};
use safetensors::SafeTensors;

use super::{pixel::*, *};

/// Numbers of a row: what is heard, the face whole and hidden, the picture.
const ROW: usize = 16 * 256 + 9 * 160 * 160;

/// A network of a few channels, of 160 pixels, that hears the features of `compact`.
fn narrow_package(home: &Path) -> Package {
    let bytes = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/synctalk2d.safetensors")).unwrap();
    let all = SafeTensors::deserialize(&bytes).unwrap();
    // What PyTorch says lies beside the weights.
    let weights = all.tensors().into_iter().filter(|(name, _)| name != "golden.out");
    let file = home.join("unet.safetensors");
    fs::write(&file, safetensors::serialize(weights, None).unwrap()).unwrap();
    imported(home, &[file], Some(Features::Compact))
}

#[test]
fn synctalk2d_in_the_memory_of_a_device_is_that_of_the_processor_in_all_formats() {
    let home = tempfile::tempdir().unwrap();
    streams(&narrow_package(home.path()));
}

#[test]
fn golden_checkpoints_of_synctalk2d_in_the_memory_of_a_device_are_those_of_the_processor() {
    for unet in ["unet_160_ave.pth", "unet_328_ave.pth"] {
        let home = tempfile::tempdir().unwrap();
        let files = [&format!("synctalk2d/{unet}"), "synctalk2d/audio_visual_encoder.pth"];
        let Some(package) = golden(home.path(), &files) else { return };
        println!("{unet}");
        alike(&both(&package, &cpu()), &FORMATS, 2);
    }
}

#[test]
fn streams_of_synctalk2d_share_a_run_and_a_batch_without_memory_is_halved_once() {
    let home = tempfile::tempdir().unwrap();
    batches(&narrow_package(home.path()), 4 * ROW);
}

#[test]
fn regions_of_synctalk2d_travel_and_the_mask_does_not() {
    let home = tempfile::tempdir().unwrap();
    // From ear to ear are less than 100 pixels, its crop is 1.07 times as large; beside it what is heard, shares of 256 columns and rows,
    // and where rows begin.
    let (region, beside) = (109 * 109 * 3 / 2, 16 * 256 * 4 + 2 * 256 * 4 + 2 * 256 * 8 + 2 * 109 * 16);
    travels(&narrow_package(home.path()), [2 * region + beside, region + 64]);
}

#[test]
fn what_synctalk2d_showed_last_is_held_and_frames_without_memory_are_left() {
    let home = tempfile::tempdir().unwrap();
    held_and_left(&narrow_package(home.path()), 256);
}
