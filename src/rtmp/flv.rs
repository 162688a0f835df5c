//! FLV's audio and video tags as RTMP carries them (Adobe's FLV 10.1 specification, annex E.4), with the codecs of
//! Enhanced RTMP v2 (veovera.org, "Enhanced RTMP (v2)").

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{amf::Value, avc::Picture};
use crate::marks;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    H264,
    H265,
    Av1,
    Vp9,
    Vp8,
    Aac,
    Opus,
    Mp3,
    /// G.711 (RFC 3551, 4.5.14): 8 kHz.
    ALaw,
    MuLaw,
}

/// What a tag holds. `None` of a parser is a tag without media: metadata, an end, an empty tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tag {
    /// What a decoder needs before the first packet.
    Config { codec: Codec, data: Bytes },
    /// A packet.
    Frame {
        codec: Codec,
        key: bool,
        /// Milliseconds from decoding to showing, for pictures that come out of order.
        composition: i32,
        /// Of sound that has no configuration of its own; 0 where it has.
        channels: u8,
        data: Bytes,
    },
    /// A packet of other tracks than the first, the number of one of them.
    Aside(u8),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("a media tag of FLV is cut short")]
    Short,
    #[error("video as {0} is not supported: send H.264, or H.265, AV1 or VP9 by Enhanced RTMP")]
    Video(String),
    #[error("audio as {0} is not supported: send AAC, MP3 or G.711, or Opus by Enhanced RTMP")]
    Audio(String),
}

/// Packet types of Enhanced RTMP.
mod packet {
    pub const START: u8 = 0;
    pub const FRAMES: u8 = 1;
    pub const END: u8 = 2;
    pub const FRAMES_X: u8 = 3;
    pub const MULTITRACK_AUDIO: u8 = 5;
    pub const MULTITRACK_VIDEO: u8 = 6;
    pub const MOD_EX: u8 = 7;
}

/// Reads a video tag.
pub fn video(mut data: Bytes) -> Result<Option<Tag>, Error> {
    let Ok(first) = data.try_get_u8() else { return Ok(None) };
    let key = first >> 4 & 7 == 1;
    // 5 is a command to the player without a picture.
    if first >> 4 & 7 == 5 {
        return Ok(None);
    }
    if first & 0x80 == 0 {
        return match first & 0x0F {
            7 => legacy(data, Codec::H264, key),
            // What Chinese vendors send without Enhanced RTMP.
            12 => legacy(data, Codec::H265, key),
            codec => Err(Error::Video(video_name(codec))),
        };
    }
    let kind = mod_ex(&mut data, first & 0x0F)?;
    let (kind, four) = match track(kind, packet::MULTITRACK_VIDEO, &mut data)? {
        Track::First(kind, four) => (kind, four),
        Track::Other(number) => return Ok(Some(Tag::Aside(number))),
    };
    let codec = match four {
        four if &four == b"avc1" => Codec::H264,
        four if &four == b"hvc1" => Codec::H265,
        four if &four == b"av01" => Codec::Av1,
        four if &four == b"vp09" => Codec::Vp9,
        four if &four == b"vp08" => Codec::Vp8,
        four => return Err(Error::Video(name(&four))),
    };
    match kind {
        packet::START => Ok(Some(Tag::Config { codec, data })),
        packet::FRAMES => {
            let composition = match codec {
                Codec::H264 | Codec::H265 => composition(&mut data)?,
                _ => 0,
            };
            Ok(frame(codec, key, composition, data))
        }
        packet::FRAMES_X => Ok(frame(codec, key, 0, data)),
        packet::END => Ok(None),
        _ => Ok(None),
    }
}

/// Reads an audio tag.
pub fn audio(mut data: Bytes) -> Result<Option<Tag>, Error> {
    let Ok(first) = data.try_get_u8() else { return Ok(None) };
    match first >> 4 {
        10 => match data.try_get_u8() {
            Ok(0) => Ok(Some(Tag::Config { codec: Codec::Aac, data })),
            Ok(_) => Ok(frame(Codec::Aac, true, 0, data)),
            Err(_) => Ok(None),
        },
        2 | 14 => Ok(frame(Codec::Mp3, true, 0, data)),
        7 => Ok(sound(Codec::ALaw, first, data)),
        8 => Ok(sound(Codec::MuLaw, first, data)),
        9 => {
            let kind = mod_ex(&mut data, first & 0x0F)?;
            let (kind, four) = match track(kind, packet::MULTITRACK_AUDIO, &mut data)? {
                Track::First(kind, four) => (kind, four),
                Track::Other(number) => return Ok(Some(Tag::Aside(number))),
            };
            let codec = match four {
                four if &four == b"mp4a" => Codec::Aac,
                four if &four == b"Opus" => Codec::Opus,
                four if &four == b".mp3" => Codec::Mp3,
                four => return Err(Error::Audio(name(&four))),
            };
            match kind {
                packet::START => Ok(Some(Tag::Config { codec, data })),
                packet::FRAMES => Ok(frame(codec, true, 0, data)),
                _ => Ok(None),
            }
        }
        codec => Err(Error::Audio(audio_name(codec))),
    }
}

fn legacy(mut data: Bytes, codec: Codec, key: bool) -> Result<Option<Tag>, Error> {
    let kind = data.try_get_u8().map_err(|_| Error::Short)?;
    let composition = composition(&mut data)?;
    match kind {
        0 => Ok(Some(Tag::Config { codec, data })),
        1 => Ok(frame(codec, key, composition, data)),
        _ => Ok(None),
    }
}

fn frame(codec: Codec, key: bool, composition: i32, data: Bytes) -> Option<Tag> {
    (!data.is_empty()).then_some(Tag::Frame { codec, key, composition, channels: 0, data })
}

/// A packet of a codec that says no more of itself than the tag's first byte.
fn sound(codec: Codec, first: u8, data: Bytes) -> Option<Tag> {
    let channels = 1 + (first & 1);
    (!data.is_empty()).then_some(Tag::Frame { codec, key: true, composition: 0, channels, data })
}

enum Track {
    /// The packet's type and codec.
    First(u8, [u8; 4]),
    Other(u8),
}

/// Reads a packet's codec; leaves of several tracks the data of the first, whose number is 0.
fn track(kind: u8, several: u8, data: &mut Bytes) -> Result<Track, Error> {
    const ONE: u8 = 0;
    const MANY_CODECS: u8 = 2;
    if kind != several {
        return Ok(Track::First(kind, four(data)?));
    }
    let header = data.try_get_u8().map_err(|_| Error::Short)?;
    let (layout, kind) = (header >> 4, header & 0x0F);
    let mut codec = if layout == MANY_CODECS { [0; 4] } else { four(data)? };
    let mut other = None;
    while data.has_remaining() {
        if layout == MANY_CODECS {
            codec = four(data)?;
        }
        let number = data.try_get_u8().map_err(|_| Error::Short)?;
        let size = match layout {
            ONE => data.remaining(),
            _ if data.remaining() < 3 => return Err(Error::Short),
            _ => data.get_uint(3) as usize,
        };
        if data.remaining() < size {
            return Err(Error::Short);
        }
        let own = data.split_to(size);
        if number == 0 {
            *data = own;
            return Ok(Track::First(kind, codec));
        }
        other = Some(number);
    }
    other.map(Track::Other).ok_or(Error::Short)
}

/// A signed number of 24 bits.
fn composition(data: &mut Bytes) -> Result<i32, Error> {
    if data.remaining() < 3 {
        return Err(Error::Short);
    }
    Ok(data.get_int(3) as i32)
}

fn four(data: &mut Bytes) -> Result<[u8; 4], Error> {
    if data.remaining() < 4 {
        return Err(Error::Short);
    }
    let mut four = [0; 4];
    data.copy_to_slice(&mut four);
    Ok(four)
}

/// Skips the modifiers before a packet, such as nanoseconds of its time, and returns the packet's own type.
fn mod_ex(data: &mut Bytes, mut kind: u8) -> Result<u8, Error> {
    while kind == packet::MOD_EX {
        let mut size = usize::from(data.try_get_u8().map_err(|_| Error::Short)?) + 1;
        if size == 256 {
            size = usize::from(data.try_get_u16().map_err(|_| Error::Short)?) + 1;
        }
        if data.remaining() < size {
            return Err(Error::Short);
        }
        data.advance(size);
        kind = data.try_get_u8().map_err(|_| Error::Short)? & 0x0F;
    }
    Ok(kind)
}

fn name(four: &[u8; 4]) -> String {
    format!("`{}`", four.escape_ascii())
}

fn video_name(codec: u8) -> String {
    match codec {
        2 => "Sorenson H.263".into(),
        3 | 6 => "screen video".into(),
        4 | 5 => "VP6".into(),
        _ => format!("codec {codec}"),
    }
}

fn audio_name(codec: u8) -> String {
    match codec {
        0 | 3 => "PCM".into(),
        1 => "ADPCM".into(),
        4..=6 => "Nellymoser".into(),
        11 => "Speex".into(),
        _ => format!("codec {codec}"),
    }
}

/// The tag with H.264's configuration record.
pub fn avc_config(record: &[u8]) -> Bytes {
    [&[0x17, 0, 0, 0, 0], record].concat().into()
}

/// A tag with a picture, its units behind their lengths.
pub fn avc_frame(key: bool, units: &[u8]) -> Bytes {
    let mut tag = BytesMut::with_capacity(units.len() + 5);
    tag.put_slice(&[if key { 0x17 } else { 0x27 }, 1, 0, 0, 0]);
    tag.put_slice(units);
    tag.freeze()
}

/// The tag with AAC's AudioSpecificConfig. The rate and size in its first byte are fixed for AAC (E.4.2.1).
pub fn aac_config(config: &[u8]) -> Bytes {
    [&[0xAF, 0], config].concat().into()
}

pub fn aac_frame(packet: &[u8]) -> Bytes {
    [&[0xAF, 1], packet].concat().into()
}

/// `onMetaData` of what we send; `marked` says what made it.
pub fn metadata(picture: Option<Picture>, sound: bool, marked: bool) -> Vec<Value> {
    let mut fields = vec![("videocodecid".to_owned(), Value::Number(7.0))];
    let mut number = |name: &str, value: f64| fields.push((name.to_owned(), Value::Number(value)));
    if let Some(Picture { width, height, fps }) = picture {
        number("width", width.into());
        number("height", height.into());
        if let Some((frames, seconds)) = fps {
            number("framerate", f64::from(frames) / f64::from(seconds));
        }
    }
    if sound {
        number("audiocodecid", 10.0);
        number("audiosamplerate", crate::live::RATE.into());
        number("audiosamplesize", 16.0);
        fields.push(("stereo".to_owned(), Value::Boolean(true)));
    }
    fields.push(("encoder".to_owned(), Value::text(concat!("Lipstream ", env!("CARGO_PKG_VERSION")))));
    if marked {
        fields.push((marks::METADATA.to_owned(), Value::text(marks::SOURCE_TYPE)));
    }
    vec![Value::text("onMetaData"), Value::Map(fields)]
}

/// Rate in Hz and channels of an AudioSpecificConfig (ISO/IEC 14496-3, 1.6.2.1).
pub fn aac_format(config: &[u8]) -> Option<(u32, u32)> {
    const RATES: [u32; 13] = [96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350];
    let bits = config.iter().take(8).fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
    let mut left = 8 * config.len().min(8);
    let mut read = |count: usize| {
        left = left.checked_sub(count)?;
        Some((bits >> left & ((1 << count) - 1)) as u32)
    };
    if read(5)? == 31 {
        read(6)?;
    }
    let rate = match read(4)? {
        15 => read(24)?,
        index => *RATES.get(index as usize)?,
    };
    let channels = match read(4)? {
        channels @ 1..=6 => channels,
        7 => 8,
        // 0: the channels are described further on; the decoder reads that.
        0 => 2,
        _ => return None,
    };
    (rate > 0).then_some((rate, channels))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(data: &[u8]) -> Bytes {
        Bytes::copy_from_slice(data)
    }

    #[test]
    fn legacy_tags_are_read() {
        let config = avc_config(&[1, 66, 0, 30]);
        assert_eq!(video(config), Ok(Some(Tag::Config { codec: Codec::H264, data: bytes(&[1, 66, 0, 30]) })));
        let late = video(bytes(&[0x27, 1, 0xFF, 0xFF, 0xD8, 9, 9]));
        let frame = Tag::Frame { codec: Codec::H264, key: false, composition: -40, channels: 0, data: bytes(&[9, 9]) };
        assert_eq!(late, Ok(Some(frame)));
        assert_eq!(
            audio(aac_config(&[0x11, 0x90])),
            Ok(Some(Tag::Config { codec: Codec::Aac, data: bytes(&[0x11, 0x90]) }))
        );
        assert_eq!(video(Bytes::new()), Ok(None));
        assert_eq!(video(bytes(&[0x17])), Err(Error::Short));
    }

    #[test]
    fn enhanced_tags_are_read() {
        let frame = video(bytes(b"\x91hvc1\x00\x00\x28data"));
        let expected = Tag::Frame { codec: Codec::H265, key: true, composition: 40, channels: 0, data: bytes(b"data") };
        assert_eq!(frame, Ok(Some(expected.clone())));
        // The same behind a modifier: nanoseconds, three bytes.
        assert_eq!(video(bytes(b"\x97\x02abc\x01hvc1\x00\x00\x28data")), Ok(Some(expected)));
        let config = audio(bytes(b"\x90OpusOpusHead"));
        assert_eq!(config, Ok(Some(Tag::Config { codec: Codec::Opus, data: bytes(b"OpusHead") })));
    }

    #[test]
    fn other_codecs_are_named() {
        assert!(video(bytes(&[0x12, 0])).unwrap_err().to_string().contains("Sorenson H.263"));
        assert!(audio(bytes(&[0xB6, 0])).unwrap_err().to_string().contains("Speex"));
        assert!(audio(bytes(b"\x91fLaC")).unwrap_err().to_string().contains("`fLaC`"));
    }

    #[test]
    fn the_first_of_several_tracks_is_used() {
        let data = |tag: Result<Option<Tag>, Error>| match tag {
            Ok(Some(Tag::Frame { codec, data, .. })) => Ok((codec, data)),
            other => Err(other),
        };
        let first = Ok((Codec::H264, bytes(b"data")));
        assert_eq!(data(video(bytes(b"\x96\x01avc1\x00\x00\x00\x00data"))), first);
        assert_eq!(video(bytes(b"\x96\x01avc1\x02\x00\x00\x00data")), Ok(Some(Tag::Aside(2))));
        let many = b"\x96\x11avc1\x01\x00\x00\x04\x00\x00\x00x\x00\x00\x00\x07\x00\x00\x00data";
        assert_eq!(data(video(bytes(many))), first);
        let codecs = b"\x96\x21hvc1\x01\x00\x00\x04\x00\x00\x00xavc1\x00\x00\x00\x07\x00\x00\x00data";
        assert_eq!(data(video(bytes(codecs))), first);
        let sound = b"\x95\x21Opus\x01\x00\x00\x01xmp4a\x00\x00\x00\x02ab";
        assert_eq!(data(audio(bytes(sound))), Ok((Codec::Aac, bytes(b"ab"))));
        for cut in 1..many.len() {
            assert!(!matches!(video(bytes(&many[..cut])), Ok(Some(Tag::Frame { .. }))), "{cut}");
        }
    }

    #[test]
    fn telephone_sound_is_read() {
        for (first, codec, channels) in [(0x72, Codec::ALaw, 1), (0x82, Codec::MuLaw, 1), (0x83, Codec::MuLaw, 2)] {
            let frame = Tag::Frame { codec, key: true, composition: 0, channels, data: bytes(&[5, 5]) };
            assert_eq!(audio(bytes(&[first, 5, 5])), Ok(Some(frame)));
        }
    }

    #[test]
    fn the_format_of_aac_is_read() {
        assert_eq!(aac_format(&[0x11, 0x90]), Some((48000, 2)));
        assert_eq!(aac_format(&[0x12, 0x08]), Some((44100, 1)));
        assert_eq!(aac_format(&[0x17]), None);
        assert_eq!(aac_format(&[]), None);
    }
}
