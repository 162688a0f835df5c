//! What the graph of a session is told, and what it asks of the machine.

use std::collections::BTreeMap;

use gst::prelude::*;
use gstlipstream::{alpha::Mode, selector::Selector};
use lipstream_engines::{manifest::Package, occlusion::Masks};

use super::{
    super::{
        Refusal, SessionSpec, Voice,
        capacity::{self, Demand, Enhancing},
    },
    Session,
    voices::VoiceName,
};
use crate::{engines, graph::Graph, live::Picture, marks, occlusion::Occlusion};

/// The graph's parameter for a look-ahead.
const LOOK_AHEAD: &str = "look-ahead";
/// That for the faces that speak.
pub(in crate::session) const SPEAKER: &str = "speaker";
/// No parameter of the graph but of the session: that of its second voice.
const SPEAKER_B: &str = "speaker-b";
/// Those for the visible label.
pub(super) const LABEL: &str = "label";
const LABEL_CORNER: &str = "label-corner";
/// Most faces that speak at once, as the lip-sync has it.
const MAX_SPEAKERS: usize = 8;
/// Those for what is done to a finished face.
const ENHANCE: &str = "enhance";
const EVERY: &str = "enhance-every";
/// That for what is before a face.
const OCCLUSION: &str = "occlusion";

/// That for transparency.
const ALPHA: &str = "alpha";

/// What becomes of the transparency of a session's pictures.
pub(super) fn alpha(spec: &SessionSpec, graph: &Graph) -> Mode {
    let asked = spec.params.get(ALPHA).or(spec.alpha.as_ref()).and_then(|word| word.parse().ok());
    asked.filter(|_| graph.has_param(ALPHA)).unwrap_or_default()
}

impl Session {
    /// What becomes of the transparency of its pictures.
    pub(super) fn alpha(&self) -> Mode {
        alpha(&self.spec, &self.graph)
    }

    /// Changes a parameter of the graph while it runs, and for its next starts. Only those that need no new graph.
    pub fn set(&self, name: &str, value: &str) -> Result<(), Refusal> {
        let element = match name {
            SPEAKER_B => return self.set_second_speaker(value),
            "motion-gain" | "idle" | "max-yaw" | SPEAKER | LABEL | LABEL_CORNER | OCCLUSION => "ls",
            "bitrate" => "h264-encoder",
            ENHANCE | EVERY | "enhance-strength" | "mouth-protection" | "fidelity" => "enhance",
            _ => {
                return Err(Refusal::Invalid(format!(
                    "{name}: cannot be changed while the session runs; motion-gain, idle, speaker, bitrate, enhance, \
                     enhance-strength, mouth-protection, fidelity, enhance-every, label, label-corner, occlusion and max-yaw can"
                )));
            }
        };
        if name == LABEL {
            marks::check_label(value).map_err(|cause| Refusal::Invalid(format!("label: {cause}")))?;
        }
        if name == ENHANCE {
            engines::check_enhancer(value)?;
        }
        if name == SPEAKER {
            let checked = value.parse::<Selector>().map(drop);
            checked.map_err(|cause| Refusal::Invalid(format!("speaker: {cause}")))?;
        }
        if name == OCCLUSION {
            Occlusion::parse(value).map_err(|cause| Refusal::Invalid(format!("occlusion: {cause}")))?;
        }
        // The graph file says what is allowed.
        self.launch(&[(name.to_owned(), value.to_owned())], "auto")?;
        let own = [(name.to_owned(), value.to_owned())];
        self.check_room(&self.demand_with(&own, self.second_speaker()))?;
        let mut state = self.state.lock();
        state.changed.retain(|(known, _)| known != name);
        state.changed.push((name.to_owned(), value.to_owned()));
        let element = state.running.as_ref().and_then(|running| running.graph.pipeline.by_name(element));
        drop(state);
        let value = &self.params(&[(name.to_owned(), value.to_owned())]).remove(name).unwrap_or_default();
        let spec = element.as_ref().and_then(|element| element.find_property(name));
        match (element, spec.map(|spec| spec.value_type())) {
            // From a string it would be unquoted.
            (Some(element), Some(gst::glib::Type::STRING)) => element.set_property(name, self.told(name, value)),
            (Some(element), Some(_)) => element.set_property_from_str(name, value),
            _ => {}
        }
        Ok(())
    }

    /// Has its second voice move other faces.
    fn set_second_speaker(&self, value: &str) -> Result<(), Refusal> {
        self.speech_of(VoiceName::B)?;
        let checked = value.parse::<Selector>().map(drop);
        checked.map_err(|cause| Refusal::Invalid(format!("speaker_b: {cause}")))?;
        self.check_room(&self.demand_with(&[], Some(heard_elsewhere(value).to_owned())))?;
        let lipsync = {
            let mut state = self.state.lock();
            state.second_speaker = Some(value.to_owned());
            state.running.as_ref().map(|running| running.graph.lipsync.clone())
        };
        if let Some(lipsync) = lipsync {
            lipsync.set_property(SPEAKER_B, heard_elsewhere(value));
        }
        Ok(())
    }

    /// Refuses a change by which its running graph would ask for `more` than it does, where that does not fit beside the others.
    fn check_room(&self, more: &Demand) -> Result<(), Refusal> {
        match (self.running(), self.manager.upgrade()) {
            (Some(now), Some(manager)) if now != *more => manager.has_room_to_grow(self.id(), &now, more),
            _ => Ok(()),
        }
    }

    /// The faces that its second voice moves, as the graph is told; `None` without one.
    pub(super) fn second_speaker(&self) -> Option<String> {
        let asked = self.state.lock().second_speaker.clone().or_else(|| self.spec.speaker_b.clone());
        asked.map(|asked| heard_elsewhere(&asked).to_owned())
    }

    /// What its graph asks of the machine; `None` where none runs.
    pub(in crate::session) fn running(&self) -> Option<Demand> {
        let runs = self.state.lock().running.is_some();
        runs.then(|| self.demand())
    }

    /// Refuses a look-ahead that its engine does not have, or has for files.
    pub(super) fn check_look_ahead(&self) -> Result<(), Refusal> {
        let asked = self.params(&[]).remove(LOOK_AHEAD).and_then(|ms| ms.parse().ok()).unwrap_or(0);
        // What is wrong with the engine, its graph says.
        let Ok(engine) = Package::find(&self.demand().engine) else { return Ok(()) };
        engine.check_live_look_ahead(asked).map_err(|error| Refusal::Invalid(format!("look_ahead_ms: {error}")))
    }

    /// What its graph asks of the machine. A graph without the parameter `engine` is taken to have the server's.
    pub(in crate::session) fn demand(&self) -> Demand {
        self.demand_with(&[], self.second_speaker())
    }

    /// The same with parameters `changed` and a second voice for the faces `second_speaker`.
    fn demand_with(&self, changed: &[(String, String)], second_speaker: Option<String>) -> Demand {
        let servers = || self.manager.upgrade().map(|manager| manager.settings().engine.clone());
        let mut all = self.state.lock().changed.clone();
        all.extend(changed.iter().cloned());
        let mut params = self.params(&all);
        let engine = params.remove("engine").or_else(servers).unwrap_or_default();
        let steps = params.remove("steps").and_then(|steps| steps.parse().ok()).filter(|steps| *steps > 0);
        let speakers = params.remove(SPEAKER).into_iter().chain(second_speaker);
        let seen = self.state.lock().running.as_ref().map(|running| running.graph.meter.faces());
        let speakers: Vec<String> = speakers.collect();
        let enhancer = params.remove(ENHANCE).filter(|name| engines::is_enhancer(name));
        let every = params.remove(EVERY).and_then(|every| every.parse().ok());
        let enhancer = enhancer.map(|name| Enhancing { name, every });
        let stacked = self.alpha() == Mode::Stack;
        Demand { picture: self.picture(), engine, steps, mouths: mouths(&speakers, seen), stacked, enhancer }
    }

    /// Frames a second of what it shows, where that is known.
    pub fn rate(&self) -> Option<f64> {
        let (frames, seconds) = self.known_picture().map(|picture| picture.fps).filter(|fps| fps.0 > 0)?;
        Some(f64::from(frames) / f64::from(seconds.max(1)))
    }

    pub(super) fn picture(&self) -> Picture {
        self.known_picture().unwrap_or(capacity::STANDARD)
    }

    fn known_picture(&self) -> Option<Picture> {
        self.avatar.as_ref().map(|avatar| avatar.picture).or_else(|| self.jitter_buffer.picture())
    }

    /// The graph's description with this session's parameters.
    pub(super) fn launch(&self, changed: &[(String, String)], device: &str) -> Result<String, Refusal> {
        let mut params = self.params(changed);
        if self.graph.has_param("device") {
            params.entry("device".to_owned()).or_insert_with(|| device.to_owned());
        }
        let settings: Vec<String> =
            params.iter().map(|(name, value)| format!("{name}={}", self.told(name, value))).collect();
        self.graph.launch(&settings).map_err(|e| Refusal::Invalid(format!("params: {e}")))
    }

    /// What the graph is told for the value of a parameter: where the voice is not the source's own, nobody's lips follow it, and the
    /// largest face speaks.
    fn told<'a>(&self, name: &str, value: &'a str) -> &'a str {
        let strange = self.voice() != Voice::Source;
        if name == SPEAKER && strange { heard_elsewhere(value) } else { value }
    }

    /// Parameters that are set, with the version of the engine that it has.
    pub(super) fn params(&self, changed: &[(String, String)]) -> BTreeMap<String, String> {
        let mut params = self.asked(changed);
        if let Some(engine) = params.get_mut("engine") {
            *engine = self.engine_for(engine);
        }
        params
    }

    /// Parameters as they were asked for: the server's engine, the session's own, what has been changed since.
    pub(super) fn asked(&self, changed: &[(String, String)]) -> BTreeMap<String, String> {
        let mut params = BTreeMap::new();
        if let Some(manager) = self.manager.upgrade().filter(|_| self.graph.has_param("engine")) {
            params.insert("engine".to_owned(), manager.settings().engine.clone());
        }
        params.extend(self.spec.engine.clone().map(|engine| ("engine".to_owned(), engine)));
        let masks = self.manager.upgrade().map_or(Masks::Auto, |manager| manager.settings().occlusion.clone());
        if self.graph.has_param(OCCLUSION) {
            params.insert(OCCLUSION.to_owned(), masks.to_string());
        }
        params.extend(self.spec.occlusion.map(|asked| (OCCLUSION.to_owned(), asked.masks(&masks).to_string())));
        params.extend(self.spec.look_ahead_ms.map(|ms| (LOOK_AHEAD.to_owned(), ms.to_string())));
        params.extend(self.spec.speaker.clone().map(|speaker| (SPEAKER.to_owned(), speaker)));
        params.extend(self.spec.alpha.clone().map(|alpha| (ALPHA.to_owned(), alpha)));
        params.extend(self.spec.label.clone().map(|label| (LABEL.to_owned(), label)));
        params.extend(self.spec.label_corner.map(|corner| (LABEL_CORNER.to_owned(), corner.to_string())));
        params.extend(self.spec.params.clone());
        params.extend(changed.iter().cloned());
        // By which network is the server's to say.
        if let Some(asked) = params.get_mut(OCCLUSION)
            && let Ok(known) = Occlusion::parse(asked)
        {
            *asked = known.masks(&masks).to_string();
        }
        params
    }
}

/// Who speaks where nobody's lips follow the voice.
fn heard_elsewhere(speaker: &str) -> &str {
    if speaker == "auto" { "largest" } else { speaker }
}

/// Mouths of a frame that are made for the voices of these `speakers`, at least one: of `all` as many as faces are `seen` while it
/// runs, and before that two, since it is for pictures of several.
fn mouths(speakers: &[String], seen: Option<usize>) -> usize {
    let all = speakers.iter().any(|speaker| speaker == "all");
    let seen = if all { seen.unwrap_or(2).min(MAX_SPEAKERS) } else { 0 };
    speakers.len().max(seen).max(1)
}

#[cfg(test)]
mod tests {
    use super::mouths;

    #[test]
    fn a_mouth_counts_for_each_voice_and_for_each_face_that_speaks() {
        let of = |speakers: &[&str], seen| mouths(&speakers.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(), seen);
        assert_eq!((of(&[], None), of(&["left"], Some(5)), of(&["left", "right"], None)), (1, 1, 2));
        assert_eq!(
            (of(&["all"], None), of(&["all"], Some(1)), of(&["all"], Some(3)), of(&["all"], Some(50))),
            (2, 1, 3, 8)
        );
    }
}
