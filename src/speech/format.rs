//! What a body of speech may be, by its media type (RFC 9110, 8.3).

/// How a body is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A container or a coded stream that tells itself what it is.
    Coded,
    /// Samples without a head.
    Raw { rate: u32, channels: u32, big_endian: bool },
}

/// Coded types; what a client calls them varies.
const CODED: [&str; 22] = [
    "audio/wav",
    "audio/x-wav",
    "audio/wave",
    "audio/vnd.wave",
    "audio/mpeg",
    "audio/mp3",
    "audio/x-mp3",
    "audio/ogg",
    "audio/opus",
    "audio/vorbis",
    "application/ogg",
    "audio/flac",
    "audio/x-flac",
    "audio/mp4",
    "audio/m4a",
    "audio/x-m4a",
    "audio/aac",
    "audio/webm",
    "video/webm",
    "video/mp4",
    "video/ogg",
    "application/octet-stream",
];
const RATES: std::ops::RangeInclusive<u32> = 8_000..=192_000;
const CHANNELS: std::ops::RangeInclusive<u32> = 1..=8;

impl Format {
    /// The format that a media type names; an empty one leaves it to the body. Errors: a type that is not taken, or raw
    /// samples without their rate.
    pub fn of(media_type: &str) -> Result<Self, String> {
        let mut parts = media_type.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        if kind.is_empty() || CODED.contains(&kind.as_str()) {
            return Ok(Self::Coded);
        }
        // RFC 2586: 16 bits, the higher byte first; "audio/pcm" is what speech services call the other order.
        let big_endian = match kind.as_str() {
            "audio/l16" => true,
            "audio/pcm" | "audio/x-pcm" | "audio/x-raw" => false,
            _ => {
                let shown: String = kind.chars().filter(|c| c.is_ascii_graphic()).take(64).collect();
                return Err(format!(
                    "`{shown}` is not a type of speech; send audio/wav, audio/mpeg, audio/ogg, audio/flac, audio/mp4, \
                     audio/webm, audio/pcm;rate=24000 or audio/L16;rate=24000"
                ));
            }
        };
        let (mut rate, mut channels) = (None, 1);
        for (name, value) in parts.filter_map(|p| p.split_once('=')) {
            let number = value.trim().trim_matches('"').parse::<u32>().ok();
            match name.trim().to_ascii_lowercase().as_str() {
                "rate" => rate = Some(number.filter(|n| RATES.contains(n)).ok_or_else(|| bad("rate", RATES))?),
                "channels" => {
                    channels = number.filter(|n| CHANNELS.contains(n)).ok_or_else(|| bad("channels", CHANNELS))?;
                }
                _ => {}
            }
        }
        let rate = rate.ok_or_else(|| format!("{kind} needs the rate of its samples: {kind};rate=24000"))?;
        Ok(Self::Raw { rate, channels, big_endian })
    }

    /// Bytes that belong together.
    pub fn frame_bytes(self) -> usize {
        match self {
            Self::Coded => 1,
            Self::Raw { channels, .. } => 2 * channels as usize,
        }
    }
}

fn bad(name: &str, range: std::ops::RangeInclusive<u32>) -> String {
    format!("`{name}` of raw samples must be a number from {} to {}", range.start(), range.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_known_by_many_names() {
        for coded in ["", "audio/wav", "Audio/X-WAV", "audio/ogg; codecs=opus", "application/octet-stream"] {
            assert_eq!(Format::of(coded), Ok(Format::Coded), "{coded}");
        }
        let raw = |rate, channels, big_endian| Ok(Format::Raw { rate, channels, big_endian });
        assert_eq!(Format::of("audio/L16;rate=16000"), raw(16_000, 1, true));
        assert_eq!(Format::of("audio/pcm; rate=\"24000\" ; channels=2"), raw(24_000, 2, false));
    }

    #[test]
    fn a_refusal_says_what_is_taken() {
        assert!(Format::of("text/html").unwrap_err().contains("audio/wav"));
        assert!(Format::of("audio/pcm").unwrap_err().contains("rate=24000"));
        assert!(Format::of("audio/pcm;rate=1").unwrap_err().contains("8000 to 192000"));
        assert!(Format::of("audio/pcm;rate=16000;channels=99").unwrap_err().contains("1 to 8"));
    }
}
