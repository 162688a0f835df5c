//! Work that must not take time from live sessions.

use std::{panic, thread};

/// Nice value of background work: about a tenth of a live thread's share where both want the same core.
const NICE: i32 = 10;

/// Does `work` on a thread of low priority and waits for it. Threads that it starts inherit the priority, those of
/// GStreamer too. A panic goes on in the caller.
pub fn run<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let low = || {
            // On Linux this is of the calling thread alone. Where it is refused the work is done all the same.
            let _ = rustix::process::setpriority_process(None, NICE);
            work()
        };
        let worker = thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, low);
        match worker.expect("the system has a thread to spare").join() {
            Ok(done) => done,
            Err(panicked) => panic::resume_unwind(panicked),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_is_nice_and_the_caller_is_not() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        assert_eq!(run("work", nice), NICE.max(before));
        assert_eq!(nice(), before);
    }
}
