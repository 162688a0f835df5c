//! The properties of the elements inside, as the bin shows them.

use gst::{glib, prelude::*};

use crate::{
    blend, denoise, facetrack,
    options::{self, DEFAULT_ENGINE},
    stats, synccheck,
};

/// The elements inside that have properties of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inner {
    FaceTrack,
    AudioEnc,
    Denoise,
    Blend,
}

use Inner::{AudioEnc, Blend, Denoise, FaceTrack};

/// Where a property of the bin goes: it is set on all of them and read from the first.
pub fn targets(name: &str) -> &'static [(Inner, &'static str)] {
    match name {
        "engine" => &[(Denoise, "model"), (AudioEnc, "engine")],
        "fallback-engine" => &[(Denoise, "fallback-model")],
        "exact" => &[(Denoise, "exact"), (AudioEnc, "exact")],
        "look-ahead" => &[(Denoise, "look-ahead"), (AudioEnc, "look-ahead")],
        "detector" => &[(FaceTrack, "model")],
        "device" => &[(Denoise, "device"), (AudioEnc, "device"), (FaceTrack, "device")],
        "precision" => &[(Denoise, "precision"), (AudioEnc, "precision"), (FaceTrack, "precision")],
        "threads" => &[(Denoise, "threads"), (AudioEnc, "threads"), (FaceTrack, "threads")],
        "inference-interval" => &[(FaceTrack, "inference-interval")],
        "max-faces" => &[(FaceTrack, "max-faces")],
        "min-confidence" => &[(FaceTrack, "min-confidence")],
        "smoothing" => &[(FaceTrack, "smoothing")],
        "occlusion" => &[(FaceTrack, "occlusion")],
        "steps" => &[(Denoise, "steps")],
        "sampler" => &[(Denoise, "sampler")],
        "guidance" => &[(Denoise, "guidance")],
        "guided" => &[(Denoise, "guided")],
        "batch-size" => &[(Denoise, "batch-size")],
        "batch-timeout" => &[(Denoise, "batch-timeout")],
        "model-instance-id" => &[(Denoise, "model-instance-id")],
        "scheduling-policy" => &[(Denoise, "scheduling-policy")],
        "motion-gain" => &[(Denoise, "motion-gain")],
        "reference-bank" => &[(Denoise, "reference-bank")],
        "gather" => &[(Denoise, "gather")],
        "reference-gap" => &[(Denoise, "reference-gap")],
        "fade" => &[(Denoise, "fade")],
        "idle" => &[(Denoise, "idle")],
        "idle-after" => &[(Denoise, "idle-after")],
        "seed" => &[(Denoise, "seed")],
        "feature-shift" => &[(Denoise, "feature-shift")],
        "speaker" => &[(Denoise, "speaker"), (FaceTrack, "speaker")],
        "max-yaw" => &[(Denoise, "max-yaw")],
        "enabled" => &[(Blend, "enabled")],
        "label" => &[(Blend, "label")],
        "watermark" => &[(Blend, "watermark")],
        "label-corner" => &[(Blend, "label-corner")],
        _ => &[],
    }
}

pub fn list() -> Vec<glib::ParamSpec> {
    let mut list = vec![
        glib::ParamSpecString::builder("engine")
            .nick("Engine")
            .blurb(
                "Engine: its name, which may say a version of it, its folder or the path of its engine.toml; changed while the bin runs, \
                 one of the same front-end is loaded beside the one in use and taken at the next pause of speech",
            )
            .default_value(Some(DEFAULT_ENGINE))
            .mutable_playing()
            .build(),
        denoise::change::property("fallback-engine"),
        glib::ParamSpecString::builder("detector")
            .nick("Detector")
            .blurb("Path of a face detector (a YuNet or SCRFD ONNX file as published); unset = the embedded one")
            .mutable_ready()
            .build(),
        glib::ParamSpecBoolean::builder("enabled")
            .nick("Enabled")
            .blurb("Paste the generated mouth; when false, frames keep their own")
            .default_value(true)
            .mutable_playing()
            .build(),
        stats::property(
            "Frames in, out, passed through, dropped and late of the bin; untouched (those that keep their own mouth although \
             another was wanted, by reason, as lipdenoise counts them); interrupt-time (of the last interrupt, from the signal \
             to a frame at rest, in microseconds); the stats of the elements inside as facetrack, \
             audioenc, denoise and blend, and denoise-b of a second voice; what the sync check has found as check: sync-offset (frames of 40 ms by which the mouth \
             that is made is late) and sync-confidence, source-offset and source-confidence (of the source's own lips), corrections, \
             shift (of the features, in milliseconds), missed, and the times of a check",
        ),
    ];
    list.push(
        glib::ParamSpecString::builder("speaker-b")
            .nick("Speaker of the second voice")
            .blurb("Which of several faces the voice of audio_sink_b moves, of those that the first one does not: as speaker")
            .default_value(Some("largest"))
            .mutable_playing()
            .build(),
    );
    list.extend(synccheck::properties());
    // Those that are called here as they are there.
    let own = |spec: &glib::ParamSpec| targets(spec.name()).iter().any(|(_, inner)| *inner == spec.name());
    let inner =
        [facetrack::imp::properties(), denoise::properties::list(), blend::imp::properties(), options::properties()];
    for spec in inner.into_iter().flatten() {
        if own(&spec) && !list.iter().any(|known| known.name() == spec.name()) {
            list.push(spec);
        }
    }
    list
}
