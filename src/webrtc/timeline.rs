//! From the session's running time to a viewer's RTP and wall clock.
//!
//! A browser plays sound and picture together by the Sender Reports of both streams, which say at which wall clock time
//! an RTP time was captured (RFC 3550 section 6.4.1). Both come from one mapping here, so two packets of one running
//! time have one wall clock time, however long each encoder took.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::live::Codec;

/// A packet's wall clock time lies this much before its arrival, at first. It must never be in the future (a report
/// could not be made), and the first packet may come later after its running time than those that follow.
const MARGIN: Duration = Duration::from_secs(2);
/// A packet later or earlier than this belongs to another run of the graph, or the machine slept.
const TOLERANCE: Duration = Duration::from_secs(10);

/// Where a packet stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PacketTime {
    /// Time of the RTP stream, which only grows, to be multiplied by the codec's clock rate.
    pub media: Duration,
    /// The same as a wall clock time.
    pub wallclock: Instant,
}

#[derive(Clone, Copy)]
struct Origin {
    pts: Duration,
    place: PacketTime,
}

/// See the module.
#[derive(Default)]
pub(super) struct Timeline {
    origin: Option<Origin>,
    /// Running time of the last packet of each codec.
    last: HashMap<Codec, Duration>,
    /// The latest place given, and when.
    latest: Option<(PacketTime, Instant)>,
}

impl Timeline {
    /// The place of a packet that arrives now. When the graph starts anew its running time does too: the RTP time goes
    /// on by what has passed.
    pub fn place(&mut self, codec: Codec, pts: Duration, now: Instant) -> PacketTime {
        let backwards = self.last.insert(codec, pts).is_some_and(|last| pts < last);
        let place = self.origin.filter(|_| !backwards).and_then(|origin| origin.place(pts));
        let place = match place {
            Some(place) if place.wallclock > now => self.set_back(pts, place.media, now),
            Some(place) if now - place.wallclock < MARGIN + TOLERANCE => place,
            _ => self.restart(codec, pts, now),
        };
        if self.latest.is_none_or(|(latest, _)| latest.media < place.media) {
            self.latest = Some((place, now));
        }
        place
    }

    /// The first packet was later than the margin: the wall clock is set back, the RTP time goes on.
    fn set_back(&mut self, pts: Duration, media: Duration, now: Instant) -> PacketTime {
        let place = PacketTime { media, wallclock: now.checked_sub(MARGIN).unwrap_or(now) };
        self.origin = Some(Origin { pts, place });
        place
    }

    fn restart(&mut self, codec: Codec, pts: Duration, now: Instant) -> PacketTime {
        let media = match self.latest {
            Some((latest, at)) => latest.media + (now - at).max(Duration::from_millis(1)),
            // Not zero: sound that belongs before the first picture may come after it.
            None => TOLERANCE,
        };
        let place = PacketTime { media, wallclock: now.checked_sub(MARGIN).unwrap_or(now) };
        self.origin = Some(Origin { pts, place });
        self.last.clear();
        self.last.insert(codec, pts);
        place
    }
}

impl Origin {
    fn place(&self, pts: Duration) -> Option<PacketTime> {
        match pts.checked_sub(self.pts) {
            Some(later) => Some(PacketTime {
                media: self.place.media + later,
                wallclock: self.place.wallclock.checked_add(later)?,
            }),
            None => {
                let earlier = self.pts - pts;
                Some(PacketTime {
                    media: self.place.media.checked_sub(earlier)?,
                    wallclock: self.place.wallclock.checked_sub(earlier)?,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// An hour in, so that a time before it exists on every machine.
    fn start() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    #[test]
    fn sound_and_picture_of_one_moment_share_one_wall_clock_time() {
        let (mut timeline, t0) = (Timeline::default(), start());
        // The video encoder takes 60 ms longer than the audio encoder.
        let sound = timeline.place(Codec::Opus, ms(1000), t0);
        let picture = timeline.place(Codec::H264, ms(1000), t0 + ms(60));
        assert_eq!(sound, picture);
    }

    #[test]
    fn a_picture_of_before_the_first_sound_lies_before_it() {
        let (mut timeline, t0) = (Timeline::default(), start());
        let sound = timeline.place(Codec::Opus, ms(1000), t0);
        let earlier = timeline.place(Codec::H264, ms(960), t0 + ms(60));
        assert_eq!(earlier.wallclock, sound.wallclock - ms(40));
        assert_eq!(earlier.media, sound.media - ms(40));
    }

    #[test]
    fn jitter_of_arrival_does_not_move_the_mapping() {
        let (mut timeline, t0) = (Timeline::default(), start());
        let first = timeline.place(Codec::H264, ms(0), t0);
        for frame in 1..500 {
            let late = ms((frame * 37) % 300);
            let place = timeline.place(Codec::H264, ms(frame * 40), t0 + ms(frame * 40) + late);
            assert_eq!(place.media - first.media, ms(frame * 40));
            assert_eq!(place.wallclock - first.wallclock, ms(frame * 40));
        }
    }

    #[test]
    fn a_graph_that_starts_anew_does_not_turn_time_back() {
        let (mut timeline, t0) = (Timeline::default(), start());
        timeline.place(Codec::Opus, ms(5000), t0);
        let before = timeline.place(Codec::H264, ms(5000), t0);
        let after = timeline.place(Codec::H264, ms(0), t0 + ms(700));
        assert_eq!(after.media - before.media, ms(700));
        assert_eq!(after.wallclock - before.wallclock, ms(700));
        let sound = timeline.place(Codec::Opus, ms(0), t0 + ms(720));
        assert_eq!(sound, after, "both streams follow the same new run");
    }

    #[test]
    fn a_wall_clock_time_is_never_in_the_future() {
        let (mut timeline, t0) = (Timeline::default(), start());
        let first = timeline.place(Codec::H264, ms(0), t0);
        // The first frame came 3 s late, the next is on time.
        let now = t0 + ms(10);
        let next = timeline.place(Codec::H264, ms(3000), now);
        assert!(next.wallclock <= now);
        assert_eq!(next.media - first.media, ms(3000), "the RTP time is not touched");
    }
}
