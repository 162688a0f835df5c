use gstlipstream::{alpha::Mode, selector::Selector};
use lipstream_engines::enhance;
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
    /// H.264 and AAC, or ProRes 4444 where alpha is kept.
    Mov,
    /// H.264 and FLAC: every sample of the speech is kept.
    Mkv,
    /// VP8 and Opus, or VP9 where alpha is kept.
    Webm,
}

impl Container {
    pub fn extension(self) -> &'static str {
        match self {
            Self::Mp4 => "mp4",
            Self::Mov => "mov",
            Self::Mkv => "mkv",
            Self::Webm => "webm",
        }
    }

    /// The end of a file that holds the pictures of a part: MP4 tells the order in which H.264 is decoded.
    pub fn of_parts(self) -> &'static str {
        match self {
            Self::Webm => "webm",
            Self::Mp4 | Self::Mov | Self::Mkv => "mp4",
        }
    }

    /// Media type of the result.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Mp4 => "video/mp4",
            Self::Mov => "video/quicktime",
            Self::Mkv => "video/x-matroska",
            Self::Webm => "video/webm",
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
    /// What becomes of the video's transparency: `drop` (it is laid on black, as where it is left out), `keep` (in `webm` and `mov`),
    /// `#rrggbb` (it is laid on that colour) or `stack` (the picture above, its alpha as a grey picture below).
    pub alpha: Option<String>,
    /// What makes the face better once the mouth is pasted: `sharpen`, `clahe`, `detail`, `combined`, or an enhancer by the name under
    /// which it was imported. Nothing where it is left out.
    pub enhance: Option<String>,
    /// How much of the enhancement is blended in; 0.8 where it is left out.
    #[schema(minimum = 0, maximum = 1)]
    pub enhance_strength: Option<f64>,
    /// How much of the mouth is kept from the enhancement; 0.8 where it is left out.
    #[schema(minimum = 0, maximum = 1)]
    pub mouth_protection: Option<f64>,
    /// Of an enhancer that has a weight, such as CodeFormer: 0 is the best picture, 1 the most like the face; 0.5 where it is left out.
    #[schema(minimum = 0, maximum = 1)]
    pub fidelity: Option<f64>,
    /// Frames of a face for one evaluation of an enhancer; 1 where it is left out.
    #[schema(minimum = 1, maximum = 8)]
    pub enhance_every: Option<u8>,
    /// By how much the whole picture is enlarged before its face is enhanced; 1 where it is left out.
    #[schema(minimum = 1, maximum = 2)]
    pub face_upscale: Option<f64>,
    /// Which of several faces speak: `largest`, `all`, `auto`, `left`, `right` or `track:N`; the largest where it is left out.
    pub speaker: Option<String>,
    /// Which of the others the second voice moves, `audio_b` of the form; the largest where it is left out.
    pub speaker_b: Option<String>,
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
            alpha: None,
            enhance: None,
            enhance_strength: None,
            mouth_protection: None,
            fidelity: None,
            enhance_every: None,
            face_upscale: None,
            speaker: None,
            speaker_b: None,
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
        let parts = [
            ("enhance_strength", self.enhance_strength),
            ("mouth_protection", self.mouth_protection),
            ("fidelity", self.fidelity),
        ];
        for (name, part) in parts {
            if let Some(part) = part.filter(|part| !(0.0..=1.0).contains(part)) {
                return Err(Refusal::Invalid(format!("{name}: {part} is not in 0 to 1")));
            }
        }
        for (name, speaker) in [("speaker", &self.speaker), ("speaker_b", &self.speaker_b)] {
            if let Some(cause) = speaker.as_deref().and_then(|word| word.parse::<Selector>().err()) {
                return Err(Refusal::Invalid(format!("{name}: {cause}")));
            }
        }
        if let Some(every) = self.enhance_every.filter(|every| !(1..=enhance::MOST_FRAMES as u8).contains(every)) {
            return Err(Refusal::Invalid(format!("enhance_every: {every} is not in 1 to {}", enhance::MOST_FRAMES)));
        }
        if let Some(by) = self.face_upscale.filter(|by| !(1.0..=2.0).contains(by)) {
            return Err(Refusal::Invalid(format!("face_upscale: {by} is not in 1 to 2")));
        }
        self.check_alpha()?;
        let asks = [
            ("enhance_strength", self.enhance_strength.is_some()),
            ("mouth_protection", self.mouth_protection.is_some()),
            ("fidelity", self.fidelity.is_some()),
            ("enhance_every", self.enhance_every.is_some()),
            ("face_upscale", self.face_upscale.is_some()),
        ];
        match (&self.enhance, asks.iter().find(|(_, asked)| *asked)) {
            (Some(by), _) => engines::check_enhancer(by)?,
            (None, Some((name, _))) => {
                return Err(Refusal::Invalid(format!(
                    "{name}: has no effect without `enhance`; say by what the face is enhanced"
                )));
            }
            (None, None) => {}
        }
        if let Some(cause) = self.label.as_deref().and_then(|label| marks::check_label(label).err()) {
            return Err(Refusal::Invalid(format!("label: {cause}")));
        }
        if self.crf > 50 {
            return Err(Refusal::Invalid(format!("crf: {} is not in 0 to 50", self.crf)));
        }
        self.engine.as_deref().map_or(Ok(()), engines::check_name)
    }

    /// What becomes of transparency.
    pub fn alpha(&self) -> Mode {
        self.alpha.as_deref().and_then(|word| word.parse().ok()).unwrap_or_default()
    }

    fn check_alpha(&self) -> Result<(), Refusal> {
        let Some(word) = &self.alpha else { return Ok(()) };
        let refuse = |cause: String| Err(Refusal::Invalid(format!("alpha: {cause}")));
        match word.parse::<Mode>() {
            Ok(Mode::Keep) if !matches!(self.container, Container::Webm | Container::Mov) => refuse(format!(
                "{} cannot hold transparency; the containers webm and mov can",
                self.container.extension()
            )),
            Ok(Mode::Matte) => refuse("must be drop, keep, stack or #rrggbb, not `matte`".into()),
            Ok(_) => Ok(()),
            Err(cause) => refuse(cause.to_string()),
        }
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
        assert!(parse("{\"quality\": \"low\"}").is_err());
        assert!(parse("{\"alpha\": \"keep\", \"container\": \"mov\"}").unwrap().check().is_ok());
        assert!(
            parse("{\"alpha\": \"#00ff00\", \"enhance\": \"clahe\", \"face_upscale\": 1.5}").unwrap().check().is_ok()
        );
        assert!(parse("{\"container\": \"avi\"}").is_err() && parse("{\"speed\": 2}").is_err());
        for (text, says) in [
            ("{\"motion_gain\": 9}", "0 to 4"),
            ("{\"crf\": 51}", "0 to 50"),
            ("{\"speaker\": \"middle\"}", "speaker: `middle` is none of largest, all"),
            ("{\"enhance\": \"detail\", \"mouth_protection\": 1.5}", "mouth_protection: 1.5 is not in 0 to 1"),
            ("{\"enhance_strength\": -1}", "0 to 1"),
            ("{\"enhance_strength\": 0.5}", "enhance_strength: has no effect without `enhance`"),
            (
                "{\"enhance\": \"blur\"}",
                "enhance: must be off, sharpen, clahe, detail, combined, or an enhancer that is installed",
            ),
            ("{\"enhance\": \"/etc/passwd\"}", "enhance: must be off"),
            ("{\"enhance\": \"detail\", \"face_upscale\": 3}", "face_upscale: 3 is not in 1 to 2"),
            ("{\"enhance\": \"detail\", \"enhance_every\": 9}", "enhance_every: 9 is not in 1 to 8"),
            ("{\"alpha\": \"keep\"}", "alpha: mp4 cannot hold transparency; the containers webm and mov can"),
            ("{\"alpha\": \"green\"}", "alpha: must be drop, keep"),
            ("{\"alpha\": \"matte\"}", "not `matte`"),
            ("{\"speaker_b\": \"middle\"}", "speaker_b: `middle`"),
            ("{\"label\": \"a\\nb\"}", "label: must be one line"),
            ("{\"engine\": \"/etc\"}", "there is no `/etc`; there are"),
        ] {
            let refusal = parse(text).unwrap().check().unwrap_err().to_string();
            assert!(refusal.contains(says), "{refusal}");
        }
    }
}
