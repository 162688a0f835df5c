use lipstream_engines::{
    audio::{BINS, Encoder, FrontEnd as _, Mel},
    engine::Noise,
    manifest::Package,
    runtime::{Device, Options},
};
use safetensors::SafeTensors;

fn encoder() -> Encoder {
    let options = Options { device: Device::Cpu, ..Options::default() };
    Encoder::new(&Package::find("compact").unwrap(), &options).unwrap()
}

/// Noise that rises and falls like syllables, one second.
fn babble() -> Vec<f32> {
    let mut noise = Noise::new(3, 0.0, 0.1);
    (0..16_000).map(|n| noise.normal() * 0.1 * (n as f32 / 2000.0).sin().powi(2)).collect()
}

fn features(encoder: &mut Encoder, pieces: impl Iterator<Item = Vec<f32>>) -> Vec<Vec<f32>> {
    let mut features = Vec::new();
    pieces.for_each(|p| encoder.push(&p, &mut |f| features.push(f.to_vec())).unwrap());
    encoder.finish(&mut |f| features.push(f.to_vec())).unwrap();
    features
}

#[test]
fn mel_frames_are_those_of_a_double_precision_reference() {
    let file = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/mel.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&file).unwrap();
    let numbers = |name: &str| -> Vec<f32> {
        let view = file.tensor(name).unwrap();
        view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    let (samples, expected) = (numbers("samples"), numbers("mel"));
    let mut found = Vec::new();
    Mel::new()
        .push::<()>(&samples, &mut |frame| {
            found.extend_from_slice(frame);
            Ok(())
        })
        .unwrap();
    assert_eq!(found.len(), expected.len());
    assert_eq!(found.len() % BINS, 0);
    for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
        assert!((a - b).abs() < 2e-3, "frame {}, bin {}: {a} instead of {b}", i / BINS, i % BINS);
    }
}

#[test]
fn features_are_the_same_in_pieces_of_any_size() {
    let samples = babble();
    let mut encoder = encoder();
    let whole = features(&mut encoder, std::iter::once(samples.clone()));
    assert_eq!(whole.len(), 50, "one feature for each 20 ms that have begun");
    assert!(whole.iter().flatten().any(|v| v.abs() > 1e-3), "the features say nothing");
    for size in [1, 7, 160, 320, 441, 1024, 4999] {
        let pieces = features(&mut encoder, samples.chunks(size).map(<[f32]>::to_vec));
        assert_eq!(pieces.len(), whole.len(), "pieces of {size}");
        for (a, b) in pieces.iter().flatten().zip(whole.iter().flatten()) {
            assert!((a - b).abs() <= 1e-5, "pieces of {size}: {a} instead of {b}");
        }
    }
}

#[test]
fn a_feature_needs_no_more_audio_than_it_declares() {
    let mut encoder = encoder();
    let mut count = 0;
    let needed = (encoder.overhang().as_millis() * 16) as usize;
    encoder.push(&vec![0.01; needed - 1], &mut |_| count += 1).unwrap();
    assert_eq!(count, 0);
    encoder.push(&[0.01], &mut |_| count += 1).unwrap();
    assert_eq!(count, 1);
}

#[test]
fn the_first_features_do_not_change_with_what_comes_later() {
    let samples = babble();
    let mut other = samples.clone();
    other[8000..].iter_mut().for_each(|s| *s = 0.5);
    let mut encoder = encoder();
    let a = features(&mut encoder, std::iter::once(samples));
    let b = features(&mut encoder, std::iter::once(other));
    // Hop 23 starts at 460 ms and needs samples up to 495 ms.
    assert_eq!(a[..=23], b[..=23]);
    assert_ne!(a[24..], b[24..]);
}

#[test]
fn a_reset_forgets_and_bad_samples_do_no_lasting_harm() {
    let mut encoder = encoder();
    let clean = features(&mut encoder, std::iter::once(babble()));
    encoder
        .push(&[f32::NAN, f32::INFINITY, 1e30, -1e30].repeat(500), &mut |f| {
            assert!(f.iter().all(|v| v.is_finite()), "a bad sample came through");
        })
        .unwrap();
    encoder.reset();
    assert_eq!(features(&mut encoder, std::iter::once(babble())), clean);
}

#[test]
fn lasting_silence_has_the_feature_that_the_encoder_states() {
    let mut encoder = encoder();
    let stated = encoder.silence().to_vec();
    let heard = features(&mut encoder, std::iter::once(vec![0.0; 128_000]));
    let last = &heard[heard.len() - 1];
    for (a, b) in last.iter().zip(&stated) {
        assert!((a - b).abs() < 1e-3, "{a} instead of {b}");
    }
}

#[test]
fn hushed_speech_leaves_no_trace() {
    let mut encoder = encoder();
    encoder.push(&babble()[..5000], &mut |_| ()).unwrap();
    encoder.hush();
    let mut heard = Vec::new();
    encoder.push(&[0.0; 8000], &mut |feature| heard.push(feature.to_vec())).unwrap();
    assert!(heard.len() > 20);
    let furthest = |f: &[f32]| f.iter().zip(encoder.silence()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    // The state goes on drifting by hundredths; speech is far away.
    let worst = heard.iter().map(|f| furthest(f)).fold(0.0, f32::max);
    let mut spoken = Vec::new();
    self::encoder().push(&babble(), &mut |feature| spoken.push(feature.to_vec())).unwrap();
    assert!(worst < 0.02 && furthest(&spoken[20]) > 0.2, "{worst} and {}", furthest(&spoken[20]));
}

#[test]
fn long_silence_costs_nothing_and_speech_after_it_is_heard() {
    let mut encoder = encoder();
    let mut heard = Vec::new();
    let speech = babble();
    encoder.push(&speech, &mut |feature| heard.push(feature.to_vec())).unwrap();
    encoder.push(&vec![0.0; 16_000 * 10], &mut |feature| heard.push(feature.to_vec())).unwrap();
    assert!(heard[450..].windows(2).all(|w| w[0] == w[1]), "after eight seconds it is always the same");
    // Sparing the network is not heard.
    let steps = |w: &[Vec<f32>]| w[0].iter().zip(&w[1]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let jump = heard[300..].windows(2).map(steps).fold(0.0, f32::max);
    assert!(jump < 0.01, "{jump}");
    encoder.push(&speech, &mut |feature| heard.push(feature.to_vec())).unwrap();
    let far = heard.last().unwrap().iter().zip(encoder.silence()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(far > 0.2, "{far}");
}

/// Syllables of a buzz of 140 Hz whose harmonics lie between two frequencies, two seconds.
fn buzz(low: f32, high: f32) -> Vec<f32> {
    let tau = std::f32::consts::TAU;
    let harmonics: Vec<f32> = (1..57).map(|k| 140.0 * k as f32).filter(|hz| (low..high).contains(hz)).collect();
    let wave = |t: f32| harmonics.iter().map(|hz| (tau * hz * t).sin() * (140.0 / hz).powf(0.8)).sum::<f32>();
    (0..32_000).map(|n| n as f32 / 16_000.0).map(|t| 0.1 * wave(t) * (tau * 2.0 * t).sin().powi(2)).collect()
}

/// How far the second second of features is from others, in the mean.
fn apart(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    let far = |(a, b): (&Vec<f32>, &Vec<f32>)| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
    a.iter().zip(b).skip(50).map(far).sum::<f32>() / (a.len() - 50) as f32
}

#[test]
fn a_narrow_voice_is_heard_as_a_whole_one() {
    let mut encoder = encoder();
    let mut hear = |samples: Vec<f32>| features(&mut encoder, std::iter::once(samples));
    let (whole, narrow, silence) = (hear(buzz(0.0, 7900.0)), hear(buzz(320.0, 3300.0)), hear(vec![0.0; 32_000]));
    let (off, speech) = (apart(&narrow, &whole), apart(&silence, &whole));
    println!("{off} of {speech}");
    assert!(off < 0.5 * speech, "{off} of {speech}");
}

#[test]
fn lasting_hum_is_heard_as_silence() {
    let mut encoder = encoder();
    let hum = |n: u32| 0.01 * (std::f32::consts::TAU * 50.0 * n as f32 / 16_000.0).sin();
    let heard = features(&mut encoder, std::iter::once((0..16 * 10_000).map(hum).collect()));
    let last = &heard[heard.len() - 10];
    let off = last.iter().zip(encoder.silence()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    // The encoder remembers the first half second a little, in which it might have been a voice.
    assert!(off < 0.4, "{off}");
}
