//! What sessions leave behind. Alone in its process: threads and files of other tests would be counted too.

use std::sync::Arc;

use lipstream::{
    avatar,
    live::Codec,
    session::{Manager, SessionSpec, Settings},
};

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

fn files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_come_and_go_leave_nothing_behind() {
    gst::init().unwrap();
    gstlipstream::plugin_register_static().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { load: 100.0, ..Settings::default() };
    let manager = Manager::new(settings, avatar::Store::open(folder.path()).unwrap());
    let mut counts = Vec::new();
    for n in 0..12 {
        let id = format!("s{n}");
        let session = manager.create(SessionSpec::new(&id, "avatar")).unwrap();
        let mut viewer = session.watch(&[Codec::H264]).await.unwrap();
        viewer.recv().await.unwrap();
        let weak = Arc::downgrade(&session);
        drop(session);
        manager.remove(&id).unwrap();
        assert!(viewer.recv().await.is_none(), "viewers are told");
        drop(viewer);
        assert!(weak.upgrade().is_none(), "the session is gone");
        counts.push((threads(), files()));
    }
    // The first ones start threads that are shared and stay.
    let ((threads, files), (threads_before, files_before)) = (counts[11], counts[2]);
    assert!(threads <= threads_before + 3 && files <= files_before + 3, "threads and files: {counts:?}");
    manager.close();
}
