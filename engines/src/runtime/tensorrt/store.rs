//! Engines on disk: which there are, which of them fit what is here, and how a new one appears whole.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::{super::Precision, Platform, Profile};
use crate::{Error, Result};

const RECORD: &str = "engine.json";
/// Largest record that is read, and most folders that are looked into.
const MAX_RECORD: u64 = 1 << 20;
const MAX_FOLDERS: usize = 10_000;

/// Of which network engines are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// What errors call it.
    pub name: String,
    /// What `lipstream engines build` calls what it is part of.
    pub engine: String,
    /// Of its graph and its weights.
    pub digest: String,
}

/// What lies beside an engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    network: Network,
    platform: Platform,
    precision: String,
    profile: Profile,
    /// Bytes of the files that the provider wrote, by their names.
    files: BTreeMap<String, u64>,
    /// How long it took to build.
    seconds: f64,
}

/// An engine that may be taken.
#[derive(Clone, Debug)]
pub struct Program {
    pub profile: Profile,
    pub folder: PathBuf,
    /// What the builder learnt of this card, for all engines.
    pub timing: PathBuf,
}

/// An engine in the cache, whether or not it may be taken here.
#[derive(Clone, Debug)]
pub struct Entry {
    pub engine: String,
    pub network: String,
    pub precision: String,
    pub profile: Profile,
    pub platform: Platform,
    pub folder: PathBuf,
    pub bytes: u64,
    pub seconds: f64,
    digest: String,
    /// Why it may not be taken whatever is here: a file that is gone or has another size.
    pub broken: Option<String>,
}

impl Entry {
    /// Why it may not be taken on `platform`; `None` where it may.
    pub fn stale(&self, platform: &Platform) -> Option<String> {
        let unlike = self.platform.unlike(platform);
        self.broken.clone().or((!unlike.is_empty()).then(|| format!("built for {unlike}")))
    }
}

/// All engines below the folder `root`, by their folders; what is no engine is passed over.
pub fn survey(root: &Path) -> Vec<Entry> {
    let mut folders = vec![root.to_owned()];
    for _ in 0..3 {
        folders = folders.iter().flat_map(|folder| inside(folder)).take(MAX_FOLDERS).collect();
    }
    folders.sort();
    folders.iter().filter_map(|folder| entry(folder)).collect()
}

/// Folders in `folder` that are not hidden: those that are being built are.
fn inside(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let shown = |path: &PathBuf| path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.'));
    entries.filter(|path| path.is_dir() && shown(path)).collect()
}

fn entry(folder: &Path) -> Option<Entry> {
    let path = folder.join(RECORD);
    if fs::metadata(&path).ok()?.len() > MAX_RECORD {
        return None;
    }
    let record: Record = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
    let altered = record.files.iter().find_map(|(name, bytes)| {
        // A name is one of a file in this folder.
        let plain = Path::new(name).components().count() == 1;
        match fs::metadata(folder.join(name)).map(|found| found.len()) {
            Ok(found) if plain && found == *bytes => None,
            Ok(found) => Some(format!("`{name}` has {found} bytes and had {bytes}")),
            Err(_) => Some(format!("`{name}` is gone")),
        }
    });
    Some(Entry {
        engine: record.network.engine,
        network: record.network.name,
        precision: record.precision,
        profile: record.profile,
        platform: record.platform,
        folder: folder.into(),
        bytes: record.files.values().fold(0, |sum, n| sum.saturating_add(*n)),
        seconds: record.seconds,
        digest: record.network.digest,
        broken: altered,
    })
}

/// The engines of one network that may be taken here.
pub struct Store {
    root: PathBuf,
    device: String,
    platform: Platform,
    network: Network,
    precision: Precision,
    programs: RwLock<Vec<Arc<Program>>>,
}

impl Store {
    /// `device` is what errors call it; `precision` is not `auto`.
    pub fn open(root: &Path, device: &str, platform: Platform, network: Network, precision: Precision) -> Self {
        let store = Self {
            root: root.into(),
            device: device.into(),
            platform,
            network,
            precision,
            programs: RwLock::default(),
        };
        let fit = survey(root)
            .into_iter()
            .filter(|entry| store.is_own(entry) && entry.stale(&store.platform).is_none())
            .map(|entry| Arc::new(store.program(entry.profile, entry.folder)));
        // One shape first: it is faster than one of several.
        let mut fit: Vec<_> = fit.collect();
        fit.sort_by_key(|program| !program.profile.is_fixed());
        *store.programs.write() = fit;
        store
    }

    /// One that takes inputs of these shapes.
    pub fn find(&self, shapes: &[Vec<usize>]) -> Option<Arc<Program>> {
        self.programs.read().iter().find(|program| program.profile.covers(shapes)).cloned()
    }

    /// Whether there is one for batches of so many rows.
    pub fn takes(&self, rows: usize) -> bool {
        self.programs.read().iter().any(|program| program.profile.takes(rows))
    }

    pub fn is_empty(&self) -> bool {
        self.programs.read().is_empty()
    }

    /// What is said where there is none for a batch: what there is, and the command that builds it.
    pub fn missing(&self, batch: Option<usize>) -> Error {
        let Self { platform, network, precision, .. } = self;
        let wanted = batch.map_or(String::new(), |rows| format!(" for batch {rows}"));
        let mut cause = format!("{} has no TensorRT engine in {precision}{wanted} for {platform}", network.name);
        let mut known: Vec<String> = self.programs.read().iter().map(|p| p.profile.to_string()).collect();
        known.sort();
        if !known.is_empty() {
            cause += &format!("; there are such of {}", known.join(", "));
        }
        let mut others: Vec<String> = survey(&self.root).into_iter().filter_map(|e| self.other(&e)).collect();
        others.sort();
        others.dedup();
        if !others.is_empty() {
            cause += &format!("; not taken: {}", others.join("; "));
        }
        let batch = batch.map_or(String::new(), |rows| format!(" --batch {rows}"));
        let cure = format!(
            "run `lipstream engines build {} --device {} --precision {precision}{batch}`, or use device=cuda",
            network.engine, self.device
        );
        Error::Device { device: self.device.clone(), cause, cure }
    }

    /// Why an engine of the same network is not one of these.
    fn other(&self, entry: &Entry) -> Option<String> {
        if entry.network != self.network.name {
            return None;
        }
        if let Some(cause) = &entry.broken {
            return Some(format!("one of {} that is broken: {cause}", entry.profile));
        }
        let cause = entry.stale(&self.platform).or_else(|| match self.is_own(entry) {
            true => None,
            false if entry.digest != self.network.digest => Some("built of other weights".into()),
            false => Some(format!("built in {}", entry.precision)),
        });
        cause.map(|cause| format!("one of {} that was {cause}", entry.profile))
    }

    fn is_own(&self, entry: &Entry) -> bool {
        entry.digest == self.network.digest && entry.precision == self.precision.to_string()
    }

    fn program(&self, profile: Profile, folder: PathBuf) -> Program {
        Program { profile, folder, timing: self.root.join(self.platform.slug()).join("timing") }
    }

    /// A folder in which an engine is built.
    pub fn begin(&self, profile: Profile) -> Result<Draft<'_>> {
        let digest = self.network.digest.get(..16).unwrap_or(&self.network.digest);
        let folder = self.root.join(self.platform.slug()).join(format!("{digest}-{}", self.precision));
        let (min, max) = profile.batches().into_inner();
        let batch = if min == max { min.to_string() } else { format!("{min}-{max}") };
        let shapes = crate::digest::sha256(format!("{profile:?}").as_bytes());
        let name = format!("batch-{batch}-{}", &shapes[..8]);
        let built = folder.join(&name);
        let program = self.program(profile, folder.join(format!(".{name}-{}", std::process::id())));
        for folder in [&program.folder, &program.timing] {
            fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
        }
        Ok(Draft { store: self, program, built })
    }
}

/// An engine that is being built; what is not finished is removed.
pub struct Draft<'a> {
    store: &'a Store,
    program: Program,
    built: PathBuf,
}

impl Draft<'_> {
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Puts it in its place, in that of one that was there, once the provider has written it in so many seconds.
    ///
    /// Errors: TensorRT took no part of the network; what the file system says.
    pub fn finish(self, seconds: f64) -> Result<Arc<Program>> {
        let Self { store, program, built } = &self;
        let failed = |path: &Path, error| Error::io(path, error);
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(&program.folder).map_err(|e| failed(&program.folder, e))? {
            let entry = entry.map_err(|e| failed(&program.folder, e))?;
            let bytes = entry.metadata().map_err(|e| failed(&entry.path(), e))?.len();
            files.insert(entry.file_name().to_string_lossy().into_owned(), bytes);
        }
        if !files.keys().any(|name| name.ends_with(".engine")) {
            return Err(Error::Device {
                device: store.device.clone(),
                cause: format!("TensorRT took no part of {}", store.network.name),
                cure: "use device=cuda".into(),
            });
        }
        let record = Record {
            network: store.network.clone(),
            platform: store.platform.clone(),
            precision: store.precision.to_string(),
            profile: program.profile.clone(),
            files,
            seconds,
        };
        let path = program.folder.join(RECORD);
        let text = serde_json::to_vec_pretty(&record).map_err(|e| Error::invalid(e.to_string()))?;
        fs::write(&path, text).map_err(|e| failed(&path, e))?;
        if built.exists() {
            fs::remove_dir_all(built).map_err(|e| failed(built, e))?;
        }
        fs::rename(&program.folder, built).map_err(|e| failed(built, e))?;
        let program = Arc::new(store.program(program.profile.clone(), built.clone()));
        let mut programs = store.programs.write();
        programs.retain(|known| known.folder != program.folder);
        programs.push(program.clone());
        programs.sort_by_key(|program| !program.profile.is_fixed());
        Ok(program)
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        // After it was finished nothing is there.
        let _ = fs::remove_dir_all(&self.program.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::{Dtype, Port, Signature},
        *,
    };

    fn platform() -> Platform {
        Platform {
            card: "NVIDIA H100".into(),
            capability: (9, 0),
            tensorrt: "10.13.3".into(),
            onnxruntime: "1.31.1".into(),
        }
    }

    fn network() -> Network {
        Network { name: "mine/unet.onnx".into(), engine: "mine".into(), digest: "ab".repeat(32) }
    }

    fn open(root: &Path, platform: Platform, network: Network, precision: Precision) -> Store {
        Store::open(root, "tensorrt:1", platform, network, precision)
    }

    fn shapes(rows: usize) -> Vec<Vec<usize>> {
        vec![vec![rows, 3]]
    }

    fn profile(rows: usize, batch: Option<&str>) -> Profile {
        let port = Port {
            name: "x".into(),
            shape: vec![None, Some(3)],
            dtype: Dtype::F32,
            symbols: vec!["batch".into(), String::new()],
        };
        let signature = Signature { inputs: vec![port], outputs: Vec::new() };
        Profile::new(&signature, &shapes(rows), batch.map(|text| text.parse().unwrap()))
    }

    /// As the provider does.
    fn build(store: &Store, profile: Profile) -> Arc<Program> {
        let draft = store.begin(profile).unwrap();
        fs::write(draft.program().folder.join("TensorrtExecutionProvider_x_sm90.engine"), [7; 100]).unwrap();
        draft.finish(2.5).unwrap()
    }

    #[test]
    fn what_was_built_is_found_again_and_nothing_else_is() {
        let root = tempfile::tempdir().unwrap();
        let store = open(root.path(), platform(), network(), Precision::Fp16);
        assert!(store.is_empty() && store.find(&shapes(1)).is_none());
        build(&store, profile(1, None));
        build(&store, profile(2, Some("2..8")));
        for store in [&store, &open(root.path(), platform(), network(), Precision::Fp16)] {
            assert!(store.find(&shapes(1)).unwrap().profile.is_fixed());
            assert!(!store.find(&shapes(5)).unwrap().profile.is_fixed());
            assert!(store.find(&shapes(9)).is_none() && store.takes(8) && !store.takes(9));
        }
        let entries = survey(root.path());
        assert_eq!(entries.len(), 2);
        assert!(entries.iter().all(|e| e.bytes == 100 && e.engine == "mine" && e.stale(&platform()).is_none()));
        // Built again, it is there once.
        build(&store, profile(1, None));
        assert_eq!(survey(root.path()).len(), 2);
    }

    #[test]
    fn engines_of_other_versions_weights_and_precisions_are_told_apart_and_named() {
        let root = tempfile::tempdir().unwrap();
        let older = Platform { tensorrt: "10.9.0".into(), ..platform() };
        build(&open(root.path(), older, network(), Precision::Fp16), profile(1, None));
        build(&open(root.path(), platform(), network(), Precision::Fp32), profile(1, None));
        let retrained = Network { digest: "cd".repeat(32), ..network() };
        build(&open(root.path(), platform(), retrained, Precision::Fp16), profile(2, None));
        let store = open(root.path(), platform(), network(), Precision::Fp16);
        assert!(store.is_empty());
        let error = store.missing(Some(4)).to_string();
        for part in [
            "device `tensorrt:1`: mine/unet.onnx has no TensorRT engine in fp16 for batch 4 for NVIDIA H100 (sm_90), TensorRT 10.13.3",
            "one of batch 1 that was built for TensorRT 10.9.0",
            "one of batch 1 that was built in fp32",
            "one of batch 2 that was built of other weights",
            "run `lipstream engines build mine --device tensorrt:1 --precision fp16 --batch 4`",
        ] {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
        build(&store, profile(1, None));
        assert!(store.missing(Some(4)).to_string().contains("there are such of batch 1; not taken"));
    }

    #[test]
    fn a_file_that_was_cut_short_is_not_taken() {
        let root = tempfile::tempdir().unwrap();
        let program = build(&open(root.path(), platform(), network(), Precision::Fp16), profile(1, None));
        fs::write(program.folder.join("TensorrtExecutionProvider_x_sm90.engine"), [7; 50]).unwrap();
        let store = open(root.path(), platform(), network(), Precision::Fp16);
        assert!(store.is_empty());
        let error = store.missing(None).to_string();
        assert!(
            error.contains("is broken: `TensorrtExecutionProvider_x_sm90.engine` has 50 bytes and had 100"),
            "{error}"
        );
    }

    #[test]
    fn what_is_not_finished_leaves_nothing_and_a_network_that_is_refused_says_so() {
        let root = tempfile::tempdir().unwrap();
        let store = open(root.path(), platform(), network(), Precision::Fp16);
        drop(store.begin(profile(1, None)).unwrap());
        let error = store.begin(profile(1, None)).unwrap().finish(1.0).unwrap_err().to_string();
        assert!(error.contains("TensorRT took no part of mine/unet.onnx"), "{error}");
        let network = root.path().join(platform().slug()).join(format!("{}-fp16", "ab".repeat(8)));
        assert_eq!(fs::read_dir(network).unwrap().count(), 0);
        assert!(survey(root.path()).is_empty());
    }

    #[test]
    fn a_record_of_somebody_elses_is_passed_over() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/b/c");
        fs::create_dir_all(&folder).unwrap();
        for text in ["", "{}", "[1]", "{\"network\": 3}"] {
            fs::write(folder.join(RECORD), text).unwrap();
            assert!(survey(root.path()).is_empty(), "{text}");
        }
        let program = build(&open(root.path(), platform(), network(), Precision::Fp16), profile(1, None));
        let path = program.folder.join(RECORD);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("TensorrtExecutionProvider_x_sm90.engine", "../../../secret")).unwrap();
        assert!(survey(root.path())[0].broken.is_some());
    }
}
