use gstlipstream::selector::Selector;
use lipstream_engines::enhance::Filter;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    engines,
    marks::{self, Corner},
    occlusion::Occlusion,
    session::Refusal,
};

/// Container of the result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Container {
    /// H.264 and AAC.
    #[default]
    Mp4,
    /// H.264 and FLAC: every sample of the speech is kept.
    Mkv,
    /// VP8 and Opus.
    Webm,
}

impl Container {
    pub fn extension(self) -> &'static str {
        match self {
            Self::Mp4 => "mp4",
            Self::Mkv => "mkv",
            Self::Webm => "webm",
        }
    }

    /// Media type of the result.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Mp4 => "video/mp4",
            Self::Mkv => "video/x-matroska",
            Self::Webm => "video/webm",
        }
    }
}

/// What makes the face crisper once the mouth is pasted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Enhance {
    Sharpen,
    /// Local contrast.
    Clahe,
    /// Texture.
    Detail,
    Combined,
}

impl From<Enhance> for Filter {
    fn from(enhance: Enhance) -> Self {
        match enhance {
            Enhance::Sharpen => Self::Sharpen,
            Enhance::Clahe => Self::Clahe,
            Enhance::Detail => Self::Detail,
            Enhance::Combined => Self::Combined,
        }
    }
}

/// How the video is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Quality {
    /// Visually lossless, and slow.
    High,
}

/// How to render. Everything has a default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Engine by name; the server's where it is not said.
    pub engine: Option<String>,
    /// How far the mouth moves, 1 being as learnt.
    #[schema(minimum = 0, maximum = 4)]
    pub motion_gain: Option<f64>,
    /// Play the video backward and forward again where the speech is longer; otherwise the shorter one ends both.
    #[serde(rename = "loop")]
    pub looped: bool,
    pub container: Container,
    /// Nothing where it is left out.
    pub enhance: Option<Enhance>,
    /// How much of the enhancement is blended in; 0.8 where it is left out.
    #[schema(minimum = 0, maximum = 1)]
    pub enhance_strength: Option<f64>,
    /// How much of the mouth is kept from the enhancement; 0.8 where it is left out.
    #[schema(minimum = 0, maximum = 1)]
    pub mouth_protection: Option<f64>,
    /// Which of several faces speak: `largest`, `all`, `auto`, `left`, `right` or `track:N`; the largest where it is left out.
    pub speaker: Option<String>,
    /// Whether what is before the face stays before its mouth; the server's where it is left out.
    pub occlusion: Option<Occlusion>,
    /// Text in every picture for all to see: at most 100 Latin, Greek or Cyrillic characters.
    #[schema(max_length = 100)]
    pub label: Option<String>,
    /// Where it is; below and to the left where it is left out.
    pub label_corner: Option<Corner>,
    /// Quality of H.264, lower is better.
    #[schema(minimum = 0, maximum = 50)]
    pub crf: u32,
    /// In place of `crf`.
    pub quality: Option<Quality>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            engine: None,
            motion_gain: None,
            looped: true,
            container: Container::Mp4,
            enhance: None,
            enhance_strength: None,
            mouth_protection: None,
            speaker: None,
            occlusion: None,
            label: None,
            label_corner: None,
            crf: 18,
            quality: None,
        }
    }
}

impl Options {
    /// Errors name the value and what is allowed.
    pub fn check(&self) -> Result<(), Refusal> {
        if let Some(gain) = self.motion_gain.filter(|gain| !(0.0..=4.0).contains(gain)) {
            return Err(Refusal::Invalid(format!("motion_gain: {gain} is not in 0 to 4")));
        }
        let parts = [("enhance_strength", self.enhance_strength), ("mouth_protection", self.mouth_protection)];
        for (name, part) in parts {
            if let Some(part) = part.filter(|part| !(0.0..=1.0).contains(part)) {
                return Err(Refusal::Invalid(format!("{name}: {part} is not in 0 to 1")));
            }
        }
        if let Some(cause) = self.speaker.as_deref().and_then(|word| word.parse::<Selector>().err()) {
            return Err(Refusal::Invalid(format!("speaker: {cause}")));
        }
        if let Some(cause) = self.label.as_deref().and_then(|label| marks::check_label(label).err()) {
            return Err(Refusal::Invalid(format!("label: {cause}")));
        }
        if self.crf > 50 {
            return Err(Refusal::Invalid(format!("crf: {} is not in 0 to 50", self.crf)));
        }
        self.engine.as_deref().map_or(Ok(()), engines::check_name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked_by_name_and_range() {
        let parse = |text: &str| serde_json::from_str::<Options>(text);
        assert_eq!(parse("{}").unwrap(), Options::default());
        assert!(parse("{\"loop\": false, \"container\": \"webm\"}").unwrap().check().is_ok());
        assert!(parse("{\"enhance\": \"blur\"}").is_err() && parse("{\"quality\": \"low\"}").is_err());
        assert!(parse("{\"container\": \"avi\"}").is_err() && parse("{\"speed\": 2}").is_err());
        for (text, says) in [
            ("{\"motion_gain\": 9}", "0 to 4"),
            ("{\"crf\": 51}", "0 to 50"),
            ("{\"speaker\": \"middle\"}", "speaker: `middle` is none of largest, all"),
            ("{\"enhance\": \"detail\", \"mouth_protection\": 1.5}", "mouth_protection: 1.5 is not in 0 to 1"),
            ("{\"enhance_strength\": -1}", "0 to 1"),
            ("{\"label\": \"a\\nb\"}", "label: must be one line"),
            ("{\"engine\": \"/etc\"}", "there is no `/etc`; there are"),
        ] {
            let refusal = parse(text).unwrap().check().unwrap_err().to_string();
            assert!(refusal.contains(says), "{refusal}");
        }
    }
}
