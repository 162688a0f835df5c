//! The worker with stages that answer what they were asked: order, batches, flush, bounds, faults.

#[path = "common/fake.rs"]
mod fake;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    time::Duration,
};

use fake::Fake;
use lipstream_engines::{
    Error, Result,
    engine::{Noise, Stage, StageKind, Stream, SubmitError, Ticket, WaitError, Work, Worker},
    runtime::Tensor,
};
use parking_lot::Mutex;

/// What a stage is told to do by the test.
enum Order {
    Run,
    Fail,
    Panic,
    /// Says that there is no memory for more items than so many; then it is what `Run` is.
    Room(usize),
    /// Says that a value is not finite where there is one above 50.
    Judge,
}

/// The batches that were run, by the kind of their stage.
type Seen = Arc<Mutex<Vec<(StageKind, Vec<f32>)>>>;

/// Adds 1 to every value, and notes what it saw. Runs wait for `gate`.
struct Adding {
    kind: StageKind,
    seen: Seen,
    threads: Arc<Mutex<Vec<std::thread::ThreadId>>>,
    gate: Arc<Mutex<mpsc::Receiver<Order>>>,
}

impl Stage for Adding {
    fn kind(&self) -> StageKind {
        self.kind
    }
    fn inputs(&self) -> &[&'static str] {
        &["value"]
    }
    fn sizes(&self) -> &[usize] {
        &[1, 2, 4]
    }
    fn run(&self, batch: &mut [Work]) -> Result<()> {
        let values = batch.iter().map(|work| work.tensor("value").map(|t| t.data[0])).collect::<Result<_>>()?;
        self.seen.lock().push((self.kind, values));
        self.threads.lock().push(std::thread::current().id());
        match self.gate.lock().recv_timeout(Duration::from_secs(20)) {
            Ok(Order::Room(most)) if batch.len() > most => {
                Err(Error::OutOfMemory { model: "fake".into(), cause: "7.0 MB are needed, 2.0 MB are free".into() })
            }
            Ok(Order::Run | Order::Room(_)) => {
                for work in batch {
                    let value = work.tensor("value")?.data[0];
                    work.put("value", tensor(value + 1.0));
                }
                Ok(())
            }
            Ok(Order::Panic) => panic!("on purpose"),
            Ok(Order::Judge) if batch.iter().all(|work| work.tensor("value").is_ok_and(|t| t.data[0] < 50.0)) => Ok(()),
            Ok(Order::Judge) => Err(Error::NotFinite { model: "fake".into(), output: "value".into() }),
            _ => Err(Error::invalid("the model broke")),
        }
    }
}

fn tensor(value: f32) -> Tensor {
    Tensor { shape: vec![1, 1], data: vec![value] }
}

const FIRST: StageKind = StageKind::Step;
const SECOND: StageKind = StageKind::Refine;

/// A worker of two stages, what they saw, and what lets them run.
struct Rig {
    worker: Arc<Worker>,
    seen: Seen,
    threads: Arc<Mutex<Vec<std::thread::ThreadId>>>,
    gate: mpsc::Sender<Order>,
}

impl Rig {
    fn new(batch: usize, timeout: Duration, queue: usize) -> Self {
        let (gate, orders) = mpsc::channel();
        let (seen, orders) = (Seen::default(), Arc::new(Mutex::new(orders)));
        let threads = Arc::<Mutex<Vec<_>>>::default();
        let stage = |kind| {
            Box::new(Adding { kind, seen: seen.clone(), threads: threads.clone(), gate: orders.clone() })
                as Box<dyn Stage>
        };
        let engine = Arc::new(Fake { spec: fake::spec(), stages: vec![stage(FIRST), stage(SECOND)], actor: None });
        Self { worker: Arc::new(Worker::start(engine, batch, timeout, queue)), seen, threads, gate }
    }

    fn open(&self, runs: usize) {
        (0..runs).for_each(|_| self.gate.send(Order::Run).unwrap());
    }

    /// Submits a frame and waits until a stage is busy with it, so that what follows is certain to queue.
    fn occupy(&self, stream: &Stream) -> Ticket {
        let before = self.seen.lock().len();
        let ticket = stream.submit(work(99.0, &[0])).unwrap();
        while self.seen.lock().len() == before {
            std::thread::yield_now();
        }
        ticket
    }

    fn values(&self) -> Vec<Vec<f32>> {
        self.seen.lock().iter().map(|(_, values)| values.clone()).collect()
    }
}

fn work(value: f32, stages: &[usize]) -> Work {
    let mut work = Work::new(Noise::default()).with("value", tensor(value));
    stages.iter().for_each(|stage| work.pass(*stage));
    work
}

fn value(work: Work) -> f32 {
    work.tensor("value").unwrap().data[0]
}

fn pending(ticket: Ticket) -> Ticket {
    match ticket.wait(Some(Duration::from_millis(50))) {
        Err(WaitError::Timeout(ticket)) => ticket,
        other => panic!("{other:?}"),
    }
}

#[test]
fn frames_of_many_streams_share_the_batches_of_every_stage() {
    let rig = Rig::new(4, Duration::ZERO, 16);
    let streams: Vec<Stream> = (0..4).map(|_| rig.worker.stream()).collect();
    let busy = rig.occupy(&streams[0]);
    let frames = (1..5).map(|i| work(10.0 * i as f32, &[0, 1]));
    let tickets: Vec<_> = streams.iter().zip(frames).map(|(s, work)| s.submit(work).unwrap()).collect();
    rig.open(3);
    busy.wait(None).unwrap();
    for (i, ticket) in tickets.into_iter().enumerate() {
        assert_eq!(value(ticket.wait(None).unwrap()), 10.0 * (i + 1) as f32 + 2.0);
    }
    let (first, second) = (vec![10.0, 20.0, 30.0, 40.0], vec![11.0, 21.0, 31.0, 41.0]);
    assert_eq!(rig.seen.lock()[1..], [(FIRST, first), (SECOND, second)]);
    let stats = rig.worker.stats();
    let counts: Vec<_> = stats.stages.iter().map(|s| (s.kind, s.batches, s.items)).collect();
    assert_eq!(counts, [(FIRST, 2, 5), (SECOND, 1, 4)]);
    assert_eq!((stats.streams, stats.queued), (4, 0));
}

#[test]
fn a_stream_is_counted_its_part_of_what_an_evaluation_takes() {
    let rig = Rig::new(4, Duration::ZERO, 16);
    let counter = Arc::<AtomicU64>::default();
    let streams = [rig.worker.stream_counting(counter.clone()), rig.worker.stream(), rig.worker.stream()];
    let taken = |n: usize| streams[n].taken().load(Relaxed);
    let busy = rig.occupy(&streams[2]);
    let began = std::time::Instant::now();
    let tickets = [0, 1].map(|n: usize| streams[n].submit(work(n as f32, &[0, 1])).unwrap());
    rig.open(3);
    busy.wait(None).unwrap();
    tickets.into_iter().for_each(|ticket| drop(ticket.wait(None).unwrap()));
    assert_eq!(rig.values()[1..], [[0.0, 1.0], [1.0, 2.0]], "two evaluations that two streams shared");
    let all = began.elapsed().as_nanos() as u64;
    assert!(taken(0) > 0 && taken(0) == taken(1) && 2 * taken(0) <= all, "{} {} {all}", taken(0), taken(1));
    let busy = rig.occupy(&streams[0]);
    streams[0].flush();
    rig.open(1);
    assert!(matches!(busy.wait(None), Err(WaitError::Flushed)));
    assert!(taken(0) > taken(1), "what is thrown away was taken all the same");
    // Whatever engine comes next adds to it.
    let next = rig.worker.stream_counting(counter.clone());
    assert_eq!(next.taken().load(Relaxed), taken(0));
}

#[test]
fn other_shapes_and_other_stages_have_batches_of_their_own() {
    let rig = Rig::new(4, Duration::ZERO, 16);
    let streams: Vec<Stream> = (0..4).map(|_| rig.worker.stream()).collect();
    let busy = rig.occupy(&streams[3]);
    let wide = Work::new(Noise::default()).with("value", Tensor { shape: vec![1, 2], data: vec![2.0, 0.0] });
    let mut wide = wide;
    wide.pass(0);
    let tickets =
        [(0, work(1.0, &[0])), (1, wide), (2, work(3.0, &[1]))].map(|(i, work)| streams[i].submit(work).unwrap());
    rig.open(4);
    busy.wait(None).unwrap();
    tickets.into_iter().for_each(|ticket| drop(ticket.wait(None).unwrap()));
    assert_eq!(rig.values()[1..], [vec![1.0], vec![2.0], vec![3.0]]);
}

#[test]
fn frames_of_a_stream_finish_in_order_whatever_they_have_to_pass() {
    let rig = Rig::new(2, Duration::ZERO, 16);
    let stream = rig.worker.stream();
    let busy = rig.occupy(&stream);
    let slow = stream.submit(work(1.0, &[0, 0, 0, 0])).unwrap();
    let quick = stream.submit(work(2.0, &[0])).unwrap();
    rig.open(4);
    busy.wait(None).unwrap();
    // The busy frame and three stages of the slow one: the quick one must not have overtaken it.
    let (slow, quick) = (pending(slow), pending(quick));
    rig.open(1);
    slow.wait(None).unwrap();
    assert_eq!(value(quick.wait(None).unwrap()), 3.0);
}

#[test]
fn a_frame_that_has_more_to_pass_goes_before_later_ones_of_its_stream() {
    let rig = Rig::new(1, Duration::ZERO, 16);
    let stream = rig.worker.stream();
    rig.open(1);
    let mut first = stream.submit(work(1.0, &[0])).unwrap().wait(None).unwrap();
    let busy = rig.occupy(&stream);
    let later = stream.submit(work(5.0, &[0])).unwrap();
    first.pass(1);
    let first = stream.submit(first).unwrap();
    rig.open(2);
    busy.wait(None).unwrap();
    assert_eq!(value(first.wait(None).unwrap()), 3.0);
    let later = pending(later);
    rig.open(1);
    later.wait(None).unwrap();
}

#[test]
fn a_flush_empties_one_stream_and_leaves_the_others() {
    let rig = Rig::new(2, Duration::ZERO, 16);
    let (mine, other) = (rig.worker.stream(), rig.worker.stream());
    let busy = rig.occupy(&mine);
    let queued: Vec<_> = (0..3).map(|_| mine.submit(work(1.0, &[0, 1])).unwrap()).collect();
    let kept = other.submit(work(7.0, &[0])).unwrap();
    assert_eq!(mine.flush(), 3);
    queued.into_iter().for_each(|t| assert!(matches!(t.wait(None), Err(WaitError::Flushed))));
    rig.open(2);
    // What was running when the flush came belongs to the past as well.
    assert!(matches!(busy.wait(None), Err(WaitError::Flushed)));
    assert_eq!(value(kept.wait(None).unwrap()), 8.0);
    rig.open(1);
    assert_eq!(value(mine.submit(work(5.0, &[0])).unwrap().wait(None).unwrap()), 6.0);
}

#[test]
fn a_full_queue_an_ended_worker_and_work_that_does_not_fit_are_told_apart() {
    let rig = Rig::new(1, Duration::ZERO, 2);
    let stream = rig.worker.stream();
    let busy = rig.occupy(&stream);
    let held: Vec<_> = (0..2).map(|_| stream.submit(work(1.0, &[0])).unwrap()).collect();
    let error = stream.submit(work(1.0, &[0])).unwrap_err();
    assert!(matches!(error, SubmitError::QueueFull(2)) && error.to_string().contains("full (2 frames)"), "{error}");
    rig.open(3);
    busy.wait(None).unwrap();
    held.into_iter().for_each(|t| drop(t.wait(None).unwrap()));
    let misfits = [
        (work(0.0, &[2]), "stage 2 of 2"),
        (
            {
                let mut work = Work::new(Noise::default());
                work.pass(0);
                work
            },
            "`value` is missing",
        ),
        (work(0.0, &[0]).with("value", Tensor { shape: vec![1, 3], data: vec![0.0] }), "[1, 3] and 1 numbers"),
    ];
    for (misfit, cause) in misfits {
        let error = stream.submit(misfit).unwrap_err();
        assert!(matches!(error, SubmitError::DoesNotFit { .. }) && error.to_string().contains(cause), "{error}");
    }
}

#[test]
fn a_batch_waits_for_the_other_streams_but_not_for_ever() {
    let rig = Rig::new(4, Duration::from_millis(30), 16);
    let (first, second) = (rig.worker.stream(), rig.worker.stream());
    rig.open(2);
    // Alone, a frame goes after the timeout; with one of every stream there is nobody to wait for.
    first.submit(work(1.0, &[0])).unwrap().wait(Some(Duration::from_secs(10))).unwrap();
    let (a, b) = (first.submit(work(1.0, &[0])).unwrap(), second.submit(work(2.0, &[0])).unwrap());
    a.wait(None).unwrap();
    b.wait(None).unwrap();
    assert_eq!(rig.values(), [vec![1.0], vec![1.0, 2.0]]);
}

#[test]
fn a_stage_that_fails_or_panics_fails_its_own_frames_and_the_worker_goes_on() {
    let rig = Rig::new(4, Duration::ZERO, 8);
    let streams: Vec<Stream> = (0..3).map(|_| rig.worker.stream()).collect();
    for (order, cause) in [(Order::Fail, "the model broke"), (Order::Panic, "a stage panicked: on purpose")] {
        let busy = rig.occupy(&streams[2]);
        let tickets: Vec<_> = streams[..2].iter().map(|s| s.submit(work(1.0, &[0, 1])).unwrap()).collect();
        rig.gate.send(Order::Run).unwrap();
        rig.gate.send(order).unwrap();
        busy.wait(None).unwrap();
        for ticket in tickets {
            let error = ticket.wait(None).unwrap_err();
            assert!(matches!(error, WaitError::Failed(_)) && error.to_string() == cause, "{error}");
        }
        rig.open(2);
        assert_eq!(value(streams[0].submit(work(1.0, &[0, 1])).unwrap().wait(None).unwrap()), 3.0);
    }
}

#[test]
fn a_frame_that_is_to_blame_fails_alone() {
    let rig = Rig::new(4, Duration::ZERO, 8);
    let streams: Vec<Stream> = (0..4).map(|_| rig.worker.stream()).collect();
    let busy = rig.occupy(&streams[3]);
    let tickets: Vec<_> = streams.iter().zip([1.0, 60.0, 2.0]).map(|(s, v)| s.submit(work(v, &[0])).unwrap()).collect();
    rig.gate.send(Order::Run).unwrap();
    // The three together, then each alone.
    (0..4).for_each(|_| rig.gate.send(Order::Judge).unwrap());
    busy.wait(None).unwrap();
    let outcomes: Vec<_> = tickets.into_iter().map(|ticket| ticket.wait(None)).collect();
    assert!(outcomes[0].is_ok() && outcomes[2].is_ok());
    let error = outcomes[1].as_ref().unwrap_err();
    assert!(matches!(error, WaitError::Failed(cause) if cause.contains("`value` is not finite")), "{error}");
}

#[test]
fn a_batch_that_memory_does_not_hold_is_halved_once() {
    for (most, seen) in [(2, vec![4, 2, 2]), (1, vec![4, 2, 2])] {
        let rig = Rig::new(4, Duration::ZERO, 8);
        let streams: Vec<Stream> = (0..4).map(|_| rig.worker.stream()).collect();
        let other = rig.worker.stream();
        let busy = rig.occupy(&other);
        let tickets: Vec<_> = streams.iter().map(|s| s.submit(work(1.0, &[0])).unwrap()).collect();
        rig.gate.send(Order::Run).unwrap();
        seen.iter().for_each(|_| rig.gate.send(Order::Room(most)).unwrap());
        busy.wait(None).unwrap();
        for ticket in tickets {
            match (ticket.wait(None), most) {
                (Ok(done), 2) => assert_eq!(value(done), 2.0),
                (Err(WaitError::Failed(cause)), 1) => {
                    assert!(cause.contains("7.0 MB are needed, 2.0 MB are free"), "{cause}")
                }
                (other, most) => panic!("{most}: {other:?}"),
            }
        }
        assert_eq!(rig.values().iter().skip(1).map(Vec::len).collect::<Vec<_>>(), seen);
        // Others go on.
        let next = streams[0].submit(work(5.0, &[0])).unwrap();
        rig.gate.send(Order::Run).unwrap();
        assert_eq!(value(next.wait(None).unwrap()), 6.0);
    }
}

#[test]
fn where_memory_ended_batches_stay_smaller_until_no_stream_is_open() {
    let rig = Rig::new(4, Duration::ZERO, 8);
    let streams: Vec<Stream> = (0..4).map(|_| rig.worker.stream()).collect();
    let other = rig.worker.stream();
    // A batch of four, of which two find memory; and then four items again.
    let batches = |orders: &[Option<usize>]| {
        let busy = rig.occupy(&other);
        let tickets: Vec<_> = streams.iter().map(|s| s.submit(work(1.0, &[0])).unwrap()).collect();
        rig.gate.send(Order::Run).unwrap();
        orders.iter().for_each(|most| rig.gate.send(most.map_or(Order::Run, Order::Room)).unwrap());
        busy.wait(None).unwrap();
        tickets.into_iter().for_each(|ticket| drop(ticket.wait(None)));
    };
    batches(&[Some(2), Some(2), Some(2)]);
    let stats = rig.worker.stats();
    assert_eq!((stats.stages[0].most, stats.stages[1].most, stats.exhausted), (Some(2), None, 0));
    batches(&[None, None]);
    assert_eq!(rig.values().iter().map(Vec::len).collect::<Vec<_>>(), [1, 4, 2, 2, 1, 2, 2]);
    // Those that find none even alone are counted: two of a batch, and two that are no longer tried together.
    batches(&[Some(0); 5]);
    let stats = rig.worker.stats();
    assert_eq!((stats.stages[0].most, stats.exhausted), (Some(1), 4));
    drop((streams, other));
    assert_eq!(rig.worker.stats().stages[0].most, None);
}

#[test]
fn a_batch_that_waits_for_more_goes_when_waiting_ends() {
    let rig = Rig::new(4, Duration::from_secs(3600), 8);
    let (stream, _other) = (rig.worker.stream(), rig.worker.stream());
    let ticket = stream.submit(work(1.0, &[0])).unwrap();
    assert_eq!(rig.worker.stats().batch_timeout, Duration::from_secs(3600));
    rig.worker.set_batch_timeout(Duration::ZERO);
    rig.open(1);
    assert_eq!(value(ticket.wait(Some(Duration::from_secs(20))).unwrap()), 2.0);
    assert_eq!((rig.worker.stats().batch_timeout, rig.worker.stats().stages[0].rows), (Duration::ZERO, 1));
}

#[test]
fn work_with_nothing_to_pass_is_finished() {
    let rig = Rig::new(1, Duration::ZERO, 1);
    assert_eq!(value(rig.worker.stream().submit(work(4.0, &[])).unwrap().wait(None).unwrap()), 4.0);
}

#[test]
fn whoever_waits_at_once_runs_the_stages_and_those_of_others() {
    let rig = Rig::new(4, Duration::ZERO, 8);
    let streams: Vec<Stream> = (0..2).map(|_| rig.worker.stream()).collect();
    streams.iter().for_each(|stream| stream.wait_at_once(true));
    let [a, b] = [0, 1].map(|i| streams[i].submit(work(10.0 * i as f32, &[0, 1])).unwrap());
    rig.open(2);
    let me = std::thread::current().id();
    assert_eq!(value(a.wait(None).unwrap()), 2.0);
    assert_eq!(value(b.wait(None).unwrap()), 12.0);
    assert_eq!(rig.values(), [vec![0.0, 10.0], vec![1.0, 11.0]]);
    assert_eq!(*rig.threads.lock(), [me, me]);
    // One that is not run in time can be waited for again, and a flush reaches who sleeps.
    let late = streams[0].submit(work(1.0, &[0])).unwrap();
    let late = match late.wait(Some(Duration::ZERO)) {
        Err(WaitError::Timeout(ticket)) => ticket,
        other => panic!("{other:?}"),
    };
    rig.open(1);
    assert_eq!(value(late.wait(None).unwrap()), 2.0);
    let other = rig.worker.stream();
    let busy = rig.occupy(&other);
    let mine = streams[0].submit(work(1.0, &[0])).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(30));
            streams[0].flush();
        });
        assert!(matches!(mine.wait(None), Err(WaitError::Flushed)));
    });
    rig.open(1);
    busy.wait(None).unwrap();
}

#[test]
fn work_that_nobody_waits_for_any_more_is_not_run() {
    let rig = Rig::new(4, Duration::ZERO, 8);
    let (first, second) = (rig.worker.stream(), rig.worker.stream());
    let busy = rig.occupy(&first);
    drop(pending(first.submit(work(1.0, &[0])).unwrap()));
    let kept = second.submit(work(2.0, &[0])).unwrap();
    rig.open(2);
    busy.wait(None).unwrap();
    kept.wait(None).unwrap();
    assert_eq!(rig.values(), [vec![99.0], vec![2.0]]);
}
