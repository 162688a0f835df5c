//! From 16 kHz speech to feature windows: [`FrontEnd`] is what any of them is, [`hearing`] a causal Whisper with kept keys and
//! values and one over windows of sound, [`Mel`] the streaming log-mel of [`Encoder`], a network that carries its state from hop to hop, [`whisper`] the mel
//! and the windows of Whisper's encoder,
//! [`Mono`] the mix of several channels, [`Timeline`] where a video frame finds the features around its own time.

mod ave;
mod band;
mod encoder;
mod front_end;
mod gate;
mod hearing;
mod mel;
mod mono;
mod spectrum;
mod timeline;
mod wav2lip;
pub mod whisper;

pub use ave::Ave;
pub use encoder::Encoder;
pub use front_end::{FrontEnd, MOST_DIMS, front_end};
pub use hearing::{Hearing, Windowed};
pub use mel::{BINS, FRAME_SAMPLES, HOP_SAMPLES, Mel, SAMPLE_RATE};
pub use mono::Mono;
pub use timeline::{Pick, Tail, Timeline, WindowSpec};
pub use wav2lip::Wav2LipMel;
