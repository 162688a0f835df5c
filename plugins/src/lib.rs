//! GStreamer elements that make a live video say what a live voice says.
//!
//! | element | does |
//! |---|---|
//! | [`lipfacetrack`](facetrack) | finds and follows faces, a [face meta](meta::face) for each |
//! | [`lipaudioenc`](audioenc) | speech to [feature buffers](features), one an audio hop |
//! | [`lipdenoise`](denoise) | face and features to a [patch meta](meta::patch) on each frame |
//! | [`lipblend`](blend) | pastes the patch |
//! | [`lipenhance`](enhance) | makes faces crisper |
//! | [`lipcolor`](color) | high dynamic range and transparent pictures to what the others take |
//! | [`lipalpha`](alpha) | transparency for encoders that have none |
//! | [`lippicture`](picture) | the bin that makes decoded pictures of any kind such as the others work on |
//! | [`lipsync`](sync) | the bin that holds the four, and [judges](synccheck) whether it is in sync |

use gst::glib;

pub mod alpha;
pub mod audioenc;
pub mod blend;
pub mod color;
pub mod denoise;
mod ear;
pub mod enhance;
pub mod facetrack;
pub mod features;
pub mod interrupt;
pub mod meta;
mod options;
pub mod picture;
pub mod selector;
pub mod stats;
pub mod sync;
pub mod synccheck;
pub mod untouched;
pub mod video;

pub use options::DEFAULT_ENGINE;

fn plugin_init(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    // SAFETY: plugins are loaded before there are pipelines, whose threads would read the environment.
    unsafe { lipstream_engines::runtime::library::send_nothing() };
    meta::face::register();
    facetrack::register(plugin)?;
    audioenc::register(plugin)?;
    denoise::register(plugin)?;
    blend::register(plugin)?;
    enhance::register(plugin)?;
    color::register(plugin)?;
    picture::register(plugin)?;
    alpha::register(plugin)?;
    sync::register(plugin)
}

gst::plugin_define!(
    lipstream,
    env!("CARGO_PKG_DESCRIPTION"),
    plugin_init,
    concat!(env!("CARGO_PKG_VERSION"), "-", env!("COMMIT_ID")),
    // What GStreamer's list of licences knows of "MIT OR Apache-2.0".
    "MIT/X11",
    env!("CARGO_PKG_NAME"),
    env!("CARGO_PKG_NAME"),
    "lipstream",
    env!("BUILD_REL_DATE")
);
