//! What a model is: `engine.toml`, and the files that it names.
//!
//! A manifest is read, checked key by key, and only then are files opened; each file must have the SHA-256 that the
//! manifest states. Errors name the manifest, the key and the cause.

mod audio;
mod cost;
mod hash;
mod latent;
mod package;
pub mod repository;
mod schema;

pub use audio::{Alternative, AudioKind, AudioSection, HearingWindow, OtherHearing};
pub use cost::{CostSection, StageCosts};
pub use latent::{Decoder, LatentSyncSection, LiveSection, Mask, MuseTalkSection, SoundSection};
pub use package::Package;
pub use repository::{Aliases, Versions};
pub use schema::{
    DataEntry, Family, Features, FileEntry, GeometrySection, LatentSection, Manifest, SyncTalk2dSection, Wav2LipPorts,
    Wav2LipSection,
};
