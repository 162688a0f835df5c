//! What says of a picture that a machine made a part of it (EU AI Act, article 50): statements beside the pixels, which a
//! player that knows nothing of them passes over, signed manifests of files, and a label in the pixels.

mod certificate;
mod jumbf;
pub mod manifest;
mod parent;
mod sei;

use bytes::Bytes;
use clap::ValueEnum;
use lipstream_engines::image::{Label, MAX_LABEL};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use self::certificate::Identity;

/// IPTC's name for pictures of a camera in which a part comes from a trained model, as C2PA has it too:
/// <https://cv.iptc.org/newscodes/digitalsourcetype/>.
pub const SOURCE_TYPE: &str = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia";
/// Header of a WHEP answer that holds it.
pub const HEADER: &str = "x-digital-source-type";
/// Key of RTMP's `onMetaData` that holds it.
pub const METADATA: &str = "digitalsourcetype";

/// A mark that a stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// A message of user data (SEI) in front of every key frame of H.264.
    H264Sei,
    /// A key of `onMetaData`, for RTMP.
    RtmpMetadata,
    /// A header of the answer, for WHEP.
    WhepHeader,
    /// A pattern in the generated part of the picture that nobody sees and `lipstream detect` finds.
    Watermark,
    /// Text in the picture for all to see.
    Label,
}

impl Mark {
    /// Statements beside the pixels.
    pub const STATEMENTS: [Self; 3] = [Self::H264Sei, Self::RtmpMetadata, Self::WhepHeader];
}

/// Where the visible label is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = LabelCorner)]
pub enum Corner {
    TopLeft,
    TopRight,
    #[default]
    BottomLeft,
    BottomRight,
}

impl std::fmt::Display for Corner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::TopLeft => "top-left",
            Self::TopRight => "top-right",
            Self::BottomLeft => "bottom-left",
            Self::BottomRight => "bottom-right",
        })
    }
}

/// Reads the bytes of a `uuid` box as that of a manifest which a file brings along, and of an access unit as one that is marked.
#[doc(hidden)]
pub fn read_bytes(bytes: &[u8]) {
    parent::read(bytes);
    let sei = sei::unit(bytes);
    let unit = Bytes::copy_from_slice(bytes);
    let marked = sei::insert(&unit, &sei);
    assert!(marked.len() == unit.len() || marked.len() == unit.len() + sei.len());
}

/// Refuses a text that no label can show as it is.
pub fn check_label(text: &str) -> Result<(), String> {
    if text.chars().count() > MAX_LABEL {
        return Err(format!("is longer than {MAX_LABEL} characters"));
    }
    if text.chars().any(char::is_control) {
        return Err("must be one line without control characters".into());
    }
    match Label::can_show(text) {
        true => Ok(()),
        false => Err("has characters that cannot be shown; Latin, Greek and Cyrillic ones can".into()),
    }
}

/// The statement of one session, ready for its packets.
#[derive(Clone, Debug)]
pub struct Statement {
    sei: Bytes,
}

#[derive(Serialize)]
struct Said<'a> {
    generator: &'a str,
    engine: &'a str,
    digital_source_type: &'a str,
}

impl Statement {
    /// That `engine` has made the mouth.
    pub fn new(engine: &str) -> Self {
        let generator = concat!("lipstream ", env!("CARGO_PKG_VERSION"));
        let said = Said { generator, engine, digital_source_type: SOURCE_TYPE };
        let json = serde_json::to_vec(&said).expect("plain text");
        Self { sei: sei::unit(&json) }
    }

    /// An access unit of H.264 in Annex B with the statement in front of its picture.
    pub fn marked(&self, unit: &Bytes) -> Bytes {
        sei::insert(unit, &self.sei)
    }
}
