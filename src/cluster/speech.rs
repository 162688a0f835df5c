//! What sessions have still to say, kept by JetStream for the node that takes them over.
//!
//! ```text
//! lipstream.speech.SESSION.TERM.UTTERANCE.name    its name
//!                                        .000042  16-bit samples, one after another
//! lipstream.speech.SESSION.TERM.at                how far it has been spoken
//! ```
//!
//! A term is the time that one node has a session, by the revision of its record. Each 200 ms what was accepted is written and what was
//! spoken is thrown away. The next node speaks from 100 ms before where the last word of `at` is, which is the time that sound is
//! in the graph before it is heard: so nothing is left out but what was accepted in the last 200 ms, for which nobody had an
//! answer, and at most half a second is said twice.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_nats::jetstream::stream::{self, DiscardPolicy, Stream};
use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesOrdered};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{Cluster, records::key_of};
use crate::{
    error::{Failure, Result},
    speech::{Change, Keeper, Queue, RATE},
};

const STREAM: &str = "lipstream_speech";
const SUBJECT: &str = "lipstream.speech";
/// How often what has changed is written.
const BEAT: Duration = Duration::from_millis(200);
/// Samples of a message, at most: 2 s.
const PIECE: usize = 2 * RATE as usize;
/// Samples that are in the graph and not yet heard.
const UNHEARD: usize = RATE as usize / 10;
/// Speech that nobody has taken over by then is of no use.
const OLD: Duration = Duration::from_secs(3600);
/// Messages that are read at a time.
const AT_ONCE: usize = 16;

/// Where the speech is kept.
#[derive(Clone)]
pub struct SpeechStore {
    cluster: Arc<Cluster>,
    stream: Stream,
}

/// How far a term has been spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct At {
    /// The utterance that was spoken, and samples of it.
    utterance: u64,
    samples: usize,
}

/// An utterance, or what is left of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Unspoken {
    pub utterance: String,
    /// At [`RATE`].
    pub samples: Vec<f32>,
}

#[derive(Default)]
struct Kept {
    name: String,
    /// Not yet written.
    samples: Vec<i16>,
    written: u64,
    named: bool,
}

#[derive(Default)]
struct Pending {
    utterances: BTreeMap<u64, Kept>,
    gone: Vec<u64>,
    at: At,
    moved: bool,
}

/// Keeps the speech of one session in one term.
pub struct SpeechKeeper {
    pending: Mutex<Pending>,
    wake: Notify,
    /// Rounds that have been asked for, and that are through.
    asked: watch::Sender<u64>,
    done: watch::Sender<u64>,
    end: CancellationToken,
}

impl Keeper for SpeechKeeper {
    fn keep(&self, change: Change<'_>) {
        let mut pending = self.pending.lock();
        match change {
            Change::Opened { number, utterance } => {
                pending.utterances.insert(number, Kept { name: utterance.to_owned(), ..Kept::default() });
            }
            Change::Added { number, samples } => {
                if let Some(kept) = pending.utterances.get_mut(&number) {
                    kept.samples.extend(samples.iter().map(|s| (s * 32767.0) as i16));
                }
            }
            Change::Taken { number, samples } => {
                pending.at = At { utterance: number, samples };
                pending.moved = true;
            }
            Change::Gone { number } => {
                if pending.utterances.remove(&number).is_some_and(|kept| kept.named) {
                    pending.gone.push(number);
                }
            }
        }
    }
}

impl SpeechKeeper {
    /// Returns when all that has been accepted until now is kept, or cannot be.
    pub async fn kept(&self) {
        let mut round = 0;
        self.asked.send_modify(|asked| {
            *asked += 1;
            round = *asked;
        });
        self.wake.notify_one();
        // The keeper may have ended.
        let _ = self.done.subscribe().wait_for(|done| *done >= round).await;
    }

    /// Keeps nothing any more; what is kept stays.
    pub fn stop(&self) {
        self.end.cancel();
    }
}

fn subject(id: &str, term: u64) -> String {
    format!("{SUBJECT}.{}.{term}", key_of(id))
}

impl SpeechStore {
    /// `bytes` is how much may be kept in all.
    pub async fn open(cluster: Arc<Cluster>, bytes: i64) -> Result<Self> {
        let config = stream::Config {
            name: STREAM.into(),
            subjects: vec![format!("{SUBJECT}.>")],
            max_messages_per_subject: 1,
            max_bytes: bytes,
            max_age: OLD,
            discard: DiscardPolicy::New,
            allow_direct: true,
            num_replicas: cluster.replicas(),
            ..stream::Config::default()
        };
        let stream = cluster.jetstream().get_or_create_stream(config).await.map_err(|e| {
            Failure::run(format!(
                "cluster: JetStream makes no stream `{STREAM}` of {} MB: {e}; give it more room, or lower cluster.speech_mb",
                bytes / 1_000_000
            ))
        })?;
        Ok(Self { cluster, stream })
    }

    /// Keeps from now on what `queue` of session `id` holds.
    pub fn keep(&self, id: &str, term: u64, queue: &Arc<Queue>) -> Arc<SpeechKeeper> {
        let keeper = Arc::new(SpeechKeeper {
            pending: Mutex::default(),
            wake: Notify::new(),
            asked: watch::Sender::new(0),
            done: watch::Sender::new(0),
            end: CancellationToken::new(),
        });
        queue.set_keeper(Some(keeper.clone()));
        let (store, id, own) = (self.clone(), id.to_owned(), keeper.clone());
        tokio::spawn(async move { store.follow(&id, term, &own).await });
        keeper
    }

    async fn follow(&self, id: &str, term: u64, keeper: &SpeechKeeper) {
        let base = subject(id, term);
        let mut failing = false;
        loop {
            let asked = *keeper.asked.borrow();
            match self.write(&base, keeper).await {
                Ok(()) => failing = false,
                Err(error) if !failing => {
                    failing = true;
                    tracing::warn!("session `{id}`: what it has to say is not kept for other nodes: {error}");
                }
                Err(_) => {}
            }
            keeper.done.send_replace(asked);
            tokio::select! {
                () = keeper.end.cancelled() => return,
                () = tokio::time::sleep(BEAT) => {}
                () = keeper.wake.notified() => {}
            }
        }
    }

    /// Writes what has changed.
    async fn write(&self, base: &str, keeper: &SpeechKeeper) -> std::result::Result<(), String> {
        let mut messages: Vec<(String, Bytes)> = Vec::new();
        let gone;
        {
            let mut pending = keeper.pending.lock();
            for (number, kept) in &mut pending.utterances {
                if !kept.named {
                    kept.named = true;
                    messages.push((format!("{base}.{number}.name"), kept.name.clone().into()));
                }
                for piece in kept.samples.chunks(PIECE) {
                    let bytes: Vec<u8> = piece.iter().flat_map(|sample| sample.to_le_bytes()).collect();
                    messages.push((format!("{base}.{number}.{:06}", kept.written), bytes.into()));
                    kept.written += 1;
                }
                kept.samples = Vec::new();
            }
            if std::mem::take(&mut pending.moved) {
                messages.push((format!("{base}.at"), text(pending.at)));
            }
            gone = std::mem::take(&mut pending.gone);
        }
        let mut sent = FuturesOrdered::new();
        for (subject, payload) in messages {
            let ack = self.cluster.jetstream().publish(subject, payload).await.map_err(|e| e.to_string())?;
            sent.push_back(ack.into_future());
        }
        while let Some(kept) = sent.next().await {
            kept.map_err(|e| e.to_string())?;
        }
        for number in gone {
            self.purge(&format!("{base}.{number}.>")).await?;
        }
        Ok(())
    }

    async fn purge(&self, filter: &str) -> std::result::Result<(), String> {
        self.stream.purge().filter(filter).await.map(drop).map_err(|e| e.to_string())
    }

    /// Says of a term that all of what came before it is in it.
    pub async fn begin(&self, id: &str, term: u64) {
        let at = self.cluster.jetstream().publish(format!("{}.at", subject(id, term)), text(At::default())).await;
        if let Ok(ack) = at {
            // What it is for is told where speech is kept.
            let _ = ack.await;
        }
    }

    /// What the last whole term before `term` has left unspoken.
    pub async fn unspoken(&self, id: &str, term: u64) -> std::result::Result<Vec<Unspoken>, String> {
        let filter = format!("{SUBJECT}.{}.>", key_of(id));
        let mut subjects = self.stream.info_with_subjects(&filter).await.map_err(|e| e.to_string())?;
        let mut terms: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        while let Some(subject) = subjects.next().await {
            let (subject, _) = subject.map_err(|e| e.to_string())?;
            let of = subject.split('.').nth(3).and_then(|of| of.parse().ok());
            if let Some(of) = of.filter(|of| *of < term) {
                terms.entry(of).or_default().push(subject);
            }
        }
        let whole = |subjects: &[String]| subjects.iter().any(|subject| subject.ends_with(".at"));
        let Some((_, subjects)) = terms.into_iter().rev().find(|(_, subjects)| whole(subjects)) else {
            return Ok(Vec::new());
        };
        let read = |subject: String| async move {
            let message = self.stream.direct_get_last_for_subject(subject.as_str()).await;
            message.map(|message| (subject, message.payload)).map_err(|e| e.to_string())
        };
        let messages: Vec<_> = futures_util::stream::iter(subjects).map(read).buffered(AT_ONCE).collect().await;
        Ok(assemble(messages.into_iter().collect::<std::result::Result<Vec<_>, _>>()?))
    }

    /// Throws away what terms other than `term` have left, or all.
    pub async fn forget(&self, id: &str, term: Option<u64>) {
        let filter = format!("{SUBJECT}.{}.>", key_of(id));
        let Ok(mut subjects) = self.stream.info_with_subjects(&filter).await else { return };
        let mut terms = std::collections::BTreeSet::new();
        while let Some(Ok((subject, _))) = subjects.next().await {
            terms.extend(subject.split('.').nth(3).and_then(|of| of.parse::<u64>().ok()));
        }
        for old in terms.into_iter().filter(|old| Some(*old) != term) {
            // It is thrown away by its age otherwise.
            let _ = self.purge(&format!("{}.>", subject(id, old))).await;
        }
    }
}

fn text(at: At) -> Bytes {
    serde_json::to_vec(&at).unwrap_or_default().into()
}

/// The utterances of a term, in their order, without what has been heard.
fn assemble(messages: Vec<(String, Bytes)>) -> Vec<Unspoken> {
    let mut at = At::default();
    let mut named = BTreeMap::new();
    let mut pieces: BTreeMap<(u64, u64), Bytes> = BTreeMap::new();
    for (subject, payload) in messages {
        let parts: Vec<&str> = subject.split('.').skip(4).collect();
        match parts[..] {
            ["at"] => at = serde_json::from_slice(&payload).unwrap_or_default(),
            [number, "name"] => {
                if let Ok(number) = number.parse::<u64>() {
                    named.insert(number, String::from_utf8_lossy(&payload).into_owned());
                }
            }
            [number, piece] => {
                if let (Ok(number), Ok(piece)) = (number.parse(), piece.parse()) {
                    pieces.insert((number, piece), payload);
                }
            }
            _ => {}
        }
    }
    let of = |number: u64, utterance: String| {
        let bytes = pieces.range((number, 0)..=(number, u64::MAX)).flat_map(|(_, piece)| piece.chunks_exact(2));
        let heard = if number == at.utterance { at.samples.saturating_sub(UNHEARD) } else { 0 };
        let samples = bytes.map(|b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32767.0).skip(heard).collect();
        Unspoken { utterance, samples }
    };
    let left = named.into_iter().filter(|(number, _)| *number >= at.utterance);
    left.map(|(number, name)| of(number, name)).filter(|unspoken| !unspoken.samples.is_empty()).collect()
}

/// Lines of `SUBJECT PAYLOAD` as the messages of a term; for tests with bytes of any kind.
pub(super) fn read_messages(bytes: &[u8]) {
    let lines = bytes.split(|byte| *byte == b'\n').filter_map(|line| {
        let at = line.iter().position(|byte| *byte == b' ')?;
        let subject = format!("{SUBJECT}.a.7.{}", String::from_utf8_lossy(&line[..at]));
        Some((subject, Bytes::copy_from_slice(&line[at + 1..])))
    });
    assert!(assemble(lines.collect()).iter().all(|left| left.samples.iter().all(|sample| sample.abs() < 1.01)));
}

/// Puts what was left unspoken in front of all that comes.
pub async fn speak(queue: &Arc<Queue>, unspoken: Vec<Unspoken>) {
    // All at once, so that nobody comes between them.
    let writers = unspoken.into_iter().map_while(|left| Some((queue.writer(&left.utterance).ok()?, left.samples)));
    for (mut writer, samples) in writers.collect::<Vec<_>>() {
        // An interruption has thrown it away where this fails.
        let _ = writer.write(&samples).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(rest: &str, payload: &[u8]) -> (String, Bytes) {
        (format!("{SUBJECT}.a.7.{rest}"), Bytes::copy_from_slice(payload))
    }

    fn samples(from: i16, count: usize) -> Vec<u8> {
        (0..count).flat_map(|n| (from + n as i16).to_le_bytes()).collect()
    }

    #[test]
    fn what_was_heard_is_left_out_and_the_rest_comes_in_order() {
        let at = text(At { utterance: 2, samples: UNHEARD + 3 });
        let left = assemble(vec![
            message("3.000000", &samples(500, 2)),
            message("2.000001", &samples(4, 4)),
            message("1.000000", &samples(900, 4)),
            message("1.name", b"over"),
            message("at", &at),
            message("2.000000", &samples(0, 4)),
            message("3.name", b"next"),
            message("2.name", b"now"),
            message("nonsense", b"?"),
            message("x.y", b"?"),
        ]);
        let whole = |left: &Unspoken| left.samples.iter().map(|s| (s * 32767.0).round() as i16).collect::<Vec<_>>();
        assert_eq!(left.iter().map(|l| l.utterance.as_str()).collect::<Vec<_>>(), ["now", "next"]);
        assert_eq!(whole(&left[0]), [3, 4, 5, 6, 7]);
        assert_eq!(whole(&left[1]), [500, 501]);
    }

    #[test]
    fn a_queue_tells_all_that_happens_to_its_speech() {
        #[derive(Default)]
        struct Log(Mutex<Vec<String>>);
        impl Keeper for Log {
            fn keep(&self, change: Change<'_>) {
                self.0.lock().push(match change {
                    Change::Opened { number, utterance } => format!("opened {number} {utterance}"),
                    Change::Added { number, samples } => format!("added {number} {}", samples.len()),
                    Change::Taken { number, samples } => format!("taken {number} {samples}"),
                    Change::Gone { number } => format!("gone {number}"),
                });
            }
        }
        let (queue, log) = (Queue::new(Duration::from_secs(10)), Arc::new(Log::default()));
        queue.set_keeper(Some(log.clone()));
        let mut writer = queue.writer("a").unwrap();
        writer.add(&[0.5; 960]).unwrap();
        drop(writer);
        drop(queue.writer("silent").unwrap());
        let mut cut = queue.writer("cut").unwrap();
        let mut out = [0.0; 480];
        (0..3).for_each(|_| _ = queue.take(&mut out));
        cut.add(&[0.5; 10]).unwrap();
        queue.interrupt();
        queue.set_keeper(None);
        drop(queue.writer("unkept").unwrap());
        let told = log.0.lock().join(", ");
        assert_eq!(
            told,
            "opened 0 a, added 0 960, opened 1 silent, gone 1, opened 2 cut, taken 0 480, taken 0 960, gone 0, added 2 10, gone 2"
        );
    }
}
