//! The connections that a session opens by itself: its pushes, and the URL that it reads.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::{Manager, Refusal, SessionSpec, Settings};
use crate::{
    link::LinkStatus,
    live::{Inlet, Outlet},
    pull::{self, Pull},
    push::{self, Push},
};

/// See the module. Pushes watch the output as long as the session exists, so they keep its graph running; the URL is
/// read while the graph runs.
pub(super) struct Links {
    runtime: Option<Handle>,
    pull: pull::Settings,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    pushes: Vec<Push>,
    pull: Option<Pull>,
}

impl Links {
    pub fn new(spec: &SessionSpec, manager: &Manager) -> Result<Self, Refusal> {
        let settings = manager.settings();
        let runtime = manager.runtime();
        if runtime.is_none() && (spec.pull.is_some() || !spec.push.is_empty()) {
            return Err(Refusal::Failed("pushing and pulling need the manager to be made within tokio".into()));
        }
        let Settings { private_addresses, files, .. } = *settings;
        let pull = pull::Settings { private_addresses, files, ..pull::Settings::default() };
        Ok(Self { runtime, pull, open: Mutex::default() })
    }

    /// Begins to push.
    pub fn push(&self, spec: &SessionSpec, outlet: &Arc<Outlet>) -> Result<(), Refusal> {
        let Some(runtime) = &self.runtime else { return Ok(()) };
        let _inside = runtime.enter();
        let settings = push::Settings { private_addresses: self.pull.private_addresses, ..push::Settings::default() };
        let pushes: Result<Vec<Push>, Refusal> =
            spec.push.iter().map(|url| Push::start(outlet.clone(), url, settings.clone())).collect();
        self.open.lock().pushes = pushes?;
        Ok(())
    }

    /// Begins to read the session's URL, unless it is being read.
    pub fn pull(&self, spec: &SessionSpec, inlet: impl FnOnce() -> Result<Inlet, Refusal>) -> Result<(), Refusal> {
        let (Some(runtime), Some(url)) = (&self.runtime, &spec.pull) else { return Ok(()) };
        if self.open.lock().pull.is_some() {
            return Ok(());
        }
        let _inside = runtime.enter();
        let pull = Pull::start(inlet()?, url, self.pull.clone())?;
        self.open.lock().pull = Some(pull);
        Ok(())
    }

    /// Stops to read.
    pub fn stop_pull(&self) {
        let pull = self.open.lock().pull.take();
        drop(pull);
    }

    pub fn close(&self) {
        let open = std::mem::take(&mut *self.open.lock());
        drop(open);
    }

    pub fn status(&self) -> (Vec<LinkStatus>, Option<LinkStatus>) {
        let open = self.open.lock();
        (open.pushes.iter().map(Push::status).collect(), open.pull.as_ref().map(Pull::status))
    }
}
