//! Looks at a video before it is rendered, for the mouth shapes of the person in it.
//!
//! A few hundred frames spread over the file are tracked and offered to a reference bank, which is kept in the cache
//! under the file's identity. Where several people take turns no bank is made: one would stand for all of them, and the
//! elements gather one for each track as the video plays.

use std::{
    collections::BTreeMap,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use lipstream_engines::{
    bank::{self, BankConfig, ReferenceBank, Refusal},
    digest,
    image::FrameView,
    manifest::Package,
    occlusion::Masks,
    runtime,
    tracker::{Face, Tracker, TrackerConfig},
};

use sha2::{Digest, Sha256};

use super::{LOOKING, Watch, progress::Progress};
use crate::{
    error::{Failure, Kind, Result},
    media::{Media, Notices, Reader, Sequence},
};

/// Frames that are tracked, at most.
const FRAMES: u64 = 400;
/// Stretches that a long file is sampled in: consecutive frames, so that the tracker follows.
const STRETCHES: u64 = 8;
/// Faces of other tracks, as a share of those of the bank's, from which on the video is of more than one person.
const OTHERS: f64 = 0.1;
/// Between two frames that are looked at when a face is sought in the whole file.
const SEARCH_STEP: u64 = 5;
/// Time between tracked frames, as far as the tracker is concerned; it sees a jump in the file as one step.
const STEP: Duration = Duration::from_millis(40);

/// Faces that are followed where others than the largest may speak.
const SEVERAL: usize = 4;

/// The bank of the person in `video`, from the cache where it is there; `None` where there is no single person: of `several` faces at
/// a time, or of the largest of each moment.
pub fn bank(
    (video, media): (&Path, Media),
    engine: &Package,
    several: bool,
    (options, masks): (runtime::Options, &Masks),
    quiet: bool,
    watch: &Watch,
    notices: &Notices,
) -> Result<Option<PathBuf>> {
    let config = config(engine);
    let folder = runtime::cache_dir("banks")
        .ok_or_else(|| Failure::run("the cache folder cannot be made: set XDG_CACHE_HOME, or use --no-gather"))?;
    let max_faces = if several { SEVERAL } else { TrackerConfig::default().max_faces };
    let path = folder.join(file_name((video, media), engine, max_faces, masks)?);
    if ReferenceBank::load(&path).and_then(|bank| bank.check(&config)).is_ok() {
        tracing::info!("reference bank from the cache: {}", path.display());
        return Ok(Some(path));
    }
    let watcher = Watcher::looking(options, max_faces, masks)?;
    let mut gathering = Gathering::new((video, media), config, watcher, quiet, watch, notices)?;
    gathering.sample()?;
    if gathering.banks.is_empty() {
        gathering.search()?;
    }
    let bank = match gathering.single_person() {
        Person::One(bank) => bank,
        Person::Several => {
            let text = "more than one face, or one that comes and goes: mouth shapes are learnt as it plays";
            notices.tell("several-faces", format!("{}: {text}", video.display()));
            return Ok(None);
        }
        // What becomes of the frames is said when they have been rendered.
        Person::Unknown(why) => {
            tracing::info!("no mouth shape was learnt beforehand ({why:?}): they are learnt as the video plays");
            return Ok(None);
        }
    };
    tracing::info!("reference bank: {} of {} shapes, {}", bank.references().len(), bank.observed(), path.display());
    bank.save(&path)?;
    Ok(Some(path))
}

/// Changes when the file, the engine, the tracker, what looks for what is before faces or this program does.
fn file_name((video, media): (&Path, Media), engine: &Package, max_faces: usize, masks: &Masks) -> Result<String> {
    let failure = |e: std::io::Error| Failure::input(format!("{}: {e}", video.display()));
    let mut key = Key::default();
    let mut add = |path: &Path| -> Result<()> {
        let path = path.canonicalize().map_err(failure)?;
        let meta = path.metadata().map_err(failure)?;
        key.add(path.as_os_str().as_encoded_bytes());
        key.add(format!("{} {} {}", meta.len(), meta.mtime(), meta.mtime_nsec()).as_bytes());
        Ok(())
    };
    match Sequence::of(video) {
        Some(pictures) => pictures?.files().try_for_each(|file| add(&file))?,
        None => add(video)?,
    }
    if media == Media::Alpha {
        key.add(b"alpha");
    }
    if max_faces != TrackerConfig::default().max_faces {
        key.add(format!("{max_faces} faces").as_bytes());
    }
    key.add_makers(engine)?;
    match masks {
        Masks::Off => (),
        Masks::Auto => key.add(Package::find("occlusion")?.digest("mask").as_bytes()),
        Masks::File(path) => match masks.installed() {
            Some(name) => key.add(Package::named(name)?.digest("mask").as_bytes()),
            None => {
                let failure = |e: std::io::Error| Failure::input(format!("{}: {e}", path.display()));
                key.add(std::fs::File::open(path).and_then(digest::sha256_of).map_err(failure)?.as_bytes());
            }
        },
    }
    Ok(format!("{}.safetensors", key.name()))
}

/// Names a file of the cache by what it was made from.
#[derive(Default)]
pub(crate) struct Key(Sha256);

impl Key {
    /// Adds bytes; where one part ends and the next begins counts.
    pub fn add(&mut self, part: &[u8]) {
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
    }

    /// Adds what decides about a bank besides the pictures: the engine, the tracker and this program.
    pub fn add_makers(&mut self, engine: &Package) -> Result<()> {
        self.add(format!("{} {:?}", env!("CARGO_PKG_VERSION"), bank::RULES).as_bytes());
        for manifest in [engine.manifest(), Package::find("tracker")?.manifest()] {
            self.add(format!("{} {}", manifest.name, manifest.version).as_bytes());
            manifest.files.iter().for_each(|(part, file)| self.add(format!("{part} {}", file.sha256).as_bytes()));
        }
        Ok(())
    }

    /// 32 hexadecimal digits.
    pub fn name(self) -> String {
        digest::hexadecimal(&self.0.finalize()[..16])
    }
}

/// Banks as `engine` wants them.
pub(crate) fn config(engine: &Package) -> BankConfig {
    BankConfig {
        // As many as an element keeps of a live stream.
        capacity: gstlipstream::denoise::CAPACITY,
        side: engine.manifest().geometry.crop,
        alignment: engine.manifest().geometry.alignment.clone(),
    }
}

/// Finds the faces in the decoded frames of a file.
pub(crate) struct Watcher {
    tracker: Tracker,
    watched: u32,
}

impl Watcher {
    pub fn new(options: runtime::Options, max_faces: usize) -> Result<Self> {
        Self::looking(options, max_faces, &Masks::Off)
    }

    /// The same, and what is before the faces by `masks`.
    fn looking(options: runtime::Options, max_faces: usize, masks: &Masks) -> Result<Self> {
        let occlusion = masks.clone();
        let tracker = Tracker::new(TrackerConfig { options, max_faces, occlusion, ..TrackerConfig::default() })?;
        Ok(Self { tracker, watched: 0 })
    }

    /// Forgets all tracks.
    pub fn reset(&mut self) {
        self.tracker.reset();
    }

    /// Calls `f` with the picture and the faces in it.
    pub fn watch<T>(
        &mut self,
        sample: &gst::Sample,
        f: impl FnOnce(&FrameView, Vec<Face>) -> lipstream_engines::Result<T>,
    ) -> Result<T> {
        let caps = sample.caps().ok_or_else(|| Failure::run("a decoded frame without caps"))?;
        let info = gst_video::VideoInfo::from_caps(caps)?;
        let buffer = sample.buffer().ok_or_else(|| Failure::run("a decoded sample without a buffer"))?;
        let time = STEP * self.watched;
        self.watched += 1;
        gstlipstream::video::with_view(buffer, &info, |frame| {
            let faces = self.tracker.process(frame, Some(time))?;
            f(frame, faces)
        })
        .map_err(|e| Failure::new(Kind::Engine, e.to_string()))
    }
}

struct Gathering {
    reader: Reader,
    watcher: Watcher,
    config: BankConfig,
    /// One a track.
    banks: BTreeMap<u64, ReferenceBank>,
    tracked: u64,
    progress: Progress,
    watch: Watch,
}

impl Gathering {
    fn new(
        (video, media): (&Path, Media),
        config: BankConfig,
        watcher: Watcher,
        quiet: bool,
        watch: &Watch,
        notices: &Notices,
    ) -> Result<Self> {
        let reader = Reader::open(video, media, notices)?;
        let total = watch.report().map(|_| FRAMES);
        let progress = Progress::start("look at the person", total, quiet, watch, 0.0..LOOKING);
        Ok(Self { reader, watcher, config, banks: BTreeMap::new(), tracked: 0, progress, watch: watch.clone() })
    }

    /// The whole of a short file, stretches of a long one.
    fn sample(&mut self) -> Result<()> {
        let length = self.reader.duration().map_or(0, |d| d.nseconds());
        let stretch = FRAMES / STRETCHES;
        // Long enough that stretches at 25 frames a second do not meet.
        if length < (STRETCHES * stretch * 60) * 1_000_000 {
            self.stretch(FRAMES)?;
            return Ok(());
        }
        for i in 0..STRETCHES {
            let position = gst::ClockTime::from_nseconds(length / STRETCHES * i);
            if i > 0 && !self.reader.seek(position) {
                // It cannot seek: what follows is as good.
                self.stretch(FRAMES - self.tracked)?;
                break;
            }
            self.stretch(stretch)?;
        }
        Ok(())
    }

    fn stretch(&mut self, frames: u64) -> Result<()> {
        for _ in 0..frames {
            let Some(sample) = self.reader.next_sample()? else { break };
            self.look(&sample)?;
        }
        Ok(())
    }

    /// Looks for any face from the start of the file on, then gathers from there.
    fn search(&mut self) -> Result<()> {
        self.reader = self.reader.again()?;
        let mut index = 0;
        while let Some(sample) = self.reader.next_sample()? {
            if index % SEARCH_STEP == 0 {
                // Without a track the detector looks at every frame.
                self.watcher.reset();
                self.look(&sample)?;
            }
            if !self.banks.is_empty() {
                return self.stretch(FRAMES);
            }
            index += 1;
        }
        let path = self.reader.path().display();
        Err(Failure::input(format!("{path}: no face in the whole file")))
    }

    fn look(&mut self, sample: &gst::Sample) -> Result<()> {
        if self.watch.stopped() {
            return Err(Failure::interrupted());
        }
        let time = sample.buffer().and_then(gst::BufferRef::pts).map(Into::into);
        self.watcher.watch(sample, |frame, faces| {
            for face in faces {
                let config = &self.config;
                let bank = self.banks.entry(face.track_id).or_insert_with(|| ReferenceBank::new(config.clone()));
                bank.observe(frame, &face, time)?;
            }
            Ok(())
        })?;
        self.tracked += 1;
        self.progress.at(self.tracked);
        Ok(())
    }

    /// Who the video is of: the bank that was seen most, unless others were seen too.
    fn single_person(mut self) -> Person {
        std::mem::replace(&mut self.progress, Progress::Silent).finish();
        let most = self.banks.iter().map(|(t, b)| (*t, b.observed())).max_by_key(|(_, n)| *n);
        let Some((track, most)) = most else { return Person::Unknown(None) };
        let others: u64 = self.banks.values().map(ReferenceBank::observed).sum::<u64>() - most;
        match self.banks.remove(&track) {
            Some(bank) if bank.references().is_empty() => Person::Unknown(bank.refusal()),
            Some(bank) if others as f64 <= OTHERS * most as f64 => Person::One(bank),
            _ => Person::Several,
        }
    }
}

/// Who a video is of.
enum Person {
    One(ReferenceBank),
    Several,
    /// Nothing could be learnt of anybody, and why not of the last frame.
    Unknown(Option<Refusal>),
}
