use std::{
    collections::{HashMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, LazyLock, Weak},
};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::super::BINS;
use crate::{
    Error, Result,
    runtime::{Input, Model},
};

/// Evaluations in a batch, the largest first: few sizes, since compilers make a program for each.
const SIZES: [usize; 5] = [16, 8, 4, 2, 1];

/// Evaluates mel `[batch, 80, columns]` to states, as many numbers for each of the batch.
type Run = Box<dyn Fn(&[f32], usize, usize) -> Result<Vec<f32>> + Send + Sync>;

/// Whisper's encoder for all streams of a process. Whoever asks while nobody else does evaluates at once; what others ask
/// meanwhile goes together in the next batch.
pub struct SharedEncoder {
    run: Run,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    next: u64,
    waiting: VecDeque<Asked>,
    /// States, or why there are none, until they are fetched.
    answers: HashMap<u64, std::result::Result<Vec<f32>, String>>,
    running: bool,
}

struct Asked {
    id: u64,
    mel: Vec<f32>,
    columns: usize,
}

/// Encoders by the address of their network, which each of them keeps.
static ENCODERS: LazyLock<Mutex<HashMap<usize, Weak<SharedEncoder>>>> = LazyLock::new(Default::default);

impl SharedEncoder {
    /// That of a network with the input `mel` f32 `[batch, 80, columns]` and the output `states` f32
    /// `[batch, columns / 2, blocks + 1, width]`.
    pub fn of(model: &Arc<Model>) -> Arc<Self> {
        let mut encoders = ENCODERS.lock();
        let address = Arc::as_ptr(model) as usize;
        if let Some(known) = encoders.get(&address).and_then(Weak::upgrade) {
            return known;
        }
        encoders.retain(|_, encoder| encoder.strong_count() > 0);
        let network = model.clone();
        let run = move |mel: &[f32], batch: usize, columns: usize| {
            let shape = [batch, BINS, columns];
            let states = network.run(&[Input { name: "mel", shape: &shape, data: mel }])?.into_iter().next();
            Ok(states.map(|states| states.data).unwrap_or_default())
        };
        let encoder = Arc::new(Self::new(Box::new(run)));
        encoders.insert(address, Arc::downgrade(&encoder));
        encoder
    }

    fn new(run: Run) -> Self {
        Self { run, state: Mutex::default(), changed: Condvar::new() }
    }

    /// States of normalised `mel`, `[80, columns]`.
    ///
    /// Errors: those of the network, of whose batch this was a part.
    pub fn evaluate(&self, mel: Vec<f32>, columns: usize) -> Result<Vec<f32>> {
        let mut state = self.state.lock();
        let id = state.next;
        state.next += 1;
        state.waiting.push_back(Asked { id, mel, columns });
        loop {
            if let Some(answer) = state.answers.remove(&id) {
                return answer.map_err(Error::invalid);
            }
            match state.running {
                true => self.changed.wait(&mut state),
                false => self.run_batch(&mut state),
            }
        }
    }

    /// Runs those that have waited longest, as far as they are of one size and as many as a batch has: others wait for the next.
    fn run_batch(&self, state: &mut MutexGuard<State>) {
        let Some(columns) = state.waiting.front().map(|asked| asked.columns) else { return };
        let alike = state.waiting.iter().take(SIZES[0]).take_while(|asked| asked.columns == columns).count();
        let count = SIZES.into_iter().find(|size| *size <= alike).unwrap_or(1);
        let batch: Vec<Asked> = state.waiting.drain(..count).collect();
        state.running = true;
        let outcome = MutexGuard::unlocked(state, || {
            let mel: Vec<f32> = batch.iter().flat_map(|asked| asked.mel.iter().copied()).collect();
            let outcome = catch_unwind(AssertUnwindSafe(|| (self.run)(&mel, count, columns)));
            match outcome {
                Ok(Ok(states)) if states.len().is_multiple_of(count) => Ok(states),
                Ok(Ok(states)) => Err(format!("Whisper's encoder gave {} numbers for {count} windows", states.len())),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("Whisper's encoder panicked".to_owned()),
            }
        });
        state.running = false;
        for (i, asked) in batch.iter().enumerate() {
            let own = |states: &Vec<f32>| states[states.len() / count * i..][..states.len() / count].to_vec();
            state.answers.insert(asked.id, outcome.as_ref().map(own).map_err(Clone::clone));
        }
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering::SeqCst},
    };

    use super::*;

    /// Doubles, and counts batches and what was in them. The first batch waits until `gate` is passed.
    struct Doubling {
        encoder: Arc<SharedEncoder>,
        batches: Arc<AtomicUsize>,
        gate: Arc<Barrier>,
    }

    fn doubling(fail: fn(usize) -> Result<()>) -> Doubling {
        let (batches, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(2)));
        let (count, first) = (batches.clone(), gate.clone());
        let run = move |mel: &[f32], batch: usize, columns: usize| {
            assert_eq!(mel.len(), batch * columns);
            if count.fetch_add(1, SeqCst) == 0 {
                first.wait();
            }
            fail(batch)?;
            Ok(mel.iter().map(|v| 2.0 * v).collect())
        };
        Doubling { encoder: Arc::new(SharedEncoder::new(Box::new(run))), batches, gate }
    }

    fn five(doubling: &Doubling) -> Vec<Result<Vec<f32>>> {
        asked(doubling, 5)
    }

    /// One asks, and the others before it has its answer. Answers in their order.
    fn asked(doubling: &Doubling, count: usize) -> Vec<Result<Vec<f32>>> {
        let ask = |i: usize| {
            let encoder = doubling.encoder.clone();
            std::thread::spawn(move || encoder.evaluate(vec![i as f32; 3], 3))
        };
        let first = ask(0);
        while doubling.batches.load(SeqCst) == 0 {
            std::thread::yield_now();
        }
        let others: Vec<_> = (1..count).map(ask).collect();
        while doubling.encoder.state.lock().waiting.len() < count - 1 {
            std::thread::yield_now();
        }
        doubling.gate.wait();
        [first].into_iter().chain(others).map(|thread| thread.join().unwrap()).collect()
    }

    #[test]
    fn what_is_asked_while_the_network_runs_goes_together() {
        let doubling = doubling(|_| Ok(()));
        let found: Vec<_> = five(&doubling).into_iter().map(Result::unwrap).collect();
        assert_eq!(found, (0..5).map(|i| vec![2.0 * i as f32; 3]).collect::<Vec<_>>());
        assert_eq!(doubling.batches.load(SeqCst), 2);
    }

    #[test]
    fn batches_have_few_sizes() {
        let doubling = doubling(|batch| if SIZES.contains(&batch) { Ok(()) } else { Err(Error::invalid("a size")) });
        let found: Vec<_> = asked(&doubling, 8).into_iter().map(Result::unwrap).collect();
        assert_eq!(found, (0..8).map(|i| vec![2.0 * i as f32; 3]).collect::<Vec<_>>());
        // One, then four, two and one of the seven that had waited.
        assert_eq!(doubling.batches.load(SeqCst), 4);
    }

    #[test]
    fn what_fails_is_told_to_all_that_were_in_it_and_the_next_goes_on() {
        for fail in [
            |batch: usize| if batch > 1 { Err(Error::invalid("the network broke")) } else { Ok(()) },
            |batch: usize| if batch > 1 { panic!("the network broke") } else { Ok(()) },
        ] as [fn(usize) -> Result<()>; 2]
        {
            let doubling = doubling(fail);
            let found = five(&doubling);
            assert!(found[0].is_ok());
            for one in &found[1..] {
                let error = one.as_ref().unwrap_err().to_string();
                assert!(error.contains("the network broke") || error.contains("panicked"), "{error}");
            }
            assert_eq!(doubling.encoder.evaluate(vec![4.0; 3], 3).unwrap(), [8.0; 3]);
        }
    }

    #[test]
    fn windows_of_other_sizes_go_by_themselves() {
        let doubling = doubling(|_| Ok(()));
        let encoder = doubling.encoder.clone();
        let first = std::thread::spawn(move || encoder.evaluate(vec![1.0; 3], 3));
        while doubling.batches.load(SeqCst) == 0 {
            std::thread::yield_now();
        }
        let encoder = doubling.encoder.clone();
        let other = std::thread::spawn(move || encoder.evaluate(vec![1.0; 5], 5));
        doubling.gate.wait();
        assert_eq!((first.join().unwrap().unwrap().len(), other.join().unwrap().unwrap().len()), (3, 5));
    }
}
