//! Live sessions of a person without a background: a stack and a key colour, as Chromium and ffmpeg decode them.

use std::{fs, net::UdpSocket, path::Path, process::Command, time::Instant};

use base64::Engine as _;
use serde_json::{Value, json};

use crate::{
    ALONE,
    avatar::Site,
    chromium::Chromium,
    common::{demo_video, ffmpeg, lipstream, service::Service, succeed},
    number,
};

const WIDTH: usize = 640;
const HEIGHT: usize = 480;
const BACKGROUNDS: [[u8; 3]; 3] = [[0, 0, 0], [255, 255, 255], [0, 200, 60]];
/// Of a pixel, 0..255: soft over some twenty pixels. ffmpeg and Chromium work it out too.
const MATTE: &str = "(1.05-hypot((X-320)/220,(Y-240)/225))*2000";

/// 1.2 s of the demo's head with a matte.
fn person(folder: &Path) -> std::path::PathBuf {
    let out = folder.join("person.webm");
    let filter = format!(
        "[0:v]crop={WIDTH}:{HEIGHT}:320:40[v];nullsrc=s={WIDTH}x{HEIGHT}:r=25:d=0.04,format=gray,geq=lum='clip({MATTE},0,255)',\
         loop=-1:1:0[m];[v][m]alphamerge=shortest=1"
    );
    let codec = "-c:v libvpx-vp9 -pix_fmt yuva420p -b:v 0 -crf 6 -deadline realtime -cpu-used 8 -row-mt 1";
    ffmpeg(&format!("-i {} -an -frames:v 30 -filter_complex {filter} {codec}", demo_video().display()), &out);
    out
}

/// R, G, B whose chroma is read between four pixels, as x264's streams say and players do; ffmpeg by itself repeats it, which shows at any edge
/// in colour.
const SMOOTH: &str = "rgb24 -vf scale=in_h_chr_pos=128:in_v_chr_pos=128:flags=bilinear+accurate_rnd+full_chroma_int";

/// Frames as ffmpeg shows them.
fn frames(decoder: &str, input: &str, (format, count): (&str, usize), folder: &Path) -> Vec<u8> {
    let raw = folder.join("frames.raw");
    ffmpeg(&format!("{decoder} -i {input} -an -frames:v {count} -pix_fmt {format} -f rawvideo"), &raw);
    fs::read(raw).unwrap()
}

fn over(color: &[u8], alpha: u8, background: [u8; 3]) -> [f64; 3] {
    let alpha = f64::from(alpha) / 255.0;
    std::array::from_fn(|c| f64::from(color[c]) * alpha + f64::from(background[c]) * (1.0 - alpha))
}

/// Mean difference over some pixels of what is seen.
fn error(pairs: impl Iterator<Item = ([f64; 3], [f64; 3])>) -> f64 {
    let (mut sum, mut count) = (0.0, 0);
    for (a, b) in pairs {
        sum += a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f64>();
        count += 3;
    }
    sum / f64::from(count.max(1))
}

/// A WebM file that `lipstream render` makes of the person.
fn rendered(video: &Path, folder: &Path) -> Vec<u8> {
    let (sound, out) = (folder.join("silence.wav"), folder.join("rendered.webm"));
    ffmpeg("-f lavfi -i anullsrc=r=16000:cl=mono -t 0.4", &sound);
    let mut command = lipstream(folder);
    command.args(["render", "-q", "--no-gather", "--alpha", "keep", "--video"]).arg(video);
    succeed(command.arg("--audio").arg(sound).arg("-o").arg(&out));
    fs::read(out).unwrap()
}

/// Pixels of a file over blue: outside of the person, in the middle, at the edge.
const FILE: &str = "(async () => {
    const bytes = Uint8Array.from(atob('BYTES'), (c) => c.charCodeAt(0));
    const video = Object.assign(document.createElement('video'), { muted: true });
    video.src = URL.createObjectURL(new Blob([bytes], { type: 'video/webm' }));
    const shown = new Promise((done, fail) => {
        video.requestVideoFrameCallback(done);
        video.onerror = () => fail(new Error(video.error.message));
    });
    await video.play();
    await shown;
    const canvas = Object.assign(document.createElement('canvas'), { width: 640, height: 480 });
    const context = canvas.getContext('2d');
    context.fillStyle = '#00f';
    context.fillRect(0, 0, 640, 480);
    context.drawImage(video, 0, 0);
    return [[4, 4], [320, 240], [320, 16]].map(([x, y]) => [...context.getImageData(x, y, 1, 1).data]);
})()";

fn upload(service: &Service, video: &Path) {
    let bytes = fs::read(video).unwrap();
    let (status, text) = service.send("PUT", "/api/v1/avatars/person/clips/idle", "video/webm", &bytes);
    assert_eq!(status, 202, "{text}");
    let job: Value = serde_json::from_str(&text).unwrap();
    let path = format!("/api/v1/uploads/{}", job["id"].as_str().unwrap());
    let begun = Instant::now();
    loop {
        let job: Value = serde_json::from_str(&service.send("GET", &path, "", b"").1).unwrap();
        match job["state"].as_str() {
            Some("waiting" | "preparing") => std::thread::sleep(std::time::Duration::from_millis(100)),
            state => return assert_eq!(state, Some("done"), "{job}"),
        }
        assert!(begun.elapsed().as_secs() < 120, "the avatar is never prepared");
    }
}

fn create(service: &Service, id: &str, alpha: &str, push: &[String]) {
    let params = json!({ "bitrate": "12000" });
    let spec =
        json!({ "id": id, "graph": "avatar", "avatar": "person", "alpha": alpha, "push": push, "params": params });
    let (status, text) = service.send("POST", "/api/v1/sessions", "application/json", spec.to_string().as_bytes());
    assert_eq!(status, 201, "{text}");
}

/// What the page shows over three colours, against what the frames that it plays say.
const OVERLAY: &str = "(async () => {
    const wait = (ms) => new Promise((done) => setTimeout(done, ms));
    for (let n = 0; !(window.stacked?.frames > 60); n++) {
        if (n > 400) throw new Error(`no frames: ${document.querySelector('output').value}`);
        await wait(50);
    }
    const { canvas, video } = stacked;
    const [w, h] = [canvas.width, canvas.height];
    const drawn = (height, paint) => {
        const target = Object.assign(document.createElement('canvas'), { width: w, height });
        const context = target.getContext('2d', { willReadFrequently: true });
        paint(context);
        return context.getImageData(0, 0, w, height).data;
    };
    const matte = (X, Y) => Math.min(255, Math.max(0, (1.05 - Math.hypot((X - 320) / 220, (Y - 240) / 225)) * 2000));
    const result = { size: [w, h], video: [video.videoWidth, video.videoHeight], errors: [], corners: [], middle: [] };
    for (const background of [[0, 0, 0], [255, 255, 255], [0, 200, 60]]) {
        stacked.draw();
        const shown = drawn(h, (context) => {
            context.fillStyle = `rgb(${background})`;
            context.fillRect(0, 0, w, h);
            context.drawImage(canvas, 0, 0);
        });
        const stack = drawn(2 * h, (context) => context.drawImage(video, 0, 0));
        let [sum, count, off] = [0, 0, 0];
        for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) {
            const wanted = matte(x, y);
            if (wanted <= 0 || wanted >= 255) continue;
            const [at, below] = [4 * (y * w + x), 4 * ((y + h) * w + x)];
            const alpha = stack[below] / 255;
            off += Math.abs(stack[below] - wanted);
            for (let c = 0; c < 3; c++) sum += Math.abs(stack[at + c] * alpha + background[c] * (1 - alpha) - shown[at + c]);
            count += 1;
        }
        result.errors.push(sum / count / 3);
        result.matte = off / count;
        result.corners.push([...shown.slice(0, 3)], [...shown.slice(-4, -1)]);
        const middle = 4 * (h / 2 * w + w / 2);
        result.middle.push([...shown.slice(middle, middle + 3)]);
    }
    return result;
})()";

/// Alphas of three places of what the page draws, and what its edge is off from the frames that it plays over the page's colours.
const PAGE: &str = "(async () => {
    for (let n = 0; !(window.stacked?.frames > 30); n++) {
        if (n > 400) throw new Error(`no frames: ${document.getElementById('note')?.value}`);
        await new Promise((done) => setTimeout(done, 50));
    }
    const { canvas, video } = stacked;
    const [w, h] = [canvas.width, canvas.height];
    const pixels = (height, paint) => {
        const target = Object.assign(document.createElement('canvas'), { width: w, height });
        const context = target.getContext('2d', { willReadFrequently: true });
        paint(context);
        return context.getImageData(0, 0, w, height).data;
    };
    stacked.draw();
    const own = pixels(h, (context) => context.drawImage(canvas, 0, 0));
    const shown = pixels(h, (context) => {
        context.fillStyle = 'rgb(0, 170, 68)';
        context.fillRect(0, 0, w, h);
        context.drawImage(canvas, 0, 0);
    });
    const stack = pixels(2 * h, (context) => context.drawImage(video, 0, 0));
    let [sum, count] = [0, 0];
    for (let at = 0; at < 4 * w * h; at += 4) {
        const alpha = stack[at + 4 * w * h] / 255;
        if (alpha < 0.01 || alpha > 0.99) continue;
        [0, 170, 68].forEach((back, c) => { sum += Math.abs(stack[at + c] * alpha + back * (1 - alpha) - shown[at + c]); });
        count += 3;
    }
    const alpha = (x, y) => own[4 * (y * w + x) + 3];
    // Half way: where the matte is (1.05 - d) * 2000 = 128.
    return { size: [w, h], corner: alpha(2, 2), middle: alpha(w / 2, h / 2), edge: alpha(w / 2, Math.round(240 - 225 * 0.986)), error: sum / count };
})()";

#[test]
fn a_person_without_background_is_seen_over_anything() {
    if !crate::chromium::installed() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let video = person(f);
    let source = frames("-c:v libvpx-vp9", &video.display().to_string(), ("rgba", 30), f);
    let source: Vec<&[u8]> = source.chunks(WIDTH * HEIGHT * 4).collect();
    let soft: Vec<usize> = (0..WIDTH * HEIGHT).filter(|i| (3..253).contains(&source[0][4 * i + 3])).collect();
    assert!(source.len() == 30 && soft.len() > 5000, "{} {}", source.len(), soft.len());
    let site = Site::of("contrib/alpha");
    let allowed =
        [("LIPSTREAM_SERVER_CORS_ORIGINS", site.url.as_str()), ("LIPSTREAM_SESSIONS_PRIVATE_ADDRESSES", "true")];
    let service = Service::start_with("", &allowed);
    upload(&service, &video);
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let pushed = f.join("pushed.raw");
    let mut listener = Command::new("ffmpeg")
        .args(["-v", "error", "-y", "-i", &format!("srt://127.0.0.1:{port}?mode=listener")])
        .args(["-an", "-frames:v", "15", "-pix_fmt"])
        .args(SMOOTH.split(' '))
        .args(["-f", "rawvideo"])
        .arg(&pushed)
        .spawn()
        .unwrap();
    create(&service, "stack", "stack", &[]);
    create(&service, "key", "key:#00ff00", &[format!("srt://127.0.0.1:{port}")]);
    create(&service, "plain", "drop", &[]);

    // A frame of the clip is shown, which of them is not known.
    let best = |seen: &dyn Fn(usize, [u8; 3]) -> [f64; 3], backgrounds: &[[u8; 3]]| {
        let of = |frame: &&[u8]| {
            let pixels = soft.iter().flat_map(|i| backgrounds.iter().map(move |b| (*i, *b)));
            error(pixels.map(|(i, b)| (over(&frame[4 * i..], frame[4 * i + 3], b), seen(i, b))))
        };
        source.iter().map(of).fold(f64::MAX, f64::min)
    };
    let stack = frames("", &format!("{}/stack/synced", service.rtmp), ("rgb24", 15), f);
    let last = stack.chunks(WIDTH * HEIGHT * 6).next_back().unwrap();
    assert_eq!((stack.len() % last.len(), last.len()), (0, WIDTH * HEIGHT * 6), "twice the height");
    let (colors, mattes) = last.split_at(WIDTH * HEIGHT * 3);
    let off =
        soft.iter().map(|i| f64::from(mattes[3 * i].abs_diff(source[0][4 * i + 3]))).sum::<f64>() / soft.len() as f64;
    let edge = best(&|i, b| over(&colors[3 * i..], mattes[3 * i], b), &BACKGROUNDS);
    println!("ffmpeg, stack: matte off by {off:.2}, edge by {edge:.2}");
    assert!(off < 2.0 && edge <= 2.0, "matte off by {off:.2}, edge by {edge:.2}");

    let green = [0, 255, 0];
    let key = frames("", &format!("{}/key/synced", service.rtmp), (SMOOTH, 15), f);
    assert!(listener.wait().unwrap().success());
    for (way, key) in [("RTMP", key), ("SRT", fs::read(pushed).unwrap())] {
        let last = key.chunks(WIDTH * HEIGHT * 3).next_back().unwrap();
        assert_eq!(last.len(), WIDTH * HEIGHT * 3);
        let edge = best(&|i, _| std::array::from_fn(|c| f64::from(last[3 * i + c])), &[green]);
        println!("ffmpeg, key by {way}: edge off by {edge:.2}, corner {:?}", &last[..3]);
        assert!(last[0] < 12 && last[1] > 243 && last[2] < 12, "{way}: {:?}", &last[..3]);
        assert!(edge <= 2.0, "{way}: edge off by {edge:.2}");
    }

    let plain = frames("", &format!("{}/plain/synced", service.rtmp), ("rgb24", 2), f);
    assert!(plain[..3].iter().all(|code| *code < 6), "on black: {:?}", &plain[..3]);

    let mut browser = Chromium::open(&format!("{}/web/overlay?session=stack", service.url));
    let seen = browser.run(OVERLAY);
    println!("Chromium, stack: {seen}");
    assert_eq!((&seen["size"], &seen["video"]), (&json!([WIDTH, HEIGHT]), &json!([WIDTH, 2 * HEIGHT])));
    for error in seen["errors"].as_array().unwrap() {
        assert!(error.as_f64().unwrap() <= 2.0, "{seen}");
    }
    assert!(number(&seen, "matte") <= 4.0, "{seen}");
    for (n, corner) in seen["corners"].as_array().unwrap().iter().enumerate() {
        let off = corner.as_array().unwrap().iter().zip(BACKGROUNDS[n / 2]);
        assert!(off.clone().all(|(a, b)| (a.as_f64().unwrap() - f64::from(b)).abs() <= 2.0), "{seen}");
    }
    // The person hides what is behind.
    let middle = seen["middle"].as_array().unwrap();
    let apart = |a: &Value, b: &Value| (a.as_f64().unwrap() - b.as_f64().unwrap()).abs();
    // It moves, and the backgrounds are 255 apart.
    assert!((0..3).all(|c| apart(&middle[0][c], &middle[1][c]) <= 30.0), "{seen}");

    // A page of another origin with a background of its own.
    let mut browser = Chromium::open(&format!("{}/page.html?server={}&session=stack", site.url, service.url));
    let seen = browser.run(PAGE);
    println!("Chromium, contrib's page: {seen}");
    assert_eq!(seen["size"], json!([WIDTH, HEIGHT]), "{seen}");
    let alphas = ["corner", "middle", "edge"].map(|place| number(&seen, place));
    assert!(alphas[0] == 0.0 && alphas[1] == 255.0, "{seen}");
    assert!((alphas[2] - 128.0).abs() < 16.0, "{seen}");
    assert!(number(&seen, "error") <= 2.0, "{seen}");

    let mut browser = Chromium::open(&service.url);
    let file = rendered(&video, f);
    let shown = browser.run(&FILE.replace("BYTES", &base64::engine::general_purpose::STANDARD.encode(file)));
    println!("Chromium, WebM: {shown}");
    // Outside blue shows through, in the middle the person hides it, and half way it is half there.
    let code = |pixel: usize, c: usize| shown[pixel][c].as_i64().unwrap();
    assert!(code(0, 0) < 3 && code(0, 2) > 252, "{shown}");
    assert!(code(1, 2) < 230 && code(1, 0) > 60, "{shown}");
    assert!((3..253).contains(&code(2, 2)) && code(2, 2) > code(1, 2).min(60), "{shown}");
    assert_eq!(browser.run(include_str!("client.js")), "ready");
    let corner = browser.run(
        "whep('/whep/key').then(async (viewer) => {
            await watch(viewer, 1);
            const canvas = Object.assign(document.createElement('canvas'), { width: 640, height: 480 });
            const context = canvas.getContext('2d');
            context.drawImage(viewer.video, 0, 0);
            return [...context.getImageData(4, 4, 1, 1).data];
        })",
    );
    println!("Chromium, key: {corner}");
    let code = |c: usize| corner[c].as_i64().unwrap();
    assert!(code(0) < 20 && code(1) > 235 && code(2) < 20, "{corner}");
}
