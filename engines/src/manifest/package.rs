use std::{
    borrow::Cow,
    path::{Path, PathBuf},
    sync::Arc,
};

use etcetera::BaseStrategy;

use super::{Alternative, AudioSection, Family, Features, FileEntry, Manifest, Versions, hash, repository};
use crate::{
    Error, Result,
    digest::sha256,
    embedded, engine,
    runtime::{self, Device, Model, Options, Origin, Source},
};

/// Networks that hear.
const HEAR: [&str; 3] = ["audio", "ave", "whisper"];

/// Largest manifest (1 MiB) and largest file of an engine (2 GiB) that are read.
const MAX_MANIFEST: u64 = 1 << 20;
const MAX_FILE: u64 = 2 << 30;

/// A manifest and the place of its files. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Package {
    manifest: Arc<Manifest>,
    store: Store,
    exact: bool,
}

#[derive(Clone, Debug)]
enum Store {
    Embedded(&'static embedded::Bundle),
    Folder(PathBuf),
}

impl Package {
    /// An engine by name (embedded, else `$XDG_DATA_HOME/lipstream/engines/<name>`), which may say a version of it, or by the
    /// path of its folder or manifest.
    pub fn find(name: &str) -> Result<Self> {
        let path = Path::new(name);
        if !Self::is_built_in(name) && path.exists() { Self::open(path) } else { Self::named(name) }
    }

    /// An engine that is installed, by its name alone or as `NAME@VERSION` or `NAME@ALIAS`: nothing that is a path is opened.
    pub fn named(name: &str) -> Result<Self> {
        let (engine, wanted) = repository::split(name).map_or((name, None), |(engine, wanted)| (engine, Some(wanted)));
        Versions::of(engine)?.open(wanted)
    }

    /// The engine of that name that is part of the program; `None` where none is.
    pub(super) fn built_in(name: &str) -> Option<Result<Self>> {
        embedded::BUNDLES.iter().find(|bundle| bundle.name == name).map(Self::embedded)
    }

    /// The same, called as a version of the engine `name`.
    ///
    /// Errors: it is another engine's.
    pub(super) fn called(mut self, name: &str, version: &str) -> Result<Self> {
        if self.manifest.name != name {
            return Err(Error::Manifest {
                origin: self.location(),
                key: "name".into(),
                cause: format!("is `{}` in the folder of `{name}`", self.manifest.name),
            });
        }
        Arc::make_mut(&mut self.manifest).name = format!("{name}@{version}");
        Ok(self)
    }

    /// Opens a folder that holds `engine.toml`, or that file itself.
    pub fn open(path: &Path) -> Result<Self> {
        let file = if path.is_dir() { path.join("engine.toml") } else { path.to_owned() };
        let bytes = read(&file, MAX_MANIFEST)?;
        let text = String::from_utf8(bytes).map_err(|_| Error::Manifest {
            origin: file.display().to_string(),
            key: "(file)".into(),
            cause: "is not UTF-8 text".into(),
        })?;
        let manifest = Manifest::parse(&file.display().to_string(), &text)?;
        let folder = file.parent().map(Path::to_owned).unwrap_or_default();
        Ok(Self { manifest: Arc::new(manifest), store: Store::Folder(folder), exact: false })
    }

    fn embedded(bundle: &'static embedded::Bundle) -> Result<Self> {
        let manifest = Manifest::parse(&format!("embedded {}", bundle.name), bundle.manifest)?;
        Ok(Self { manifest: Arc::new(manifest), store: Store::Embedded(bundle), exact: false })
    }

    /// Every engine that can be named: embedded ones first, then the user's own, each before its versions. A broken one is an error
    /// in its place.
    pub fn installed() -> Vec<(String, Result<Self>)> {
        let mut names: Vec<String> = embedded::BUNDLES.iter().map(|b| b.name.to_owned()).collect();
        let mut folders: Vec<PathBuf> = data_folder()
            .and_then(|d| std::fs::read_dir(d).ok())
            .map(|entries| entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.is_dir() && !hidden(p)).collect())
            .unwrap_or_default();
        folders.sort();
        let own = folders.iter().filter_map(|f| Some(f.file_name()?.to_string_lossy().into_owned()));
        names.extend(own.filter(|name| !Self::is_built_in(name)));
        let mut engines = Vec::new();
        for name in names {
            match Versions::of(&name) {
                Ok(versions) => {
                    engines.extend(versions.is_broken().then(|| (name, versions.open(None))));
                    let opened = |version: &str| (versions.called(version), versions.open(Some(version)));
                    engines.extend(versions.versions().map(opened));
                }
                Err(error) => engines.push((name, Err(error))),
            }
        }
        engines
    }

    /// The same engine, run as its published program runs it: windows of whole files, boxes of whole pixels, hard pastes.
    ///
    /// Errors: an engine that no published program runs.
    pub fn exact(self) -> Result<Self> {
        let own = self.manifest.synctalk2d.as_ref().is_some_and(|section| section.features == Features::Compact);
        match self.manifest.family {
            Family::Wav2Lip | Family::LatentSync | Family::MuseTalk => (),
            Family::SyncTalk2d if !own => (),
            _ => {
                return Err(Error::invalid(format!(
                    "engine `{}` cannot be exact: there is no published program that runs it; `exact` is for imported engines \
                     of Wav2Lip, of LatentSync, of MuseTalk and of SyncTalk_2D with its own features",
                    self.manifest.name
                )));
            }
        }
        Ok(Self { exact: true, ..self })
    }

    /// The same engine with another look-ahead, in milliseconds; 0 leaves its own.
    ///
    /// Errors: one that the engine does not have.
    pub fn with_look_ahead(mut self, ms: u32) -> Result<Self> {
        let audio = self.manifest.audio.as_ref();
        if ms == 0 || audio.is_some_and(|audio| audio.look_ahead_ms == ms) {
            return Ok(self);
        }
        let alternative = audio.and_then(|audio| audio.alternatives.iter().find(|a| a.look_ahead_ms == ms)).cloned();
        let Some(alternative) = alternative else {
            return Err(Error::invalid(format!(
                "engine `{}` has no look-ahead of {ms} ms: it has {}; 0 takes the engine's own",
                self.manifest.name,
                listed(self.look_aheads())
            )));
        };
        let manifest = Arc::make_mut(&mut self.manifest);
        manifest.audio = manifest.audio.as_ref().map(|audio| audio.chosen(&alternative));
        let Alternative { motion, hearing, .. } = alternative;
        let mut take = |part: &str, from: &str| {
            if let Some(file) = manifest.files.get(from).cloned() {
                manifest.files.insert(part.into(), file);
            }
        };
        take("motion", &motion);
        if let Some(hearing) = hearing {
            take("audio", &hearing.audio);
            if let (Some(cost), Some(gflop)) = (&mut manifest.cost, hearing.gflop) {
                cost.gflop.front_end = Some(gflop);
            }
        }
        Ok(self)
    }

    /// Every look-ahead that [`with_look_ahead`](Self::with_look_ahead) takes, in milliseconds, the engine's own first; none of
    /// an engine whose look-ahead is fixed by what it was imported from.
    pub fn look_aheads(&self) -> impl Iterator<Item = u32> {
        self.manifest.audio.iter().flat_map(AudioSection::look_aheads)
    }

    /// Those of them that a stream can have which somebody waits for: the others are for files, as sound is heard in windows of seconds
    /// for them.
    pub fn live_look_aheads(&self) -> impl Iterator<Item = u32> {
        self.manifest.audio.iter().flat_map(AudioSection::live_look_aheads)
    }

    /// Whether a stream that somebody waits for can have the look-ahead `ms`; 0 is the engine's own.
    ///
    /// Errors: one that is for files, or that the engine does not have.
    pub fn check_live_look_ahead(&self, ms: u32) -> Result<()> {
        if ms == 0 || self.live_look_aheads().any(|known| known == ms) {
            return Ok(());
        }
        let (name, has) = (&self.manifest.name, listed(self.live_look_aheads()));
        Err(Error::invalid(match self.look_aheads().any(|known| known == ms) {
            true => format!(
                "{ms} ms of engine `{name}` are for files, as it hears seconds of sound at a time for them: for a stream that somebody \
                 waits for it has {has}"
            ),
            false => format!("engine `{name}` has no look-ahead of {ms} ms: it has {has}; 0 takes the engine's own"),
        }))
    }

    /// Whether it is run as its published program runs it.
    pub fn is_exact(&self) -> bool {
        self.exact
    }

    /// Where engines of the user's are: `$XDG_DATA_HOME/lipstream/engines`, or `None` without a home.
    pub fn data_folder() -> Option<PathBuf> {
        data_folder()
    }

    /// Whether an engine of that name is part of the program.
    pub fn is_built_in(name: &str) -> bool {
        embedded::BUNDLES.iter().any(|bundle| bundle.name == name)
    }

    /// Its folder, of one that is not built in.
    pub fn folder(&self) -> Option<&Path> {
        match &self.store {
            Store::Embedded(_) => None,
            Store::Folder(folder) => Some(folder),
        }
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Whether it was made for one person, whose pictures it brings.
    pub fn is_adapted(&self) -> bool {
        self.manifest.files.contains_key("bank")
    }

    /// `embedded`, or the folder.
    pub fn location(&self) -> String {
        match &self.store {
            Store::Embedded(_) => "embedded".into(),
            Store::Folder(folder) => folder.display().to_string(),
        }
    }

    /// The bytes of the file that plays `part`, once their hash has been found to be the manifest's.
    pub fn file(&self, part: &str) -> Result<Cow<'static, [u8]>> {
        let refuse = |cause: String| Error::Manifest { origin: self.location(), key: format!("files.{part}"), cause };
        let entry = self.entry(part)?;
        let bytes: Cow<'static, [u8]> = match &self.store {
            Store::Embedded(bundle) => bundle
                .files
                .iter()
                .find(|(name, _)| *name == entry.path)
                .map(|(_, bytes)| Cow::Borrowed(*bytes))
                .ok_or_else(|| refuse(format!("`{}` is not embedded", entry.path)))?,
            Store::Folder(folder) => {
                let path = folder.join(&entry.path);
                Cow::Owned(read(&path, MAX_FILE).map_err(|error| self.explained(part, &path, error))?)
            }
        };
        let found = sha256(&bytes);
        if found != entry.sha256 {
            return Err(self.altered(&entry.path, &entry.sha256, found));
        }
        Ok(bytes)
    }

    /// The start of the hash of the weights of `part`; nothing where there is no such file.
    pub fn digest(&self, part: &str) -> &str {
        let entry = self.manifest.files.get(part);
        let hash = entry.map_or("", |entry| entry.data.as_ref().map_or(&entry.sha256, |data| &data.sha256));
        hash.get(..16).unwrap_or(hash)
    }

    /// The network of `part`, loaded once a process for equal options: its file and the weights beside it have the hashes that
    /// the manifest states. Where TensorRT is asked for, networks that follow faces, judge or hear run beside it on CUDA.
    pub fn network(&self, part: &str, options: &Options) -> Result<Arc<Model>> {
        let paints = !HEAR.contains(&part) && engine::clip(&self.manifest).is_some();
        let options = &if paints { *options } else { options.beside() };
        let name = self.file_name(part);
        let entry = self.entry(part)?;
        let (digest, source) = self.source(part)?;
        // Further programs are made from the file, so that the same network in another folder is another one.
        let place = if let Source::File(path) = &source { path.display().to_string() } else { String::new() };
        let hash = format!("{} {place}", entry.sha256);
        let origin = Origin { engine: &self.manifest.name, digest: &digest };
        Model::shared(&name, &hash, &origin, source, options)
    }

    /// An error where TensorRT is asked for and nothing was built of the network that paints, before anything is loaded.
    pub fn check_built(&self, options: &Options) -> Result<()> {
        let paints = ["unet", "motion", "generator"].into_iter().find(|part| self.manifest.files.contains_key(*part));
        match (options.device, paints) {
            (Device::TensorRt(_), Some(part)) if options.build.is_none() => {
                let (digest, source) = self.source(part)?;
                let origin = Origin { engine: &self.manifest.name, digest: &digest };
                runtime::check_built(&self.file_name(part), &origin, &source, options)
            }
            _ => Ok(()),
        }
    }

    /// A network, its file and the weights beside it having the hashes that the manifest states, and the hash of both.
    fn source(&self, part: &str) -> Result<(String, Source)> {
        let entry = self.entry(part)?;
        let source = match (&self.store, &entry.data) {
            (Store::Folder(folder), Some(data)) => {
                self.verify(folder, part, (&data.path, &data.sha256), hash::remembered)?;
                self.verify(folder, part, (&entry.path, &entry.sha256), hash::remembered)?;
                Source::File(folder.join(&entry.path))
            }
            _ => self.file(part)?.into(),
        };
        let weights = entry.data.as_ref().map_or("", |data| data.sha256.as_str());
        Ok((sha256(format!("{} {weights}", entry.sha256).as_bytes()), source))
    }

    /// An error unless the file of `part`, and the weights beside it, are what the manifest states. A file that was not written
    /// since it was read once is not read again.
    pub fn check(&self, part: &str) -> Result<()> {
        self.check_by(part, hash::remembered)
    }

    /// As [`check`](Self::check), but all is read, whatever is remembered of it: a disk may have changed what nobody wrote.
    pub fn check_bytes(&self, part: &str) -> Result<()> {
        self.check_by(part, hash::read)
    }

    fn check_by(&self, part: &str, of: fn(&Path) -> std::io::Result<String>) -> Result<()> {
        let entry = self.entry(part)?;
        match &self.store {
            Store::Embedded(_) => self.file(part).map(drop),
            Store::Folder(folder) => {
                self.verify(folder, part, (&entry.path, &entry.sha256), of)?;
                let weights = entry.data.as_ref();
                weights.map_or(Ok(()), |data| self.verify(folder, part, (&data.path, &data.sha256), of))
            }
        }
    }

    fn entry(&self, part: &str) -> Result<&FileEntry> {
        self.manifest.files.get(part).ok_or_else(|| Error::Manifest {
            origin: self.location(),
            key: format!("files.{part}"),
            cause: "is missing".into(),
        })
    }

    /// An error unless a file of the folder has the hash `wanted`, as `of` finds it.
    fn verify(
        &self,
        folder: &Path,
        part: &str,
        (path, wanted): (&str, &str),
        of: fn(&Path) -> std::io::Result<String>,
    ) -> Result<()> {
        let full = folder.join(path);
        let found = |of: fn(&Path) -> std::io::Result<String>| {
            of(&full).map_err(|e| self.explained(part, &full, Error::io(&full, e)))
        };
        if found(of)? == wanted {
            return Ok(());
        }
        // What is remembered lets a file in; nothing but what is read keeps it out.
        let found = found(hash::read)?;
        if found == wanted { Ok(()) } else { Err(self.altered(path, wanted, found)) }
    }

    /// An error about the file of a part: where it is missing, which part that is and how to get it back.
    fn explained(&self, part: &str, path: &Path, error: Error) -> Error {
        let Error::Io { source, .. } = &error else { return error };
        if source.kind() != std::io::ErrorKind::NotFound {
            return error;
        }
        let sources: String = self.manifest.sources.iter().map(|source| format!(" --from {}", source.path)).collect();
        let cure = match sources.is_empty() {
            true => "put it back".to_owned(),
            false => format!("import it again: lipstream import --replace --name {}{sources}", self.manifest.name),
        };
        Error::Manifest {
            origin: format!("engine `{}`", self.manifest.name),
            key: format!("files.{part}"),
            cause: format!("{} is missing; {cure}", path.display()),
        }
    }

    fn altered(&self, path: &str, expected: &str, found: String) -> Error {
        Error::Mismatch {
            model: format!("{path} ({})", self.manifest.name),
            what: "sha256".into(),
            expected: expected.to_owned(),
            found,
        }
    }

    /// Writes a copy of the engine to `folder`, which is there and empty, under another name and with further files: part,
    /// file name and bytes of each. What is written is sealed and needs nothing of the original.
    pub fn copy_to(&self, folder: &Path, name: &str, description: &str, more: &[(&str, &str, &[u8])]) -> Result<()> {
        let text = match &self.store {
            Store::Embedded(bundle) => bundle.manifest.to_owned(),
            Store::Folder(own) => String::from_utf8_lossy(&read(&own.join("engine.toml"), MAX_MANIFEST)?).into_owned(),
        };
        let broken = |cause: String| Error::Manifest { origin: self.location(), key: "(file)".into(), cause };
        let mut table: toml::Table = text.parse().map_err(|e: toml::de::Error| broken(e.message().to_owned()))?;
        table.insert("name".into(), name.into());
        table.insert("description".into(), description.into());
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            std::fs::write(&path, bytes).map_err(|e| Error::io(path, e))
        };
        for (part, entry) in &self.manifest.files {
            write(&entry.path, &self.file(part)?)?;
        }
        let files = table.get_mut("files").and_then(toml::Value::as_table_mut);
        let files = files.ok_or_else(|| broken("has no `files`".into()))?;
        for (part, path, bytes) in more {
            write(path, bytes)?;
            let entry = [("path", (*path).to_owned()), ("sha256", sha256(bytes))];
            let entry: toml::Table = entry.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
            files.insert((*part).to_owned(), entry.into());
        }
        let text = toml::to_string(&table).map_err(|e| broken(e.to_string()))?;
        Manifest::parse("engine.toml", &text)?;
        write("engine.toml", text.as_bytes())
    }

    /// What the file of `part` is called in errors.
    pub fn file_name(&self, part: &str) -> String {
        let path = self.manifest.files.get(part).map_or(part, |f| f.path.as_str());
        format!("{}/{path}", self.manifest.name)
    }

    /// Whether it hears all of a recording before its first frame.
    pub fn hears_whole(&self) -> bool {
        self.exact && matches!(self.manifest.family, Family::LatentSync | Family::MuseTalk)
    }

    /// Whether it draws from pictures of the person that are gathered.
    pub fn gathers(&self) -> bool {
        self.manifest.family == Family::Compact
    }

    /// Bytes of all its files together, as far as they can be read.
    pub fn size(&self) -> u64 {
        self.sizes().sum()
    }

    /// Bytes of the largest of its files, as far as they can be read.
    pub fn largest(&self) -> u64 {
        self.sizes().max().unwrap_or(0)
    }

    /// Bytes of the file of `part` and of the weights beside it, as far as they can be read.
    pub fn size_of(&self, part: &str) -> u64 {
        let Some(file) = self.manifest.files.get(part) else { return 0 };
        match &self.store {
            Store::Embedded(b) => b.files.iter().find(|(n, _)| *n == file.path).map_or(0, |(_, b)| b.len() as u64),
            Store::Folder(folder) => {
                let paths = std::iter::once(&file.path).chain(file.data.as_ref().map(|data| &data.path));
                paths.map(|path| std::fs::metadata(folder.join(path)).map_or(0, |m| m.len())).sum()
            }
        }
    }

    fn sizes(&self) -> impl Iterator<Item = u64> {
        self.manifest.files.keys().map(|part| self.size_of(part))
    }
}

/// Look-aheads, as an error names them.
fn listed(known: impl Iterator<Item = u32>) -> String {
    let known: Vec<String> = known.map(|ms| ms.to_string()).collect();
    match known.as_slice() {
        [] => "its own only".into(),
        [one] => format!("{one} ms"),
        [first @ .., last] => format!("{} and {last} ms", first.join(", ")),
    }
}

/// Folders in the making have names that begin with a dot.
fn hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

pub(super) fn data_folder() -> Option<PathBuf> {
    Some(etcetera::choose_base_strategy().ok()?.data_dir().join("lipstream/engines"))
}

pub(super) fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let meta = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
    if !meta.is_file() || meta.len() > limit {
        return Err(Error::invalid(format!("{}: not a file of at most {limit} bytes", path.display())));
    }
    std::fs::read(path).map_err(|e| Error::io(path, e))
}
