//! What is served, and under which numbers.
//!
//! A number of the offer that the library has given to a format of its own which the offer lacks would be answered as
//! that format. So its formats get numbers that the offer does not use; those that match take the offer's.

use std::collections::HashSet;

use str0m::{
    format::{Codec, CodecConfig, FormatParams},
    media::{Frequency, Pt},
};

/// `packetization-mode=1` or not, `profile-level-id`: baseline, constrained baseline, main and high, each of level 3.1.
const H264: [(bool, u32); 7] = [
    (true, 0x42_e0_1f),
    (false, 0x42_e0_1f),
    (true, 0x42_00_1f),
    (false, 0x42_00_1f),
    (true, 0x4d_00_1f),
    (false, 0x4d_00_1f),
    (true, 0x64_00_1f),
];

/// Sets what is served, without `video` sound only. Formats for which no number is left are not served, the first last.
pub(super) fn configure(config: &mut CodecConfig, sdp: &str, video: bool) {
    let taken: HashSet<u8> = numbers(sdp).collect();
    // The dynamic ones (RFC 3551, section 6) and those of RFC 7587 and later, without what RTCP is told by (RFC 5761).
    let mut free = (96..128).chain(35..64).filter(|number| !taken.contains(number)).map(Pt::from);
    let opus = FormatParams { min_p_time: Some(10), use_inband_fec: Some(true), ..FormatParams::default() };
    config.clear();
    let Some(number) = free.next() else { return };
    config.add_config(number, None, Codec::Opus, Frequency::FORTY_EIGHT_KHZ, Some(2), opus);
    if !video {
        return;
    }
    let mut pair = || Some((free.next()?, free.next()?));
    for (index, (many, profile)) in H264.into_iter().enumerate() {
        let Some((number, again)) = pair() else { return };
        config.add_h264(number, Some(again), many, profile);
        if index == 0 {
            let Some((number, again)) = pair() else { return };
            let rate = Frequency::NINETY_KHZ;
            config.add_config(number, Some(again), Codec::Vp8, rate, None, FormatParams::default());
        }
    }
}

/// Sets what is offered to a server: one H.264, in both framings of packets, and Opus.
pub(super) fn offered(config: &mut CodecConfig) {
    configure(config, "", false);
    for (number, again, (many, profile)) in [(102, 103, H264[0]), (104, 105, H264[1])] {
        config.add_h264(Pt::from(number), Some(Pt::from(again)), many, profile);
    }
}

/// The payload types of an offer's sections.
fn numbers(sdp: &str) -> impl Iterator<Item = u8> {
    let sections = sdp.lines().filter(|line| line.starts_with("m="));
    sections.flat_map(|line| line.split_ascii_whitespace().skip(3).filter_map(|number| number.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formats(sdp: &str) -> Vec<(u8, Codec)> {
        let mut config = CodecConfig::empty();
        configure(&mut config, sdp, true);
        config.params().iter().map(|params| (*params.pt(), params.spec().codec)).collect()
    }

    #[test]
    fn no_number_of_the_offer_is_given_to_another_format() {
        let sdp = "v=0\r\nm=audio 9 x 111 63\r\nm=video 9 x 96 97 98 127\r\n";
        let given = formats(sdp);
        assert_eq!(given.len(), 9);
        assert!(given.iter().all(|(number, _)| ![111, 63, 96, 97, 98, 127].contains(number)), "{given:?}");
        let unique: HashSet<u8> = given.iter().map(|(number, _)| *number).collect();
        assert_eq!(unique.len(), given.len());
    }

    #[test]
    fn the_most_wanted_formats_stay_where_numbers_are_few() {
        let all: Vec<String> =
            (0..128).filter(|n| ![100, 101, 102, 103, 104].contains(n)).map(|n| n.to_string()).collect();
        let given = formats(&format!("m=video 9 x {}\r\n", all.join(" ")));
        assert_eq!(given, [(100, Codec::Opus), (101, Codec::H264), (103, Codec::Vp8)]);
        let all: Vec<String> = (0..=255).map(|n| n.to_string()).collect();
        assert!(formats(&format!("m=video 9 x {}\r\n", all.join(" "))).is_empty());
    }
}
