//! From published files to an engine's folder.

use std::{
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
    rc::Rc,
};

use serde::Serialize;

use super::{
    check::Record,
    config, latent,
    onnx::{Graph, Precision},
    recognise::{Kind, recognise},
    synctalk2d,
    wav2lip::{self, MEL},
};
use crate::{
    Error, Result,
    digest::{Hashing, sha256, sha256_of},
    manifest::{Family, Features, Manifest, Package},
    runtime::{Device, Model, Options, Port},
    tensor::Weights,
};

/// Folders in the making begin with this, the number of the process and the name follow.
const PARTIAL: &str = ".import-";
/// Batches that a network of ours takes.
pub(super) const BATCH_SIZES: [usize; 4] = [1, 2, 4, 8];
/// Side of the crops of an engine whose pictures are its own; nothing is cut by it.
const CROP: usize = 256;

/// What is to be imported.
pub struct Request<'a> {
    /// As the files tell, where it is left out.
    pub family: Option<Family>,
    /// Files, or folders as diffusers and transformers publish them.
    pub files: &'a [PathBuf],
    /// Name of the engine; the first file's, where it is left out.
    pub name: Option<&'a str>,
    pub precision: Precision,
    /// What computes the audio features of a SyncTalk_2D network.
    pub features: Option<Features>,
    /// Of the weights, as the user states it.
    pub licence: Option<&'a str>,
    /// Whether an engine of that name is replaced.
    pub replace: bool,
}

/// What came of an import.
#[derive(Debug)]
pub struct Imported {
    pub name: String,
    pub family: Family,
    pub folder: PathBuf,
    /// What the project says of its weights' use, where the user stated nothing.
    pub advice: Option<&'static str>,
}

/// Reads the files of `request` and writes an engine into a folder of its name below `engines`. `progress` is told what is
/// done and which part of the whole that is, and may end the import by an error. Nothing is left behind by one that ends
/// early: the folder takes its name when it is complete, and what a killed one left goes with the next import.
pub fn import(
    request: &Request,
    engines: &Path,
    progress: &mut dyn FnMut(&str, f64) -> Result<()>,
) -> Result<Imported> {
    progress("reading", 0.0)?;
    let files = request.files.iter().map(|path| config::weights(path)).collect::<Result<Vec<_>>>()?;
    let parts = parts(request, &files)?;
    let family = parts.family;
    let name = match request.name {
        Some(name) => name.to_owned(),
        None => suggested(request.files),
    };
    check_name(&name)?;
    let target = engines.join(&name);
    if target.exists() && !request.replace {
        return Err(Error::invalid(format!(
            "engine `{name}` is there already ({}); remove it by `lipstream engines remove {name}`, or give another --name",
            target.display()
        )));
    }
    fs::create_dir_all(engines).map_err(|e| Error::io(engines, e))?;
    sweep(engines);
    let partial = Partial::new(engines.join(format!("{PARTIAL}{}-{name}", std::process::id())))?;
    let folder = &partial.0;
    let mut written = Vec::new();
    let mut gflop = 0.0;
    let count = parts.networks.len() as f64;
    for (i, network) in parts.networks.iter().enumerate() {
        progress(network.part, 0.1 + 0.5 * i as f64 / count)?;
        gflop += network.write(folder, request.precision, &mut written)?;
    }
    progress("hashing the sources", 0.6)?;
    let sources = files.iter().map(|path| source(path)).collect::<Result<Vec<_>>>()?;
    let manifest = ManifestText::new(&parts, &name, request, gflop, &written, sources);
    let text = toml::to_string(&manifest).map_err(|e| Error::invalid(e.to_string()))?;
    Manifest::parse("engine.toml", &text)?;
    write(&folder.join("engine.toml"), text.as_bytes())?;
    progress("trying it", 0.7)?;
    // Loaded as it will be, and run once on the CPU: a network that does not work must not be installed.
    let package = Package::open(folder)?;
    let options = Options { device: Device::Cpu, ..Options::default() };
    let record = Record::make(&package, &options)?;
    progress("trying it", 0.95)?;
    write(&folder.join(super::check::RECORD), &record)?;
    progress("done", 1.0)?;
    partial.become_engine(&target, request.replace)?;
    let advice = request.licence.is_none().then_some(parts.terms).flatten();
    Ok(Imported { name, family, folder: target, advice })
}

/// One network of an engine.
pub(super) struct Network {
    pub part: &'static str,
    pub from: From,
    /// How often a frame asks it.
    pub runs: f32,
}

pub(super) enum From {
    Weights(Rc<Weights>, Builder),
    /// A graph that is taken as it is.
    Graph(PathBuf),
}

pub(super) type Builder = Box<dyn Fn(&mut Graph, &Weights) -> Result<()>>;

/// A file of the engine's folder: its part, its name and hash, and those of the weights beside it.
struct Written {
    part: &'static str,
    path: String,
    sha256: String,
    data: Option<(String, String)>,
}

impl Network {
    /// Writes it into `folder`; its cost for a frame in GFLOP.
    fn write(&self, folder: &Path, precision: Precision, written: &mut Vec<Written>) -> Result<f32> {
        let path = format!("{}.onnx", self.part);
        let full = folder.join(&path);
        match &self.from {
            From::Graph(source) => {
                fs::copy(source, &full).map_err(|e| Error::io(source, e))?;
                let beside = source.with_extension("onnx.data");
                if beside.exists() {
                    return Err(Error::invalid(format!(
                        "{}: weights in a file beside an ONNX graph are not taken; save it with its weights inside",
                        source.display()
                    )));
                }
                let sha256 = File::open(&full).and_then(sha256_of).map_err(|e| Error::io(&full, e))?;
                written.push(Written { part: self.part, path, sha256, data: None });
                Ok(0.0)
            }
            From::Weights(weights, build) => {
                let data = format!("{path}.data");
                let beside = folder.join(&data);
                let file = File::create(&beside).map_err(|e| Error::io(&beside, e))?;
                let mut sink = Hashing::new(BufWriter::new(file));
                let mut graph = Graph::with_data(self.part, precision, &data, &mut sink);
                build(&mut graph, weights)?;
                let gflop = graph.gflop();
                let bytes = graph.finish();
                let data_hash = sink.finish().map_err(|e| Error::io(&beside, e))?;
                write(&full, &bytes)?;
                written.push(Written { part: self.part, path, sha256: sha256(&bytes), data: Some((data, data_hash)) });
                Ok(gflop * self.runs)
            }
        }
    }
}

/// The networks of an engine and what its manifest says of them.
pub(super) struct Parts {
    pub family: Family,
    pub networks: Vec<Network>,
    pub section: Section,
    pub description: String,
    /// What its project says of the use of its weights.
    pub terms: Option<&'static str>,
}

pub(super) enum Section {
    Wav2Lip {
        side: usize,
        ports: Option<[String; 3]>,
        batch_sizes: Vec<usize>,
    },
    SyncTalk2d {
        side: usize,
        features: Features,
    },
    /// Tables of the manifest by their names.
    Tables(Vec<(&'static str, toml::Table)>),
}

/// Opens the files and finds what each is.
fn parts(request: &Request, files: &[PathBuf]) -> Result<Parts> {
    let mut found: Vec<latent::Found> = Vec::new();
    for path in files {
        let (kind, weights) = recognise(path)?;
        if let Some((.., before, _)) = found.iter().map(|(k, p, _)| (k, *p, ())).find(|(k, ..)| **k == kind) {
            return Err(Error::invalid(format!(
                "{} and {} are both {}; one is wanted",
                before.display(),
                path.display(),
                kind.words()
            )));
        }
        found.push((kind, path, weights));
    }
    let mut take = |wanted: Kind| found.iter().position(|(kind, ..)| *kind == wanted).map(|at| found.swap_remove(at));
    let parts = if let Some((_, path, weights)) = take(Kind::Wav2Lip) {
        let weights = opened(path, weights)?;
        let side = wav2lip::side(&weights)?;
        let build: Builder = Box::new(wav2lip::generator);
        Parts {
            family: Family::Wav2Lip,
            networks: vec![Network { part: "generator", from: From::Weights(weights.into(), build), runs: 1.0 }],
            section: Section::Wav2Lip { side, ports: None, batch_sizes: BATCH_SIZES.to_vec() },
            description: format!("Wav2Lip of {side} pixels"),
            terms: Some(
                "the authors of Wav2Lip allow research and personal use of their weights, and no commercial use",
            ),
        }
    } else if let Some((_, path, _)) = take(Kind::Wav2LipGraph) {
        let (side, ports, fixed) = graph_of_wav2lip(path)?;
        Parts {
            family: Family::Wav2Lip,
            networks: vec![Network { part: "generator", from: From::Graph(path.clone()), runs: 1.0 }],
            section: Section::Wav2Lip {
                side,
                ports: Some(ports),
                batch_sizes: if fixed { vec![1] } else { BATCH_SIZES.to_vec() },
            },
            description: format!("Wav2Lip of {side} pixels, an ONNX graph as it was published"),
            terms: Some(
                "the authors of Wav2Lip allow research and personal use of their weights, and no commercial use",
            ),
        }
    } else if let Some((_, path, weights)) = take(Kind::SyncTalk2d) {
        let weights = opened(path, weights)?;
        let encoder = take(Kind::Ave);
        let features = match (request.features, &encoder) {
            (Some(features), _) => features,
            (None, Some(_)) => Features::Ave,
            (None, None) => {
                return Err(Error::invalid(format!(
                    "{}: whether its features are of ave, hubert, wenet or compact cannot be told from the weights; say --features",
                    path.display()
                )));
            }
        };
        let side = synctalk2d::side(&weights);
        let channels = synctalk2d::channels(&weights)?;
        if (features == Features::Compact)
            != (channels == 16 && features != Features::Hubert && features != Features::Wenet)
        {
            return Err(Error::invalid(format!(
                "{}: takes audio of {channels} channels, and the features {} have {}",
                path.display(),
                features.name(),
                if features == Features::Compact { 16 } else { 32 }
            )));
        }
        let build: Builder = Box::new(move |graph, weights| synctalk2d::unet(graph, weights, features));
        let mut networks = vec![Network { part: "unet", from: From::Weights(weights.into(), build), runs: 1.0 }];
        match (features, encoder) {
            (Features::Ave, Some((_, path, weights))) => {
                let weights = opened(path, weights)?;
                let from = From::Weights(weights.into(), Box::new(synctalk2d::ave));
                networks.push(Network { part: "ave", from, runs: 1.0 });
            }
            (Features::Ave, None) => {
                return Err(Error::invalid(
                    "the features ave need the audio-visual encoder: add --from audio_visual_encoder.pth".to_owned(),
                ));
            }
            (_, Some((_, path, _))) => {
                return Err(Error::invalid(format!(
                    "{}: is of the features ave, not {}",
                    path.display(),
                    features.name()
                )));
            }
            (_, None) => (),
        }
        Parts {
            family: Family::SyncTalk2d,
            networks,
            section: Section::SyncTalk2d { side, features },
            description: format!("SyncTalk_2D of {side} pixels with features of {}; one person's", features.name()),
            terms: None,
        }
    } else if let Some(unet) = take(Kind::LatentSync).or_else(|| take(Kind::MuseTalk)) {
        let [vae, taesd, whisper, config] = [Kind::Vae, Kind::Taesd, Kind::Whisper, Kind::Config].map(&mut take);
        latent::parts(latent::Files { unet, vae, taesd, whisper, config })?
    } else {
        let what = found.first().map_or("no file was given; name them by --from".into(), |(kind, path, _)| {
            format!(
                "{}: is {}, which needs the file of a generator beside it or is not run here",
                path.display(),
                kind.words()
            )
        });
        return Err(Error::invalid(what));
    };
    if let Some((kind, path, _)) = found.first() {
        return Err(Error::invalid(format!(
            "{}: is {}, which an engine of the family `{}` does not take",
            path.display(),
            kind.words(),
            parts.family
        )));
    }
    if request.family.is_some_and(|family| family != parts.family) {
        let (asked, found) = (request.family.map(|f| f.to_string()).unwrap_or_default(), parts.family);
        return Err(Error::invalid(format!("the files are of the family `{found}`, not `{asked}`")));
    }
    if request.features.is_some() && parts.family != Family::SyncTalk2d {
        return Err(Error::invalid(format!("the family `{}` has no choice of --features", parts.family)));
    }
    Ok(parts)
}

fn opened(path: &Path, weights: Option<Weights>) -> Result<Weights> {
    weights.ok_or_else(|| Error::invalid(format!("{}: holds no weights", path.display())))
}

/// Side, ports and whether the batch is fixed at one, of an ONNX graph of Wav2Lip.
fn graph_of_wav2lip(path: &Path) -> Result<(usize, [String; 3], bool)> {
    let model = Model::open(path, &Options { device: Device::Cpu, ..Options::default() })?;
    let signature = model.signature();
    let of = |shape: [Option<usize>; 3], ports: &[Port]| {
        let fits = |port: &&Port| {
            port.shape.len() == 4 && shape.iter().zip(&port.shape[1..]).all(|(want, is)| want.is_none() || want == is)
        };
        ports.iter().find(fits).cloned()
    };
    let described = || {
        let ports = signature.inputs.iter().chain(&signature.outputs);
        ports.map(|p| format!("{} {}", p.name, p.describe())).collect::<Vec<_>>().join(", ")
    };
    let refuse = || Error::Mismatch {
        model: path.display().to_string(),
        what: "ports".into(),
        expected: "[batch, 1, 80, 16], [batch, 6, side, side] and [batch, 3, side, side]".into(),
        found: described(),
    };
    let audio = of([Some(1), Some(MEL[0]), Some(MEL[1])], &signature.inputs).ok_or_else(refuse)?;
    let face = of([Some(6), None, None], &signature.inputs).ok_or_else(refuse)?;
    let side = face.shape[2]
        .filter(|side| face.shape[3] == Some(*side) && (*side == 96 || *side == 256))
        .ok_or_else(refuse)?;
    let picture = of([Some(3), Some(side), Some(side)], &signature.outputs).ok_or_else(refuse)?;
    if signature.inputs.len() != 2 {
        return Err(refuse());
    }
    let fixed = [&audio, &face].iter().any(|port| port.shape[0].is_some());
    Ok((side, [audio.name, face.name, picture.name], fixed))
}

/// The manifest as it is written; keys in the order of their importance.
#[derive(Serialize)]
struct ManifestText {
    name: String,
    family: String,
    version: String,
    licence: String,
    description: String,
    gflop: f32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sources: Vec<FileText>,
    files: std::collections::BTreeMap<&'static str, PartText>,
    geometry: toml::Table,
    #[serde(skip_serializing_if = "Option::is_none")]
    wav2lip: Option<toml::Table>,
    #[serde(skip_serializing_if = "Option::is_none")]
    synctalk2d: Option<toml::Table>,
    /// Those of other families.
    #[serde(flatten)]
    tables: toml::Table,
}

#[derive(Serialize)]
struct FileText {
    path: String,
    sha256: String,
}

#[derive(Serialize)]
struct PartText {
    path: String,
    sha256: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<FileText>,
}

impl ManifestText {
    fn new(
        parts: &Parts,
        name: &str,
        request: &Request,
        gflop: f32,
        written: &[Written],
        sources: Vec<FileText>,
    ) -> Self {
        let part = |w: &Written| PartText {
            path: w.path.clone(),
            sha256: w.sha256.clone(),
            data: w.data.as_ref().map(|(path, sha256)| FileText { path: path.clone(), sha256: sha256.clone() }),
        };
        let sizes = |sizes: &[usize]| toml::Value::Array(sizes.iter().map(|n| (*n as i64).into()).collect());
        let (mut wav2lip, mut synctalk2d, mut tables) = (None, None, toml::Table::new());
        match &parts.section {
            Section::Wav2Lip { side, ports, batch_sizes } => {
                let mut table = toml::Table::new();
                table.insert("side".into(), (*side as i64).into());
                table.insert("batch_sizes".into(), sizes(batch_sizes));
                if let Some([audio, face, picture]) = ports {
                    let ports = [("audio", audio), ("face", face), ("picture", picture)];
                    let ports: toml::Table = ports.into_iter().map(|(k, v)| (k.to_owned(), v.clone().into())).collect();
                    table.insert("ports".into(), ports.into());
                }
                wav2lip = Some(table);
            }
            Section::SyncTalk2d { side, features } => {
                let mut table = toml::Table::new();
                table.insert("side".into(), (*side as i64).into());
                table.insert("features".into(), features.name().into());
                table.insert("batch_sizes".into(), sizes(&BATCH_SIZES));
                synctalk2d = Some(table);
            }
            Section::Tables(all) => {
                tables.extend(all.iter().map(|(name, table)| ((*name).to_owned(), table.clone().into())));
            }
        }
        Self {
            name: name.into(),
            family: parts.family.to_string(),
            version: "1".into(),
            licence: request.licence.unwrap_or("unknown: as the publisher of the files says").into(),
            description: parts.description.clone(),
            gflop,
            sources,
            files: written.iter().map(|w| (w.part, part(w))).collect(),
            geometry: geometry(),
            wav2lip,
            synctalk2d,
            tables,
        }
    }
}

/// How a face is brought upright for what the elements ask of every engine: as `compact` does.
fn geometry() -> toml::Table {
    let mut table = toml::Table::new();
    table.insert("crop".into(), (CROP as i64).into());
    let compact = Package::find("compact").ok().map(|package| package.manifest().geometry.alignment.clone());
    let mut alignment = toml::Table::new();
    if let Some(own) = compact {
        let anchors = own.anchors.iter().map(|a| (*a as i64).into()).collect();
        let points = own.points.iter().map(|p| toml::Value::Array(vec![f64::from(p.x).into(), f64::from(p.y).into()]));
        alignment.insert("anchors".into(), toml::Value::Array(anchors));
        alignment.insert("points".into(), toml::Value::Array(points.collect()));
    }
    table.insert("alignment".into(), alignment.into());
    table
}

/// A folder in the making, which goes unless it becomes an engine.
struct Partial(PathBuf);

impl Partial {
    fn new(folder: PathBuf) -> Result<Self> {
        fs::create_dir(&folder).map_err(|e| Error::io(&folder, e))?;
        Ok(Self(folder))
    }

    fn become_engine(self, target: &Path, replace: bool) -> Result<()> {
        if replace && target.exists() {
            // Moved aside and not deleted first: the name is never without an engine for longer than two renames.
            let aside = Self(self.0.with_extension("old"));
            fs::rename(target, &aside.0).map_err(|e| Error::io(target, e))?;
            fs::rename(&self.0, target).map_err(|e| Error::io(target, e))?;
            return Ok(());
        }
        fs::rename(&self.0, target).map_err(|e| Error::io(target, e))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After it has become an engine there is nothing of that name.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes what imports left that were killed: those of processes that are no more.
fn sweep(engines: &Path) {
    let Ok(entries) = fs::read_dir(engines) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(process) = name.strip_prefix(PARTIAL).and_then(|rest| rest.split('-').next()) else { continue };
        let alive = process
            .parse::<u32>()
            .is_ok_and(|pid| pid != std::process::id() && Path::new(&format!("/proc/{pid}")).exists());
        if !alive {
            // It goes next time where it does not go now.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A name from the first file's: `Wav2Lip_GAN.pth` becomes `wav2lip-gan`.
fn suggested(files: &[PathBuf]) -> String {
    let stem =
        files.first().and_then(|path| path.file_stem()).map(|s| s.to_string_lossy().to_lowercase()).unwrap_or_default();
    let plain: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    plain.trim_matches('-').chars().take(64).collect()
}

fn check_name(name: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
        return Err(Error::invalid(format!("the name `{name}` must be 1 to 64 of a-z, 0-9 and -; give one by --name")));
    }
    if Package::is_built_in(name) {
        return Err(Error::invalid(format!("`{name}` is built in; give another --name")));
    }
    Ok(())
}

fn source(path: &Path) -> Result<FileText> {
    let sha256 = File::open(path).and_then(sha256_of).map_err(|e| Error::io(path, e))?;
    let path = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(FileText { path, sha256 })
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).map_err(|e| Error::io(path, e))
}
