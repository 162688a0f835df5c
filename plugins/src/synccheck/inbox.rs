//! Where the threads of a stream leave what is to be judged.

use std::{collections::VecDeque, time::Duration};

use lipstream_engines::quality::sync::Seen;
use parking_lot::{Condvar, Mutex};

/// Frames that wait at most: four seconds of 120 a second, and windows of 27 kB among them,
const FRAMES: usize = 512;
const WINDOWS: usize = 80;
/// and pieces of sound.
const SOUNDS: usize = 1024;
/// Time of frames for which the thread wakes, where the interval is longer.
const WAKE: Duration = Duration::from_secs(1);

/// What has come.
#[derive(Default)]
pub struct Post {
    /// Before all of it was a jump.
    pub flushed: bool,
    pub frames: VecDeque<Seen>,
    pub sounds: VecDeque<(Duration, Vec<f32>)>,
    /// Time of the last frame that was taken.
    taken: Option<Duration>,
    missed: u64,
    ended: bool,
}

/// See the module. Its lock is held for as long as a piece takes to be put down.
pub struct Inbox {
    post: Mutex<Post>,
    came: Condvar,
    wake: Duration,
}

impl Inbox {
    pub fn new(interval: Duration) -> Self {
        Self { post: Mutex::default(), came: Condvar::new(), wake: interval.min(WAKE) }
    }

    pub fn see(&self, seen: Seen) {
        let mut post = self.post.lock();
        post.frames.push_back(seen);
        let windows = || post.frames.iter().filter(|seen| seen.window().is_some()).count();
        if post.frames.len() > FRAMES || windows() > WINDOWS {
            post.frames.pop_front();
            post.missed += 1;
        }
        if self.due(&post) {
            self.came.notify_one();
        }
    }

    pub fn hear(&self, time: Duration, samples: Vec<f32>) {
        let mut post = self.post.lock();
        post.sounds.push_back((time, samples));
        if post.sounds.len() > SOUNDS {
            post.sounds.pop_front();
            post.missed += 1;
        }
    }

    pub fn flush(&self) {
        let mut post = self.post.lock();
        let missed = post.missed;
        *post = Post { flushed: true, missed, ended: post.ended, ..Post::default() };
    }

    pub fn end(&self) {
        self.post.lock().ended = true;
        self.came.notify_one();
    }

    pub fn missed(&self) -> u64 {
        self.post.lock().missed
    }

    /// Waits until there are frames for a check, and takes all; `None` at the end.
    pub fn take(&self) -> Option<Post> {
        let mut post = self.post.lock();
        while !post.ended && !self.due(&post) {
            self.came.wait(&mut post);
        }
        if post.ended {
            return None;
        }
        let taken = post.frames.back().map(|last| last.time);
        let left = Post { taken, missed: post.missed, ..Post::default() };
        Some(std::mem::replace(&mut *post, left))
    }

    fn due(&self, post: &Post) -> bool {
        let since = post.taken.or(post.frames.front().map(|first| first.time));
        // Time that goes back is a jump.
        since.zip(post.frames.back()).is_some_and(|(since, last)| last.time < since || last.time - since >= self.wake)
    }
}
