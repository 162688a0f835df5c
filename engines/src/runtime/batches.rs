use std::{
    collections::{HashMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::{Error, Result};

/// Most questions in one batch.
const MOST: usize = 16;
/// Questions that wait before another run is begun beside those that go on.
const CROWD: usize = 4;

/// Answers questions of one size, one answer for each.
type Run<Q, A> = Box<dyn Fn(&[Q]) -> Result<Vec<A>> + Send + Sync>;

/// One network for the streams of a process. Whoever asks while nothing runs is answered at once; what others ask meanwhile goes
/// together in the next batch. Where many wait, further runs go beside the first.
pub(crate) struct Batches<Q, A> {
    run: Run<Q, A>,
    /// Questions go together where this is the same.
    size: fn(&Q) -> usize,
    name: String,
    lanes: usize,
    most: usize,
    state: Mutex<State<Q, A>>,
    changed: Condvar,
}

struct State<Q, A> {
    next: u64,
    waiting: VecDeque<(u64, Q)>,
    /// Questions with their answers, or why there are none, until they are fetched.
    answers: HashMap<u64, (Q, Result<A, String>)>,
    running: usize,
}

impl<Q, A> Batches<Q, A> {
    /// At most `lanes` runs go on at a time. `name` is what errors call the network.
    pub fn new(name: &str, lanes: usize, size: fn(&Q) -> usize, run: Run<Q, A>) -> Self {
        let state = State { next: 0, waiting: VecDeque::new(), answers: HashMap::new(), running: 0 };
        let (lanes, changed) = (lanes.max(1), Condvar::new());
        Self { run, size, name: name.into(), lanes, most: MOST, state: Mutex::new(state), changed }
    }

    /// With fewer questions in a batch.
    pub fn of_at_most(self, most: usize) -> Self {
        Self { most: most.clamp(1, MOST), ..self }
    }

    /// The question comes back with its answer.
    ///
    /// Errors: those of the network. A question that fails others' batch fails alone.
    pub fn ask(&self, question: Q) -> (Q, Result<A>) {
        let mut state = self.state.lock();
        let id = state.next;
        state.next += 1;
        state.waiting.push_back((id, question));
        loop {
            if let Some((question, answer)) = state.answers.remove(&id) {
                return (question, answer.map_err(Error::invalid));
            }
            let free = state.running < if state.waiting.len() < CROWD { 1 } else { self.lanes };
            match free && !state.waiting.is_empty() {
                true => self.run_batch(&mut state),
                false => self.changed.wait(&mut state),
            }
        }
    }

    /// Runs those that have waited longest, as far as they are of one size and as many as a batch has: others wait for the next.
    fn run_batch(&self, state: &mut MutexGuard<State<Q, A>>) {
        let Some(size) = state.waiting.front().map(|(_, question)| (self.size)(question)) else { return };
        let alike =
            state.waiting.iter().take(self.most).take_while(|(_, question)| (self.size)(question) == size).count();
        // Few sizes of batches, since compilers make a program for each: powers of two.
        let count = 1 << alike.max(1).ilog2();
        let (ids, questions): (Vec<u64>, Vec<Q>) = state.waiting.drain(..count).unzip();
        state.running += 1;
        let answers = MutexGuard::unlocked(state, || match self.answers(&questions) {
            Ok(answers) => answers.into_iter().map(Ok).collect(),
            Err(cause) if count == 1 => vec![Err(cause)],
            Err(_) => questions.chunks(1).map(|alone| Ok(self.answers(alone)?.remove(0))).collect::<Vec<_>>(),
        });
        state.running -= 1;
        state.answers.extend(ids.into_iter().zip(questions.into_iter().zip(answers)));
        self.changed.notify_all();
    }

    fn answers(&self, questions: &[Q]) -> Result<Vec<A>, String> {
        match catch_unwind(AssertUnwindSafe(|| (self.run)(questions))) {
            Ok(Ok(answers)) if answers.len() == questions.len() => Ok(answers),
            Ok(Ok(answers)) => Err(format!("{} gave {} answers to {}", self.name, answers.len(), questions.len())),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("{} panicked", self.name)),
        }
    }

    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.state.lock().waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering::SeqCst},
    };

    use super::*;

    type Doubles = Batches<Vec<f32>, Vec<f32>>;

    /// Doubles, and counts batches. The first batch waits until `gate` is passed.
    struct Doubling {
        batches: Arc<Doubles>,
        count: Arc<AtomicUsize>,
        gate: Arc<Barrier>,
    }

    fn doubling(fail: fn(&[Vec<f32>]) -> Result<()>) -> Doubling {
        let (count, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(2)));
        let (counted, first) = (count.clone(), gate.clone());
        let run = move |questions: &[Vec<f32>]| {
            if counted.fetch_add(1, SeqCst) == 0 {
                first.wait();
            }
            fail(questions)?;
            assert!(questions.iter().all(|question| question.len() == questions[0].len()));
            Ok(questions.iter().map(|question| question.iter().map(|v| 2.0 * v).collect()).collect())
        };
        Doubling { batches: Arc::new(Batches::new("doubling", 1, Vec::len, Box::new(run))), count, gate }
    }

    /// One asks, and others before it has its answer. Answers in their order.
    fn together(doubling: &Doubling, others: &[Vec<f32>]) -> Vec<Result<Vec<f32>>> {
        let ask = |question: Vec<f32>| {
            let batches = doubling.batches.clone();
            std::thread::spawn(move || batches.ask(question).1)
        };
        let first = ask(vec![0.0; 3]);
        while doubling.count.load(SeqCst) == 0 {
            std::thread::yield_now();
        }
        let mut threads = vec![first];
        for (before, question) in others.iter().enumerate() {
            threads.push(ask(question.clone()));
            while doubling.batches.waiting() <= before {
                std::thread::yield_now();
            }
        }
        doubling.gate.wait();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    }

    fn four() -> Vec<Vec<f32>> {
        (1..5).map(|i| vec![i as f32; 3]).collect()
    }

    #[test]
    fn what_is_asked_while_the_network_runs_goes_together() {
        let doubling = doubling(|_| Ok(()));
        let found: Vec<_> = together(&doubling, &four()).into_iter().map(Result::unwrap).collect();
        assert_eq!(found, (0..5).map(|i| vec![2.0 * i as f32; 3]).collect::<Vec<_>>());
        assert_eq!(doubling.count.load(SeqCst), 2);
    }

    #[test]
    fn who_fails_a_batch_fails_alone_and_the_next_goes_on() {
        fn fails(questions: &[Vec<f32>]) -> Result<()> {
            let bad = questions.iter().any(|question| question[0] == 2.0);
            if bad { Err(Error::invalid("the network broke")) } else { Ok(()) }
        }
        let panics = |questions: &[Vec<f32>]| fails(questions).map_err(|error| panic!("{error}"));
        for fail in [fails, panics] as [fn(&[Vec<f32>]) -> Result<()>; 2] {
            let doubling = doubling(fail);
            for (i, found) in together(&doubling, &four()).into_iter().enumerate() {
                match (i, found) {
                    (2, Err(error)) => {
                        let error = error.to_string();
                        assert!(error.contains("the network broke") || error.contains("panicked"), "{error}");
                    }
                    (_, found) => assert_eq!(found.unwrap(), [2.0 * i as f32; 3]),
                }
            }
            assert_eq!(doubling.batches.ask(vec![4.0; 3]).1.unwrap(), [8.0; 3]);
        }
    }

    #[test]
    fn questions_of_other_sizes_go_by_themselves() {
        let doubling = doubling(|_| Ok(()));
        let found = together(&doubling, &[vec![1.0; 5], vec![1.0; 5], vec![1.0; 3]]);
        let sizes: Vec<usize> = found.into_iter().map(|answer| answer.unwrap().len()).collect();
        assert_eq!((sizes, doubling.count.load(SeqCst)), (vec![3, 5, 5, 3], 3));
    }

    #[test]
    fn batches_have_few_sizes() {
        let doubling = doubling(|_| Ok(()));
        let found = together(&doubling, &vec![vec![1.0; 3]; 7]);
        assert!(found.into_iter().all(|answer| answer.is_ok()));
        // One, then four, two and one.
        assert_eq!(doubling.count.load(SeqCst), 4);
    }

    #[test]
    fn a_crowd_is_answered_beside_a_run_that_goes_on() {
        let (count, gate) = (AtomicUsize::new(0), Arc::new(Barrier::new(2)));
        let first = gate.clone();
        let run = move |questions: &[u32]| {
            if count.fetch_add(1, SeqCst) == 0 {
                first.wait();
            }
            Ok(questions.iter().map(|question| question + 1).collect())
        };
        let batches = Batches::new("counting", 2, |_: &u32| 0, Box::new(run));
        std::thread::scope(|scope| {
            let slow = scope.spawn(|| batches.ask(0).1.unwrap());
            while batches.state.lock().running == 0 {
                std::thread::yield_now();
            }
            // Nobody lets the first go on before these have their answers.
            let crowd: Vec<_> = (1..=CROWD as u32)
                .map(|n| {
                    scope.spawn({
                        let batches = &batches;
                        move || batches.ask(n).1.unwrap()
                    })
                })
                .collect();
            crowd.into_iter().zip(2..).for_each(|(thread, wanted)| assert_eq!(thread.join().unwrap(), wanted));
            gate.wait();
            assert_eq!(slow.join().unwrap(), 1);
        });
    }
}
