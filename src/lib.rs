//! The program `lipstream` as a library: rendering of files, live sessions and the servers around them.
//!
//! The elements are those of `gst-plugin-lipstream`, linked in; everything numerical is in `lipstream-engines`.

pub mod adapt;
pub mod address;
pub mod avatar;
pub mod background;
pub mod cli;
pub mod cluster;
pub mod detect;
pub mod doctor;
pub mod engines;
pub mod error;
pub mod eval;
pub mod graph;
pub mod http;
pub mod jobs;
pub mod link;
pub mod live;
pub mod marks;
pub mod media;
pub mod memory;
pub mod metrics;
pub mod occlusion;
pub mod process;
pub mod pull;
pub mod push;
pub mod render;
pub mod rtmp;
pub mod serve;
pub mod session;
pub mod speech;
pub mod storage;
pub mod tenants;
pub mod termination;
pub mod untouched;
pub mod webrtc;
