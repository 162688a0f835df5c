//! What a session is asked to be.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

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
pub struct Spec {
    /// 1 to 64 of `a-z A-Z 0-9 . _ -`, starting with a letter or a digit. It is part of URLs.
    pub id: String,
    /// Name of a graph: `avatar`, `relay`, `dub`, `rtmp-push`, or a file in the configured folder, without `.toml`.
    pub graph: String,
    /// Parameters of the graph, as its file lists them.
    #[serde(default)]
    pub params: BTreeMap<String, String>,
    /// Name of the avatar, for graphs that show one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar: Option<String>,
    /// URL to read, for graphs that pull.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull: Option<String>,
    /// RTMP and SRT URLs to which the output is pushed while the session runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub push: Vec<String>,
    /// Name under which RTMP clients play it, besides `KEY/synced`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub play: Option<String>,
    /// Secret that an RTMP publisher must add to the URL as `?key=`. Never shown.
    #[serde(default, skip_serializing)]
    pub stream_key: Option<String>,
    /// Runs without viewers too.
    #[serde(default)]
    pub always_on: bool,
    /// Seconds without viewers after which the graph stops; the default is the server's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_seconds: Option<u32>,
}

impl Spec {
    pub fn new(id: &str, graph: &str) -> Self {
        Self {
            id: id.to_owned(),
            graph: graph.to_owned(),
            params: BTreeMap::new(),
            avatar: None,
            pull: None,
            push: Vec::new(),
            play: None,
            stream_key: None,
            always_on: false,
            idle_seconds: None,
        }
    }

    pub fn idle(&self, default: Duration) -> Duration {
        self.idle_seconds.map_or(default, |s| Duration::from_secs(s.into()))
    }
}
