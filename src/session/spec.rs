//! What a session is asked to be.

use std::{collections::BTreeMap, time::Duration};

use gstlipstream::{alpha::Mode, selector::Selector};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Refusal;
use crate::{
    graph::Service,
    marks::{self, Corner},
    occlusion::Occlusion,
    pull, push,
};

const MAX_PARAMS: usize = 64;
/// Longest parameter or URL, in bytes.
const MAX_VALUE: usize = 2048;
const MAX_PUSHES: usize = 8;
/// A week, in seconds.
const MAX_IDLE: u32 = 604_800;

/// Whether `name` can be part of a URL and of a metric as it is.
pub fn is_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

/// Whether a value is left out of what is told; the API's document has its field all the same.
fn is_secret(_: &Option<String>) -> bool {
    true
}

/// Where a session's pictures come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Video {
    /// The clips of a prepared avatar, looped.
    Avatar,
    /// Whoever publishes to the session, by RTMP or WHIP.
    Publish,
    /// A URL that the session reads: RTMP, SRT, RTSP, HTTP.
    Pull,
}

/// What the lips follow and viewers hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Voice {
    /// What is spoken through the API, the WebSocket or a microphone; silence in between.
    Speech,
    /// The sound of the video's own source, with speech through the API in its place while there is some.
    Source,
    /// A second live source, published to the session's voice.
    Second,
}

/// A session as it is created. Everything but `id` and `graph` has a default from the graph file.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Spec)]
pub struct SessionSpec {
    /// 1 to 64 of `a-z A-Z 0-9 . _ -`, starting with a letter or a digit. It is part of URLs.
    pub id: String,
    /// Name of a graph: `avatar`, `relay`, `dub`, `rtmp-push`, or a file in the configured folder, without `.toml`.
    pub graph: String,
    /// Engine by name, as the graph's parameter `engine`; the server's where nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// Sound after a frame that its mouth may hear, in milliseconds, as the graph's parameter `look-ahead`: one of the engine's
    /// `look_aheads_ms`. Less is sooner, more is truer; 0, as without it, is the engine's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 10_000)]
    pub look_ahead_ms: Option<u32>,
    /// Which of several faces speak, as the graph's parameter `speaker`: `largest`, `all`, `auto`, `left`, `right` or `track:N`; the
    /// largest where nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speaker: Option<String>,
    /// Gives the session a second voice, voice `b`, and says which faces it moves of those that the first one does not: as `speaker`,
    /// where `auto` is the largest. Both are heard together. One voice where nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speaker_b: Option<String>,
    /// Whether what is before the face stays before its mouth, as the graph's parameter `occlusion`; the server's where nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub occlusion: Option<Occlusion>,
    /// What becomes of transparency, as the graph's parameter `alpha`: `drop` (laid on black), `key:#rrggbb` (laid on that colour) or `stack`
    /// (the picture above, its alpha as a grey picture below); it is dropped where nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha: Option<String>,
    /// Text in every picture for all to see, as the graph's parameter `label`: at most 100 Latin, Greek or Cyrillic characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 100)]
    pub label: Option<String>,
    /// Where it is, as the graph's parameter `label-corner`; below and to the left where nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_corner: Option<Corner>,
    /// Parameters of the graph, as its file lists them.
    #[serde(default)]
    pub params: BTreeMap<String, String>,
    /// Name of the avatar, for graphs that show one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar: Option<String>,
    /// URL to read, for graphs that pull.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull: Option<String>,
    /// RTMP, SRT and WHIP URLs (`whip://` is by HTTP, `whips://` by HTTPS) to which the output is pushed while the session runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub push: Vec<String>,
    /// Name under which RTMP clients play it, besides `KEY/synced`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub play: Option<String>,
    /// Secret that an RTMP publisher must add to the URL as `?key=`. Never shown.
    #[serde(default, skip_serializing_if = "is_secret")]
    #[schema(write_only)]
    pub stream_key: Option<String>,
    /// Runs without viewers too.
    #[serde(default)]
    pub always_on: bool,
    /// Seconds without viewers after which the graph stops; the default is the server's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_seconds: Option<u32>,
    /// It began with its publisher and ends when that and the viewers have gone.
    #[serde(skip)]
    #[schema(ignore)]
    pub with_publisher: bool,
}

impl SessionSpec {
    pub fn new(id: &str, graph: &str) -> Self {
        Self {
            id: id.to_owned(),
            graph: graph.to_owned(),
            engine: None,
            look_ahead_ms: None,
            speaker: None,
            speaker_b: None,
            occlusion: None,
            alpha: None,
            label: None,
            label_corner: None,
            params: BTreeMap::new(),
            avatar: None,
            pull: None,
            push: Vec::new(),
            play: None,
            stream_key: None,
            always_on: false,
            idle_seconds: None,
            with_publisher: false,
        }
    }

    /// Checks what needs no look at the machine.
    pub fn check(&self) -> Result<(), Refusal> {
        let invalid = |key: &str, cause: &str| Err(Refusal::Invalid(format!("{key}: {cause}")));
        if !is_name(&self.id) {
            return invalid("id", "must be 1 to 64 of a-z A-Z 0-9 . _ - and start with a letter or a digit");
        }
        if self.play.as_deref().is_some_and(|play| !is_name(play)) {
            return invalid("play", "must be 1 to 64 of a-z A-Z 0-9 . _ - and start with a letter or a digit");
        }
        if self.params.len() > MAX_PARAMS || self.params.values().any(|value| value.len() > MAX_VALUE) {
            return invalid("params", "are too many or too long");
        }
        let labels = [self.label.as_ref(), self.params.get("label")];
        if let Some(cause) = labels.into_iter().flatten().find_map(|label| marks::check_label(label).err()) {
            return invalid("label", &cause);
        }
        let speakers = [self.speaker.as_ref(), self.params.get("speaker")];
        if let Some(cause) = speakers.into_iter().flatten().find_map(|word| word.parse::<Selector>().err()) {
            return invalid("speaker", &cause.to_string());
        }
        if let Some(cause) = self.speaker_b.as_ref().and_then(|word| word.parse::<Selector>().err()) {
            return invalid("speaker_b", &cause.to_string());
        }
        let alphas = [self.alpha.as_ref(), self.params.get("alpha")];
        let live = |word: &str| matches!(word.parse(), Ok(Mode::Drop | Mode::Key(_) | Mode::Stack));
        if let Some(word) = alphas.into_iter().flatten().find(|word| !live(word)) {
            return invalid("alpha", &format!("must be drop, stack or key:#rrggbb, not `{}`", word.escape_debug()));
        }
        if let Some(cause) = self.params.get("occlusion").and_then(|asked| Occlusion::parse(asked).err()) {
            return invalid("occlusion", &cause);
        }
        if self.push.len() > MAX_PUSHES {
            return invalid("push", &format!("{} URLs, and {MAX_PUSHES} are allowed", self.push.len()));
        }
        for (key, url) in self.push.iter().map(|url| ("push", url)).chain(self.pull.iter().map(|url| ("pull", url))) {
            let parsed = url::Url::parse(url).ok().filter(|u| url.len() <= MAX_VALUE && !u.cannot_be_a_base());
            let Some(parsed) = parsed else {
                return invalid(key, "must be a URL, such as rtmp://host/app/key");
            };
            // A file is pulled without a port.
            let (remote, local) = if key == "push" { (push::SCHEMES, None) } else { (pull::SCHEMES, Some("file")) };
            let allowed: Vec<&str> = remote.iter().map(|(scheme, _)| *scheme).chain(local).collect();
            if !allowed.contains(&parsed.scheme()) {
                return invalid(key, &format!("scheme `{}` is none of {}", parsed.scheme(), allowed.join(", ")));
            }
        }
        if self.stream_key.as_deref().is_some_and(|key| !(8..=256).contains(&key.len())) {
            return invalid("stream_key", "must be 8 to 256 bytes long");
        }
        if self.idle_seconds.is_some_and(|seconds| seconds > MAX_IDLE) {
            return invalid("idle_seconds", &format!("must be at most {MAX_IDLE}"));
        }
        Ok(())
    }

    /// What the graph says, with what this session makes of it.
    pub fn service(&self, mut service: Service) -> Result<Service, Refusal> {
        if self.pull.is_some() {
            if service.video == Video::Avatar {
                return Err(Refusal::Invalid(format!("pull: graph `{}` shows an avatar and reads no URL", self.graph)));
            }
            service.video = Video::Pull;
        } else if service.video == Video::Pull {
            return Err(Refusal::Invalid(format!("pull: graph `{}` needs a URL to read", self.graph)));
        }
        if service.push && self.push.is_empty() {
            return Err(Refusal::Invalid(format!("push: graph `{}` needs at least one URL to push to", self.graph)));
        }
        Ok(service)
    }

    pub fn idle(&self, default: Duration) -> Duration {
        self.idle_seconds.map_or(default, |s| Duration::from_secs(s.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named() {
        type Break = fn(&mut SessionSpec);
        let cases: [(Break, &str); 14] = [
            (|s| s.alpha = Some("keep".into()), "alpha: must be drop, stack or key:#rrggbb, not `keep`"),
            (|s| s.id = "../etc".into(), "id: "),
            (|s| s.id = "-x".into(), "id: "),
            (|s| s.id = "x".repeat(65), "id: "),
            (|s| s.play = Some("a b".into()), "play: "),
            (|s| s.push = vec!["file:///etc/passwd".into()], "push: scheme `file`"),
            (|s| s.pull = Some("nonsense".into()), "pull: must be a URL"),
            (|s| s.stream_key = Some("short".into()), "stream_key: "),
            (|s| s.idle_seconds = Some(u32::MAX), "idle_seconds: "),
            (|s| s.speaker = Some("track:x".into()), "speaker: "),
            (|s| s.speaker_b = Some("both".into()), "speaker_b: "),
            (|s| s.label = Some("x".repeat(101)), "label: is longer than 100"),
            (
                |s| drop(s.params.insert("occlusion".into(), "mask.onnx".into())),
                "occlusion: must be auto or off, not `mask.onnx`",
            ),
            (
                |s| drop(s.params.insert("label".into(), "\u{5b57}".into())),
                "label: has characters that cannot be shown",
            ),
        ];
        for (damage, message) in cases {
            let mut spec = SessionSpec::new("good.Id-1_x", "relay");
            spec.check().unwrap();
            damage(&mut spec);
            let refusal = spec.check().unwrap_err().to_string();
            assert!(refusal.starts_with(message), "{refusal}");
        }
    }

    #[test]
    fn a_url_makes_a_relay_pull_and_an_avatar_does_not_take_one() {
        let relay = Service { video: Video::Publish, voice: Voice::Source, push: false };
        let mut spec = SessionSpec::new("x", "relay");
        assert_eq!(spec.service(relay.clone()).unwrap().video, Video::Publish);
        spec.pull = Some("rtmp://host/live/x".into());
        assert_eq!(spec.service(relay.clone()).unwrap().video, Video::Pull);
        assert!(spec.service(Service { video: Video::Avatar, ..relay.clone() }).is_err());
        assert!(SessionSpec::new("x", "rtmp-push").service(Service { push: true, ..relay }).is_err());
    }

    #[test]
    fn a_stream_key_is_never_shown() {
        let mut spec = SessionSpec::new("x", "relay");
        spec.stream_key = Some("correct horse".into());
        assert!(!serde_json::to_string(&spec).unwrap().contains("horse"));
    }
}
