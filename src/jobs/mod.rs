//! Offline renders as jobs: the work of `lipstream render`, one at a time and at low priority, beside live sessions.
//!
//! ```text
//! FOLDER/job-7/video audio     what was handed in, removed when the job ends
//!              result.mp4      until it is removed or too old
//! ```
//!
//! Jobs are forgotten when the program ends, and their files with them.

mod options;
mod status;
mod store;
mod worker;

pub use self::{
    options::{Container, Options},
    status::{Phase, Status},
    store::{Request, Settings, Store, Video},
};
