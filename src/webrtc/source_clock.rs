//! From a publisher's RTP time to one time of its source.
//!
//! Sound and picture of a peer count RTP time from random starts at different rates; only their Sender Reports say which
//! two belong together (RFC 3550 section 6.4.1). Sound is the master: it is heard when its time jumps. Until both
//! streams have sent a report the picture is aligned by its arrival.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A picture's alignment that is wrong by more is set at once, by less is corrected by [`SLEW`] a frame.
const STEP: i64 = 40_000_000;
/// Correction of one frame, in ns.
const SLEW: i64 = 1_000_000;
/// Time that the first packet gets; what is sent late may lie before it.
const START: i64 = 1_000_000_000;

/// What a Sender Report says: this RTP time was captured at this time of the sender's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub ntp: SystemTime,
    pub rtp: u32,
}

/// One of the two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Audio,
    Video,
}

/// RTP time of a stream in ns since some start of its own, without the wrap.
#[derive(Debug)]
struct Track {
    rate: i64,
    /// The last RTP time and its unwrapped count of ticks.
    last: Option<(u32, i64)>,
    /// To be added to give source time; set by the first packet.
    offset: Option<i64>,
    report: Option<Report>,
}

impl Track {
    fn new(rate: i64) -> Self {
        Self { rate, last: None, offset: None, report: None }
    }

    fn unwrap(&self, rtp: u32) -> i64 {
        match self.last {
            Some((last, ticks)) => ticks + i64::from(rtp.wrapping_sub(last) as i32),
            None => i64::from(rtp),
        }
    }

    fn nanos(&self, ticks: i64) -> i64 {
        (i128::from(ticks) * 1_000_000_000 / i128::from(self.rate)) as i64
    }

    /// Time of the sender's clock, in ns, minus the track's own: constant while the two clocks run alike.
    fn sender_offset(&self) -> Option<i64> {
        let report = self.report?;
        let ntp = report.ntp.duration_since(UNIX_EPOCH).ok()?;
        i64::try_from(ntp.as_nanos()).ok()?.checked_sub(self.nanos(self.unwrap(report.rtp)))
    }
}

/// See the module.
pub(super) struct SourceClock {
    audio: Track,
    video: Track,
    /// Arrival of the first packet of all, and its source time.
    first: Option<Instant>,
}

impl SourceClock {
    /// Clock rates in Hz.
    pub fn new(audio: u32, video: u32) -> Self {
        Self { audio: Track::new(audio.into()), video: Track::new(video.into()), first: None }
    }

    /// Source time of a packet with this RTP time, of which the stream's last report is given.
    pub fn time(&mut self, stream: Stream, rtp: u32, report: Option<Report>, arrival: Instant) -> Duration {
        let first = *self.first.get_or_insert(arrival);
        let track = match stream {
            Stream::Audio => &mut self.audio,
            Stream::Video => &mut self.video,
        };
        track.report = report.or(track.report);
        let ticks = track.unwrap(rtp);
        track.last = Some((rtp, ticks));
        let own = track.nanos(ticks);
        let mut offset = *track.offset.get_or_insert_with(|| {
            let since = arrival.saturating_duration_since(first).as_nanos() as i64;
            START + since - own
        });
        if stream == Stream::Video
            && let Some(wanted) = self.aligned()
        {
            let error = wanted - offset;
            offset += if error.abs() > STEP { error } else { error.clamp(-SLEW, SLEW) };
            self.video.offset = Some(offset);
        }
        Duration::from_nanos((own + offset).max(0) as u64)
    }

    /// The picture's offset by which it and the sound show the sender's clock alike.
    fn aligned(&self) -> Option<i64> {
        let audio = self.audio.offset? - self.audio.sender_offset()?;
        audio.checked_add(self.video.sender_offset()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUDIO: u32 = 48_000;
    const VIDEO: u32 = 90_000;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// A sender whose audio starts at RTP time `a` and video at `v`, both near the wrap.
    struct Sender {
        a: u32,
        v: u32,
        ntp: SystemTime,
    }

    impl Sender {
        fn rtp(&self, stream: Stream, at: Duration) -> u32 {
            match stream {
                Stream::Audio => self.a.wrapping_add((at.as_millis() as u32) * (AUDIO / 1000)),
                Stream::Video => self.v.wrapping_add((at.as_millis() as u32) * (VIDEO / 1000)),
            }
        }

        fn report(&self, stream: Stream, at: Duration) -> Report {
            Report { ntp: self.ntp + at, rtp: self.rtp(stream, at) }
        }
    }

    fn sender() -> Sender {
        Sender { a: u32::MAX - 4_000, v: u32::MAX - 100_000, ntp: UNIX_EPOCH + Duration::from_secs(1_800_000_000) }
    }

    #[test]
    fn reports_align_picture_and_sound_whatever_the_network_did() {
        let (mut clock, sender, t0) = (SourceClock::new(AUDIO, VIDEO), sender(), Instant::now());
        // Pictures arrive 150 ms later than the sound of the same moment.
        let mut offsets = Vec::new();
        for tick in 0..200u64 {
            let at = ms(tick * 20);
            let report = |stream| (tick >= 50).then(|| sender.report(stream, ms(900)));
            let sound = clock.time(Stream::Audio, sender.rtp(Stream::Audio, at), report(Stream::Audio), t0 + at);
            let picture =
                clock.time(Stream::Video, sender.rtp(Stream::Video, at), report(Stream::Video), t0 + at + ms(150));
            offsets.push(picture.as_nanos() as i64 - sound.as_nanos() as i64);
        }
        assert_eq!(offsets[0], 150_000_000, "before the reports only the arrival is known");
        assert!(offsets[60].abs() < 1_000_000, "{}", offsets[60]);
        assert!(offsets[199].abs() < 100_000, "{}", offsets[199]);
    }

    #[test]
    fn sound_never_jumps_and_counts_through_the_wrap() {
        let (mut clock, sender, t0) = (SourceClock::new(AUDIO, VIDEO), sender(), Instant::now());
        let mut last = None;
        for tick in 0..1000u64 {
            let at = ms(tick * 20);
            let report = (tick % 250 == 200).then(|| sender.report(Stream::Audio, at));
            let time = clock.time(Stream::Audio, sender.rtp(Stream::Audio, at), report, t0 + at + ms(tick % 60));
            if let Some(last) = last.replace(time) {
                assert_eq!(time - last, ms(20));
            }
        }
    }

    #[test]
    fn a_late_packet_from_before_the_first_is_no_panic() {
        let (mut clock, t0) = (SourceClock::new(AUDIO, VIDEO), Instant::now());
        clock.time(Stream::Audio, 5, None, t0);
        assert!(clock.time(Stream::Audio, 5u32.wrapping_sub(48_000), None, t0) < ms(1));
        clock.time(Stream::Audio, 0x8000_0000, None, t0);
    }
}
