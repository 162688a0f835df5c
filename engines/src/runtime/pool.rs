use std::collections::HashMap;

use parking_lot::{Condvar, Mutex};

/// Shapes of a program's inputs.
pub(super) type Shapes = Vec<Vec<usize>>;

/// Shapes for which programs are kept.
const MAX_SHAPES: usize = 8;

/// Programs that one thread at a time may use, made as they are needed.
pub(super) struct Pool<T> {
    shelves: Mutex<HashMap<Shapes, Shelf<T>>>,
    put_back: Condvar,
    /// Most of one shape.
    limit: usize,
}

struct Shelf<T> {
    idle: Vec<T>,
    /// Those that are out or being made.
    out: usize,
}

impl<T> Pool<T> {
    pub fn new(limit: usize) -> Self {
        Self { shelves: Default::default(), put_back: Condvar::new(), limit: limit.max(1) }
    }

    pub fn add(&self, shapes: Shapes, program: T) {
        self.shelves.lock().entry(shapes).or_insert_with(Shelf::empty).idle.push(program);
    }

    /// Programs that nobody uses now.
    pub fn idle(&self) -> usize {
        self.shelves.lock().values().map(|shelf| shelf.idle.len()).sum()
    }

    /// Lets `run` use a program for `shapes`: an idle one, a new one, or where there are as many as may be the next that is
    /// put back.
    pub fn with<R, E>(
        &self,
        shapes: Shapes,
        make: impl FnOnce(&Shapes) -> Result<T, E>,
        run: impl FnOnce(&mut T) -> Result<R, E>,
    ) -> Result<R, E> {
        let mut loan = self.lend(shapes);
        let mut program = match loan.program.take() {
            Some(idle) => idle,
            None => make(&loan.shapes)?,
        };
        let result = run(&mut program);
        loan.program = Some(program);
        result
    }

    /// An idle program, or leave to make one.
    fn lend(&self, shapes: Shapes) -> Loan<'_, T> {
        let mut shelves = self.shelves.lock();
        if !shelves.contains_key(&shapes) && shelves.len() >= MAX_SHAPES {
            shelves.retain(|_, shelf| shelf.out > 0);
        }
        loop {
            let shelf = shelves.entry(shapes.clone()).or_insert_with(Shelf::empty);
            let program = shelf.idle.pop();
            if program.is_some() || shelf.out < self.limit {
                shelf.out += 1;
                return Loan { pool: self, shapes, program };
            }
            self.put_back.wait(&mut shelves);
        }
    }
}

impl<T> Shelf<T> {
    fn empty() -> Self {
        Self { idle: Vec::new(), out: 0 }
    }
}

/// What has been lent; dropping it puts back what it holds then.
struct Loan<'a, T> {
    pool: &'a Pool<T>,
    shapes: Shapes,
    program: Option<T>,
}

impl<T> Drop for Loan<'_, T> {
    fn drop(&mut self) {
        let mut shelves = self.pool.shelves.lock();
        if let Some(shelf) = shelves.get_mut(&self.shapes) {
            shelf.out -= 1;
            shelf.idle.extend(self.program.take());
        }
        drop(shelves);
        // Others may wait for other shapes.
        self.pool.put_back.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
        time::Duration,
    };

    use super::*;

    fn made(count: &AtomicUsize) -> Result<usize, &'static str> {
        Ok(count.fetch_add(1, Ordering::SeqCst))
    }

    #[test]
    fn as_many_are_used_at_a_time_as_may_be_and_no_more_are_made() {
        for limit in [1, 3] {
            let (pool, count, now, most) =
                (Pool::new(limit), AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
            thread::scope(|scope| {
                for _ in 0..6 {
                    scope.spawn(|| {
                        for _ in 0..20 {
                            let use_it = |_: &mut usize| {
                                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                                thread::sleep(Duration::from_micros(200));
                                now.fetch_sub(1, Ordering::SeqCst);
                                Ok(())
                            };
                            pool.with(Shapes::new(), |_| made(&count), use_it).unwrap();
                        }
                    });
                }
            });
            assert_eq!((count.into_inner(), most.into_inner()), (limit, limit));
        }
    }

    #[test]
    fn what_cannot_be_made_leaves_room_for_the_next() {
        let pool = Pool::<usize>::new(1);
        for _ in 0..3 {
            assert_eq!(pool.with(Shapes::new(), |_| Err("no"), |_| Ok(())), Err("no"));
        }
        assert_eq!(pool.with(Shapes::new(), |_| Ok(7), |program| Ok::<_, &str>(*program)), Ok(7));
    }

    #[test]
    fn what_panics_leaves_room_for_the_next() {
        let pool = Pool::<usize>::new(1);
        let panics = || pool.with(Shapes::new(), |_| Ok::<_, ()>(1), |_| -> Result<(), ()> { panic!("on purpose") });
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
        assert_eq!(pool.with(Shapes::new(), |_| Ok(7), |program| Ok::<_, ()>(*program)), Ok(7));
    }

    #[test]
    fn shapes_have_programs_of_their_own_and_few_are_kept() {
        let (pool, count) = (Pool::new(2), AtomicUsize::new(0));
        let used = |n: usize| pool.with(vec![vec![n]], |_| made(&count), |program| Ok(*program)).unwrap();
        assert_eq!([used(1), used(2), used(1), used(2)], [0, 1, 0, 1]);
        let others = |program: &mut usize| {
            for n in 3..=MAX_SHAPES + 1 {
                used(n);
            }
            Ok(*program)
        };
        assert_eq!(pool.with(vec![vec![1]], |_| made(&count), others), Ok(0));
        assert!(pool.shelves.lock().len() <= MAX_SHAPES);
        assert_eq!(used(1), 0, "what was in use was kept");
        let before = count.load(Ordering::SeqCst);
        assert_eq!(used(2), before, "what was not was made anew");
    }
}
