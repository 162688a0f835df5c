//! Pictures with transparency: a cut-out person keeps a clean edge from file to file, and in the forms for encoders without alpha.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{common::*, kinds, silence};
use serde_json::Value;

const WIDTH: usize = 640;
const HEIGHT: usize = 360;
/// What the person is laid on, R, G, B.
const BACKGROUNDS: [[u8; 3]; 3] = [[0, 0, 0], [255, 255, 255], [0, 200, 60]];
/// Mean error of edge pixels that a viewer does not see, in codes of 255.
const CLEAN: f64 = 2.0;

/// Frames of a video.
const FRAMES: usize = 5;

/// How the matte falls at the edge, in codes a tenth of its radius: soft over some ten pixels, and cut with scissors.
const SOFT: f64 = 2200.0;
const HARD: f64 = 1e9;

/// Alpha of a pixel: head and shoulders.
fn matte(x: usize, y: usize, slope: f64) -> u8 {
    let across = (x as f64 - 320.0) / 150.0;
    let along = (y as f64 - 190.0) / 175.0;
    ((1.05 - across.hypot(along)) * slope).clamp(0.0, 255.0) as u8
}

/// The demo with a soft matte. What nobody sees is loud magenta.
fn cut_out(folder: &Path, name: &str, codec: &str) -> PathBuf {
    cut_out_by(SOFT, folder, name, codec)
}

fn cut_out_by(slope: f64, folder: &Path, name: &str, codec: &str) -> PathBuf {
    let (raw, out) = (folder.join("cut-out.raw"), folder.join(name));
    let demo = demo_video();
    ffmpeg(
        &format!("-i {} -an -frames:v {FRAMES} -vf scale={WIDTH}:{HEIGHT} -pix_fmt rgba -f rawvideo", demo.display()),
        &raw,
    );
    let mut pixels = fs::read(&raw).expect("ffmpeg wrote it");
    for (i, pixel) in pixels.chunks_mut(4).enumerate() {
        let place = i % (WIDTH * HEIGHT);
        pixel[3] = matte(place % WIDTH, place / WIDTH, slope);
        if pixel[3] == 0 {
            pixel[..3].copy_from_slice(&[255, 0, 255]);
        }
    }
    fs::write(&raw, pixels).expect("is written");
    ffmpeg(&format!("-f rawvideo -pix_fmt rgba -s {WIDTH}x{HEIGHT} -r 25 -i {} {codec}", raw.display()), &out);
    out
}

/// Frames of a video with alpha as ffmpeg shows them, R, G, B, A.
fn rgba(file: &Path, decoder: &str, folder: &Path) -> Vec<u8> {
    let raw = folder.join("rgba.raw");
    ffmpeg(&format!("{decoder} -i {} -map 0:v:0 -pix_fmt rgba -f rawvideo", file.display()), &raw);
    fs::read(raw).expect("ffmpeg wrote it")
}

/// Reads chroma of 4:2:0 between four pixels, as x264's streams say and players do; ffmpeg by itself repeats it, which shows at any edge in colour.
const SMOOTH: &str = "-vf scale=in_h_chr_pos=128:in_v_chr_pos=128:flags=bilinear+accurate_rnd+full_chroma_int";

/// A pixel as it is seen.
fn over(pixel: &[u8], background: [u8; 3]) -> [f64; 3] {
    let alpha = f64::from(pixel[3]) / 255.0;
    std::array::from_fn(|c| f64::from(pixel[c]) * alpha + f64::from(background[c]) * (1.0 - alpha))
}

/// Whether a pixel or one beside it is neither hidden nor opaque, for all pixels of one frame.
fn edge(frame: &[u8], width: usize) -> Vec<bool> {
    let soft: Vec<bool> = frame.chunks(4).map(|pixel| (1..255).contains(&pixel[3])).collect();
    let height = soft.len() / width;
    let around = |i: usize| {
        let (x, y) = (i % width, i / width);
        let columns = x.saturating_sub(2)..(x + 3).min(width);
        let mut rows = y.saturating_sub(2)..(y + 3).min(height);
        rows.any(|y| columns.clone().any(|x| soft[y * width + x]))
    };
    (0..soft.len()).map(around).collect()
}

/// Mean and 99.9th percentile of the error at the edge over the three backgrounds, of the same frames of two videos.
fn edge_error(source: &[u8], other: &[u8], width: usize, height: usize) -> (f64, f64) {
    let size = width * height * 4;
    assert_eq!(
        (source.len() % size, source.len()),
        (0, other.len()),
        "another number of frames, or frames of another size"
    );
    let mut errors = Vec::new();
    for (a, b) in source.chunks(size).zip(other.chunks(size)) {
        let edge = edge(a, width);
        assert!(edge.iter().filter(|e| **e).count() > width, "the source has an edge");
        for ((a, b), _) in a.chunks(4).zip(b.chunks(4)).zip(edge).filter(|(_, edge)| *edge) {
            for background in BACKGROUNDS {
                errors.extend(over(a, background).into_iter().zip(over(b, background)).map(|(a, b)| (a - b).abs()));
            }
        }
    }
    errors.sort_by(f64::total_cmp);
    (errors.iter().sum::<f64>() / errors.len() as f64, errors[errors.len() * 999 / 1000])
}

#[track_caller]
fn clean(what: &str, source: &[u8], other: &[u8]) {
    let (mean, most) = edge_error(source, other, WIDTH, HEIGHT);
    println!("{what}: edge error {mean:.2}, 99.9 % below {most:.1}");
    assert!(mean <= CLEAN, "{what}: the edge is off by {mean:.2} codes");
}

#[track_caller]
fn render(folder: &Path, video: &Path, out: &Path, more: &[&str]) -> Value {
    let mut command = lipstream(folder);
    command.args(["render", "--json", "-q", "--no-gather", "--no-loop", "--quality", "high"]).args(more);
    let output = succeed(command.arg("--video").arg(video).arg("--audio").arg(silence(folder)).arg("-o").arg(out));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

#[test]
fn alpha_of_every_kind_of_file_is_kept_into_every_kind_of_file() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let vp9 = cut_out(f, "in.webm", "-c:v libvpx-vp9 -pix_fmt yuva420p -b:v 0 -crf 4 -deadline realtime -cpu-used 8");
    let prores = cut_out(f, "in.mov", "-c:v prores_ks -profile:v 4444 -pix_fmt yuva444p10le");
    fs::create_dir(f.join("in")).unwrap();
    let pictures = cut_out(f, "in/%03d.png", "-pix_fmt rgba");
    let (webm, mov, out) = (f.join("out.webm"), f.join("out.mov"), f.join("out/%05d.png"));
    let vpx = "-c:v libvpx-vp9";

    let summary = render(f, &vp9, &mov, &["--alpha", "keep"]);
    assert_eq!(kinds(&summary), ["alpha"], "{summary}");
    let stream = probe(&mov, "v");
    assert_eq!((stream.text("codec_name"), stream.text("profile")), ("prores", "4444"));
    clean("VP9 to ProRes", &rgba(&vp9, vpx, f), &rgba(&mov, "", f));

    render(f, &prores, &out, &["--alpha", "keep"]);
    assert_eq!(names(&f.join("out")).len(), FRAMES, "{:?}", names(&f.join("out")));
    clean("ProRes to PNG", &rgba(&prores, "", f), &rgba(&out, "-start_number 0", f));

    let vp8 =
        cut_out(f, "vp8.webm", "-c:v libvpx -pix_fmt yuva420p -auto-alt-ref 0 -b:v 20M -crf 4 -deadline realtime");
    let read = rgba_through(&vp8, "lippicture keep-alpha=true", f);
    clean("VP8, as it is read", &rgba(&vp8, "-c:v libvpx", f), &read);

    // In colours that a picture of this size seldom has, scaled to where they are usual and to where not.
    let codec = "-vf scale=out_color_matrix=bt709 -colorspace bt709 -color_primaries bt709 -color_trc bt709";
    let tagged = cut_out(
        f,
        "bt709.webm",
        &format!("{codec} -c:v libvpx-vp9 -pix_fmt yuva420p -b:v 0 -crf 4 -deadline realtime -cpu-used 8"),
    );
    for more in ["", " default-colors=true"] {
        let read = rgba_through(&tagged, &format!("lippicture keep-alpha=true{more}"), f);
        clean(&format!("BT.709{more}"), &rgba(&tagged, vpx, f), &read);
        let (seen, wanted) = (&read[..4 * WIDTH * HEIGHT], &rgba(&tagged, vpx, f)[..4 * WIDTH * HEIGHT]);
        let seen = seen.chunks(4).zip(wanted.chunks(4)).filter(|(a, b)| a[3] == 255 && b[3] == 255);
        let off: Vec<f64> =
            seen.flat_map(|(a, b)| (0..3).map(|c| f64::from(a[c]) - f64::from(b[c])).collect::<Vec<_>>()).collect();
        let mean = off.iter().map(|off| off.abs()).sum::<f64>() / off.len() as f64;
        println!("BT.709{more}: inside off by {mean:.2}");
        // 1.3 of it are how `videoconvert` makes RGB.
        assert!(mean < 2.0, "colours are off by {mean:.2}");
    }

    render(f, &pictures, &webm, &["--alpha", "keep", "--fps", "25"]);
    let (video, audio) = (probe(&webm, "v"), probe(&webm, "a"));
    assert_eq!((video.text("codec_name"), audio.text("codec_name")), ("vp9", "opus"));
    assert!((video.end() - FRAMES as f64 / 25.0).abs() < 0.01 && audio.number("start_time").abs() < 0.01);
    clean("PNG to VP9", &rgba(&pictures, "", f), &rgba(&webm, vpx, f));

    // GStreamer reads what was written too.
    render(f, &webm, &f.join("again.mov"), &["--alpha", "keep"]);
    clean("VP9 again", &rgba(&pictures, "", f), &rgba(&f.join("again.mov"), "", f));
}

#[test]
fn what_asks_for_no_alpha_is_opaque_and_what_cannot_hold_it_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let source = cut_out(f, "in.mov", "-c:v qtrle -pix_fmt argb");
    let wanted = rgba(&source, "", f);
    let corner = |file: &Path| rgba(file, "", f)[..4].to_vec();
    let (plain, key) = (f.join("plain.mp4"), f.join("key.mp4"));
    let summary = render(f, &source, &plain, &[]);
    assert_eq!(kinds(&summary), ["flattened"], "{summary}");
    assert_eq!(corner(&plain), [0, 0, 0, 255]);

    render(f, &source, &key, &["--alpha", "#00c83c"]);
    let laid: Vec<u8> = wanted
        .chunks(4)
        .flat_map(|pixel| over(pixel, BACKGROUNDS[2]).map(|c| c.round() as u8).into_iter().chain([255]))
        .collect();
    let stream = probe(&key, "v");
    assert_eq!(stream.text("chroma_location"), "center");
    let raw = f.join("keyed.raw");
    ffmpeg(&format!("-i {} {SMOOTH} -pix_fmt rgba -f rawvideo", key.display()), &raw);
    let keyed = fs::read(raw).unwrap();
    let edge: Vec<bool> = wanted.chunks(WIDTH * HEIGHT * 4).flat_map(|frame| edge(frame, WIDTH)).collect();
    let errors = laid.chunks(4).zip(keyed.chunks(4)).zip(edge).filter(|(_, edge)| *edge);
    let errors: Vec<f64> = errors
        .flat_map(|((a, b), _)| a.iter().zip(b).take(3).map(|(a, b)| f64::from(a.abs_diff(*b))).collect::<Vec<_>>())
        .collect();
    let mean = errors.iter().sum::<f64>() / errors.len() as f64;
    println!("key: edge error {mean:.2}");
    assert!(mean <= CLEAN, "on the key colour the edge is off by {mean:.2}");

    let mut command = lipstream(f);
    command.args(["render", "-q", "--alpha", "keep", "--video"]).arg(&source).arg("--audio").arg(silence(f));
    let (code, says) = fail(command.arg("-o").arg(f.join("out.mp4")));
    assert!(code == 2 && says.contains("MP4 cannot hold transparency; .webm, .mov and pictures"), "{code} {says}");
    let mut command = lipstream(f);
    command.args(["render", "-q", "--fps", "25", "--video"]).arg(&source).arg("--audio").arg(silence(f));
    let (code, says) = fail(command.arg("-o").arg(f.join("out.mp4")));
    assert!(code == 2 && says.contains("--fps:") && says.contains("pictures as %05d.png"), "{code} {says}");
}

/// Frames of `source` through a line of GStreamer's, as I420.
fn through(source: &Path, line: &str, folder: &Path) -> Vec<u8> {
    let out = folder.join("through.raw");
    let mut command = gst_tool("gst-launch-1.0", folder);
    let (source, out_text) = (source.display(), out.display());
    let description = format!("filesrc location={source} ! decodebin ! {line} ! filesink location={out_text}");
    succeed(command.arg("-q").args(description.split_whitespace()));
    fs::read(out).expect("GStreamer wrote it")
}

/// As [`through`], in RGBA.
fn rgba_through(source: &Path, line: &str, folder: &Path) -> Vec<u8> {
    through(source, &format!("{line} ! videoconvert ! video/x-raw,format=RGBA"), folder)
}

#[test]
fn scaling_mixes_nothing_hidden_into_the_edge() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    // Hidden colours touch those that are seen: mixed in they are off by 20 codes and more.
    let source = cut_out_by(HARD, f, "in.mov", "-c:v qtrle -pix_fmt argb");
    for (width, height) in [(320, 180), (854, 480)] {
        let size = format!("width={width} height={height}");
        let wanted = BACKGROUNDS.map(|background| {
            let [r, g, b] = background.map(u32::from);
            // The same scaler on what is seen over the colour.
            rgba_through(&source, &format!("lippicture background={} {size}", r << 16 | g << 8 | b), f)
        });
        for format in ["", " ! video/x-raw,format=A420"] {
            let kept = rgba_through(&source, &format!("lippicture keep-alpha=true {size}{format}"), f);
            let soft: Vec<usize> = (0..kept.len() / 4).filter(|i| (1..255).contains(&kept[4 * i + 3])).collect();
            assert!(soft.len() > 2 * width && wanted.iter().all(|wanted| wanted.len() == kept.len()));
            let mut sum = 0.0;
            for (wanted, background) in wanted.iter().zip(BACKGROUNDS) {
                for i in &soft {
                    let (seen, wanted) = (over(&kept[4 * i..], background), &wanted[4 * i..]);
                    sum += (0..3).map(|c| (seen[c] - f64::from(wanted[c])).abs()).sum::<f64>();
                }
            }
            let mean = sum / (9 * soft.len()) as f64;
            println!("{width}x{height}{format}: edge error {mean:.2}");
            assert!(mean <= CLEAN, "{width}x{height}{format}: the edge is off by {mean:.2} codes");
        }
    }
}

#[test]
fn borders_of_what_is_transparent_are_so_too() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let source = cut_out(f, "in.mov", "-c:v qtrle -pix_fmt argb");
    let opaque = f.join("opaque.mp4");
    ffmpeg(&format!("-i {} -an -frames:v 2 -vf scale=640:360 -c:v libx264", demo_video().display()), &opaque);
    // From a square of 320 the picture takes 180 rows.
    let square = "lippicture keep-alpha=true width=320 height=320";
    for (video, line) in [(&source, square.to_owned()), (&opaque, format!("{square} ! video/x-raw,format=A420"))] {
        let shown = rgba_through(video, &line, f);
        let alpha = |row: usize| shown[(row * 320 + 160) * 4 + 3];
        assert_eq!([0, 68, 160, 251, 319].map(alpha), [0, 0, 255, 0, 0], "{}", video.display());
    }
}

#[test]
fn a_stack_is_the_picture_above_its_alpha_to_the_code() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let source = cut_out(f, "in.mov", "-c:v qtrle -pix_fmt argb");
    let wanted = rgba(&source, "", f);
    let stacks = through(&source, "lippicture keep-alpha=true ! lipalpha alpha=stack ! video/x-raw,format=I420", f);
    let (luma, chroma) = (WIDTH * HEIGHT, WIDTH * HEIGHT / 2);
    assert_eq!(stacks.len(), FRAMES * 3 * luma);
    for (stack, frame) in stacks.chunks(3 * luma).zip(wanted.chunks(4 * luma)) {
        for (code, pixel) in stack[luma..2 * luma].iter().zip(frame.chunks(4)) {
            let alpha = (f64::from(*code) - 16.0) * 255.0 / 219.0;
            assert!((alpha - f64::from(pixel[3])).abs() < 0.6, "{alpha:.1} in place of {}", pixel[3]);
        }
        let (blue, red) = stack[2 * luma..].split_at(chroma);
        for plane in [blue, red] {
            assert!(plane[chroma / 2..].iter().all(|code| *code == 128), "the matte is grey");
            assert!(plane[..chroma / 2].iter().any(|code| *code != 128), "the picture has colours");
        }
    }
    // What is opaque has a white matte, and passes where it is to be laid on a colour.
    let opaque = f.join("opaque.mp4");
    ffmpeg(&format!("-i {} -an -frames:v 2 -vf scale=640:360 -c:v libx264 -crf 10", demo_video().display()), &opaque);
    let stack = through(&opaque, "lippicture ! lipalpha alpha=stack ! video/x-raw,format=I420", f);
    assert!(stack[luma..2 * luma].iter().all(|code| *code == 235));
    let (plain, keyed) =
        (through(&opaque, "lippicture", f), through(&opaque, "lippicture ! lipalpha alpha=key:#00ff00", f));
    assert!(plain == keyed);
}

#[test]
fn pictures_are_played_backward_and_forward_again() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    fs::create_dir(f.join("in")).unwrap();
    let pictures = f.join("in/p%d.png");
    ffmpeg(&format!("-i {} -an -frames:v 5 -vf fps=2,scale={WIDTH}:{HEIGHT}", demo_video().display()), &pictures);
    let out = f.join("out/%02d.png");
    // 0.4 s at 20 a second: 1 2 3 4 5 4 3 2.
    let mut command = lipstream(f);
    command.args(["render", "-q", "--no-gather", "--fps", "20", "--video"]).arg(&pictures);
    succeed(command.arg("--audio").arg(silence(f)).arg("-o").arg(&out));
    let (source, shown) = (rgba(&pictures, "", f), rgba(&out, "-start_number 0", f));
    let size = WIDTH * HEIGHT * 4;
    assert_eq!((source.len() / size, shown.len() / size), (5, 8));
    // The top holds no face.
    let top = |frame: usize, of: &[u8]| of[frame * size..frame * size + WIDTH * 72 * 4].to_vec();
    let off =
        |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64;
    for (frame, wanted) in [0, 1, 2, 3, 4, 3, 2, 1].into_iter().enumerate() {
        let errors: Vec<f64> = (0..5).map(|n| off(&top(frame, &shown), &top(n, &source))).collect();
        let best = (0..5).min_by(|a, b| errors[*a].total_cmp(&errors[*b])).unwrap();
        assert_eq!(best, wanted, "frame {frame}: {errors:?}");
    }
}
