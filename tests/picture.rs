//! Pictures of every kind that cameras, phones and editors make: what comes out looks as the source does and says so.

#[path = "picture/alpha.rs"]
mod alpha;
mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use common::*;
use serde_json::Value;

/// Ten frames of the demo, 640x360, through `filter`, encoded as `codec` says.
fn source(folder: &Path, name: &str, filter: &str, codec: &str) -> PathBuf {
    let out = folder.join(name);
    ffmpeg(&format!("-i {} -an -frames:v 10 -vf scale=640:360{filter} {codec}", demo_video().display()), &out);
    out
}

/// 0.4 s of silence.
fn silence(folder: &Path) -> PathBuf {
    let out = folder.join("silence.wav");
    ffmpeg("-f lavfi -i anullsrc=r=16000:cl=mono -t 0.4", &out);
    out
}

/// Renders `video` with silence; gives the summary and what stood on stderr.
#[track_caller]
fn render(folder: &Path, video: &Path, out: &Path) -> (Value, String) {
    let mut command = lipstream(folder);
    command.args(["render", "--json", "-q", "--preset", "ultrafast", "--crf", "8"]);
    let output = succeed(command.arg("--video").arg(video).arg("--audio").arg(silence(folder)).arg("-o").arg(out));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    (serde_json::from_slice(&output.stdout).expect("one JSON object"), errors)
}

fn kinds(summary: &Value) -> Vec<&str> {
    summary["notices"].as_array().into_iter().flatten().map(|n| n["kind"].as_str().expect("a kind")).collect()
}

/// RGB of all frames as ffmpeg shows them.
fn rgb(file: &Path, folder: &Path) -> Vec<u8> {
    let raw = folder.join("rgb.raw");
    ffmpeg(&format!("-i {} -map 0:v:0 -pix_fmt rgb24 -f rawvideo", file.display()), &raw);
    fs::read(raw).expect("ffmpeg wrote it")
}

/// PSNR in dB of the top fifth of the picture, which holds no face, over all frames of two RGB videos of 640x360.
fn top_psnr(a: &[u8], b: &[u8]) -> f64 {
    let (size, top) = (640 * 360 * 3, 640 * 72 * 3);
    assert_eq!((a.len() % size, a.len()), (0, b.len()), "another number of frames, or frames of another size");
    let rows = |v: &[u8]| v.chunks(size).flat_map(|frame| frame[..top].to_vec()).collect::<Vec<_>>();
    let (a, b) = (rows(a), rows(b));
    let square: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum();
    10.0 * (65_025.0 / (square / a.len() as f64).max(1e-9)).log10()
}

#[track_caller]
fn has_tags(file: &Path, range: &str, others: &str) {
    let stream = probe(file, "v");
    let tags = ["color_range", "color_space", "color_transfer", "color_primaries"].map(|key| stream.text(key));
    assert_eq!(tags, [range, others, others, others], "{}", file.display());
}

#[test]
fn full_range_stays_full_range_in_every_container_that_holds_it() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let full = ":out_range=pc,format=yuvj420p";
    let made = source(f, "made.mp4", full, "-color_range pc -c:v libx264 -preset ultrafast -crf 4");
    let wanted = rgb(&made, f);
    for (input, output) in [("mp4", "mkv"), ("mov", "mp4"), ("mkv", "mov"), ("ts", "webm")] {
        let video = f.join(format!("in.{input}"));
        ffmpeg(&format!("-i {} -c copy", made.display()), &video);
        let out = f.join(format!("out.{output}"));
        render(f, &video, &out);
        has_tags(&out, if output == "webm" { "tv" } else { "pc" }, "bt709");
        let psnr = top_psnr(&wanted, &rgb(&out, f));
        // VP8 has a bit rate here and no quality.
        let least = if output == "webm" { 30.0 } else { 38.0 };
        assert!(psnr > least, "{input} to {output}: {psnr:.1} dB");
    }
}

#[test]
fn the_range_of_the_container_holds_where_the_bitstream_says_none() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let full = ":out_range=pc:out_color_matrix=bt601,format=yuvj420p";
    let video = source(
        f,
        "in.mp4",
        full,
        "-c:v mpeg4 -q:v 1 -color_range pc -colorspace smpte170m -color_primaries smpte170m -color_trc smpte170m",
    );
    let out = f.join("out.mp4");
    render(f, &video, &out);
    has_tags(&out, "pc", "smpte170m");
}

#[test]
fn every_pixel_format_that_decoders_give_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    // Name, codec, and the notice that must be given.
    let list = [
        ("422.mp4", "-pix_fmt yuv422p -c:v libx264 -preset ultrafast -crf 4", Some("chroma")),
        ("444.mp4", "-pix_fmt yuv444p -c:v libx264 -preset ultrafast -crf 4", Some("chroma")),
        ("10bit.mkv", "-pix_fmt yuv420p10le -c:v libx264 -preset ultrafast -crf 4", Some("bit-depth")),
        ("rgb.mkv", "-c:v libx264rgb -preset ultrafast -crf 4", None),
        ("grey.mkv", "-pix_fmt gray -c:v libx264 -preset ultrafast -crf 4", None),
        ("prores.mov", "-pix_fmt yuva444p10le -c:v prores_ks -profile:v 4444", Some("flattened")),
        ("alpha.webm", "-pix_fmt yuva420p -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -crf 4", Some("flattened")),
        ("animation.mov", "-pix_fmt bgra -c:v qtrle", Some("flattened")),
        ("dnxhr.mov", "-pix_fmt yuv422p -c:v dnxhd -profile:v dnxhr_hq", Some("chroma")),
        ("xdcam.mxf", "-pix_fmt yuv422p -c:v mpeg2video -q:v 1", Some("chroma")),
        ("mjpeg.avi", "-pix_fmt yuvj420p -c:v mjpeg -q:v 1", None),
    ];
    for (name, codec, notice) in list {
        let video = source(f, name, "", codec);
        let out = f.join("out.mp4");
        let (summary, _) = render(f, &video, &out);
        assert_eq!(summary["frames"], 10, "{name}");
        let psnr = top_psnr(&rgb(&video, f), &rgb(&out, f));
        assert!(psnr > 34.0, "{name}: {psnr:.1} dB");
        if let Some(notice) = notice {
            assert!(kinds(&summary).contains(&notice), "{name}: {summary}");
        }
    }
}

#[test]
fn what_is_transparent_is_laid_on_black_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let hole = ",format=rgba,geq=r='r(X,Y)':g='g(X,Y)':b='b(X,Y)':a='255*gt(Y,40)'";
    let video = source(f, "in.mov", hole, "-c:v qtrle");
    let out = f.join("out.mp4");
    let (_, errors) = render(f, &video, &out);
    assert!(errors.contains("in.mov: the picture has transparency"), "{errors}");
    let pictures = rgb(&out, f);
    assert!(pictures[..640 * 3 * 36].iter().all(|v| *v < 8), "the hole is black");
    assert!(pictures[640 * 3 * 50..640 * 3 * 60].iter().any(|v| *v > 60), "the rest is not");
}

#[test]
fn a_size_that_changes_on_the_way_is_scaled_to_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let mut joined = Vec::new();
    for filter in ["", ",scale=480:270", ",crop=202:360,scale=360:640"] {
        let part = source(f, "part.ts", filter, "-c:v libx264 -preset ultrafast -crf 8");
        joined.extend(fs::read(part).unwrap());
    }
    let video = f.join("joined.ts");
    fs::write(&video, joined).unwrap();
    let speech = f.join("speech.wav");
    ffmpeg("-f lavfi -i anullsrc=r=16000:cl=mono -t 1.6", &speech);
    for out in ["out.mp4", "out.mkv", "out.webm"].map(|name| f.join(name)) {
        let mut command = lipstream(f);
        command.args(["render", "--json", "-q", "--preset", "ultrafast"]);
        let output = succeed(command.arg("--video").arg(&video).arg("--audio").arg(&speech).arg("-o").arg(&out));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains("the picture changes from 640x360 to 480x270"), "{errors}");
        let luma = Luma::of(&out, f);
        assert_eq!((luma.width, luma.height), (640, 360));
        // The upright part has borders; the backward leg after the 30 frames begins with it.
        for index in [25, 32] {
            let frame = luma.frame(index);
            let (border, middle) = (frame[180 * 640 + 40], frame[180 * 640 + 320]);
            assert!(border < 24 && middle > 30, "frame {index} of {}: {border} {middle}", out.display());
        }
        assert!(luma.frame(15)[180 * 640 + 40] > 30, "a smaller picture of the same shape fills the frame");
    }
}

/// Writes the matrix (a, b, c, d) into the headers of all tracks of an MP4.
fn set_matrix(file: &Path, matrix: [i32; 4]) {
    let mut bytes = fs::read(file).unwrap();
    let at = bytes.windows(4).position(|w| w == b"tkhd").expect("a track") + 4;
    for (place, n) in [40, 44, 52, 56].into_iter().zip(matrix) {
        bytes[at + place..at + place + 4].copy_from_slice(&(n << 16).to_be_bytes());
    }
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_picture_is_shown_as_its_display_matrix_says_on_every_way() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    // What is stored, and the matrix that undoes it.
    let list = [
        (",transpose=cclock", [0, 1, -1, 0]),
        (",transpose=clock", [0, -1, 1, 0]),
        (",hflip,vflip", [-1, 0, 0, -1]),
        (",hflip", [-1, 0, 0, 1]),
        (",vflip", [1, 0, 0, -1]),
        (",transpose=cclock_flip", [0, 1, 1, 0]),
        (",transpose=clock_flip", [0, -1, -1, 0]),
    ];
    let upright = rgb(&source(f, "upright.mp4", "", "-c:v libx264 -preset ultrafast -crf 4"), f);
    for (filter, matrix) in list {
        let video = source(f, "turned.mp4", filter, "-c:v libx264 -preset ultrafast -crf 4");
        set_matrix(&video, matrix);
        let out = f.join("out.mp4");
        render(f, &video, &out);
        let psnr = top_psnr(&upright, &rgb(&out, f));
        assert!(psnr > 34.0, "render {filter}: {psnr:.1} dB");
        fs::remove_file(&out).unwrap();
        let set = |key: &str, path: &Path| format!("{key}={}", path.display());
        let settings = [set("video", &video), set("audio", &silence(f)), set("output", &out)];
        let mut command = lipstream(f);
        command.args(["run", "graphs/file.toml", "--set", "preset=ultrafast", "--set", "crf=8"]);
        succeed(command.args(settings.iter().flat_map(|s| ["--set", s])));
        let shown = rgb(&out, f);
        let psnr = top_psnr(&upright[..shown.len()], &shown);
        assert!(psnr > 34.0, "run {filter}: {psnr:.1} dB");
    }
}

/// Pixels that differ from those above and below them alike, as where two fields of a moving picture meet, in all frames.
fn combed(luma: &Luma) -> usize {
    let rows = 1..luma.height - 1;
    let frames = (0..luma.len()).map(|i| luma.frame(i));
    let count = |frame: &[u8]| {
        let at = |x: usize, y: usize| i32::from(frame[y * luma.width + x]);
        let pixels = rows.clone().flat_map(|y| (0..luma.width).map(move |x| (x, y)));
        pixels.filter(|(x, y)| (at(*x, y - 1) - at(*x, *y)).min(at(*x, y + 1) - at(*x, *y)) > 30).count()
    };
    frames.map(count).sum()
}

#[test]
fn interlaced_material_becomes_progressive() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    for (name, weave, order) in [("tff", "interleave_top", "tff"), ("bff", "interleave_bottom", "bff")] {
        let video = f.join("in.mkv");
        ffmpeg(
            &format!(
                "-i {} -an -t 0.4 -vf scale=640:360,fps=50,scroll=h=0.02,tinterlace={weave},setfield={order} \
                 -flags +ildct+ilme -x264opts {order}=1 -c:v libx264 -crf 8",
                demo_video().display()
            ),
            &video,
        );
        let out = f.join("out.mp4");
        let (summary, _) = render(f, &video, &out);
        assert!(kinds(&summary).contains(&"deinterlaced"), "{summary}");
        let stream = probe(&out, "v");
        assert_eq!((stream.text("field_order"), stream.text("avg_frame_rate")), ("progressive", "25/1"));
        let (before, after) = (combed(&Luma::of(&video, f)), combed(&Luma::of(&out, f)));
        assert!(before > 20_000 && after < before / 20, "{name}: {after} combed pixels of {before}");
    }
}

#[test]
fn pixels_that_are_not_square_become_square() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let video = source(f, "in.mp4", ",scale=320:360,setsar=2/1", "-c:v libx264 -preset ultrafast -crf 8");
    let out = f.join("out.mkv");
    let (summary, _) = render(f, &video, &out);
    assert!(kinds(&summary).contains(&"square-pixels"), "{summary}");
    let stream = probe(&out, "v");
    assert_eq!((stream.number("width"), stream.number("height")), (640.0, 360.0));
    assert_eq!(stream.text("sample_aspect_ratio"), "1:1");
}

#[test]
fn high_dynamic_range_is_tone_mapped_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    for (transfer, name) in [("arib-std-b67", "HLG"), ("smpte2084", "PQ")] {
        let parameters = format!(
            "-x265-params log-level=error:colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc:range=limited \
             -color_primaries bt2020 -color_trc {transfer} -colorspace bt2020nc -tag:v hvc1"
        );
        let codec = format!("-pix_fmt yuv420p10le -c:v libx265 -preset ultrafast {parameters}");
        let video = source(f, "phone.mov", "", &codec);
        let out = f.join("out.mp4");
        let (summary, errors) = render(f, &video, &out);
        let lines: Vec<_> = errors.lines().filter(|line| line.contains("tone-mapped")).collect();
        assert!(lines.len() == 1 && lines[0].contains(&format!("phone.mov: the picture is HDR ({name})")), "{errors}");
        assert_eq!(summary["notices"][0]["warning"], true, "{summary}");
        has_tags(&out, "tv", "bt709");
        assert_eq!(probe(&out, "v").text("pix_fmt"), "yuv420p");
    }
}

#[test]
fn animated_pictures_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    for (name, codec, called) in [
        ("a.gif", "-vf fps=10", "animated GIF"),
        ("a.apng", "-f apng", "animated PNG"),
        ("a.webp", "-c:v libwebp_anim", "animated WebP"),
    ] {
        let video = f.join(name);
        ffmpeg(&format!("-f lavfi -i testsrc2=d=1:r=10:s=320x180 {codec}"), &video);
        let mut command = lipstream(f);
        command.arg("render").arg("--video").arg(&video).arg("--audio").arg(silence(f));
        let (code, errors) = fail(command.arg("-o").arg(f.join("out.mp4")));
        assert_eq!(code, 3, "{errors}");
        assert!(errors.contains(&format!("{name}: is an {called}")), "{errors}");
    }
}

#[test]
fn the_header_says_how_long_the_file_is() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    // A rate whose frames do not end with a millisecond, and sound that does not end with a packet.
    let video = source(f, "in.mov", ",fps=30000/1001", "-c:v libx264 -preset ultrafast");
    let speech = f.join("speech.wav");
    ffmpeg("-f lavfi -i anoisesrc=r=44100:d=1.27:a=0.1", &speech);
    for out in ["out.mp4", "out.mov", "out.mkv", "out.webm"].map(|name| f.join(name)) {
        let mut command = lipstream(f);
        command.args(["render", "-q", "--preset", "ultrafast"]);
        succeed(command.arg("--video").arg(&video).arg("--audio").arg(&speech).arg("-o").arg(&out));
        let show = ["-v", "error", "-of", "csv=p=0", "-show_entries", "format=duration"];
        let output = succeed(Command::new("ffprobe").args(show).arg(&out));
        let says: f64 = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
        // The last picture ends up to a frame after the sound.
        assert!((1.268..1.27 + 0.0334).contains(&says), "{}: {says}", out.display());
        let stream = probe(&out, "v");
        assert_eq!(stream.text("avg_frame_rate"), "30000/1001", "{}", out.display());
    }
}
