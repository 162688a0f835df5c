//! What a peer showed, judged by its pictures.

use std::path::{Path, PathBuf};

use crate::common;

const SIZE: (usize, usize) = (160, 90);
/// Mean absolute difference of the luma between a frame of the demo and the same frame with another mouth, encoded.
const SAME: f64 = 6.0;

/// The luma of every frame of a video or picture, at [`SIZE`].
fn thumbnails(file: &Path, folder: &Path) -> Vec<Vec<u8>> {
    let raw = folder.join("thumbnails.raw");
    let (width, height) = SIZE;
    let filter = format!("scale={width}:{height}:flags=area,format=gray");
    common::ffmpeg(&format!("-i {} -an -vf {filter} -f rawvideo", file.display()), &raw);
    std::fs::read(&raw).unwrap().chunks_exact(width * height).map(<[u8]>::to_vec).collect()
}

fn difference(a: &[u8], b: &[u8]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64
}

/// The pictures are the demo avatar, and it moves. It plays forward and backward, so two pictures can show one frame: of
/// three, the last within a second of the one before, some pair differs.
#[track_caller]
pub fn assert_avatar(pictures: &[PathBuf], folder: &Path) {
    assert!(pictures.len() > 2, "{pictures:?}");
    let avatar = thumbnails(&common::demo_video(), folder);
    let nearest = |picture: &PathBuf| {
        let shown = &thumbnails(picture, folder)[0];
        let (at, off) = avatar
            .iter()
            .map(|frame| difference(frame, shown))
            .enumerate()
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .expect("the demo has frames");
        println!("{}: frame {at} of the avatar, off by {off:.2}", picture.display());
        assert!(off < SAME, "{}: no frame of the avatar, off by {off}", picture.display());
        at
    };
    let frames: Vec<usize> = pictures.iter().map(nearest).collect();
    assert!(frames.iter().any(|frame| *frame != frames[0]), "the picture stands still: frames {frames:?}");
}
