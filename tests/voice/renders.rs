//! Offline renders with all that the command line has.

use super::*;

#[test]
fn a_job_keeps_alpha_hears_two_voices_and_enlarges_the_face() {
    let folder = tempfile::tempdir().unwrap();
    let jobs = jobs(folder.path(), jobs::Settings::default());
    let (video, out) = (folder.path().join("in.mov"), folder.path().join("out.rgba"));
    let matte = "scale=320:180,format=argb,geq=r='r(X,Y)':g='g(X,Y)':b='b(X,Y)':a='if(lt(X,60),0,255)'";
    ffmpeg(&format!("-i {} -an -frames:v 3 -vf {matte} -c:v qtrle", demo_video().display()), &video);
    let tone = |name: &str, hertz| {
        let file = folder.path().join(name);
        ffmpeg(&format!("-f lavfi -i sine=frequency={hertz}:sample_rate=16000 -t 0.12"), &file);
        file
    };
    let options = jobs::Options {
        container: jobs::Container::Mov,
        alpha: Some("keep".into()),
        enhance: Some("sharpen".into()),
        face_upscale: Some(1.5),
        speaker: Some("left".into()),
        speaker_b: Some("right".into()),
        ..Default::default()
    };
    let alone =
        jobs::Request { options: options.clone(), ..request(jobs::Video::Avatar("demo".into()), tone("c.wav", 300)) };
    let refused = jobs.submit(alone).unwrap_err().to_string();
    assert!(refused.contains("speaker_b: there is no second voice"), "{refused}");
    let (audio, second) = (tone("a.wav", 300), tone("b.wav", 2000));
    let handed_in =
        jobs::Request { options, audio_b: Some(second.clone()), ..request(jobs::Video::File(video), audio) };
    let status = until_over(&jobs, &jobs.submit(handed_in).unwrap().id);
    assert_eq!((status.state, status.frames), (jobs::Phase::Done, Some(3)), "{status:?}");
    assert!(!second.exists(), "what is handed in is the job's");
    let (result, _) = jobs.result(&status.id).unwrap();
    let stream = common::probe(&result, "v");
    assert_eq!((stream.text("codec_name"), stream.number("width")), ("prores", 480.0));
    ffmpeg(&format!("-i {} -an -frames:v 1 -pix_fmt rgba -f rawvideo", result.display()), &out);
    let pixels = std::fs::read(&out).unwrap();
    let alpha = |x: usize| pixels[4 * (135 * 480 + x) + 3];
    assert_eq!([10, 470].map(alpha), [0, 255]);
    // Both tones are heard, each in the band where the other is not.
    for band in ["lowpass=f=600,lowpass=f=600", "highpass=f=1200,highpass=f=1200"] {
        let raw = folder.path().join("band.raw");
        ffmpeg(&format!("-i {} -vn -af {band} -ac 1 -ar 16000 -f s16le", result.display()), &raw);
        let bytes = std::fs::read(&raw).unwrap();
        let level = bytes.chunks_exact(2).map(|b| f64::from(i16::from_le_bytes([b[0], b[1]])).powi(2)).sum::<f64>();
        let level = (level / (bytes.len() / 2) as f64).sqrt();
        assert!(level > 300.0, "{band}: {level:.0}");
    }
}
