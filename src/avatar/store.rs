//! The avatars of this machine.
//!
//! ```text
//! STORE/NAME/avatar.json           what it is
//!            idle.jpegs idle.index clips, see [`super::clip`]; idle.mattes of one with transparency
//!            bank.safetensors      reference bank of the person
//!            source                the video of the idle clip as it came, for offline renders
//! ```
//!
//! A folder appears whole, by a rename. The demo avatar is part of the program; it is prepared into the user's cache on
//! first use.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use lipstream_engines::{bank::ReferenceBank, manifest::Package, runtime};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    clip::{self, Clip},
    consent::Consent,
    name,
    prepare::{Wish, prepare},
};
use crate::{
    background,
    error::{Failure, Result},
    live::Picture,
    media::Notices,
    process,
    render::{DEFAULT_ENGINE, gather},
    tenants::Caller,
};

/// The avatar that is always there.
pub const DEMO: &str = "demo";
const DEMO_VIDEO: &[u8] = include_bytes!("../../demo/avatar.mp4");
/// The name of the first clip of [`DEMO`].
const IDLE: &str = "idle";
const MANIFEST: &str = "avatar.json";
const BANK: &str = "bank.safetensors";
const SOURCE: &str = "source";
/// Start of the names of folders that are being made; no avatar's name starts so.
const UNFINISHED: &str = ".new-";
/// Largest manifest that is read.
const MAX_MANIFEST: u64 = 64 << 10;
const MAX_AVATARS: usize = 256;
const MAX_CLIPS: usize = 32;
/// Bytes that the avatars of a store may take together.
const MAX_BYTES: u64 = 8 << 30;

/// Why a video cannot become an avatar.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Rejection(pub String);

impl From<Failure> for Rejection {
    fn from(failure: Failure) -> Self {
        Self(failure.to_string())
    }
}

/// What the API says about an avatar.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct Summary {
    pub name: String,
    pub width: u32,
    pub height: u32,
    pub fps: f64,
    /// Clips by name, the idle one first, with their length in seconds.
    pub clips: Vec<(String, f64)>,
    /// What the person has agreed to, where it was told.
    pub consent: Option<Consent>,
}

/// A prepared avatar.
#[derive(Debug)]
pub struct Avatar {
    pub name: String,
    /// Size of all clips and rate of the idle one. Frames have the colorimetry that raw video of this size has when
    /// nobody says another.
    pub picture: Picture,
    /// Reference bank of the person for the default engine, for the property `reference-bank`.
    pub bank: Option<PathBuf>,
    pub(super) folder: PathBuf,
    /// The tenant that it belongs to; `None` is the operator.
    pub owner: Option<String>,
    /// The idle one first. It grows when a clip is added, for those who play the avatar too.
    clips: RwLock<Vec<Arc<Clip>>>,
    /// Locked after `clips`.
    consent: RwLock<Option<Consent>>,
}

/// `avatar.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    format: u32,
    /// The idle one first.
    clips: Vec<String>,
    /// Name of the tenant that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tenant: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    consent: Option<Consent>,
}

impl Manifest {
    /// Of the avatar in `folder`, without opening its clips.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(MANIFEST);
        let broken = |cause: String| Failure::input(format!("{}: {cause}; remove the avatar", path.display()));
        if !folder.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            return Err(Failure::input(format!("{}: is not a folder", folder.display())));
        }
        let mut text = String::new();
        clip::plain_file(&path)?.take(MAX_MANIFEST).read_to_string(&mut text).map_err(|e| broken(e.to_string()))?;
        let manifest: Self = serde_json::from_str(&text).map_err(|e| broken(e.to_string()))?;
        if manifest.format != FORMAT || manifest.clips.is_empty() || manifest.clips.len() > MAX_CLIPS {
            return Err(broken("is of another version or has no clips".into()));
        }
        Ok(manifest)
    }
}

const FORMAT: u32 = 2;

impl Avatar {
    fn open(folder: &Path, name: &str) -> Result<Self> {
        let manifest = Manifest::read(folder)?;
        let clips: Vec<_> =
            manifest.clips.iter().map(|clip| Clip::open(folder, clip).map(Arc::new)).collect::<Result<_>>()?;
        let shape = clips[0].shape;
        if clips.iter().any(|c| (c.shape.width, c.shape.height) != (shape.width, shape.height)) {
            let path = folder.join(MANIFEST);
            return Err(Failure::input(format!("{}: has clips of different sizes; remove the avatar", path.display())));
        }
        let bank = Some(folder.join(BANK)).filter(|bank| clip::plain_file(bank).is_ok() && fits(bank, DEFAULT_ENGINE));
        Ok(Self {
            name: name.to_owned(),
            picture: Picture { width: shape.width, height: shape.height, fps: shape.fps },
            bank,
            folder: folder.to_owned(),
            owner: manifest.tenant,
            clips: RwLock::new(clips),
            consent: RwLock::new(manifest.consent),
        })
    }

    /// The clips, the idle one first.
    pub(super) fn clips(&self) -> Vec<Arc<Clip>> {
        self.clips.read().clone()
    }

    pub(super) fn clip(&self, name: &str) -> Option<Arc<Clip>> {
        self.clips.read().iter().find(|clip| clip.name == name).cloned()
    }

    /// The reference bank where it is one for `engine`; without one an engine gathers from the frames as they play.
    pub fn bank_for(&self, engine: &str) -> Option<&Path> {
        self.bank.as_deref().filter(|bank| engine == DEFAULT_ENGINE || fits(bank, engine))
    }

    /// What the person has agreed to, where it was told.
    pub fn consent(&self) -> Option<Consent> {
        self.consent.read().clone()
    }

    /// The video that the idle clip was made of.
    pub fn video(&self) -> PathBuf {
        self.folder.join(SOURCE)
    }

    pub fn summary(&self) -> Summary {
        let clips = self.clips();
        Summary {
            name: self.name.clone(),
            width: self.picture.width,
            height: self.picture.height,
            fps: f64::from(self.picture.fps.0) / f64::from(self.picture.fps.1),
            clips: clips.iter().map(|c| (c.name.clone(), c.seconds())).collect(),
            consent: self.consent(),
        }
    }
}

/// Whether the bank was gathered as `engine` wants it: an engine may have changed since, and an adapted one has its own.
fn fits(bank: &Path, engine: &str) -> bool {
    let check = || {
        let engine = Package::find(engine)?;
        ReferenceBank::load(bank)?.check(&gather::config(&engine))?;
        Ok(engine.gathers() && !engine.is_adapted())
    };
    let refused = |e: &lipstream_engines::Error| {
        tracing::warn!("{}: {e}; it is not used with `{engine}`", bank.display());
    };
    check().inspect_err(refused).unwrap_or(false)
}

/// See the module.
pub struct Store {
    pub(super) folder: PathBuf,
    /// Where the demo avatar is prepared; `None` where there is no cache.
    cache: Option<PathBuf>,
    /// Those that have been opened.
    open: Mutex<BTreeMap<String, Arc<Avatar>>>,
    /// Held while the demo is prepared, so that it is done once. Taken before `open`.
    demo: Mutex<()>,
    next: AtomicU64,
    /// No avatar but the demo is made or used without a consent record.
    requires_consent: bool,
}

impl Store {
    /// Opens the store in `folder`, made where there is none. The demo avatar is always in it.
    pub fn open(folder: &Path) -> Result<Arc<Self>> {
        Self::with_cache(folder, runtime::cache_dir("avatars"), false)
    }

    /// As [`open`](Self::open); every avatar but the demo needs a consent record.
    pub fn open_with_consent(folder: &Path) -> Result<Arc<Self>> {
        Self::with_cache(folder, runtime::cache_dir("avatars"), true)
    }

    pub(super) fn with_cache(folder: &Path, cache: Option<PathBuf>, requires_consent: bool) -> Result<Arc<Self>> {
        let failure = |e: std::io::Error| {
            Failure::output(format!("{}: the folder of avatars cannot be made: {e}", folder.display()))
        };
        fs::create_dir_all(folder).map_err(failure)?;
        let store = Self {
            folder: folder.canonicalize().map_err(failure)?,
            cache,
            open: Mutex::default(),
            demo: Mutex::default(),
            next: AtomicU64::new(0),
            requires_consent,
        };
        store.sweep();
        Ok(Arc::new(store))
    }

    /// Removes what processes that are gone have left unfinished.
    fn sweep(&self) {
        for folder in [Some(&self.folder), self.cache.as_ref()].into_iter().flatten() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let pid = name.to_str().and_then(|n| n.strip_prefix(UNFINISHED)).and_then(|n| n.split('-').next());
                if pid.is_some_and(|pid| !process::runs(pid)) {
                    // A folder that cannot be removed is in nobody's way.
                    let _ = fs::remove_dir_all(entry.path());
                }
            }
        }
    }

    /// All avatars that can be opened. Prepares the demo avatar where it is not yet, which takes seconds.
    pub fn list(&self) -> Vec<Summary> {
        let mut names = vec![DEMO.to_owned()];
        names.extend(self.names());
        names.iter().filter_map(|name| self.get(name)).map(|avatar| avatar.summary()).collect()
    }

    /// All but the demo, which every machine makes for itself.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name != DEMO && name::check("avatar", name).is_ok())
            .collect();
        names.sort();
        names.truncate(MAX_AVATARS);
        names
    }

    /// The avatar; `None` where there is none or it is broken, which the log then says. The demo avatar is prepared on
    /// its first use, which takes seconds: call it from a blocking thread.
    pub fn get(&self, name: &str) -> Option<Arc<Avatar>> {
        if let Some(avatar) = self.open.lock().get(name) {
            return Some(avatar.clone());
        }
        name::check("avatar", name).ok()?;
        let opened = if name == DEMO {
            self.demo()
        } else {
            let folder = self.folder.join(name);
            folder.symlink_metadata().ok()?;
            Avatar::open(&folder, name)
        };
        match opened {
            Ok(avatar) => {
                let mut open = self.open.lock();
                // Removed meanwhile, which is done under this lock.
                avatar.folder.symlink_metadata().ok()?;
                // Whoever was faster opened the same.
                Some(open.entry(name.to_owned()).or_insert(Arc::new(avatar)).clone())
            }
            Err(failure) => {
                tracing::warn!("avatar `{name}` cannot be used: {failure}");
                None
            }
        }
    }

    /// The demo avatar from the cache, prepared where it is not there.
    fn demo(&self) -> Result<Avatar> {
        let cache = self.cache.as_ref();
        let cache = cache.ok_or_else(|| Failure::run("the cache folder cannot be made: set XDG_CACHE_HOME"))?;
        let mut key = gather::Key::default();
        key.add(DEMO_VIDEO);
        key.add(FORMAT.to_string().as_bytes());
        key.add_makers(&Package::find(DEFAULT_ENGINE)?)?;
        let folder = cache.join(format!("{DEMO}-{}", key.name()));
        let _one = self.demo.lock();
        if let Ok(avatar) = Avatar::open(&folder, DEMO) {
            return Ok(avatar);
        }
        tracing::info!("the demo avatar is prepared in {}", folder.display());
        let work = self.workshop(cache)?;
        let video = work.0.join("demo.mp4");
        fs::write(&video, DEMO_VIDEO).map_err(|e| Failure::output(format!("{}: {e}", video.display())))?;
        let made = work.0.join("avatar");
        self.make(&made, (None, None), (IDLE, &video), &mut |_| {}, &Notices::unheard())
            .map_err(|r| Failure::run(r.0))?;
        if folder.exists() && Avatar::open(&folder, DEMO).is_err() {
            // Broken by whatever; what can be made again is made again.
            fs::remove_dir_all(&folder).map_err(|e| Failure::output(format!("{}: {e}", folder.display())))?;
        }
        match fs::rename(&made, &folder) {
            Err(e) if !folder.exists() => Err(Failure::output(format!("{}: {e}", folder.display()))),
            // Another process was faster where the rename failed.
            _ => Avatar::open(&folder, DEMO),
        }
    }

    /// Refuses an upload for avatar `name` that comes with `consent` or with none: where a record is required and there is
    /// none, or where the avatar has another. Opens the avatar; call it from a blocking thread.
    pub fn check_consent(&self, name: &str, consent: Option<&Consent>) -> Result<(), Rejection> {
        let known = self.get(name).and_then(|avatar| avatar.consent());
        match (known, consent) {
            (Some(known), Some(new)) if !known.same(new) => Err(Rejection(format!(
                "avatar `{name}` has a consent record of {}, {}, which stays: send none, or remove the avatar and upload it again",
                known.person, known.date
            ))),
            (None, None) if self.requires_consent => Err(Rejection(format!(
                "avatar `{name}` has no consent record, which avatars.require_consent of this server demands: send \
                 `consent` with who agrees, when, to what, and the hash of their statement"
            ))),
            _ => Ok(()),
        }
    }

    /// Refuses the use of an avatar without a consent record where one is required.
    pub fn check_use(&self, avatar: &Avatar) -> Result<(), Rejection> {
        if !self.requires_consent || avatar.name == DEMO || avatar.consent.read().is_some() {
            return Ok(());
        }
        Err(Rejection(format!(
            "`{}` has no consent record, which avatars.require_consent of this server demands: remove it and upload it again with \
             `consent`",
            avatar.name
        )))
    }

    /// Probes `video`, looks for the face in it, prepares it and stores it as a clip of avatar `name`; the first clip is
    /// the idle one. `consent` becomes the avatar's where it has none. Takes seconds, at low priority; call it from a blocking
    /// thread. `progress` is told 0..1.
    pub fn add(
        &self,
        name: &str,
        (clip, consent): (&str, Option<Consent>),
        video: &Path,
        progress: &mut (dyn FnMut(f32) + Send),
        notices: &Notices,
    ) -> Result<Summary, Rejection> {
        self.add_for(&Caller::Operator, (name, clip, consent), video, progress, notices)
    }

    /// The same for `caller`, whose a new avatar is.
    pub fn add_for(
        &self,
        caller: &Caller,
        (name, clip, consent): (&str, &str, Option<Consent>),
        video: &Path,
        progress: &mut (dyn FnMut(f32) + Send),
        notices: &Notices,
    ) -> Result<Summary, Rejection> {
        name::check("avatar", name).map_err(Rejection)?;
        name::check("clip", clip).map_err(Rejection)?;
        if name == DEMO {
            return Err(Rejection(format!("`{DEMO}` is part of the program: choose another name")));
        }
        if self.is_taken(name, caller) {
            return Err(Rejection(format!("the name `{name}` is taken: choose another one")));
        }
        let owner = caller.tenant();
        let fits = |made: &Path| owner.map_or(Ok(()), |tenant| tenant.check_bytes(size(made, 1)));
        let fits = |made: &Path| fits(made).map_err(|exceeded| Rejection(exceeded.to_string()));
        self.check_consent(name, consent.as_ref())?;
        let avatar = self.get(name);
        match &avatar {
            Some(avatar) if avatar.clip(clip).is_some() => {
                return Err(Rejection(format!(
                    "avatar `{name}` has a clip `{clip}`: choose another name or remove it"
                )));
            }
            Some(avatar) if avatar.clips().len() >= MAX_CLIPS => {
                return Err(Rejection(format!("avatar `{name}` has {MAX_CLIPS} clips, which is the most")));
            }
            None if self.folder.join(name).symlink_metadata().is_ok() => {
                return Err(Rejection(format!("avatar `{name}` is broken: remove it first")));
            }
            None if self.names().len() >= MAX_AVATARS => {
                return Err(Rejection(format!("there are {MAX_AVATARS} avatars, which is the most: remove one")));
            }
            _ => {}
        }
        let used = size(&self.folder, 3);
        if used >= MAX_BYTES {
            return Err(Rejection(format!("the avatars take {} MB, which is the most: remove one", used >> 20)));
        }
        let work = self.workshop(&self.folder)?;
        let made = work.0.join("avatar");
        match avatar {
            None => {
                let tenant = owner.map(|tenant| tenant.name.as_str());
                background::run("avatar", || self.make(&made, (tenant, consent), (clip, video), progress, notices))?;
                fits(&made)?;
                fs::rename(&made, self.folder.join(name))
                    .map_err(|e| Rejection(format!("avatar `{name}` cannot be stored: {e}")))?;
                let stored = self.get(name).ok_or_else(|| Rejection(format!("avatar `{name}` cannot be opened")))?;
                Ok(stored.summary())
            }
            Some(avatar) => {
                let size = Some((avatar.picture.width, avatar.picture.height));
                fs::create_dir(&made).map_err(|e| Rejection(format!("{}: {e}", made.display())))?;
                let wish = Wish { folder: &made, clip, size, bank: None, notices: notices.clone() };
                background::run("avatar", || prepare(video, &wish, progress))?;
                fits(&made)?;
                self.join(&avatar, (clip, consent), &made)?;
                Ok(avatar.summary())
            }
        }
    }

    /// Makes a new avatar in `folder`.
    fn make(
        &self,
        folder: &Path,
        (tenant, consent): (Option<&str>, Option<Consent>),
        (clip, video): (&str, &Path),
        progress: &mut (dyn FnMut(f32) + Send),
        notices: &Notices,
    ) -> Result<(), Rejection> {
        let failure = |e: std::io::Error| Rejection(format!("{}: {e}", folder.display()));
        fs::create_dir(folder).map_err(failure)?;
        let bank = folder.join(BANK);
        let wish = Wish { folder, clip, size: None, bank: Some(&bank), notices: notices.clone() };
        prepare(video, &wish, progress)?;
        fs::copy(video, folder.join(SOURCE)).map_err(failure)?;
        write_manifest(folder, &[clip.to_owned()], tenant, consent).map_err(failure)
    }

    /// Moves a prepared clip to its avatar.
    fn join(&self, avatar: &Avatar, (clip, consent): (&str, Option<Consent>), made: &Path) -> Result<(), Rejection> {
        let failure = |e: std::io::Error| Rejection(format!("clip `{clip}` cannot be stored: {e}"));
        let mut clips = avatar.clips.write();
        if clips.iter().any(|c| c.name == clip) {
            return Err(Rejection(format!("avatar `{}` has got a clip `{clip}` meanwhile", avatar.name)));
        }
        for kind in ["jpegs", "index", "mattes"] {
            let file = format!("{clip}.{kind}");
            // An opaque clip has no mattes.
            if kind != "mattes" || made.join(&file).symlink_metadata().is_ok() {
                fs::rename(made.join(&file), avatar.folder.join(&file)).map_err(failure)?;
            }
        }
        let opened = Clip::open(&avatar.folder, clip)?;
        let names: Vec<_> = clips.iter().map(|c| c.name.clone()).chain([clip.to_owned()]).collect();
        let mut known = avatar.consent.write();
        let consent = known.clone().or(consent);
        write_manifest(&avatar.folder, &names, avatar.owner.as_deref(), consent.clone()).map_err(failure)?;
        *known = consent;
        clips.push(Arc::new(opened));
        Ok(())
    }

    /// A folder of its own under `parent`, gone when it is dropped.
    fn workshop(&self, parent: &Path) -> Result<Workshop> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        // Two stores of one process may share the cache.
        let path = parent.join(format!("{UNFINISHED}{}-{:p}-{number}", std::process::id(), self));
        fs::create_dir(&path).map_err(|e| Failure::output(format!("{}: {e}", path.display())))?;
        Ok(Workshop(path))
    }

    /// Where the files of an avatar are; `None` where there is none, and of the demo.
    pub fn folder_of(&self, name: &str) -> Option<PathBuf> {
        name::check("avatar", name).ok().filter(|()| name != DEMO)?;
        Some(self.folder.join(name)).filter(|folder| folder.symlink_metadata().is_ok_and(|meta| meta.is_dir()))
    }

    /// A folder for an avatar that comes from elsewhere, gone when it is dropped.
    pub fn unfinished(&self) -> Result<Workshop> {
        self.workshop(&self.folder)
    }

    /// Takes the folder `avatar` in `made` as the avatar `name`, in place of one that there is. Sessions that show that one go on.
    pub fn install(&self, name: &str, made: Workshop) -> Result<Arc<Avatar>> {
        name::check("avatar", name).map_err(Failure::input)?;
        let new = made.0.join("avatar");
        Avatar::open(&new, name)?;
        let failure = |e: std::io::Error| Failure::output(format!("avatar `{name}` cannot be stored: {e}"));
        let folder = self.folder.join(name);
        {
            let mut open = self.open.lock();
            if folder.symlink_metadata().is_ok() {
                fs::rename(&folder, made.0.join("old")).map_err(failure)?;
            }
            fs::rename(&new, &folder).map_err(failure)?;
            open.remove(name);
        }
        self.get(name).ok_or_else(|| Failure::input(format!("avatar `{name}` cannot be opened")))
    }

    /// Sessions that show it go on until they end.
    pub fn remove(&self, name: &str) -> Result<(), Rejection> {
        name::check("avatar", name).map_err(Rejection)?;
        if name == DEMO {
            return Err(Rejection(format!("`{DEMO}` is part of the program and stays")));
        }
        let folder = self.folder.join(name);
        if !folder.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            return Err(Rejection(format!("there is no avatar `{name}`")));
        }
        let failure = |e: std::io::Error| Rejection(format!("avatar `{name}` cannot be removed: {e}"));
        // Out of sight in one step; the rest may take its time.
        let work = self.workshop(&self.folder)?;
        let mut open = self.open.lock();
        fs::rename(&folder, work.0.join("avatar")).map_err(failure)?;
        open.remove(name);
        Ok(())
    }
}

/// A folder for unfinished work.
pub struct Workshop(PathBuf);

impl Workshop {
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir_all(&self.0) {
            tracing::warn!("{}: cannot be removed: {e}", self.0.display());
        }
    }
}

/// Replaces the manifest in one step.
fn write_manifest(
    folder: &Path,
    clips: &[String],
    tenant: Option<&str>,
    consent: Option<Consent>,
) -> std::io::Result<()> {
    let manifest = Manifest { format: FORMAT, clips: clips.to_vec(), tenant: tenant.map(str::to_owned), consent };
    let text = serde_json::to_string_pretty(&manifest)?;
    let new = folder.join(format!(".{MANIFEST}"));
    fs::write(&new, text)?;
    fs::rename(new, folder.join(MANIFEST))
}

/// Bytes of the files under `folder`, so many levels deep.
pub(super) fn size(folder: &Path, depth: u32) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let meta = entry.path().symlink_metadata().ok()?;
            Some(match meta.is_dir() {
                true if depth > 0 => size(&entry.path(), depth - 1),
                true => 0,
                false => meta.len(),
            })
        })
        .sum()
}
