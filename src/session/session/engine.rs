//! The engine of a session: which it has, how it comes to another while its graph runs, and what it falls back to.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use gst::prelude::*;

use super::{
    super::{Manager, Refusal, capacity::Demand, rollout::Choice, running_graph::EngineNews},
    Running, Session,
};

/// The graph's parameter for an engine.
const ENGINE: &str = "engine";
/// How often frames are counted for the version that made them.
const COUNT: Duration = Duration::from_secs(1);
/// Pause before an engine for which there was no room is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// What a session knows of its engines.
#[derive(Default)]
pub(super) struct Engines {
    /// The one in use, or that its graph is told.
    model: Option<String>,
    /// What its graph was told last.
    told: Option<Choice>,
    /// A change is on its way to the graph.
    moving: bool,
    /// What there was no room for, and when.
    refused: Option<(Choice, Instant)>,
    /// Those that have failed, until the graph stops for want of viewers.
    failed: Vec<String>,
    /// Why it is not the one that was asked for.
    reason: Option<String>,
    /// Frames and late ones that were counted for the engine in use, and when.
    counted: Option<(u64, u64, Instant)>,
}

impl Engines {
    /// Notes an engine that has failed.
    fn fails(&mut self, model: &str) {
        if !self.failed.iter().any(|known| known == model) {
            self.failed.push(model.to_owned());
        }
    }
}

impl Session {
    /// The engine that it asks for; `None` of a graph without one.
    fn asked_engine(&self) -> Option<String> {
        self.asked(&[]).remove(ENGINE)
    }

    /// The engine that its graph has, or is told where it starts now.
    pub(super) fn engine_for(&self, asked: &str) -> String {
        if let Some(model) = &self.engines.lock().model {
            return model.clone();
        }
        self.manager.upgrade().map_or(asked.to_owned(), |manager| manager.choose(asked, self.id()).model)
    }

    /// Engines with which its graph may start, the one that is wanted first.
    fn choices(&self, manager: &Manager) -> Vec<Choice> {
        let Some(asked) = self.asked_engine() else { return vec![Choice::alone("")] };
        let mut choices: Vec<Choice> = Vec::new();
        for engine in std::iter::once(asked.clone()).chain(manager.fallbacks(&asked)) {
            let choice = manager.choose(&engine, self.id());
            let other = choice.fallback.as_deref().map(Choice::alone);
            choices.extend([Some(choice), other].into_iter().flatten());
        }
        let failed = self.engines.lock().failed.clone();
        let sound = |choice: &&Choice| !failed.contains(&choice.model);
        match choices.iter().filter(sound).cloned().collect::<Vec<_>>() {
            // One that has failed may do so no more.
            none if none.is_empty() => choices,
            sound => sound,
        }
    }

    /// Refuses where the device can hold neither its engine nor one that it may fall back to.
    pub(in crate::session) fn check_reach(&self) -> Result<(), Refusal> {
        let Some(manager) = self.manager.upgrade() else { return Ok(()) };
        let mut refused = None;
        for choice in self.choices(&manager) {
            match manager.check_reach(&self.demand_of(&choice.model)) {
                Ok(()) => return Ok(()),
                Err(refusal) => {
                    refused.get_or_insert(refusal);
                }
            }
        }
        refused.map_or(Ok(()), Err)
    }

    fn demand_of(&self, engine: &str) -> Demand {
        let demand = self.demand();
        if engine.is_empty() { demand } else { Demand { engine: engine.to_owned(), ..demand } }
    }

    /// Starts its graph with the first of its engines that can be loaded here.
    pub(super) fn start_any(
        &self,
        manager: &Manager,
        build: impl Fn(&str, Option<&str>) -> Result<Running, Refusal>,
    ) -> Result<Running, Refusal> {
        let changed = self.state.lock().changed.clone();
        let choices = self.choices(manager);
        let mut refused: Option<Refusal> = None;
        let mut failed: Vec<(&String, String)> = Vec::new();
        for (n, choice) in choices.iter().enumerate() {
            {
                let mut engines = self.engines.lock();
                engines.model = Some(choice.model.clone()).filter(|model| !model.is_empty());
                engines.reason = refused.as_ref().map(ToString::to_string).or(engines.reason.take());
                (engines.told, engines.counted) = (Some(choice.clone()), None);
            }
            let demand = self.demand();
            let started = || {
                let device = manager.device(&demand)?;
                if n + 1 < choices.len() {
                    manager.check_measured(&demand)?;
                }
                let launch = self.launch(&changed, &device)?;
                manager.let_in(self.id(), &demand, || build(&launch, choice.fallback.as_deref()))
            };
            match started() {
                Ok(running) => {
                    // Where nothing starts, something else is to blame.
                    for (model, cause) in failed {
                        manager.rollouts().fail(model, &cause);
                    }
                    let wanted = self.asked_engine().map(|asked| manager.choose(&asked, self.id()).model);
                    let mut engines = self.engines.lock();
                    engines.failed.retain(|model| *model != choice.model);
                    engines.reason = engines.reason.take().filter(|_| wanted.as_ref() != Some(&choice.model));
                    return Ok(running);
                }
                // That the machine is full is not the engine's fault.
                Err(refusal @ Refusal::Full(_)) if manager.check_reach(&demand).is_ok() => {
                    refused = Some(refusal);
                    break;
                }
                Err(refusal) => {
                    tracing::warn!("session `{}`: engine `{}`: {refusal}", self.id(), choice.model);
                    if let Refusal::Failed(cause) | Refusal::Invalid(cause) = &refusal {
                        failed.push((&choice.model, cause.clone()));
                    }
                    self.engines.lock().fails(&choice.model);
                    refused.get_or_insert(refusal);
                }
            }
        }
        self.engines.lock().model = None;
        Err(refused.unwrap_or_else(|| Refusal::Failed(format!("session `{}` has no engine", self.id()))))
    }

    /// Its graph has failed, by its engine or otherwise.
    pub(super) fn note_failure(&self, manager: &Manager, of_engine: bool, cause: &str) {
        let model = self.engines.lock().model.clone();
        let Some(model) = model.filter(|_| of_engine) else { return };
        manager.rollouts().fail(&model, cause);
        let mut engines = self.engines.lock();
        engines.reason = Some(cause.to_owned());
        engines.fails(&model);
    }

    /// Its graph has stopped; for want of viewers where it is not to start again.
    pub(super) fn forget_engine(&self, for_good: bool) {
        let mut engines = self.engines.lock();
        *engines = match for_good {
            true => Engines::default(),
            false => Engines {
                failed: std::mem::take(&mut engines.failed),
                reason: engines.reason.take(),
                ..Engines::default()
            },
        };
    }

    /// The engine in use and why it is not the one that was asked for.
    pub(super) fn engine_status(&self) -> (Option<String>, Option<String>) {
        let engines = self.engines.lock();
        (engines.model.clone(), engines.reason.clone())
    }

    /// The engine of the graph that runs; `None` where none does.
    pub(crate) fn running_engine(&self) -> Option<String> {
        let running = self.state.lock().running.is_some();
        running.then(|| self.engine_status().0).flatten()
    }

    /// Follows what its graph tells of engines, and has it take the one that it is to have.
    pub(super) fn follow_engine(self: &Arc<Self>, manager: &Arc<Manager>) {
        let graph = self.state.lock().running.as_ref().map(|running| running.graph.clone());
        let Some(graph) = graph else { return };
        let news = std::mem::take(&mut *graph.engine_news.lock());
        news.into_iter().for_each(|news| self.heed_news(news, manager, &graph.lipsync));
        self.count_frames(manager, || {
            let frames = graph.stats().denoise.frames;
            (frames.frames_out, frames.late)
        });
        let Some(asked) = self.asked_engine() else { return };
        let choice = manager.choose(&asked, self.id());
        {
            let mut engines = self.engines.lock();
            let waits = |(refused, since): &(Choice, Instant)| *refused == choice && since.elapsed() < AGAIN;
            let fell = engines.failed.contains(&choice.model) || engines.told.is_none();
            let idle = engines.told.as_ref() == Some(&choice) || engines.refused.as_ref().is_some_and(waits);
            if engines.moving || fell || idle {
                return;
            }
            engines.moving = true;
        }
        let session = self.clone();
        let change = move || {
            session.change_engine(choice);
            session.engines.lock().moving = false;
        };
        // Its price may have to be measured first.
        if std::thread::Builder::new().name("engine".into()).spawn(change).is_err() {
            self.engines.lock().moving = false;
        }
    }

    /// Has the graph take another engine at the next pause of speech, where there is room for it beside the one in use.
    fn change_engine(&self, choice: Choice) {
        let Some(manager) = self.manager.upgrade() else { return };
        let used = self.engines.lock().model.clone();
        if used.as_ref() != Some(&choice.model)
            && let Err(refusal) = manager.has_room(self.id(), &self.demand_of(&choice.model))
        {
            tracing::warn!("session `{}` stays with its engine: {refusal}", self.id());
            let mut engines = self.engines.lock();
            (engines.reason, engines.refused) = (Some(refusal.to_string()), Some((choice, Instant::now())));
            return;
        }
        let lipsync = self.state.lock().running.as_ref().map(|running| running.graph.lipsync.clone());
        let Some(lipsync) = lipsync else { return };
        {
            let mut engines = self.engines.lock();
            (engines.told, engines.refused) = (Some(choice.clone()), None);
        }
        // In this order, so that what stood ready is taken and not loaded again.
        lipsync.set_property("engine", choice.model.as_str());
        lipsync.set_property_from_value("fallback-engine", &choice.fallback.to_value());
    }

    fn heed_news(&self, news: EngineNews, manager: &Manager, lipsync: &gst::Element) {
        let id = self.id();
        match news {
            EngineNews::Taken(model) => {
                tracing::info!("session `{id}` has engine `{model}` from now on");
                let mut engines = self.engines.lock();
                (engines.model, engines.reason, engines.counted) = (Some(model), None, None);
            }
            EngineNews::Refused { model, cause } => {
                tracing::warn!("session `{id}`: engine `{model}` is not taken: {cause}");
                let used = {
                    let mut engines = self.engines.lock();
                    if engines.told.as_ref().is_none_or(|told| told.model != model) {
                        // It was to stand ready beside the one in use.
                        return;
                    }
                    engines.reason = Some(cause);
                    engines.model.clone()
                };
                if let Some(used) = used.filter(|used| *used != model) {
                    lipsync.set_property("engine", used);
                }
            }
            EngineNews::Failed { model, cause, taken } => {
                tracing::error!("session `{id}`: engine `{model}` failed: {cause}; `{taken}` goes on");
                {
                    let mut engines = self.engines.lock();
                    (engines.model, engines.counted) = (Some(taken), None);
                    engines.reason = Some(format!("engine `{model}` failed: {cause}"));
                    engines.fails(&model);
                }
                manager.rollouts().fail(&model, &cause);
            }
        }
    }

    /// Counts frames for the version that made them. `frames` reads those of the graph and those that were late.
    fn count_frames(&self, manager: &Manager, frames: impl Fn() -> (u64, u64)) {
        let (model, counted) = {
            let engines = self.engines.lock();
            (engines.model.clone(), engines.counted)
        };
        let due = counted.is_none_or(|(_, _, since)| since.elapsed() >= COUNT);
        let Some(model) = model.filter(|model| due && manager.rollouts().is_versioned(model)) else { return };
        let (all, late) = frames();
        self.engines.lock().counted = Some((all, late, Instant::now()));
        if let Some((all_before, late_before, _)) = counted {
            manager.rollouts().count(&model, all.saturating_sub(all_before), late.saturating_sub(late_before));
        }
    }
}
