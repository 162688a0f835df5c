use std::time::Duration;

use super::*;
use crate::speech::edges::RAMP;

fn queue(seconds: f64) -> Arc<Queue> {
    Queue::new(Duration::from_secs_f64(seconds))
}

fn tone(length: usize) -> Vec<f32> {
    (0..length).map(|n| 0.5 * (n as f32 * 0.05).cos()).collect()
}

fn taken(queue: &Queue, pieces: &[usize], total: usize) -> Vec<f32> {
    let mut out = vec![9.0; total];
    let (mut at, mut sizes) = (0, pieces.iter().cycle());
    while at < total {
        let end = (at + sizes.next().unwrap()).min(total);
        queue.take(&mut out[at..end]);
        at = end;
    }
    out
}

fn told(events: &mut broadcast::Receiver<Event>) -> Vec<Event> {
    std::iter::from_fn(|| events.try_recv().ok()).collect()
}

fn steepest(samples: &[f32]) -> f32 {
    samples.windows(2).map(|w| (w[1] - w[0]).abs()).fold(0.0, f32::max)
}

/// Two utterances and a cut, taken in pieces of these sizes.
fn scene(pieces: &[usize]) -> Vec<f32> {
    let queue = queue(10.0);
    let speech = tone(1000);
    for part in [7, 400] {
        let mut writer = queue.writer("a").unwrap();
        speech.chunks(part).for_each(|chunk| assert_eq!(writer.add(chunk), Ok(chunk.len())));
    }
    let mut out = taken(&queue, pieces, 2960);
    let mut writer = queue.writer("b").unwrap();
    writer.add(&tone(PLENTY)).unwrap();
    out.extend(taken(&queue, pieces, 960));
    queue.interrupt();
    out.extend(taken(&queue, pieces, 960));
    out
}

#[test]
fn the_samples_are_the_same_however_they_are_taken() {
    let whole = scene(&[4880]);
    for pieces in [&[480][..], &[1], &[3, 239, 241, 7], &[960, 1], &[RAMP - 1, RAMP + 1]] {
        assert_eq!(scene(pieces), whole, "{pieces:?}");
    }
}

#[test]
fn nothing_clicks_and_nothing_is_lost() {
    let out = scene(&[480]);
    // The tone itself rises by 0.025 a sample, a ramp adds 0.5 / 240.
    assert!(steepest(&out) < 0.04, "{}", steepest(&out));
    assert_eq!(out[RAMP..1000], tone(1000)[RAMP..]);
    assert_eq!(out[1000 + RAMP..2000], tone(1000)[RAMP..]);
    assert!(out[2000 + RAMP..2960].iter().all(|s| *s == 0.0));
    assert!(out[2960 + 960 + RAMP..].iter().all(|s| *s == 0.0));
}

#[test]
fn an_interruption_empties_the_queue_and_cuts_its_writers() {
    let queue = queue(10.0);
    let mut events = queue.events();
    let mut writer = queue.writer("a").unwrap();
    writer.add(&tone(48_000)).unwrap();
    taken(&queue, &[480], 4800);
    assert!(queue.speaking());
    assert_eq!(queue.interrupt(), Duration::from_millis(900));
    assert_eq!(queue.queued(), Duration::ZERO);
    assert!(writer.is_cut());
    assert_eq!(writer.add(&[0.1]), Err(Cut));
    taken(&queue, &[480], 960);
    assert!(!queue.speaking());
    drop(writer);
    assert_eq!(names(told(&mut events)), ["listening a", "speaking a", "ended a 100 Some(Interrupted)", "idle"]);
}

fn names(events: Vec<Event>) -> Vec<String> {
    let name = |event| match event {
        Event::Listening { utterance } => format!("listening {utterance}"),
        Event::Speaking { utterance } => format!("speaking {utterance}"),
        Event::Ended { utterance, spoken_ms, cut } => format!("ended {utterance} {spoken_ms} {cut:?}"),
        Event::Idle => "idle".into(),
        Event::Flushed { .. } => "flushed".into(),
    };
    events.into_iter().map(name).collect()
}

#[test]
fn utterances_are_spoken_in_order_and_idle_comes_last() {
    let queue = queue(10.0);
    let mut events = queue.events();
    let mut first = queue.writer("1").unwrap();
    let mut second = queue.writer("2").unwrap();
    second.add(&[0.25; 480]).unwrap();
    first.add(&[0.5; 480]).unwrap();
    drop((first, second));
    let out = taken(&queue, &[480], 1920);
    assert!(out[480 + RAMP..960].iter().all(|s| *s == 0.25));
    let expected =
        ["listening 1", "listening 2", "speaking 1", "ended 1 10 None", "speaking 2", "ended 2 10 None", "idle"];
    assert_eq!(names(told(&mut events)), expected);
}

#[test]
fn an_interruption_says_of_each_utterance_how_far_it_came() {
    let queue = queue(10.0);
    let mut events = queue.events();
    let mut writers = ["1", "2", "3"].map(|id| queue.writer(id).unwrap());
    writers.iter_mut().take(2).for_each(|writer| assert_eq!(writer.add(&tone(48_000)), Ok(48_000)));
    taken(&queue, &[960], 24_000);
    told(&mut events);
    queue.interrupt();
    let cut = |id, ms| format!("ended {id} {ms} Some(Interrupted)");
    assert_eq!(names(told(&mut events)), [cut("1", 500), cut("2", 0), cut("3", 0), "idle".into()]);
    assert!(queue.fading() && !queue.speaking());
    // Another speaks at once: what was cut has faded out all the same.
    let mut next = queue.writer("4").unwrap();
    next.add(&tone(48_000)).unwrap();
    taken(&queue, &[960], 960);
    assert!(!queue.fading() && queue.speaking());
    assert_eq!(names(told(&mut events)), ["listening 4", "speaking 4"]);
}

#[test]
fn speech_that_comes_at_its_own_pace_has_no_hole() {
    for piece in [960, 2880, 4800] {
        let queue = queue(10.0);
        let mut writer = queue.writer("a").unwrap();
        let mut heard = Vec::new();
        // Each piece comes when the one before is over, every other one 20 ms late.
        let (mut due, mut sent) = (0, 0);
        for now in (0..96_000).step_by(960) {
            if now >= due && sent < 48_000 {
                writer.add(&vec![0.5; piece]).unwrap();
                sent += piece;
                due = sent + if sent / piece % 2 == 0 { 0 } else { 960 };
            }
            heard.extend(taken(&queue, &[960], 960));
        }
        let begin = heard.iter().position(|s| *s > 0.0).unwrap();
        assert!((2880..=4800).contains(&begin), "{piece}: gathered for {begin}");
        let length = heard[begin..].iter().position(|s| *s == 0.0).unwrap();
        assert!(length >= 48_000, "{piece}: a hole after {length}");
    }
}

#[test]
fn what_comes_faster_than_it_is_spoken_is_spoken_at_once() {
    let queue = queue(10.0);
    let mut writer = queue.writer("a").unwrap();
    writer.add(&tone(PLENTY)).unwrap();
    assert!(queue.take(&mut [0.0; 480]));
}

#[test]
fn what_nobody_hears_is_dropped_by_its_age() {
    let queue = queue(10.0);
    let kept = Duration::from_secs(30);
    let mut events = queue.events();
    let mut writer = queue.writer("old").unwrap();
    writer.add(&tone(48_000)).unwrap();
    let mut new = queue.writer("new").unwrap();
    new.add(&tone(480)).unwrap();
    queue.drop_unheard(kept);
    assert_eq!(queue.queued(), Duration::from_millis(1010));
    let Some(before) = Instant::now().checked_sub(kept + Duration::from_secs(1)) else { return };
    queue.state.lock().utterances[0].1.opened = before;
    // A session that takes speaks all of it in its turn.
    queue.take(&mut [0.0; 480]);
    queue.drop_unheard(kept);
    assert!(!writer.is_cut());
    told(&mut events);
    queue.state.lock().taken = Some(before);
    queue.drop_unheard(kept);
    assert!(writer.is_cut() && !new.is_cut());
    assert_eq!(names(told(&mut events)), ["ended old 10 Some(Unheard)"]);
    assert_eq!(queue.queued(), Duration::from_millis(10));
}

#[test]
fn an_utterance_without_sound_is_over_at_once() {
    let queue = queue(10.0);
    let mut events = queue.events();
    drop(queue.writer("a").unwrap());
    assert_eq!(names(told(&mut events)), ["listening a", "ended a 0 None", "idle"]);
}

#[test]
fn one_that_runs_dry_goes_on_once_there_is_enough() {
    let queue = queue(10.0);
    let mut events = queue.events();
    let mut writer = queue.writer("a").unwrap();
    writer.add(&[0.5; PLENTY]).unwrap();
    let out = taken(&queue, &[480], PLENTY + 480);
    assert!(steepest(&out) < 0.01 && out[PLENTY + 480 - 1] == 0.0);
    writer.add(&[0.5; 480]).unwrap();
    assert!(!queue.take(&mut [0.0; 480]), "10 ms would break off again");
    writer.add(&vec![0.5; REFILL]).unwrap();
    let out = taken(&queue, &[480], REFILL);
    assert!(out[RAMP..].iter().all(|s| *s == 0.5));
    assert!(queue.speaking());
    let events = told(&mut events);
    assert_eq!(events.len(), 2, "neither a second start nor an end: {events:?}");
}

#[test]
fn the_last_bit_of_one_that_ran_dry_is_not_kept_back() {
    for finish in [true, false] {
        let queue = queue(10.0);
        let mut writer = queue.writer("a").unwrap();
        writer.add(&[0.5; PLENTY]).unwrap();
        taken(&queue, &[480], PLENTY + 480);
        writer.add(&[0.5; 480]).unwrap();
        let _open = (!finish).then_some(writer);
        let out = taken(&queue, &[480], HELD + 960);
        assert!(out.contains(&0.5), "finished: {finish}");
    }
}

#[test]
fn the_queue_is_bounded_in_sound_and_in_utterances() {
    let queue = queue(2.0);
    let mut writer = queue.writer("a").unwrap();
    assert_eq!(writer.add(&tone(200_000)), Ok(96_000));
    assert_eq!(writer.add(&tone(1)), Ok(0));
    taken(&queue, &[480], 4800);
    assert_eq!(writer.add(&tone(200_000)), Ok(4800));
    let writers: Vec<_> = (1..MAX_UTTERANCES).map(|_| queue.writer("b").unwrap()).collect();
    assert!(queue.writer("c").is_err());
    drop(writers);
    assert!(queue.writer("c").is_ok());
}

#[test]
fn a_full_queue_lets_the_utterance_in_front_have_its_sound() {
    let queue = queue(2.0);
    let mut slow = queue.writer("slow").unwrap();
    let mut eager = queue.writer("eager").unwrap();
    assert_eq!(eager.add(&tone(200_000)), Ok(96_000));
    assert_eq!(slow.add(&tone(PLENTY)), Ok(PLENTY));
    assert!(queue.take(&mut [0.0; 480]));
    assert_eq!(slow.add(&tone(96_000)), Ok(RESERVE - PLENTY + 480));
    assert_eq!(eager.add(&tone(480)), Ok(0));
}

#[test]
fn what_is_no_number_is_silence_and_nothing_is_louder_than_full() {
    let queue = queue(2.0);
    let mut writer = queue.writer("a").unwrap();
    writer.add(&[f32::NAN, f32::INFINITY, -7.0, 7.0].repeat(120)).unwrap();
    drop(writer);
    let out = taken(&queue, &[480], 960);
    assert!(out.iter().all(|s| s.is_finite() && s.abs() <= 1.0));
    assert_eq!(out[RAMP..RAMP + 4], [0.0, 0.0, -1.0, 1.0]);
}

#[tokio::test]
async fn a_writer_waits_for_space_and_is_woken_by_an_interruption() {
    let queue = queue(1.0);
    let mut writer = queue.writer("a").unwrap();
    let writing = tokio::spawn(async move { (writer.write(&tone(96_000)).await, writer) });
    let mut heard = 0;
    while !writing.is_finished() {
        heard += usize::from(queue.take(&mut [0.0; 480]));
        tokio::task::yield_now().await;
    }
    let (done, mut writer) = writing.await.unwrap();
    assert_eq!(done, Ok(()));
    assert!((100..=202).contains(&heard), "{heard}");
    let writing = tokio::spawn(async move { writer.write(&tone(192_000)).await });
    while queue.queued() < Duration::from_secs(1) {
        tokio::task::yield_now().await;
    }
    queue.interrupt();
    assert_eq!(writing.await.unwrap(), Err(Cut));
}

#[test]
fn an_utterance_whose_sound_stays_away_does_not_keep_others_waiting() {
    let queue = queue(2.0);
    let mut absent = queue.writer("absent").unwrap();
    let mut next = queue.writer("next").unwrap();
    next.add(&tone(480)).unwrap();
    drop(next);
    assert!(!queue.take(&mut [0.0; 480]));
    let Some(before) = Instant::now().checked_sub(STUCK + Duration::from_secs(1)) else { return };
    queue.state.lock().utterances[0].1.fed = before;
    assert!(queue.take(&mut [0.0; 480]));
    assert_eq!(absent.add(&[0.5]), Err(Cut));
}
