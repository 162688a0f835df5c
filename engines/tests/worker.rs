//! The worker with a model that answers what it was asked: order, batches, flush, bounds.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use lipstream_engines::{
    Error, Result,
    audio::WindowSpec,
    bank::ReferenceBank,
    denoise::{Conditions, Denoiser, Identity, Job, Patch, Scene, Spec, Stream, WaitError, Worker},
    manifest::Engine,
};
use parking_lot::Mutex;

/// Moves every latent by its own conditioning each step, and notes what it saw. Steps wait for `gate`.
struct Counting {
    spec: Spec,
    seen: Mutex<Vec<Vec<f32>>>,
    gate: Mutex<mpsc::Receiver<bool>>,
}

impl Denoiser for Counting {
    fn spec(&self) -> &Spec {
        &self.spec
    }
    fn prepare(&self, _: &ReferenceBank) -> Result<Identity> {
        Ok(Arc::new(()))
    }
    fn condition(&self, _: &Conditions) -> Result<Vec<f32>> {
        Ok(Vec::new())
    }
    fn step(&self, latents: &[f32], timesteps: &[f32], conditions: &[f32]) -> Result<Vec<f32>> {
        assert_eq!(latents.len(), timesteps.len());
        self.seen.lock().push(conditions.to_vec());
        match self.gate.lock().recv_timeout(Duration::from_secs(20)) {
            Ok(true) => Ok(conditions.to_vec()),
            _ => Err(Error::invalid("the model broke")),
        }
    }
    fn render(&self, _: &[f32], _: &Identity, _: &Scene) -> Result<Option<Patch>> {
        Ok(None)
    }
}

/// A worker for latents of one number; the model takes a step each time the sender says so.
fn worker(batch: usize, timeout: Duration, queue: usize) -> (Arc<Worker>, Arc<Counting>, mpsc::Sender<bool>) {
    let manifest = Engine::find("compact").unwrap().manifest().clone();
    let spec = Spec {
        name: "counting".into(),
        latent: 1,
        conditioning: 1,
        window: WindowSpec {
            hop: Duration::from_millis(20),
            overhang: Duration::ZERO,
            taps: vec![0],
            look_ahead: Duration::ZERO,
            dims: 1,
            silence: vec![0.0].into(),
        },
        past: 0,
        schedule: manifest.scheduler.unwrap(),
        crop: 256,
        alignment: manifest.geometry.alignment,
        batch_sizes: vec![1, 2, 4],
        noise_correlation: 0.0,
        temperature: 0.0,
        gflop: 0.0,
    };
    let (open, gate) = mpsc::channel();
    let model = Arc::new(Counting { spec, seen: Mutex::default(), gate: Mutex::new(gate) });
    (Arc::new(Worker::start(model.clone(), batch, timeout, queue)), model, open)
}

fn job(value: f32, steps: usize) -> Job {
    Job { conditioning: vec![value], steps }
}

fn open(gate: &mpsc::Sender<bool>, steps: usize) {
    (0..steps).for_each(|_| gate.send(true).unwrap());
}

/// Submits a frame and waits until the model is busy with it, so that what follows is certain to queue.
fn occupy(stream: &Stream, model: &Counting) -> lipstream_engines::denoise::Ticket {
    let before = model.seen.lock().len();
    let ticket = stream.submit(job(99.0, 1)).unwrap();
    while model.seen.lock().len() == before {
        std::thread::yield_now();
    }
    ticket
}

#[test]
fn steps_of_many_streams_share_a_batch_and_each_gets_its_own() {
    let (worker, model, gate) = worker(4, Duration::ZERO, 16);
    let streams: Vec<Stream> = (0..4).map(|i| worker.stream(i)).collect();
    let busy = occupy(&streams[0], &model);
    let tickets: Vec<_> = streams.iter().enumerate().map(|(i, s)| s.submit(job(i as f32 + 1.0, 2)).unwrap()).collect();
    open(&gate, 3);
    busy.wait(None).unwrap();
    for (i, ticket) in tickets.into_iter().enumerate() {
        // Two half steps along a flow whose velocity is the conditioning.
        assert_eq!(*ticket.wait(None).unwrap(), [i as f32 + 1.0]);
    }
    assert_eq!(model.seen.lock()[1..], [vec![1.0, 2.0, 3.0, 4.0], vec![1.0, 2.0, 3.0, 4.0]]);
    let stats = worker.stats();
    assert_eq!((stats.batches, stats.steps, stats.streams, stats.queued), (3, 9, 4, 0));
}

#[test]
fn a_batch_is_padded_to_a_size_that_is_compiled() {
    let (worker, model, gate) = worker(4, Duration::ZERO, 16);
    let stream = worker.stream(0);
    let busy = occupy(&stream, &model);
    let tickets: Vec<_> = (1..=3).map(|i| stream.submit(job(i as f32, 1)).unwrap()).collect();
    open(&gate, 2);
    busy.wait(None).unwrap();
    tickets.into_iter().for_each(|t| drop(t.wait(None).unwrap()));
    assert_eq!(model.seen.lock()[1], [1.0, 2.0, 3.0, 0.0]);
}

#[test]
fn frames_of_a_stream_finish_in_order_whatever_their_steps() {
    let (worker, model, gate) = worker(2, Duration::ZERO, 16);
    let stream = worker.stream(0);
    let busy = occupy(&stream, &model);
    let slow = stream.submit(job(1.0, 4)).unwrap();
    let quick = stream.submit(job(2.0, 1)).unwrap();
    open(&gate, 4);
    busy.wait(None).unwrap();
    // The busy step and three of the four of the slow frame: the quick one must not have overtaken it.
    let slow = match slow.wait(Some(Duration::from_millis(50))) {
        Err(WaitError::Timeout(ticket)) => ticket,
        other => panic!("{other:?}"),
    };
    let quick = match quick.wait(Some(Duration::from_millis(50))) {
        Err(WaitError::Timeout(ticket)) => ticket,
        other => panic!("overtaken: {other:?}"),
    };
    open(&gate, 2);
    slow.wait(None).unwrap();
    assert_eq!(*quick.wait(None).unwrap(), [2.0]);
}

#[test]
fn a_flush_empties_one_stream_and_leaves_the_others() {
    let (worker, model, gate) = worker(2, Duration::ZERO, 16);
    let (mine, other) = (worker.stream(0), worker.stream(1));
    let busy = occupy(&mine, &model);
    let queued: Vec<_> = (0..3).map(|_| mine.submit(job(1.0, 1)).unwrap()).collect();
    let kept = other.submit(job(7.0, 1)).unwrap();
    assert_eq!(mine.flush(), 3);
    queued.into_iter().for_each(|t| assert!(matches!(t.wait(None), Err(WaitError::Flushed))));
    open(&gate, 2);
    // The step that was running when the flush came belongs to the past as well.
    assert!(matches!(busy.wait(None), Err(WaitError::Flushed)));
    assert_eq!(*kept.wait(None).unwrap(), [7.0]);
    open(&gate, 1);
    assert_eq!(*mine.submit(job(5.0, 1)).unwrap().wait(None).unwrap(), [5.0]);
}

#[test]
fn the_queue_is_bounded() {
    let (worker, model, gate) = worker(1, Duration::ZERO, 2);
    let stream = worker.stream(0);
    let busy = occupy(&stream, &model);
    let held: Vec<_> = (0..2).map(|_| stream.submit(job(1.0, 1)).unwrap()).collect();
    let error = stream.submit(job(1.0, 1)).unwrap_err().to_string();
    assert!(error.contains("full (2 frames)"), "{error}");
    open(&gate, 3);
    busy.wait(None).unwrap();
    held.into_iter().for_each(|t| drop(t.wait(None).unwrap()));
}

#[test]
fn a_batch_waits_for_the_other_streams_but_not_for_ever() {
    let (worker, model, gate) = worker(4, Duration::from_millis(30), 16);
    let (first, second) = (worker.stream(0), worker.stream(1));
    open(&gate, 2);
    // Alone, a frame goes after the timeout; with one of every stream there is nobody to wait for.
    first.submit(job(1.0, 1)).unwrap().wait(Some(Duration::from_secs(10))).unwrap();
    let (a, b) = (first.submit(job(1.0, 1)).unwrap(), second.submit(job(2.0, 1)).unwrap());
    a.wait(None).unwrap();
    b.wait(None).unwrap();
    assert_eq!(*model.seen.lock(), [vec![1.0], vec![1.0, 2.0]]);
}

#[test]
fn a_broken_step_fails_its_frames_and_the_worker_goes_on() {
    let (worker, _, gate) = worker(1, Duration::ZERO, 4);
    let stream = worker.stream(0);
    gate.send(false).unwrap();
    let error = stream.submit(job(1.0, 1)).unwrap().wait(None).unwrap_err().to_string();
    assert_eq!(error, "the model broke");
    gate.send(true).unwrap();
    stream.submit(job(1.0, 1)).unwrap().wait(None).unwrap();
}

#[test]
fn a_job_that_does_not_fit_is_refused() {
    let (worker, _, _gate) = worker(1, Duration::ZERO, 4);
    let stream = worker.stream(0);
    let error = stream.submit(Job { conditioning: vec![0.0; 3], steps: 1 }).unwrap_err().to_string();
    assert!(error.contains("conditioning: expected 1, found 3"), "{error}");
    let error = stream.submit(job(0.0, 9)).unwrap_err().to_string();
    assert!(error.contains("9 is outside 1..8"), "{error}");
}
