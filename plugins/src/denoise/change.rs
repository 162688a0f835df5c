//! Another engine while the element runs.
//!
//! An engine that `model` names is loaded on a thread of its own, learns the persons that are known, and stands ready beside the one
//! in use. It is taken at the first frame before which nobody has spoken for `idle-after`, when all frames before have left: no
//! frame is made by two engines and none is lost. The engine that `fallback-model` names stands ready in the same way. It takes over
//! when the one in use fails, at once, and makes the frame that failed.

use gst::{glib, prelude::*, subclass::prelude::*};
use lipstream_engines::{Error, engine::Spec};

use super::{
    imp::{CAT, LipDenoise},
    speaker::Loaded,
    timing::own_latency,
};

/// Name of the message that tells of engines: fields `model` and `event`, which is `ready`, `taken`, `refused` or `failed`, and of
/// the latter two `cause`; of `failed` `taken`, the engine that goes on.
pub const MESSAGE: &str = "lipstream-engine";

/// What an engine stands ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Next,
    Fallback,
}

/// An engine that is wanted, and that itself once it is loaded.
#[derive(Default)]
struct Place {
    wanted: Option<String>,
    /// Of the wish: what was loaded for an earlier one is of no use.
    number: u64,
    ready: Option<Loaded>,
}

impl Place {
    /// Returns the number of the wish where an engine must be loaded for it.
    fn want(&mut self, wanted: Option<&str>, other: &mut Place) -> Option<u64> {
        if self.wanted.as_deref() == wanted {
            return None;
        }
        self.number += 1;
        self.wanted = wanted.map(str::to_owned);
        self.ready = None;
        let wanted = wanted?;
        if other.wanted.as_deref() == Some(wanted) && other.ready.is_some() {
            self.ready = other.ready.take();
            *other = Self { number: other.number + 1, ..Self::default() };
            return None;
        }
        Some(self.number)
    }

    fn take(&mut self) -> Option<(String, Loaded)> {
        let ready = self.ready.take()?;
        self.number += 1;
        Some((self.wanted.take()?, ready))
    }
}

/// The engines that stand ready beside the one in use.
#[derive(Default)]
pub struct Changes {
    next: Place,
    fallback: Place,
    /// What is to be told when no lock is held.
    news: Vec<gst::Structure>,
}

impl Changes {
    fn place(&mut self, role: Role) -> &mut Place {
        match role {
            Role::Next => &mut self.next,
            Role::Fallback => &mut self.fallback,
        }
    }

    /// Nothing is wanted any more.
    pub fn clear(&mut self) {
        for place in [&mut self.next, &mut self.fallback] {
            *place = Place { number: place.number + 1, ..Place::default() };
        }
    }

    /// Whether something could go on where the engine in use fails.
    pub fn is_covered(&self) -> bool {
        self.fallback.ready.is_some() || self.next.ready.is_some()
    }

    /// The engine that is to be taken at the next pause.
    pub fn take_next(&mut self) -> Option<(String, Loaded)> {
        self.next.take()
    }

    /// The engine that goes on where the one in use has failed.
    pub fn take_any(&mut self) -> Option<(String, Loaded)> {
        self.fallback.take().or_else(|| self.next.take())
    }

    /// Keeps the engine that was in use, where it is the one to fall back to.
    fn keep(&mut self, model: &str, loaded: Loaded) -> Option<Loaded> {
        let place = &mut self.fallback;
        if place.ready.is_some() {
            return Some(loaded);
        }
        *place = Place { wanted: Some(model.to_owned()), number: place.number + 1, ready: Some(loaded) };
        None
    }
}

impl LipDenoise {
    /// Follows what the properties `model` and `fallback-model` say, where the element runs.
    pub(super) fn follow_models(&self) {
        let Some(used) = self.state.lock().model.clone() else { return };
        let (model, fallback) = {
            let settings = self.settings.lock();
            (settings.model.clone(), settings.fallback.clone())
        };
        let wishes = {
            let Changes { next, fallback: place, .. } = &mut *self.changes.lock();
            let next_wish = next.want(Some(model.as_str()).filter(|model| *model != used), place);
            let fallback = fallback.as_deref().filter(|model| *model != used && next.wanted.as_deref() != Some(*model));
            let fallback_wish = place.want(fallback, &mut Place::default());
            [(Role::Next, next_wish, Some(model)), (Role::Fallback, fallback_wish, fallback.map(str::to_owned))]
        };
        for (role, number, model) in wishes {
            if let (Some(number), Some(model)) = (number, model) {
                self.prepare(role, number, model);
            }
        }
    }

    /// Loads an engine on a thread of its own. What is to be told is told with the next frame: the lock of the video may be held here.
    fn prepare(&self, role: Role, number: u64, model: String) {
        let weak = self.obj().downgrade();
        let named = model.clone();
        let spawned = std::thread::Builder::new().name("lipstream-load".into()).spawn(move || {
            let Some(obj) = weak.upgrade() else { return };
            let this = obj.imp();
            let loaded = this.load(&model);
            let mut changes = this.changes.lock();
            let place = changes.place(role);
            if place.number != number {
                return;
            }
            match loaded {
                Ok(loaded) => {
                    place.ready = Some(loaded);
                    changes.news.push(news(&model, "ready", None, None));
                }
                Err(error) => {
                    *place = Place { number: number + 1, ..Place::default() };
                    changes.news.push(news(&model, "refused", Some(&error.to_string()), None));
                }
            }
            drop(changes);
            this.tell_news();
        });
        if let Err(error) = spawned {
            let cause = format!("no thread to load it: {error}");
            self.changes.lock().news.push(news(&named, "refused", Some(&cause), None));
        }
    }

    /// An engine that can take the place of the one in use, and knows the persons that this knows.
    fn load(&self, model: &str) -> Result<Loaded, Error> {
        let settings = self.settings.lock().clone();
        let mut loaded = Loaded::new(model, &settings)?;
        let (used, info, reach, own) = {
            let state = self.state.lock();
            let stream = state.stream.as_ref().ok_or_else(|| Error::invalid("the stream has ended"))?;
            (stream.worker().engine().spec().clone(), state.info.clone(), state.reach, state.own)
        };
        check(&used, loaded.spec(), reach, own, own_latency(&loaded, &settings))?;
        if let Some(info) = info {
            loaded.spec().check_rate(info.fps().numer(), info.fps().denom())?;
        }
        let known = self.video.lock().as_ref().map(|video| video.known());
        if let Some(known) = known {
            loaded.learn(known)?;
        }
        Ok(loaded)
    }

    /// An engine that stood ready was not taken.
    pub(super) fn refused(&self, model: &str, error: &Error, loaded: Loaded) {
        unload(loaded);
        self.changes.lock().news.push(news(model, "refused", Some(&error.to_string()), None));
    }

    /// The engine `model` is in use in the place of another one, called `before`.
    pub(super) fn changed(&self, model: &str, before: &str, left: Loaded, failed: Option<&Error>) {
        let fallback = {
            let mut settings = self.settings.lock();
            if failed.is_some() {
                settings.model = model.to_owned();
            }
            settings.fallback.clone()
        };
        // What has failed is not gone back to.
        let left = match failed.is_none() && fallback.as_deref() == Some(before) {
            true => self.changes.lock().keep(before, left),
            false => Some(left),
        };
        if let Some(left) = left {
            unload(left);
        }
        self.changes.lock().news.push(match failed {
            None => news(model, "taken", None, None),
            Some(error) => news(before, "failed", Some(&error.to_string()), Some(model)),
        });
        self.follow_models();
    }

    /// Posts what has become of engines; no lock is held here.
    pub(super) fn tell_news(&self) {
        let news = std::mem::take(&mut self.changes.lock().news);
        for told in news {
            gst::info!(CAT, imp = self, "{told}");
            // Nobody may be listening.
            let _ = self.obj().post_message(gst::message::Element::builder(told).src(&*self.obj()).build());
        }
    }
}

/// Drops an engine on a thread of its own: where its worker ends with it, that takes a while.
fn unload(loaded: Loaded) {
    // Without a thread it is dropped here.
    let _ = std::thread::Builder::new().name("lipstream-unload".into()).spawn(move || drop(loaded));
}

fn news(model: &str, event: &str, cause: Option<&str>, taken: Option<&str>) -> gst::Structure {
    gst::Structure::builder(MESSAGE)
        .field("model", model)
        .field("event", event)
        .field_if_some("cause", cause)
        .field_if_some("taken", taken)
        .build()
}

/// Refuses an engine for which more of the graph would have to change than the engine.
fn check(
    used: &Spec,
    next: &Spec,
    reach: gst::ClockTime,
    own: gst::ClockTime,
    next_own: gst::ClockTime,
) -> Result<(), Error> {
    let refuse = |cause: String| {
        Err(Error::invalid(format!(
            "engine `{}` cannot take the place of `{}` in a stream that runs: {cause}; it is taken where the stream starts anew",
            next.name, used.name
        )))
    };
    if next.front_end != used.front_end {
        return refuse("it hears by another front-end".into());
    }
    if (next.clip, next.later) != (used.clip, used.later) {
        return refuse(format!(
            "it makes {} frames together and looks at {} to come, and the other {} and {}",
            next.clip.hop, next.later, used.clip.hop, used.later
        ));
    }
    let ahead = gst::ClockTime::from_nseconds(next.window.reach().as_nanos() as u64);
    if ahead > reach || next_own > own {
        let more = ahead.saturating_sub(reach) + next_own.saturating_sub(own);
        return refuse(format!("its frames wait for {} ms more", more.mseconds()));
    }
    Ok(())
}

/// The property that names the engine to fall back to.
pub fn property(name: &'static str) -> glib::ParamSpec {
    glib::ParamSpecString::builder(name)
        .nick("Fallback")
        .blurb(
            "Engine that stands ready beside the one in use and takes over, at once and for good, when that fails; it must hear by the \
             same front-end (unset = a failure ends the stream)",
        )
        .mutable_playing()
        .build()
}
