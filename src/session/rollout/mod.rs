//! Which version of an engine sessions have: by aliases and a share, back by itself where a version is not healthy.
//!
//! A session of the engine `NAME` has the version `stable`, or `canary` where its number, made of its id, is below the share; as the
//! share grows the sessions that have the canary keep it. The other of the two stands ready in sessions of a version that is not
//! proven, and takes over where it fails. One failure, or frames that come late where those of the other version do not, take
//! a version back: the share becomes 0, or the alias `stable` what it was before.

mod health;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use lipstream_engines::{
    digest::sha256,
    engine::Worker,
    manifest::{
        Aliases, Versions,
        repository::{self, CANARY, STABLE},
    },
};
use parking_lot::Mutex;
use serde::Serialize;
use utoipa::ToSchema;

use self::health::Health;
use super::Refusal;

/// Engines that a session is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub model: String,
    /// What stands ready beside it.
    pub fallback: Option<String>,
}

impl Choice {
    pub fn alone(model: &str) -> Self {
        Self { model: model.to_owned(), fallback: None }
    }
}

/// A version that was taken back.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RolledBack {
    pub version: String,
    pub reason: String,
}

/// An engine and its versions.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = EngineVersions)]
pub struct Report {
    pub name: String,
    /// Versions by alias; `stable` is what the name alone stands for.
    pub aliases: BTreeMap<String, String>,
    /// Percent of the sessions that have the version `canary`.
    pub share: u8,
    /// The version that was taken back last, by itself, and why; null after the next change.
    pub rolled_back: Option<RolledBack>,
    pub versions: Vec<VersionReport>,
}

/// A version of an engine. Counters are of its sessions since it was loaded.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = EngineVersion)]
pub struct VersionReport {
    pub version: String,
    /// What the engine is called where this version is meant.
    pub engine: String,
    pub aliases: Vec<String>,
    pub loaded: bool,
    /// Sessions whose graph runs with it, as far as they are the caller's.
    pub sessions: usize,
    pub frames: u64,
    pub frames_late: u64,
    pub failures: u64,
    /// What is wrong with its files.
    pub error: Option<String>,
}

struct Rollout {
    versions: Versions,
    aliases: Aliases,
    /// The stable version where no alias says: a newer one that comes into the folder is none before somebody asks for it.
    unnamed: Option<String>,
    /// What was stable before, until what is stable now is proven.
    previous: Option<String>,
    rolled_back: Option<RolledBack>,
    rollbacks: u64,
    /// By version.
    health: HashMap<String, Health>,
    /// By version: what is asked for stays loaded, whether a session has it or not.
    warm: HashMap<String, Arc<Worker>>,
}

impl Rollout {
    fn new(versions: Versions) -> Self {
        let (aliases, unnamed) = (versions.aliases().clone(), versions.unnamed().map(str::to_owned));
        Self {
            versions,
            aliases,
            unnamed,
            previous: None,
            rolled_back: None,
            rollbacks: 0,
            health: HashMap::new(),
            warm: HashMap::new(),
        }
    }

    /// The version that the name alone stands for.
    fn stable(&self) -> Option<String> {
        let named = self.aliases.get(STABLE).map(str::to_owned);
        named.or_else(|| self.unnamed.clone())
    }

    /// The canary, where it is another version than the stable one.
    fn canary(&self) -> Option<&str> {
        self.aliases.get(CANARY).filter(|canary| Some(*canary) != self.stable().as_deref())
    }

    fn health(&self, version: &str) -> Health {
        self.health.get(version).copied().unwrap_or_default()
    }

    /// What sessions with this number have.
    fn choose(&self, number: u8) -> Option<Choice> {
        let stable = self.stable()?;
        let canary = self.canary().filter(|_| number < self.aliases.share);
        let (version, beside) = match canary {
            Some(canary) => (canary.to_owned(), Some(stable)),
            None => (stable, self.previous.clone()),
        };
        let fallback = beside.filter(|_| !self.health(&version).is_proven());
        Some(Choice { model: self.versions.called(&version), fallback: fallback.map(|v| self.versions.called(&v)) })
    }

    /// The version that is called so.
    fn version(&self, model: &str) -> Option<String> {
        self.versions.versions().find(|version| self.versions.called(version) == model).map(str::to_owned)
    }

    /// Takes a version back; whether there was anything to be taken back.
    fn roll_back(&mut self, version: &str, reason: String) -> bool {
        if self.canary() == Some(version) && self.aliases.share > 0 {
            self.aliases.share = 0;
        } else if self.stable().as_deref() == Some(version)
            && let Some(previous) = self.previous.take()
        {
            self.aliases.aliases.insert(STABLE.into(), previous);
        } else {
            return false;
        }
        self.warm.remove(version);
        self.rollbacks += 1;
        self.rolled_back = Some(RolledBack { version: version.to_owned(), reason });
        true
    }
}

/// The number of a session, 0 to 99: the same for as long as it has its id, and another one for each engine.
fn number(engine: &str, session: &str) -> u8 {
    let digest = sha256(format!("{engine}\n{session}").as_bytes());
    let head = u32::from_str_radix(digest.get(..8).unwrap_or_default(), 16).unwrap_or(0);
    (head % 100) as u8
}

/// See the module.
#[derive(Default)]
pub struct Rollouts {
    /// By the name of the engine, as far as it was asked for.
    known: Mutex<HashMap<String, Rollout>>,
    /// Held while one is changed.
    changing: Mutex<()>,
}

impl Rollouts {
    /// Does something with an engine that is installed; `None` where it is not.
    fn with<T>(&self, name: &str, act: impl FnOnce(&mut Rollout) -> T) -> Option<T> {
        let mut known = self.known.lock();
        if !known.contains_key(name) {
            let versions = Versions::of(name).ok()?;
            known.insert(name.to_owned(), Rollout::new(versions));
        }
        known.get_mut(name).map(act)
    }

    /// What the session `id` has that asks for `engine`.
    pub fn choose(&self, engine: &str, id: &str) -> Choice {
        let chosen = match repository::split(engine) {
            None => self.with(engine, |rollout| {
                rollout.versions.is_versioned().then(|| rollout.choose(number(engine, id))).flatten()
            }),
            Some((name, wanted)) => self.with(name, |rollout| {
                let version = rollout.aliases.get(wanted).unwrap_or(wanted);
                Some(Choice::alone(&rollout.versions.called(version)))
            }),
        };
        chosen.flatten().unwrap_or_else(|| Choice::alone(engine))
    }

    /// What the name of an engine alone stands for.
    pub fn stable(&self, engine: &str) -> String {
        let called = |rollout: &mut Rollout| {
            let stable = rollout.versions.is_versioned().then(|| rollout.stable()).flatten();
            stable.map(|version| rollout.versions.called(&version))
        };
        match repository::split(engine) {
            None => self.with(engine, called).flatten().unwrap_or_else(|| engine.to_owned()),
            Some(_) => self.choose(engine, "").model,
        }
    }

    /// Takes what a session has counted with an engine; the reason where its version is taken back for it.
    pub fn count(&self, model: &str, frames: u64, late: u64) -> Option<String> {
        self.judge(model, |health| health.count(frames, late), None)
    }

    /// An engine has failed in a session; the reason where its version is taken back for it.
    pub fn fail(&self, model: &str, cause: &str) -> Option<String> {
        self.judge(model, |health| health.failures += 1, Some(cause))
    }

    fn judge(&self, model: &str, count: impl FnOnce(&mut Health), failed: Option<&str>) -> Option<String> {
        let name = repository::split(model).map_or(model, |(name, _)| name);
        let judged = self.with(name, |rollout| {
            let version = rollout.versions.is_versioned().then(|| rollout.version(model)).flatten()?;
            count(rollout.health.entry(version.clone()).or_default());
            let (own, stable) = (rollout.health(&version), rollout.stable());
            let other = if stable.as_ref() == Some(&version) { rollout.previous.clone() } else { stable.clone() };
            let other = other.map(|other| rollout.health(&other)).unwrap_or_default();
            if stable.as_ref() == Some(&version) && own.is_proven() {
                rollout.previous = None;
            }
            let reason = failed.map(|cause| format!("it failed: {cause}")).or_else(|| own.verdict(&other))?;
            rollout.roll_back(&version, reason.clone()).then(|| (version, reason, rollout.aliases.clone()))
        });
        let (version, reason, aliases) = judged.flatten()?;
        tracing::error!("version {version} of engine `{name}` is taken back: {reason}");
        keep(name, &aliases);
        Some(reason)
    }

    /// Gives an engine other aliases and another share. `prepare` loads an engine that is called so, and keeps it from being unloaded.
    ///
    /// Errors: aliases that are wrong, a version that cannot be loaded.
    pub fn change(
        &self,
        name: &str,
        aliases: Aliases,
        prepare: impl Fn(&str) -> Result<Arc<Worker>, Refusal>,
    ) -> Result<(), Refusal> {
        let _changing = self.changing.lock();
        let versions = Versions::of(name).map_err(|error| refused(name, &error))?;
        if !versions.is_versioned() {
            return Err(Refusal::Invalid(format!(
                "engine `{name}` has one version: further ones are folders in that of the engine, `lipstream engines` shows where"
            )));
        }
        versions.check(&aliases).map_err(Refusal::Invalid)?;
        let mut next = Rollout { aliases, ..Rollout::new(versions) };
        let before = self.with(name, |rollout| (rollout.stable(), rollout.previous.clone(), rollout.rollbacks));
        let (was, previous, rollbacks) = before.unwrap_or_default();
        let stable = next.stable();
        // Whoever asks again for what was taken back means it.
        let health = self.with(name, |rollout| {
            if let Some(RolledBack { version, .. }) = &rollout.rolled_back {
                rollout.health.remove(version);
            }
            rollout.health.clone()
        });
        next.health = health.unwrap_or_default();
        if stable != was
            && let Some(stable) = &stable
        {
            next.warm.insert(stable.clone(), prepare(&next.versions.called(stable))?);
        }
        if let Some(canary) = next.canary().filter(|_| next.aliases.share > 0).map(str::to_owned) {
            let loaded = prepare(&next.versions.called(&canary))?;
            next.warm.insert(canary, loaded);
        }
        let proven = stable.as_ref().is_some_and(|stable| next.health(stable).is_proven());
        let before = if stable == was { previous } else { was };
        let sound = |version: &String| next.health(version).failures == 0 && next.versions.open(Some(version)).is_ok();
        next.previous = before.filter(|version| !proven && Some(version) != stable.as_ref() && sound(version));
        next.rollbacks = rollbacks;
        keep(name, &next.aliases);
        tracing::info!("engine `{name}`: {:?}, share {} %", next.aliases.aliases, next.aliases.share);
        self.known.lock().insert(name.to_owned(), next);
        Ok(())
    }

    /// What an engine has, where `running` are the engines of the sessions that the caller sees.
    pub fn report(&self, name: &str, running: &[String]) -> Result<Report, Refusal> {
        // What lies in its folder may have changed.
        let found = Versions::of(name).map_err(|error| refused(name, &error))?;
        let workers = Worker::all();
        let report = self.with(name, |rollout| {
            rollout.versions = found;
            let of = |version: &str| {
                let (engine, health) = (rollout.versions.called(version), rollout.health(version));
                let named = rollout.aliases.aliases.iter().filter(|(_, v)| *v == version);
                VersionReport {
                    version: version.to_owned(),
                    aliases: named.map(|(alias, _)| alias.clone()).collect(),
                    loaded: workers.iter().any(|worker| worker.engine().spec().name == engine),
                    sessions: running.iter().filter(|model| **model == engine).count(),
                    frames: health.total_frames,
                    frames_late: health.total_late,
                    failures: health.failures,
                    error: rollout.versions.open(Some(version)).err().map(|error| error.to_string()),
                    engine,
                }
            };
            Report {
                name: name.to_owned(),
                aliases: rollout.aliases.aliases.clone(),
                share: rollout.aliases.share,
                rolled_back: rollout.rolled_back.clone(),
                versions: rollout.versions.versions().map(of).collect(),
            }
        });
        report.ok_or_else(|| unknown(name))
    }

    /// Whether an engine, or the one whose version it is, has more than one.
    pub fn is_versioned(&self, model: &str) -> bool {
        let name = repository::split(model).map_or(model, |(name, _)| name);
        self.with(name, |rollout| rollout.versions.is_versioned()).unwrap_or(false)
    }

    /// Engines with versions: name, percent of the canary, how often one was taken back by itself.
    pub fn summary(&self) -> Vec<(String, u8, u64)> {
        let known = self.known.lock();
        let versioned = known.iter().filter(|(_, rollout)| rollout.versions.is_versioned());
        let mut all: Vec<_> =
            versioned.map(|(name, rollout)| (name.clone(), rollout.aliases.share, rollout.rollbacks)).collect();
        all.sort();
        all
    }
}

/// What is wrong with the folder of an engine; nothing where there is none.
fn refused(name: &str, error: &lipstream_engines::Error) -> Refusal {
    match error {
        lipstream_engines::Error::Invalid(_) => unknown(name),
        error => Refusal::Invalid(error.to_string()),
    }
}

fn unknown(name: &str) -> Refusal {
    Refusal::UnknownEngine(name.to_owned())
}

/// Keeps aliases for later starts. A folder that cannot be written costs them no more than that.
fn keep(name: &str, aliases: &Aliases) {
    if let Err(error) = repository::write(name, aliases) {
        tracing::warn!("the aliases of engine `{name}` hold until the server ends: {error}");
    }
}
