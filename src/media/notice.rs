//! What a user should know of their media although the work goes on: a track that was chosen, a conversion that loses
//! something, a recording that was cut off.

use std::{fmt, sync::Arc};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Notices of one piece of work that are kept; what a hostile file could add without end is dropped.
const MOST: usize = 64;
/// Names of the messages by which elements tell.
const TELLERS: [&str; 1] = ["lippicture"];

/// One thing that a user should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Notice {
    /// What it is about, for programs: `tone-mapped`, `cut-off`, ...
    pub kind: String,
    /// One line for people, with the file's name where there is one.
    pub text: String,
    /// Whether the result is less than it would be without the cause; otherwise it is what was chosen or converted.
    pub warning: bool,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The notices of one piece of work (a render, an evaluation, a session's source). Each is logged once, when it comes:
/// warnings always, the others with `-v`.
#[derive(Clone, Debug, Default)]
pub struct Notices {
    kept: Arc<Mutex<Vec<Notice>>>,
    unheard: bool,
}

impl Notices {
    /// For reading a file again whose notices were given the first time: nothing is kept and nothing logged.
    pub fn unheard() -> Self {
        Self { unheard: true, ..Self::default() }
    }

    /// Tells of something that makes the result less than it would be.
    pub fn warn(&self, kind: &str, text: impl Into<String>) {
        self.add(Notice { kind: kind.into(), text: text.into(), warning: true });
    }

    /// Tells of a choice or a conversion.
    pub fn tell(&self, kind: &str, text: impl Into<String>) {
        self.add(Notice { kind: kind.into(), text: text.into(), warning: false });
    }

    /// Takes what an element of ours tells by a message; `of` names the source and comes before the text.
    pub fn take(&self, message: &gst::Message, of: &str) {
        let told = message.structure().filter(|structure| TELLERS.contains(&structure.name().as_str()));
        let Some(told) = told else { return };
        let (Ok(kind), Ok(text)) = (told.get::<String>("kind"), told.get::<String>("text")) else { return };
        self.add(Notice { kind, text: format!("{of}{text}"), warning: told.get("warning").unwrap_or_default() });
    }

    fn add(&self, notice: Notice) {
        let mut kept = self.kept.lock();
        // The same file is read more than once for one piece of work.
        if self.unheard || kept.len() >= MOST || kept.contains(&notice) {
            return;
        }
        kept.push(notice.clone());
        drop(kept);
        if notice.warning {
            tracing::warn!("{notice}");
        } else {
            tracing::info!("{notice}");
        }
    }

    /// In the order in which they came.
    pub fn list(&self) -> Vec<Notice> {
        self.kept.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_kept_once_and_their_number_is_bounded() {
        let notices = Notices::default();
        notices.warn("cut-off", "a.mp4: cut off at 1.0 s of 2.0 s");
        notices.clone().warn("cut-off", "a.mp4: cut off at 1.0 s of 2.0 s");
        assert_eq!(notices.list().len(), 1);
        (0..2 * MOST).for_each(|n| notices.tell("track", n.to_string()));
        assert_eq!(notices.list().len(), MOST);
        assert!(notices.list()[0].warning && !notices.list()[1].warning);
    }
}
