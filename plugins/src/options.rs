//! Properties that several elements share.

use gst::{glib, prelude::*};
use lipstream_engines::{Error, Result, manifest::Package, runtime};

/// The engine that is taken where none is named.
pub const DEFAULT_ENGINE: &str = "compact-words";

/// Where and how the networks of an element run.
#[derive(Clone, Debug)]
pub struct Options {
    pub device: String,
    pub precision: String,
    pub threads: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { device: "auto".into(), precision: "auto".into(), threads: 0 }
    }
}

impl Options {
    /// What the engines make of it; an unknown word is an error that lists the known ones.
    pub fn parse(&self) -> Result<runtime::Options> {
        let refuse =
            |property: &str, cause: &dyn std::fmt::Display| Error::invalid(format!("property `{property}`: {cause}"));
        Ok(runtime::Options {
            device: self.device.parse().map_err(|e| refuse("device", &e))?,
            precision: self.precision.parse().map_err(|e| refuse("precision", &e))?,
            threads: self.threads as usize,
            ..runtime::Options::default()
        })
    }

    pub fn set(&mut self, name: &str, value: &glib::Value) {
        match name {
            "device" => self.device = string(value).unwrap_or_else(|| "auto".into()),
            "precision" => self.precision = string(value).unwrap_or_else(|| "auto".into()),
            "threads" => self.threads = value.get().expect("type checked upstream"),
            other => unreachable!("property {other}"),
        }
    }

    pub fn get(&self, name: &str) -> glib::Value {
        match name {
            "device" => self.device.to_value(),
            "precision" => self.precision.to_value(),
            "threads" => self.threads.to_value(),
            other => unreachable!("property {other}"),
        }
    }
}

/// A string property's value; empty counts as unset.
pub fn string(value: &glib::Value) -> Option<String> {
    value.get::<Option<String>>().expect("type checked upstream").filter(|s| !s.is_empty())
}

/// The engine by its name, folder or manifest, `exact` or not, with a look-ahead in milliseconds (0: its own).
///
/// Errors: an engine that is not there or cannot be exact, a look-ahead that it does not have.
pub fn package(name: &str, exact: bool, look_ahead: u32) -> Result<Package> {
    let package = Package::find(name)?.with_look_ahead(look_ahead)?;
    if exact { package.exact() } else { Ok(package) }
}

/// `exact`.
pub fn exact() -> glib::ParamSpec {
    glib::ParamSpecBoolean::builder("exact")
        .nick("Exact")
        .blurb(
            "Run an imported engine as its published program does: its windows of a whole file's sound, boxes of whole pixels, hard \
             pastes; in the place of sub-pixel boxes, feathers, fitted colours and fades",
        )
        .default_value(false)
        .mutable_ready()
        .build()
}

/// `look-ahead`, in milliseconds.
pub fn look_ahead(blurb: &'static str) -> glib::ParamSpec {
    glib::ParamSpecUInt::builder("look-ahead")
        .nick("Look-ahead")
        .blurb(blurb)
        .maximum(10_000)
        .default_value(0)
        .mutable_ready()
        .build()
}

/// `device`, `precision` and `threads`.
pub fn properties() -> Vec<glib::ParamSpec> {
    vec![
        glib::ParamSpecString::builder("device")
            .nick("Device")
            .blurb(
                "Where the networks run: auto, cpu, openvino, cuda[:n] or tensorrt[:n]. auto takes the best that works \
                 and cpu for networks too small to gain by openvino; a device that is named and does not work is an error",
            )
            .default_value(Some("auto"))
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("precision")
            .nick("Precision")
            .blurb("Arithmetic of the networks: auto, fp32, tf32, fp16, bf16 or int8")
            .default_value(Some("auto"))
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("threads")
            .nick("Threads")
            .blurb("Threads that one network may use (0 = choose)")
            .maximum(256)
            .default_value(0)
            .mutable_ready()
            .build(),
    ]
}
