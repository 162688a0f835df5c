//! The voices of a session: what it has to say, who may publish it, and how it is cut short.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use gst::prelude::*;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    super::{
        Refusal, Video, Voice,
        clock::{MS, Nanos},
        running_graph::RunningGraph,
        status::{self, SecondVoice},
    },
    Session,
};
use crate::{
    live::{Inlet, Slot},
    speech,
};

/// The mouth is at rest after so much video beyond the frame that was shown last when it was interrupted.
const CLOSING: Nanos = 80 * MS;
/// Longest wait for a mouth to come to rest; a graph that is stuck does not hold the caller.
const PATIENCE: Duration = Duration::from_secs(2);

/// One of the two voices that a session may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum VoiceName {
    /// The one of `speaker`, which every session has.
    #[default]
    A,
    /// The one of `speaker_b`.
    B,
}

impl VoiceName {
    const ALL: [Self; 2] = [Self::A, Self::B];

    /// The signal of the lip-sync that cuts it short.
    fn interrupt(self) -> &'static str {
        match self {
            Self::A => "interrupt",
            Self::B => "interrupt-b",
        }
    }
}

impl Session {
    /// What its first voice has to say.
    pub fn speech(&self) -> &Arc<speech::Queue> {
        &self.speech
    }

    /// What one of its voices has to say.
    pub fn speech_of(&self, voice: VoiceName) -> Result<&Arc<speech::Queue>, Refusal> {
        match voice {
            VoiceName::A => Ok(&self.speech),
            VoiceName::B => self.second.as_ref().ok_or_else(|| self.one_voice()),
        }
    }

    fn one_voice(&self) -> Refusal {
        Refusal::Conflict(format!(
            "session `{}` has one voice; one that is created with `speaker_b` has a second one",
            self.id()
        ))
    }

    /// The queues of all its voices.
    pub(super) fn queues(&self) -> impl Iterator<Item = &Arc<speech::Queue>> {
        std::iter::once(&self.speech).chain(&self.second)
    }

    /// Takes a place for a live source. `who` names the peer in messages.
    pub fn publish(&self, place: Slot, who: &str) -> Result<Inlet, Refusal> {
        let fits = match place {
            Slot::Main => self.service.video == Video::Publish,
            Slot::Voice => self.service.voice != Voice::Source,
            Slot::VoiceB => self.second.is_some(),
        };
        if !fits {
            let takes = match (self.service.video, self.service.voice) {
                _ if place == Slot::VoiceB => return Err(self.one_voice()),
                (Video::Publish, Voice::Source) => "it takes a video with its sound",
                (Video::Publish, _) => "it takes a video, and a voice beside it",
                (_, Voice::Source) => "it reads its own source",
                _ => "it takes a voice only",
            };
            let what = if place == Slot::Main { "a video" } else { "a second voice" };
            return Err(Refusal::Conflict(format!("session `{}` takes no {what}: {takes}", self.id())));
        }
        self.inlet(place, who)
    }

    /// Throws away all queued speech of all its voices and closes the mouths. Returns when they are at rest, with the time that it took.
    pub async fn interrupt(&self) -> Result<Duration, Refusal> {
        self.cut(&VoiceName::ALL[..1 + usize::from(self.second.is_some())]).await
    }

    /// The same of one of them; the other speaks on.
    pub async fn interrupt_voice(&self, voice: VoiceName) -> Result<Duration, Refusal> {
        self.speech_of(voice)?;
        self.cut(&[voice]).await
    }

    async fn cut(&self, voices: &[VoiceName]) -> Result<Duration, Refusal> {
        let began = Instant::now();
        let queues: Vec<_> = voices.iter().filter_map(|voice| self.speech_of(*voice).ok()).collect();
        queues.iter().for_each(|queue| _ = queue.interrupt());
        let graph = self.state.lock().running.as_ref().map(|running| running.graph.clone());
        if let Some(graph) = graph {
            let shown = graph.meter.last_shown();
            let rests = |graph: &RunningGraph, voice: VoiceName| graph.rests[voice as usize].load(Ordering::Relaxed);
            let before: Vec<u64> = voices.iter().map(|voice| rests(&graph, *voice)).collect();
            for voice in voices {
                graph.lipsync.emit_by_name::<()>(voice.interrupt(), &[]);
            }
            // The bin says when a mouth is at rest; without a face it has nothing to say.
            let at_rest = || {
                let moved = |shown| graph.meter.last_shown().is_some_and(|now| now >= shown + CLOSING);
                let moved = shown.is_none_or(moved);
                let rested = |(voice, before): (&VoiceName, &u64)| moved || rests(&graph, *voice) > *before;
                voices.iter().zip(&before).all(rested) && !queues.iter().any(|queue| queue.fading())
            };
            while !at_rest() && began.elapsed() < PATIENCE {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        let took = began.elapsed();
        self.state.lock().flush = Some(took);
        queues.iter().for_each(|queue| queue.tell(speech::Event::Flushed { ms: took.as_secs_f64() * 1e3 }));
        Ok(took)
    }

    /// A moment of its second voice; `track` is the face that it moves.
    pub(super) fn second_status(&self, track: Option<u64>) -> Option<SecondVoice> {
        let queue = self.second.as_ref()?;
        Some(SecondVoice {
            speaking: queue.speaking(),
            speech_queued_ms: queue.queued().as_secs_f64() * 1e3,
            publishing: self.jitter_buffer.holds(Slot::VoiceB),
            source: self.jitter_buffer.sent(Slot::VoiceB).map(|sent| status::Source::new(sent, None)),
            samples_missing: self.jitter_buffer.missing(Slot::VoiceB),
            speaker_track: track,
        })
    }
}
