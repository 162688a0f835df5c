//! Every parser of outside bytes over noise and over mutated good input: none may panic, and what a parser accepts it
//! must keep within bounds. The same entry points are fuzzed with coverage in `fuzz/`.

use bytes::{Bytes, BytesMut};
use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};

use super::{
    amf::{self, Value},
    avc, chunk, flv,
    link::Link,
    name::Name,
    timeline::Timeline,
};
use crate::address;

const CASES: usize = 4000;

/// Calls `check` with noise and with mutations of `good`, from a seed of its own.
fn throw(seed: u64, good: &[&[u8]], mut check: impl FnMut(&[u8])) {
    let mut random = StdRng::seed_from_u64(seed);
    for case in 0..CASES {
        let mut bytes = if case % 4 == 0 || good.is_empty() {
            let mut noise = vec![0; random.random_range(0..300)];
            random.fill_bytes(&mut noise);
            noise
        } else {
            good[random.random_range(0..good.len())].to_vec()
        };
        for _ in 0..random.random_range(0..6) {
            mutate(&mut bytes, &mut random);
        }
        check(&bytes);
    }
}

fn mutate(bytes: &mut Vec<u8>, random: &mut StdRng) {
    let length = bytes.len();
    if length == 0 {
        return bytes.push(random.random());
    }
    let at = random.random_range(0..length);
    match random.random_range(0..6) {
        0 => bytes[at] ^= 1 << random.random_range(0..8),
        // Values at which lengths and types turn.
        1 => bytes[at] = [0, 1, 0x7F, 0x80, 0xFE, 0xFF][random.random_range(0..6)],
        2 => bytes.truncate(at),
        3 => bytes.insert(at, random.random()),
        4 => bytes.extend_from_within(at..),
        _ => {
            bytes.remove(at);
        }
    }
}

fn connect() -> Bytes {
    amf::encode(&[
        Value::text("connect"),
        Value::Number(1.0),
        Value::object([("app", Value::text("live")), ("caps", Value::Array(vec![Value::Number(1.0), Value::Null]))]),
    ])
}

/// An SPS, a PPS and a slice.
const UNIT: [u8; 44] = [
    0, 0, 0, 1, 0x67, 0x64, 0x00, 0x1E, 0xAC, 0xD9, 0x40, 0xA0, 0x2F, 0xF9, 0x70, 0x11, 0x00, 0x00, 0x03, 0x00, 0x01,
    0x00, 0x00, 0x03, 0x00, 0x32, 0x0F, 0x16, 0x2E, 0, 0, 0, 1, 0x68, 0xCB, 0x83, 0xCB, 0, 0, 1, 0x65, 0x88, 0x84,
    0x21,
];

#[test]
fn commands() {
    let good = connect();
    throw(1, &[&good], |bytes| {
        if let Ok(values) = amf::decode(Bytes::copy_from_slice(bytes)) {
            // What was understood can be said again, and means the same (a NaN is unlike itself).
            let again = amf::decode(amf::encode(&values)).expect("our own encoding is understood");
            assert_eq!(format!("{again:?}"), format!("{values:?}"));
        }
    });
}

#[test]
fn chunks_and_connections() {
    let mut out = BytesMut::new();
    let mut writer = chunk::Writer::default();
    for (kind, time) in [(20, 0), (9, 0xFF_FFFF), (8, 40), (22, 80), (1, 0), (4, 0)] {
        let data = if kind == 20 { connect() } else { Bytes::from(vec![kind; 20 * usize::from(kind)]) };
        writer.write(&chunk::Message { kind, stream: 1, timestamp: time, data }, &mut out);
    }
    throw(2, &[&out], |bytes| {
        let mut link = Link::default();
        for part in bytes.chunks(97) {
            link.input.extend_from_slice(part);
            link.arrived(part.len());
            while let Ok(Some(_)) = link.event() {}
        }
        assert!(link.out.len() <= 16 * bytes.len() + 64, "{} bytes of answers to {}", link.out.len(), bytes.len());
    });
}

#[test]
fn media_tags() {
    let enhanced = b"\x97\x02abc\x01hvc1\x00\x00\x28data";
    let good: [&[u8]; 5] =
        [&[0x17, 1, 0, 0, 40, 1, 2, 3], &[0xAF, 0, 0x11, 0x90], enhanced, b"\x90OpusOpusHead\x01\x02", &[0x27, 1]];
    throw(3, &good, |bytes| {
        for tag in [flv::video(Bytes::copy_from_slice(bytes)), flv::audio(Bytes::copy_from_slice(bytes))] {
            if let Ok(Some(flv::Tag::Frame { composition, data, .. })) = tag {
                assert!(composition.abs() <= 1 << 23 && data.len() < bytes.len());
            }
        }
        if let Some((rate, channels)) = flv::aac_format(bytes) {
            assert!(rate < 1 << 24 && (1..=8).contains(&channels));
        }
    });
}

#[test]
fn pictures() {
    let record = avc::from_annex_b(&UNIT).config.expect("the example has both parameter sets");
    throw(4, &[&UNIT, &record], |bytes| {
        let unit = avc::from_annex_b(bytes);
        assert!(unit.data.len() <= 2 * bytes.len() + 4);
        if let Some(config) = unit.config {
            assert!(avc::record_kind(&config) == avc::Record::Whole, "{config:02x?}");
        }
        avc::record_kind(bytes);
        if let Some(avc::Picture { width, height, .. }) = avc::picture(bytes) {
            assert!((1..=16384).contains(&width) && (1..=16384).contains(&height));
        }
    });
}

#[test]
fn names_and_keys() {
    throw(5, &[b"live/talk/voice?key=secret&x=%20", b"live", b"talk/synced"], |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let (app, stream) = text.split_at(text.char_indices().nth(4).map_or(text.len(), |(at, _)| at));
        if let Ok(name) = Name::new("live", app, stream) {
            assert!(name.path.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b)), "{}", name.path);
            assert!(!name.path.contains("..") || !name.path.starts_with('.'));
        }
    });
}

#[test]
fn addresses() {
    let good: [&[u8]; 4] = [
        b"rtmp://0x7f.1:1935/live/x?key=1",
        b"http://[::ffff:10.0.0.1]/a",
        b"rtmp://2130706433/a",
        b"http://user:p@127.1:80/",
    ];
    throw(6, &good, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        if let Ok((url, host, _)) = address::parse(&text, &[("rtmp", 1935), ("http", 80)]) {
            // Whatever host is connected to is the one that is checked.
            assert!(!host.is_empty() && !host.contains('@') && !host.contains('/'), "{host}");
            let shown = address::masked(&url);
            assert!(url.password().is_none_or(|password| password.len() < 4 || !shown.contains(password)), "{shown}");
        }
    });
}

#[test]
fn timestamps() {
    let mut random = StdRng::seed_from_u64(7);
    let now = std::time::Instant::now();
    let mut line = Timeline::default();
    let mut last = line.place(0, now).time();
    for step in 1..CASES as u64 {
        let placed = line.place(random.random(), now + std::time::Duration::from_millis(step * 40));
        // Any leap at all becomes a step that a gap explains.
        assert!(placed.time() + std::time::Duration::from_secs(2) > last);
        assert!(placed.time() < last + std::time::Duration::from_secs(11));
        last = placed.time();
    }
}
