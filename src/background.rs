//! Work that must not take time from live sessions: a nice thread, and pipelines whose threads are nice too.
//!
//! The streaming threads of GStreamer come from one pool of the process and are used again by any pipeline, so they must
//! keep their priority. A pipeline that is built in the background gets threads of its own instead.

use std::{panic, thread};

use gst::{glib, prelude::*, subclass::prelude::*};

/// Nice value of background work: about a tenth of a live thread's share where both want the same core.
const NICE: i32 = 10;

/// Does `work` on a thread of low priority and waits for it; where the system has no thread to spare, on this one.
/// Threads that it starts inherit the priority, and pipelines that it hands to [`adopt`] run at it. A panic goes on in
/// the caller.
pub fn run<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    keep_shared_threads();
    let mut work = Some(work);
    let slot = &mut work;
    let done = thread::scope(|scope| {
        let low = move || {
            lower();
            slot.take().map(|work| work())
        };
        match thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, low) {
            Ok(worker) => worker.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked)),
            Err(_) => None,
        }
    });
    done.unwrap_or_else(|| work.take().expect("only the thread takes it")())
}

/// Runs the streams of `pipeline` at low priority where the calling thread does. Call it before the pipeline starts.
pub fn adopt(pipeline: &gst::Pipeline) {
    if !rustix::process::getpriority_process(None).is_ok_and(|nice| nice >= NICE) {
        return;
    }
    let pool: Pool = glib::Object::new();
    let bus = pipeline.bus().expect("a pipeline has a bus");
    bus.enable_sync_message_emission();
    bus.connect_sync_message(Some("stream-status"), move |_, message| {
        let gst::MessageView::StreamStatus(status) = message.view() else { return };
        if status.type_() != gst::StreamStatusType::Create {
            return;
        }
        if let Some(Ok(task)) = status.stream_status_object().map(|object| object.get::<gst::Task>()) {
            task.set_pool(&pool);
        }
    });
}

/// The calling thread becomes nice.
fn lower() {
    // On Linux this is of the calling thread alone. Where it is refused the work is done all the same.
    let _ = rustix::process::setpriority_process(None, NICE);
}

/// GLib gives the threads of its pools the priority of whoever makes the first of them: that must not be us.
fn keep_shared_threads() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let pool = gst::TaskPool::new();
        if let Err(e) = pool.prepare() {
            tracing::warn!("the pool of streaming threads cannot be made ahead: {e}");
        }
        pool.cleanup();
    });
}

mod imp {
    use super::*;

    /// A nice thread for every task.
    #[derive(Default)]
    pub struct Pool;

    #[glib::object_subclass]
    impl ObjectSubclass for Pool {
        const NAME: &'static str = "LipstreamBackgroundPool";
        type Type = super::Pool;
        type ParentType = gst::TaskPool;
    }

    impl ObjectImpl for Pool {}
    impl GstObjectImpl for Pool {}

    impl TaskPoolImpl for Pool {
        type Handle = Handle;

        fn push(&self, function: gst::subclass::TaskPoolFunction) -> Result<Option<Handle>, glib::Error> {
            let work = move || {
                lower();
                function.call();
            };
            let spawned = thread::Builder::new().name("background".into()).spawn(work);
            match spawned {
                Ok(thread) => Ok(Some(Handle(thread))),
                Err(e) => Err(glib::Error::new(gst::CoreError::Failed, &e.to_string())),
            }
        }
    }

    pub struct Handle(thread::JoinHandle<()>);

    impl gst::TaskHandle for Handle {
        fn join(self) {
            // A task that panicked has said so.
            let _ = self.0.join();
        }
    }
}

glib::wrapper! {
    pub struct Pool(ObjectSubclass<imp::Pool>) @extends gst::TaskPool, gst::Object;
}

// SAFETY: the pool has no state.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    fn nice() -> i32 {
        rustix::process::getpriority_process(None).unwrap()
    }

    /// Nice values of the thread that streams.
    fn streamed() -> Vec<i32> {
        let launched = gst::parse::launch("fakesrc num-buffers=3 ! identity name=here ! fakesink").unwrap();
        let pipeline = launched.downcast::<gst::Pipeline>().unwrap();
        adopt(&pipeline);
        let seen: Arc<Mutex<Vec<i32>>> = Arc::default();
        let record = seen.clone();
        let pad = pipeline.by_name("here").unwrap().static_pad("src").unwrap();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            record.lock().unwrap().push(nice());
            gst::PadProbeReturn::Ok
        });
        pipeline.set_state(gst::State::Playing).unwrap();
        let bus = pipeline.bus().unwrap();
        bus.timed_pop_filtered(gst::ClockTime::from_seconds(10), &[gst::MessageType::Eos]).unwrap();
        pipeline.set_state(gst::State::Null).unwrap();
        seen.lock().unwrap().clone()
    }

    #[test]
    fn the_work_and_its_streams_are_nice_and_others_are_not() {
        gst::init().unwrap();
        let before = nice();
        assert_eq!(run("work", nice), NICE.max(before));
        assert_eq!(run("work", streamed), [NICE.max(before); 3]);
        assert_eq!(nice(), before);
        assert_eq!(streamed(), [before; 3]);
    }
}
