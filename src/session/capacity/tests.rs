use super::*;

#[path = "../../../engines/tests/common/fake.rs"]
mod fake;

/// Of a frame on the processor, and of each mouth more.
fn price(frame: f64, mouth: f64) -> Price {
    Price {
        name: "x".into(),
        frame,
        mouth,
        encoding: frame / 4.0,
        device: "cpu".into(),
        card: None,
        failure: None,
        measured: true,
    }
}

fn priced(frame: f64) -> CapacityMeter {
    let meter = CapacityMeter {
        cores: 2.0,
        part: 0.85,
        count_others: false,
        sync_check: Duration::ZERO,
        check: OnceLock::new(),
        prices: Mutex::default(),
        enhancers: Mutex::default(),
        measuring: Mutex::default(),
        load: Mutex::default(),
        learnt: Mutex::default(),
        gauge: Box::new(|_| None),
        batch_timeout: Duration::from_millis(8),
        waits: Mutex::default(),
    };
    meter.load.lock().factor = 1.0;
    meter.insert("compact", price(frame, 0.0));
    meter
}

impl CapacityMeter {
    fn insert(&self, engine: &str, price: Price) {
        self.prices.lock().insert(engine.into(), price.into());
    }
}

fn demand(picture: Picture) -> Demand {
    Demand { picture, ..Demand::standard("compact") }
}

#[test]
fn engines_have_prices_of_their_own() {
    let meter = priced(0.010);
    let dear = Demand::standard("dear");
    assert!(meter.admit(&dear, &[demand(STANDARD)]).is_err(), "before it is measured, it costs all there is");
    meter.insert("dear", price(0.05, 0.0));
    assert_eq!(meter.admit(&dear, &[demand(STANDARD)]).unwrap(), None);
    let refusal = meter.admit(&dear, &[demand(STANDARD), dear.clone()]).unwrap_err().to_string();
    assert!(refusal.contains("2 sessions take 1.50 of 1.70 cores") && refusal.contains("would take 1.25"), "{refusal}");
    assert_eq!(meter.report(&[dear], "compact").sessions_left, 1);
}

#[test]
fn a_second_voice_costs_one_mouth_more() {
    let meter = priced(0.010);
    let two = Demand { mouths: 2, ..demand(STANDARD) };
    meter.insert("compact", price(0.010, 0.004));
    assert!((meter.cost(&two) - 0.35).abs() < 1e-9, "{}", meter.cost(&two));
    // 1.7 cores hold six sessions with one voice, and four with two.
    let refusal = meter.admit(&two, &vec![two.clone(); 4]).unwrap_err().to_string();
    assert!(refusal.contains("4 sessions take 1.40 of 1.70 cores") && refusal.contains("would take 0.35"), "{refusal}");
    assert!(meter.admit(&two, &vec![two.clone(); 3]).is_ok());
    let small = Picture { width: 640, height: 360, fps: (25, 1) };
    let more = meter.cost(&Demand { mouths: 2, ..demand(small) }) - meter.cost(&demand(small));
    assert!((more - 0.1).abs() < 1e-9, "a network works on as much of a small picture: {more}");
}

#[test]
fn an_enhancer_costs_its_evaluations_as_often_as_they_come() {
    let meter = priced(0.010);
    meter.enhancers.lock().insert("gfpgan".into(), EnhancerPrice { cpu: 0.100, wall: 0.050, card: None });
    let cost = |every, mouths| {
        let enhancer = Some(Enhancing { name: "gfpgan".into(), every });
        meter.cost(&Demand { enhancer, mouths, ..demand(STANDARD) }) - meter.cost(&demand(STANDARD))
    };
    // At 25 frames a second; by itself every third frame, since 50 ms are more than twice half of 40.
    for (every, mouths, wanted) in [(Some(1), 1, 2.5), (Some(5), 1, 0.5), (None, 1, 2.5 / 3.0), (Some(1), 2, 5.0)] {
        assert!((cost(every, mouths) - wanted).abs() < 1e-9, "{every:?} {mouths}: {}", cost(every, mouths));
    }
    let enhancer = Some(Enhancing { name: "gfpgan".into(), every: Some(1) });
    let refusal = meter.admit(&Demand { enhancer, ..demand(STANDARD) }, &[]).unwrap_err().to_string();
    assert!(refusal.contains("would take 2.75"), "{refusal}");
}

#[test]
fn a_stack_is_encoded_twice() {
    let meter = priced(0.010);
    let stack = Demand { stacked: true, ..demand(STANDARD) };
    // A quarter of the frame's 10 ms is its encoding.
    assert!((meter.cost(&stack) - 25.0 * 0.0125).abs() < 1e-9, "{}", meter.cost(&stack));
    let large = Picture { width: 2560, height: 1440, fps: (25, 1) };
    let more = meter.cost(&Demand { picture: large, ..stack.clone() }) - meter.cost(&demand(large));
    assert!((more - 4.0 * 25.0 * 0.0025).abs() < 1e-9, "{more}");
    assert!(meter.admit(&stack, &vec![stack.clone(); 4]).is_ok());
    assert!(meter.admit(&stack, &vec![stack.clone(); 5]).is_err());
}

#[test]
fn a_session_grows_as_far_as_there_is_room_and_shrinks_always() {
    let meter = priced(0.010);
    meter.insert("compact", price(0.010, 0.004));
    meter.enhancers.lock().insert("gfpgan".into(), EnhancerPrice { cpu: 0.100, wall: 0.050, card: None });
    let plain = demand(STANDARD);
    let with = |every| {
        let enhancer = Some(Enhancing { name: "gfpgan".into(), every: Some(every) });
        Demand { enhancer, ..demand(STANDARD) }
    };
    // Four others leave 0.7 of 1.7 cores.
    let others = vec![plain.clone(); 4];
    meter.grow(&plain, &with(8), &others).unwrap();
    let refusal = meter.grow(&plain, &with(4), &others).unwrap_err().to_string();
    assert!(refusal.contains("4 sessions take 1.00 of 1.70 cores") && refusal.contains("would take 0.88"), "{refusal}");
    meter.grow(&plain, &Demand { mouths: 5, ..plain.clone() }, &others).unwrap();
    assert!(meter.grow(&plain, &Demand { mouths: 6, ..plain.clone() }, &others).is_err());
    // What is too dear already may become cheaper.
    meter.grow(&with(1), &with(4), &others).unwrap();
}

#[test]
fn an_enhancer_on_a_card_takes_its_time_and_once_its_memory() {
    let (meter, card) = with_card(0.0001, 1 << 20, 1 << 10);
    let own = EnhancerPrice { cpu: 0.0, wall: 0.004, card: Some((0, 3_000_000_000)) };
    meter.enhancers.lock().insert("gfpgan".into(), own);
    let enhancer = Some(Enhancing { name: "gfpgan".into(), every: Some(1) });
    // Of an engine on the processor: a tenth of the card's time each.
    let enhanced = Demand {
        enhancer: enhancer.clone(),
        picture: Picture { width: 64, height: 64, fps: (25, 1) },
        ..demand(STANDARD)
    };
    let (sessions, refusal) = filled(&meter, &enhanced, || ());
    assert!(
        sessions == 8 && refusal.contains("8 sessions take 0.80 of 0.85 of the time of cuda:0"),
        "{sessions} {refusal}"
    );
    // Beside an engine of the same card.
    let both = Demand { enhancer, ..Demand::standard("fake") };
    let alone = meter.report(&[], "fake").resources[1].per_session;
    let refusal = meter.admit(&both, &vec![enhanced.clone(); 5]).unwrap_err().to_string();
    assert!(alone + 0.5 <= 0.85 && refusal.contains("5 sessions take 0.50 of 0.85"), "{alone} {refusal}");
    card.take(6_000_000_000);
    let refusal = meter.admit(&enhanced, &[]).unwrap_err().to_string();
    assert!(refusal.contains("6.0 of 8.1 GB of the memory of cuda:0 are taken"), "{refusal}");
    meter.admit(&enhanced, std::slice::from_ref(&enhanced)).unwrap();
    let refusal = meter.grow(&demand(STANDARD), &enhanced, &[]).unwrap_err().to_string();
    assert!(refusal.contains("of the memory of cuda:0"), "{refusal}");
}

#[test]
fn checking_the_sync_is_part_of_the_price() {
    let meter = priced(0.010);
    meter.check.set(0.03).unwrap();
    assert!((meter.cost(&demand(STANDARD)) - 0.28).abs() < 1e-9);
    let large = Picture { width: 2560, height: 1440, fps: (25, 1) };
    assert!((meter.cost(&demand(large)) - 1.03).abs() < 1e-9, "it does not grow with the picture");
    assert_eq!(meter.report(&vec![demand(STANDARD); 5], "compact").sessions_left, 1);
}

#[test]
fn where_nothing_could_be_measured_one_session_is_tried() {
    let meter = CapacityMeter::new(0.85, true, Duration::ZERO, Duration::ZERO);
    meter.insert(
        "compact",
        Price {
            name: "x".into(),
            frame: meter.all(),
            mouth: 0.0,
            encoding: 0.0,
            device: "auto".into(),
            card: None,
            failure: None,
            measured: false,
        },
    );
    meter.load.lock().others = 0.5;
    meter.admit(&demand(STANDARD), &[]).expect("it tells why it does not run");
    let refusal = meter.admit(&demand(STANDARD), &[demand(STANDARD)]).expect_err("the first may take all");
    assert!(refusal.to_string().contains("the machine is full: 1 sessions"), "{refusal}");
}

#[test]
fn sessions_fit_until_their_prices_fill_the_part_of_the_cores() {
    let meter = priced(0.010);
    let mut running = Vec::new();
    while meter.admit(&demand(STANDARD), &running).is_ok() {
        running.push(demand(STANDARD));
    }
    // 1.7 cores at a quarter of a core each.
    assert_eq!(running.len(), 6);
    let small = Picture { width: 640, height: 360, fps: (25, 1) };
    assert!(meter.admit(&demand(small), &running).is_ok(), "a quarter of the pixels still fits");
    let refusal = meter.admit(&demand(STANDARD), &running).unwrap_err().to_string();
    assert!(refusal.contains("6 sessions take 1.50 of 1.70 cores") && refusal.contains("0.25"), "{refusal}");
    assert_eq!(meter.report(&running, "compact").sessions_left, 0);
    assert_eq!(meter.report(&running[1..], "compact").sessions_left, 1);
}

#[test]
fn what_other_programs_take_is_a_warning_or_by_choice_a_refusal() {
    let mut meter = priced(0.010);
    assert_eq!(meter.admit(&demand(STANDARD), &[]).unwrap(), None);
    meter.load.lock().others = 1.95;
    let warning = meter.admit(&demand(STANDARD), &[]).unwrap().expect("a warning");
    assert!(warning.contains("other programs take 1.95 of 2.00 cores") && warning.contains("0.25"), "{warning}");
    assert_eq!((meter.report(&[], "compact").sessions_left, meter.report(&[], "compact").full), (6, None));
    let refusal = meter.admit(&demand(STANDARD), &vec![demand(STANDARD); 6]).unwrap_err().to_string();
    assert!(!refusal.contains("count_others"), "sessions fill it themselves: {refusal}");
    meter.count_others = true;
    let refusal = meter.admit(&demand(STANDARD), &[]).unwrap_err().to_string();
    assert!(refusal.contains("other programs 1.95") && refusal.contains("sessions.count_others = false"), "{refusal}");
    assert_eq!(meter.report(&[], "compact").sessions_left, 0);
}

#[test]
fn the_counters_of_the_kernel_are_read_and_grow() {
    let before = (process::cpu_time().unwrap(), process::busy_time().unwrap());
    let mut x = 0_u64;
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(150) {
        x = std::hint::black_box(x.wrapping_mul(3) + 1);
    }
    assert!(process::cpu_time().unwrap() >= before.0 + Duration::from_millis(30));
    // What a nice program takes is not counted.
    let nice = rustix::process::nice(0).is_ok_and(|nice| nice > 0);
    assert!(nice || process::busy_time().unwrap() > before.1);
}

/// A card without silicon: what it is asked for takes time on a clock of its own and memory of which there is so much.
mod device {
    use std::{
        sync::{Arc, atomic::AtomicU64, atomic::Ordering::SeqCst},
        time::Duration,
    };

    use lipstream_engines::{
        Error, Result,
        engine::{Spec, Stage, StageKind, Work},
        manifest::Family,
    };

    use super::{
        card::CardMemory,
        fake::{self, Fake},
    };

    pub const MEMORY: u64 = 8 << 30;

    #[derive(Default)]
    pub struct Device {
        /// Microseconds.
        clock: AtomicU64,
        used: AtomicU64,
    }

    impl Device {
        pub fn now(&self) -> Duration {
            Duration::from_micros(self.clock.load(SeqCst))
        }

        pub fn memory(&self) -> CardMemory {
            CardMemory { free: MEMORY - self.used.load(SeqCst), total: MEMORY }
        }

        pub fn take(&self, bytes: u64) {
            self.used.fetch_add(bytes, SeqCst);
        }
    }

    /// A stage of which a batch takes `base` and `row` microseconds for each row, and `bytes` of memory for each row as it runs.
    struct FakeStage {
        device: Arc<Device>,
        kind: StageKind,
        sizes: Vec<usize>,
        base: u64,
        row: u64,
        bytes: u64,
    }

    impl Stage for FakeStage {
        fn kind(&self) -> StageKind {
            self.kind
        }
        fn inputs(&self) -> &[&'static str] {
            &["value"]
        }
        fn sizes(&self) -> &[usize] {
            &self.sizes
        }
        fn run(&self, _: &mut [Work]) -> Result<()> {
            Ok(())
        }
        fn try_out(&self, rows: usize) -> Result<()> {
            if rows as u64 * self.bytes > self.device.memory().free {
                return Err(Error::OutOfMemory { model: "fake".into(), cause: format!("no room for {rows} rows") });
            }
            self.device.clock.fetch_add(self.base + self.row * rows as u64, SeqCst);
            Ok(())
        }
    }

    /// An engine on it: an encoder and a denoiser of two steps.
    pub fn engine(device: &Arc<Device>, bytes: u64) -> Fake {
        let stage = |kind, base, row| -> Box<dyn Stage> {
            Box::new(FakeStage { device: device.clone(), kind, sizes: vec![1, 2, 4, 8], base, row, bytes })
        };
        let spec = Spec { family: Family::LatentSync, steps: Some(2), ..fake::spec() };
        Fake {
            spec,
            stages: vec![stage(StageKind::Encode, 1_000, 100), stage(StageKind::Step, 4_000, 500)],
            actor: None,
        }
    }
}

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use lipstream_engines::engine::{StageStats, WorkerStats, profile};

use crate::session::status::ResourceKind;

/// A meter of a machine with a fake card and an engine `fake` on it, which takes `engine` and `session` bytes of it.
fn with_card(frame: f64, engine: u64, session: u64) -> (CapacityMeter, Arc<device::Device>) {
    let card = Arc::new(device::Device::default());
    let own = device::engine(&card, 1 << 20);
    let costs = profile(&own, &|| card.now()).unwrap();
    // Ten frames made one item each in the encoder and two in the denoiser, of one row.
    let stage =
        |kind, items| StageStats { kind, batches: items, items, rows: items, most: None, time: Default::default() };
    let counted =
        WorkerStats { stages: vec![stage(StageKind::Encode, 10), stage(StageKind::Step, 20)], ..Default::default() };
    let on_card = CardPrice { card: 0, stages: measure::shares(costs, &counted, 10), steps: 2, engine, session };
    let gauge = card.clone();
    let mut meter = priced(0.010);
    meter.gauge = Box::new(move |_| Some(gauge.memory()));
    meter.insert("fake", Price { device: "cuda:0".into(), card: Some(on_card), ..price(frame, 0.0) });
    (meter, card)
}

/// Sessions until one is refused, and why.
fn filled(meter: &CapacityMeter, demand: &Demand, mut each: impl FnMut()) -> (usize, String) {
    let mut running = Vec::new();
    loop {
        match meter.admit(demand, &running) {
            Ok(_) => running.push(demand.clone()),
            Err(refusal) => return (running.len(), refusal.to_string()),
        }
        each();
        assert!(running.len() < 100);
    }
}

#[test]
fn stages_are_measured_by_the_sizes_of_their_batches_as_far_as_memory_goes() {
    let card = Arc::new(device::Device::default());
    // Room for four rows.
    let own = device::engine(&card, 2 << 30);
    let costs = profile(&own, &|| card.now()).unwrap();
    let of = |rows: &[(usize, u64)]| rows.iter().map(|(n, us)| (*n, Duration::from_micros(*us))).collect::<Vec<_>>();
    assert_eq!(costs[0].batches, of(&[(1, 1_100), (2, 1_200), (4, 1_400)]));
    assert_eq!(costs[1].batches, of(&[(1, 4_500), (2, 5_000), (4, 6_000)]));
    // Three go as four do, and eight as twice four.
    assert_eq!(costs[1].row(3), Some(Duration::from_micros(2_000)));
    assert_eq!(costs[1].row(8), Some(Duration::from_micros(1_500)));
}

#[test]
fn a_session_is_let_in_by_the_scarcest_of_cores_card_and_memory() {
    // Alone a frame takes 1.1 + 2 x 4.5 ms of the card; a quarter of its time goes to one session of 25 frames a second, and less
    // to each of several, which share batches: eight take (1.8 + 2 x 8) ms a frame, 0.445 s a second.
    let (meter, _) = with_card(0.0001, 1 << 20, 1 << 10);
    let fake = Demand::standard("fake");
    let report = meter.report(&[], "fake");
    assert!((report.resources[1].per_session - 25.0 * 0.0101).abs() < 1e-9, "{report:?}");
    let (sessions, refusal) = filled(&meter, &fake, || ());
    assert_eq!(sessions, 15, "{refusal}");
    assert!(
        refusal.contains("15 sessions take 0.83 of 0.85 of the time of cuda:0, and this one would take 0.06")
            && refusal.contains("fewer steps"),
        "{refusal}"
    );
    assert_eq!((report.scarcest, report.sessions_left), (ResourceKind::GpuTime, 15));
    // Twice as many steps are nearly twice as dear, and half the rate half.
    assert!(filled(&meter, &Demand { steps: Some(4), ..fake.clone() }, || ()).0 < 9);
    let slow = Picture { fps: (25, 2), ..STANDARD };
    assert_eq!(filled(&meter, &Demand { picture: slow, ..fake.clone() }, || ()).0, 30);

    // A frame of 30 ms of CPU time: three quarters of a core each, of 1.7.
    let (meter, _) = with_card(0.030, 1 << 20, 1 << 10);
    let (sessions, refusal) = filled(&meter, &fake, || ());
    assert!(sessions == 2 && refusal.contains("2 sessions take 1.50 of 1.70 cores"), "{refusal}");
    assert_eq!(meter.report(&[], "fake").scarcest, ResourceKind::Cores);

    // 3 GB for the engine and one for each session, of 8 GiB without the half that is left.
    let (meter, card) = with_card(0.0001, 3_000_000_000, 1_000_000_000);
    let report = meter.report(&[], "fake");
    assert_eq!((report.scarcest, report.sessions_left), (ResourceKind::GpuMemory, 5));
    let first = AtomicBool::new(true);
    let (sessions, refusal) = filled(&meter, &fake, || {
        card.take(1_000_000_000 + if first.swap(false, SeqCst) { 3_000_000_000 } else { 0 });
    });
    assert_eq!(sessions, 5, "{refusal}");
    assert!(
        refusal
            .contains("8.0 of 8.1 GB of the memory of cuda:0 are taken, and this one of engine `fake` would take 1.0")
            && refusal.contains("another device"),
        "{refusal}"
    );
    // Other engines' sessions, which take nothing of the card, still come.
    assert_eq!(meter.admit(&demand(STANDARD), &vec![fake; 5]).unwrap(), None);
}

#[test]
fn memory_that_ends_lowers_what_is_let_in_until_nothing_of_it_runs() {
    let (meter, _) = with_card(0.0001, 1 << 20, 1 << 10);
    let fake = Demand::standard("fake");
    let running = vec![fake.clone(); 4];
    // Batches that were halved make each frame dearer: two of eight rows are more than one of sixteen.
    meter.learn("fake", 0, vec![(StageKind::Step, 2)], 4);
    let (sessions, refusal) = filled(&meter, &fake, || ());
    assert!(sessions == 6 && refusal.contains("of the time of cuda:0"), "{sessions} {refusal}");
    assert_eq!(meter.report(&[], "fake").sessions_left, 6);
    // And where even one item found none, there are fewer sessions.
    meter.learn("fake", 3, vec![(StageKind::Step, 1)], 4);
    let refusal = meter.admit(&fake, &running[..3]).unwrap_err().to_string();
    assert!(
        refusal.contains("memory ended with 4 sessions of engine `fake`, so that 3 are let in")
            && refusal.contains("take a smaller engine or another device"),
        "{refusal}"
    );
    assert_eq!(meter.report(&running[..2], "fake").sessions_left, 1);
    meter.admit(&fake, &running[..2]).unwrap();
    // The same count again says nothing new, and once none runs all is forgotten.
    meter.learn("fake", 3, Vec::new(), 2);
    meter.admit(&fake, &running[..2]).unwrap();
    meter.learn("fake", 3, Vec::new(), 0);
    meter.admit(&fake, &running).unwrap();
}

#[test]
fn batches_wait_for_others_only_where_a_card_is_busy_and_graphs_keep_their_own() {
    let most = Duration::from_millis(8);
    let waits = [0.0, 0.5, 0.75, 1.0, 3.0].map(|load| card::window(load, most).as_micros());
    assert_eq!(waits, [0, 0, 4_000, 8_000, 8_000]);
    let (meter, _) = with_card(0.0001, 1 << 20, 1 << 10);
    let fake = Demand::standard("fake");
    let alone = meter.alone("fake", &vec![fake.clone(); 3]).unwrap();
    assert!((alone - 3.0 * 25.0 * 0.0101).abs() < 1e-9, "{alone}");
    assert_eq!(meter.alone("compact", &[fake]), None);
    assert_eq!(meter.longest_wait("fake", Duration::ZERO), most);
    assert_eq!(meter.longest_wait("compact", Duration::ZERO), Duration::ZERO);
    let own = Duration::from_millis(20);
    assert_eq!(meter.longest_wait("fake", own), own);
    assert!(meter.waits.lock().contains("fake"));
}
