//! Streams at 25 frames a second, one more and one more, until one of them is late.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use lipstream_engines::{
    Error, Result,
    engine::{Engine, Sampling, Stream, Work, Worker},
};

use super::{
    film::Film,
    player::{Clock, Player, RATE, median},
    report::Paced,
};

/// Work that takes longer than so many times what it has is not waited for.
const PATIENCE: u32 = 20;

/// So many streams for so many work items each. Their frames come spread over the time of an item, as those of streams that know
/// nothing of each other do; an item is late where it is not shown when the next one's last frame comes.
pub fn paced(engine: &Arc<dyn Engine>, film: &Arc<Film>, streams: usize, items: usize) -> Paced {
    let period = Duration::from_secs_f64(engine.spec().clip.hop as f64 / RATE);
    let had = period.as_secs_f64() * 1e3;
    let worker = Arc::new(Worker::start(Arc::clone(engine), 0, Duration::ZERO, 4 * streams));
    let made: Result<Vec<(Stream, Player)>> =
        (0..streams).map(|_| Ok((worker.stream(), Player::new(engine, film, &Sampling::default())?))).collect();
    let begin = Instant::now() + Duration::from_millis(20);
    let run = |streams: Vec<(Stream, Player)>| {
        let count = streams.len();
        thread::scope(|scope| {
            let start = |(i, (stream, mut player)): (usize, (Stream, Player))| {
                let begin = begin + period.mul_f64(i as f64 / count as f64);
                scope.spawn(move || one(&stream, &mut player, begin, period, items))
            };
            let threads: Vec<_> = streams.into_iter().enumerate().map(start).collect();
            let ended =
                threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("a stream panicked".into())));
            ended.collect::<Result<Vec<_>, String>>()
        })
    };
    let times = made.map_err(|error| error.to_string()).and_then(run);
    let (failed, mut times) = match times {
        Ok(times) => (None, times.concat()),
        Err(cause) => (Some(cause), Vec::new()),
    };
    let median = median(&mut times);
    let longest = times.last().copied().unwrap_or(0.0);
    Paced { streams, late: failed.is_some() || longest > had, longest, median, had, failed }
}

/// Milliseconds of each work item from its last frame on. The first one is not counted: a stream begins with it.
fn one(
    stream: &Stream,
    player: &mut Player,
    begin: Instant,
    period: Duration,
    items: usize,
) -> Result<Vec<f64>, String> {
    let (mut times, mut clock) = (Vec::new(), Clock::default());
    let mut due = begin;
    for item in 0..=items {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        shown(stream, player, period * PATIENCE, &mut clock)?;
        let now = Instant::now();
        if item > 0 {
            times.push((now - due).as_secs_f64() * 1e3);
        }
        // What begins late is late once, and not again.
        due = (due + period).max(now);
    }
    Ok(times)
}

fn shown(stream: &Stream, player: &mut Player, limit: Duration, clock: &mut Clock) -> Result<(), String> {
    let told = |error: Error| error.to_string();
    let done = |work: Work| -> Result<Work, String> {
        let ticket = stream.submit(work).map_err(|error| error.to_string())?;
        ticket.wait(Some(limit)).map_err(|error| error.to_string())
    };
    let work = done(player.sent(clock).map_err(told)?)?;
    for mut part in player.parts(work, clock).map_err(told)? {
        while let Err(more) = player.show(part, clock).map_err(told)? {
            part = done(more)?;
        }
    }
    Ok(())
}

/// Tries 1, 2, 4, … streams, at most `most`, and what lies between the last that was in time and the first that was not, as long as
/// there `is_time`; what was tried, each told to `say`.
pub fn search(most: usize, mut is_time: impl FnMut() -> bool, mut try_out: impl FnMut(usize) -> bool) -> Option<usize> {
    let (mut good, mut bad) = (0, None);
    let mut next = 1;
    while next <= most && bad.is_none() && is_time() {
        match try_out(next) {
            true => good = next,
            false => bad = Some(next),
        }
        next *= 2;
    }
    while let Some(late) = bad.filter(|late| late - good > 1 && is_time()) {
        let middle = good.midpoint(late);
        match try_out(middle) {
            true => good = middle,
            false => bad = Some(middle),
        }
    }
    (good > 0).then_some(good)
}
