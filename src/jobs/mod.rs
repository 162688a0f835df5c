//! Offline renders as jobs: the work of `lipstream render`, at low priority beside live sessions, one at a time on a machine.
//!
//! ```text
//! FOLDER/job-7/video audio     what was handed in, removed when the job ends
//!              result.mp4      until it is removed or too old; elsewhere with `[storage]`
//! ```
//!
//! On one machine, by [`Store`], jobs are forgotten when the program ends, and their files with them. In a cluster, by [`Shared`],
//! they belong to no machine: any node takes them, any renders them, any tells of them.

mod options;
mod shared;
mod status;
mod store;
mod work;
mod worker;

use std::{path::PathBuf, sync::Arc};

pub use self::{
    options::{Container, Options},
    shared::{Cluster, Shared},
    status::{Phase, Status},
    store::{Request, Settings, Store, Video},
};
use crate::{
    session::Refusal,
    storage::{self, Storage},
    tenants::{Caller, Tenant},
};

/// Start of the names of jobs.
const PREFIX: &str = "job-";

/// The renders of a server, wherever they are made.
pub enum Renders {
    Here(Arc<Store>),
    Shared(Arc<Shared>),
}

impl Renders {
    /// Queues a job; blocks.
    pub fn submit(&self, request: Request) -> Result<Status, Refusal> {
        match self {
            Self::Here(store) => store.submit(request),
            Self::Shared(shared) => shared.submit(&request),
        }
    }

    /// Those that `caller` sees, the newest first.
    pub fn list_for(&self, caller: &Caller) -> Vec<Status> {
        match self {
            Self::Here(store) => store.list_for(caller),
            Self::Shared(shared) => shared.list_for(caller),
        }
    }

    /// A job that `caller` sees.
    pub fn get_for(&self, id: &str, caller: &Caller) -> Option<Status> {
        match self {
            Self::Here(store) => {
                let seen = store.caller(id).is_some_and(|owner| caller.sees_of(owner.tenant()));
                store.get(id).filter(|_| seen)
            }
            Self::Shared(shared) => shared.get_for(id, caller),
        }
    }

    /// Whose a job is, as far as it is known here.
    pub fn owner(&self, id: &str) -> Option<Arc<Tenant>> {
        match self {
            Self::Here(store) => store.caller(id)?.tenant().cloned(),
            Self::Shared(shared) => shared.owner(id),
        }
    }

    /// Where the result is; `None` where there is no such job or no result.
    pub fn kept(&self, id: &str) -> Option<Kept> {
        match self {
            Self::Here(store) => store.kept(id),
            Self::Shared(shared) => shared.kept(id),
        }
    }

    /// Forgets a job with its result; one that is not over is cancelled first. Blocks. `Ok(false)`: there is none.
    pub fn remove(&self, id: &str) -> Result<bool, Refusal> {
        match self {
            Self::Here(store) => Ok(store.remove(id).is_some()),
            Self::Shared(shared) => shared.remove(id),
        }
    }

    /// Ends the work; blocks.
    pub fn close(&self) {
        match self {
            Self::Here(store) => store.close(),
            Self::Shared(shared) => shared.close(),
        }
    }
}

/// A result that can be read.
#[derive(Clone, Debug)]
pub struct Kept {
    place: Place,
    pub container: Container,
    /// Another one has another.
    pub version: String,
}

#[derive(Clone, Debug)]
enum Place {
    File(PathBuf),
    Object(Storage, String),
}

impl Kept {
    /// Storage and name of the result.
    pub fn object(&self) -> storage::Result<(Storage, String)> {
        match &self.place {
            Place::Object(storage, name) => Ok((storage.clone(), name.clone())),
            Place::File(path) => {
                let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
                    return Err(storage::Failure::Missing("the result has no folder".into()));
                };
                Ok((Storage::folder(folder)?, name.to_string_lossy().into_owned()))
            }
        }
    }
}

fn number(id: &str) -> Option<u64> {
    let digits = id.strip_prefix(PREFIX)?;
    let plain = (1..=19).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|_| plain)
}

/// Reads a message of the queue and an entry of the bucket as a node does that is given them.
#[doc(hidden)]
pub fn read_from_nats(bytes: &[u8]) {
    shared::read(bytes);
}

/// A number that no other start of the program, and no other machine, gives; a later one is larger.
fn unique() -> u64 {
    ((status::now() * 1e3) as u64) << 20 | u64::from(rand::random::<u32>() >> 12)
}

/// Where a job's objects are in the storage.
fn object_folder(id: &str) -> String {
    format!("renders/{id}")
}

fn version(status: &Status) -> String {
    format!("{}-{:.3}", status.id, status.created)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_of_their_time_and_names_are_nothing_else() {
        let (a, b) = (unique(), unique());
        assert!(b >> 20 >= a >> 20 && number(&format!("{PREFIX}{a}")) == Some(a));
        for bad in ["job-", "job-x", "job-+1", "../job-1", "job-1/../2", "job-99999999999999999999"] {
            assert_eq!(number(bad), None, "{bad}");
        }
    }
}
