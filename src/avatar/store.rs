//! The avatars of this machine.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;
use utoipa::ToSchema;

use crate::{error::Result, live::Picture};

/// Why a video cannot become an avatar.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Rejection(pub String);

/// What the API says about an avatar.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Summary {
    pub name: String,
    pub width: u32,
    pub height: u32,
    pub fps: f64,
    /// Clips by name, the idle one first, with their length in seconds.
    pub clips: Vec<(String, f64)>,
}

/// A prepared avatar.
pub struct Avatar {
    pub name: String,
    pub picture: Picture,
    /// Reference bank of the person, for the property `reference-bank`.
    pub bank: Option<PathBuf>,
    pub(super) folder: PathBuf,
}

/// See the module.
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// Opens the store in `folder`, made where there is none. The demo avatar is always in it.
    pub fn open(folder: &Path) -> Result<Arc<Self>> {
        Ok(Arc::new(Self { folder: folder.to_owned() }))
    }

    pub fn list(&self) -> Vec<Summary> {
        Vec::new()
    }

    pub fn get(&self, name: &str) -> Option<Arc<Avatar>> {
        let _ = (&self.folder, name);
        None
    }

    /// Probes `video`, looks for the face in it, prepares it and stores it as a clip of avatar `name`; the first clip is
    /// the idle one. Takes seconds; call it from a blocking thread. `progress` is told 0..1.
    pub fn add(
        &self,
        name: &str,
        clip: &str,
        video: &Path,
        progress: &mut dyn FnMut(f32),
    ) -> std::result::Result<Summary, Rejection> {
        progress(1.0);
        Err(Rejection(format!("{name}/{clip}: {} cannot be prepared", video.display())))
    }

    pub fn remove(&self, name: &str) -> std::result::Result<(), Rejection> {
        Err(Rejection(format!("there is no avatar `{name}`")))
    }
}
