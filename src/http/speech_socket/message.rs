//! What the client and the server say in text.

use serde::{Deserialize, Serialize};

/// What a client says.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum SpeechCommand {
    SpeakStart {
        rate: Option<serde_json::Number>,
        utterance: Option<String>,
    },
    SpeakEnd {},
    /// Of this voice; of both with `all`.
    Interrupt {
        #[serde(default)]
        all: bool,
    },
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Report<'a> {
    Error { message: &'a str },
}

impl SpeechCommand {
    /// Reads a text message.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}
