//! What says of a picture that a machine made a part of it (EU AI Act, article 50 (2)): statements beside the pixels, which a
//! player that knows nothing of them passes over.

mod sei;

use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;

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
}

impl Mark {
    pub const ALL: [Self; 3] = [Self::H264Sei, Self::RtmpMetadata, Self::WhepHeader];
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
