//! What a client publishes to or plays: `rtmp://host:port/live/NAME?key=SECRET`.
//!
//! Clients cut this path in different places: OBS and librtmp after `live`, ffmpeg and GStreamer before the last part
//! of a longer one. So application and stream are joined again before they are read.

use std::fmt;

use subtle::ConstantTimeEq;

use crate::{address::decoded, live::Slot};

/// Longest path and longest key that are looked at.
const MAX_LENGTH: usize = 512;

/// A stream key as it came in the URL, which no message and no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    pub fn matches(&self, expected: &str) -> bool {
        let [a, b, c] = self.read();
        let same = |given: &str| bool::from(given.as_bytes().ct_eq(expected.as_bytes()));
        same(&a) | same(&b) | same(&c)
    }

    /// What it may be: people paste keys as they are, and programs encode them, since base64 has + / and =.
    pub fn read(&self) -> [String; 3] {
        [self.0.clone(), decoded(&self.0.replace('+', "%2B")), decoded(&self.0)]
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// A stream's name without the application, and the key that came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub path: String,
    pub key: Option<Key>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the address must begin with rtmp://HOST/{0}/")]
    App(String),
    #[error("the stream has no name: add it after rtmp://HOST/{0}/")]
    Empty(String),
    #[error("the stream's name must be of letters, digits, `.`, `_`, `-` and `/`, at most 512 long")]
    Characters,
}

impl Name {
    /// Of the application of `connect` and the stream name of `publish` or `play`; paths begin with `expected`.
    pub fn new(expected: &str, app: &str, stream: &str) -> Result<Self, Error> {
        if app.len() + stream.len() > MAX_LENGTH {
            return Err(Error::Characters);
        }
        // A slash in the key: the client has cut the address within it.
        let cut = app.split_once('?').filter(|(path, _)| path.trim_matches('/').contains('/'));
        let cut = cut.map(|(path, query)| (path, format!("{query}/{stream}")));
        let (app, app_query) = app.split_once('?').unwrap_or((app, ""));
        let (app, stream, app_query) = match &cut {
            Some((path, query)) => (*path, "", query.as_str()),
            None => (app, stream, app_query),
        };
        let (stream, stream_query) = stream.split_once('?').unwrap_or((stream, ""));
        let whole = format!("{}/{}", app.trim_matches('/'), stream.trim_matches('/'));
        let (first, path) = whole.split_once('/').unwrap_or((&whole, ""));
        if first != expected {
            return Err(Error::App(expected.to_owned()));
        }
        let path = path.trim_matches('/');
        if path.is_empty() {
            return Err(Error::Empty(expected.to_owned()));
        }
        let good = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        if !path.split('/').all(good) {
            return Err(Error::Characters);
        }
        let key = [stream_query, app_query]
            .iter()
            .flat_map(|query| query.split('&'))
            .filter_map(|pair| pair.split_once('='))
            .find(|(name, value)| *name == "key" && !value.is_empty())
            .map(|(_, value)| Key(value.to_owned()));
        Ok(Self { path: path.to_owned(), key })
    }

    /// The session and its place that a publisher means: `SESSION`, `SESSION/voice` or `SESSION/voice-b`.
    pub fn publishes(&self) -> Option<(&str, Slot)> {
        match self.path.split_once('/') {
            None => Some((&self.path, Slot::Main)),
            Some((session, "voice")) => Some((session, Slot::Voice)),
            Some((session, "voice-b")) => Some((session, Slot::VoiceB)),
            Some(_) => None,
        }
    }

    /// The session of `SESSION/synced`.
    pub fn plays(&self) -> Option<&str> {
        self.path.split_once('/').filter(|(_, rest)| *rest == "synced").map(|(session, _)| session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_cut_the_path_means_the_same() {
        for (app, stream) in [("live", "talk/voice"), ("live/talk", "voice"), ("/live/", "/talk/voice/")] {
            let name = Name::new("live", app, stream).unwrap();
            assert_eq!(name.publishes(), Some(("talk", Slot::Voice)), "{app} {stream}");
        }
        assert_eq!(Name::new("live", "live", "talk/voice-b").unwrap().publishes(), Some(("talk", Slot::VoiceB)));
        assert_eq!(Name::new("live", "live", "talk").unwrap().publishes(), Some(("talk", Slot::Main)));
        assert_eq!(Name::new("live", "live/talk", "synced").unwrap().plays(), Some("talk"));
    }

    #[test]
    fn the_key_is_found_compared_and_not_shown() {
        for (app, stream) in [("live", "talk?a=b&key=s%20cret"), ("live?key=s+cret", "talk")] {
            let name = Name::new("live", app, stream).unwrap();
            let key = name.key.as_ref().unwrap();
            assert!(key.matches("s cret") && !key.matches("s cre") && !key.matches("s creT"));
            assert!(!format!("{name:?}").contains("cret"));
        }
    }

    #[test]
    fn a_key_of_base64_works_as_it_is_and_encoded() {
        let ways = [
            ("live", "talk?key=ab+c/de=="),
            ("live", "talk?key=ab%2Bc%2Fde%3D%3D"),
            ("live?key=ab+c/de==", "talk"),
            ("live/talk?key=ab+c", "de=="),
        ];
        for (app, stream) in ways {
            let name = Name::new("live", app, stream).unwrap();
            assert_eq!(name.publishes(), Some(("talk", Slot::Main)), "{app} {stream}");
            let key = name.key.expect("a key");
            assert!(key.matches("ab+c/de==") && !key.matches("ab+c/de"), "{app} {stream}");
        }
    }

    #[test]
    fn other_names_are_refused() {
        assert_eq!(Name::new("live", "vod", "talk"), Err(Error::App("live".into())));
        assert_eq!(Name::new("live", "live", "?key=x"), Err(Error::Empty("live".into())));
        for bad in ["../etc", "talk//voice", "a b", "tälk", "talk\n", "-talk", &"x".repeat(600)] {
            assert_eq!(Name::new("live", "live", bad), Err(Error::Characters), "{bad}");
        }
        assert_eq!(Name::new("live", "live", "talk/other").unwrap().publishes(), None);
    }
}
