//! The banks of a stream: one a track, never mixed, and only so many.

use std::{path::Path, sync::Arc, time::Duration};

use lipstream_engines::{
    Error, Result,
    bank::{BankConfig, ReferenceBank},
    engine::{Engine, Identity, Spec},
    image::{ColorSpace, FrameView},
    tracker::Face,
};

use crate::untouched::Why;

/// Tracks whose frames are remembered; the one unused for longest goes first.
const MAX_TRACKS: usize = 4;
/// References of one person, for banks of any origin.
pub const CAPACITY: usize = 48;

/// A track that is not seen for so many looks at others is over: the tracker gives a number back within seconds only.
const FORGOTTEN: u64 = 300;

struct Entry {
    track: u64,
    /// The look that was the last at it.
    seen: u64,
    bank: ReferenceBank,
    /// Version of the bank that the identity was made from.
    identity: Option<(u64, Identity)>,
}

/// The persons that a stream knows.
pub struct Known {
    tracks: Vec<(u64, u64, ReferenceBank)>,
    looks: u64,
    space: Option<ColorSpace>,
}

pub struct Banks {
    engine: Arc<dyn Engine>,
    gather: bool,
    /// The user's bank serves every track and does not grow.
    loaded: Option<Entry>,
    /// Most recently used last.
    tracks: Vec<Entry>,
    /// Looks so far, each at one face in one frame.
    looks: u64,
    space: Option<ColorSpace>,
}

impl Banks {
    /// `loaded` is the path of a saved bank; without one an adapted engine's own is taken.
    pub fn new(engine: Arc<dyn Engine>, gather: bool, loaded: Option<&Path>) -> Result<Self> {
        let spec = engine.spec();
        if !spec.references && loaded.is_some() {
            return Err(Error::invalid(format!(
                "property `reference-bank`: engine `{}` draws from no references; leave it out",
                spec.name
            )));
        }
        let bank = match loaded {
            Some(path) => {
                let bank = ReferenceBank::load(path)?;
                bank.check(&config(engine.spec()))?;
                Some(bank)
            }
            None if spec.references => engine.bank().cloned(),
            // Nobody is learnt, so one empty bank stands for everybody.
            None => Some(ReferenceBank::new(config(spec))),
        };
        let loaded = bank.map(|bank| Entry { track: 0, seen: 0, bank, identity: None });
        Ok(Self { engine, gather, loaded, tracks: Vec::new(), looks: 0, space: None })
    }

    /// Crops in another colour space do not mix with the ones at hand: those of the stream are gathered anew.
    pub fn set_space(&mut self, space: ColorSpace) {
        if self.space.replace(space).is_some_and(|old| old != space) {
            self.tracks.clear();
        }
        if let Some(entry) = &mut self.loaded {
            entry.bank.set_space(space);
            entry.identity = None;
        }
    }

    /// What other banks may learn.
    pub fn known(&self) -> Known {
        let tracks = self.tracks.iter().map(|entry| (entry.track, entry.seen, entry.bank.clone())).collect();
        Known { tracks, looks: self.looks, space: self.space }
    }

    /// Learns the persons that another engine's banks know, as far as they are gathered alike, and prepares those that have changed
    /// since it did so before.
    pub fn learn(&mut self, known: Known) -> Result<()> {
        let Known { tracks, looks, space } = known;
        if let Some(space) = space {
            self.set_space(space);
        }
        let engine = self.engine.clone();
        if let Some(entry) = &mut self.loaded {
            return entry.identity(&engine).map(drop);
        }
        let config = config(engine.spec());
        let mut prepared: Vec<Entry> = std::mem::take(&mut self.tracks);
        for (track, seen, bank) in tracks {
            if bank.check(&config).is_err() {
                continue;
            }
            let before = prepared.iter_mut().find(|entry| entry.track == track);
            let identity = before.and_then(|entry| entry.identity.take());
            let mut entry = Entry { track, seen, bank, identity };
            entry.identity(&engine)?;
            self.tracks.push(entry);
        }
        self.looks = looks;
        Ok(())
    }

    /// References of the track that was used last.
    pub fn references(&self) -> usize {
        self.loaded.as_ref().or(self.tracks.last()).map_or(0, |e| e.bank.references().len())
    }

    /// Looks at a frame of the track of `face`; why nothing is known of that person, or `None` where something is.
    pub fn look(&mut self, frame: &FrameView, face: &Face, time: Option<Duration>) -> Result<Option<Why>> {
        if let Some(entry) = &self.loaded {
            let unknown = self.engine.spec().references && entry.bank.references().is_empty();
            return Ok(unknown.then_some(Why::Unclear));
        }
        if !self.gather {
            return Ok(Some(Why::Unclear));
        }
        self.looks += 1;
        let looks = self.looks;
        self.tracks.retain(|entry| looks - entry.seen <= FORGOTTEN);
        let entry = self.track(face.track_id);
        entry.seen = looks;
        entry.bank.observe(frame, face, time)?;
        let unknown = entry.bank.references().is_empty();
        Ok(unknown.then(|| entry.bank.refusal().map_or(Why::Unclear, Why::from)))
    }

    /// The person of the track of `face` as known so far; `None` while nothing is known.
    pub fn identity(&mut self, face: &Face) -> Result<Option<Identity>> {
        let engine = self.engine.clone();
        if let Some(entry) = &mut self.loaded {
            return entry.identity(&engine);
        }
        if !self.gather {
            return Ok(None);
        }
        self.track(face.track_id).identity(&engine)
    }

    fn track(&mut self, track: u64) -> &mut Entry {
        let entry = match self.tracks.iter().position(|e| e.track == track) {
            Some(i) => self.tracks.remove(i),
            None => {
                if self.tracks.len() == MAX_TRACKS {
                    self.tracks.remove(0);
                }
                Entry { track, seen: self.looks, bank: ReferenceBank::new(config(self.engine.spec())), identity: None }
            }
        };
        self.tracks.push(entry);
        self.tracks.last_mut().expect("one was pushed")
    }
}

impl Entry {
    fn identity(&mut self, engine: &Arc<dyn Engine>) -> Result<Option<Identity>> {
        if engine.spec().references && self.bank.references().is_empty() {
            return Ok(None);
        }
        let version = self.bank.version();
        if let Some((_, identity)) = self.identity.as_ref().filter(|(of, _)| *of == version) {
            return Ok(Some(identity.clone()));
        }
        let identity = engine.prepare(&self.bank)?;
        self.identity = Some((version, identity.clone()));
        Ok(Some(identity))
    }
}

fn config(spec: &Spec) -> BankConfig {
    BankConfig { capacity: CAPACITY, side: spec.crop, alignment: spec.alignment.clone() }
}
