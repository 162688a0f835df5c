//! The card's encoder in the place of x264enc in a graph that does not run yet.

use gst::{glib, prelude::*};

use super::{Offer, is_a};

/// What an x264enc is told.
#[derive(Clone, Debug)]
struct Told {
    /// In kbit/s.
    bitrate: u32,
    /// Most frames between key frames; 0 is its own choice.
    gop: u32,
    preset: String,
    /// What its buffer holds at the bit rate, in milliseconds.
    buffer: u32,
}

impl Told {
    fn of(x264: &gst::Element) -> Self {
        let preset = x264.property_value("speed-preset");
        let nick = glib::EnumValue::from_value(&preset).map(|(_, value)| value.nick().to_owned());
        Self {
            bitrate: x264.property("bitrate"),
            gop: x264.property("key-int-max"),
            preset: nick.unwrap_or_default(),
            buffer: x264.property("vbv-buf-capacity"),
        }
    }

    /// Properties of the card's element that mean the same, of those that it has.
    fn for_card(&self, offer: &Offer) -> Vec<(&'static str, String)> {
        let mut settings = Vec::new();
        let mut set = |property: &'static str, words: &[&str]| {
            let word = words.iter().find(|word| offer.takes(property, word));
            settings.extend(word.map(|word| (property, (*word).to_owned())));
        };
        // Both count kbit/s.
        set("bitrate", &[&self.bitrate.to_string()]);
        if self.gop > 0 {
            set("gop-size", &[&self.gop.to_string()]);
        }
        set("rc-mode", &["cbr"]);
        set("zerolatency", &["true"]);
        set("tune", &["ultra-low-latency"]);
        for frames_back in ["bframes", "b-frames"] {
            set(frames_back, &["0"]);
        }
        // Players join at any key frame.
        set("repeat-sequence-header", &["true"]);
        set(
            "preset",
            match self.preset.as_str() {
                "ultrafast" | "superfast" => &["p1", "low-latency-hp"],
                "veryfast" => &["p2", "low-latency-hp"],
                "faster" => &["p3", "low-latency"],
                _ => &["p4", "low-latency-hq"],
            },
        );
        let bits = u64::from(self.bitrate) * u64::from(self.buffer) / 1000;
        set("vbv-buffer-size", &[&bits.min(i32::MAX as u64).to_string()]);
        settings
    }
}

/// Takes `x264` out of its bin and links `card`, of the same name, where it was. Filters beside it ask for what the card has.
pub(super) fn replace(x264: &gst::Element, card: &gst::Element, offer: &Offer) -> Result<(), String> {
    let pads = |element: &gst::Element| Some((element.static_pad("sink")?, element.static_pad("src")?));
    let (sink, src) = pads(x264).ok_or("x264enc has no pads")?;
    let (card_sink, card_src) = pads(card).ok_or("the card's element has no pads")?;
    let (Some(before), Some(after)) = (sink.peer(), src.peer()) else { return Err("it is not linked yet".into()) };
    let bin = x264.parent().and_then(|parent| parent.downcast::<gst::Bin>().ok()).ok_or("it is in no bin")?;
    for (property, word) in Told::of(x264).for_card(offer) {
        card.set_property_from_str(property, &word);
    }
    ask_for(before.parent_element(), "sink", "format", "I420", &offer.formats, &["NV12"]);
    ask_for(after.parent_element(), "src", "profile", "constrained-baseline", &offer.profiles, &["baseline", "main"]);
    before.unlink(&sink).and_then(|()| src.unlink(&after)).map_err(|error| error.to_string())?;
    bin.remove(x264).and_then(|()| bin.add(card)).map_err(|error| error.to_string())?;
    let linked = before.link(&card_sink).and_then(|_| card_src.link(&after));
    linked.map(|_| ()).map_err(|error| error.to_string())
}

/// Has filters that ask for `word` ask for the first of `others` that is offered, where `word` is not. Looks from `element` away from
/// the encoder, by pads called `away`, for as long as nothing changes what goes through.
fn ask_for(
    mut element: Option<gst::Element>,
    away: &str,
    field: &str,
    word: &str,
    offered: &[String],
    others: &[&str],
) {
    let is_offered = |word: &str| offered.iter().any(|one| one == word);
    let Some(other) = others.iter().find(|other| is_offered(other)).filter(|_| !is_offered(word)) else { return };
    let through = |element: &gst::Element| {
        ["capsfilter", "queue", "valve", "identity", "h264parse"].iter().any(|factory| is_a(factory)(element))
    };
    while let Some(filter) = element.filter(through) {
        if is_a("capsfilter")(&filter) {
            let mut caps: gst::Caps = filter.property("caps");
            for asked in caps.make_mut().iter_mut() {
                if asked.get::<&str>(field).is_ok_and(|own| own == word) {
                    asked.set(field, *other);
                }
            }
            filter.set_property("caps", &caps);
        }
        element = filter.static_pad(away).and_then(|pad| pad.peer()).and_then(|pad| pad.parent_element());
    }
}

#[cfg(test)]
pub mod tests {
    use super::{
        super::{Chosen, NAME},
        *,
    };

    fn offer(properties: &[(&str, &[&str])], formats: &[&str], profiles: &[&str]) -> Offer {
        let texts = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        Offer {
            properties: properties.iter().map(|(name, words)| ((*name).to_owned(), texts(words))).collect(),
            formats: texts(formats),
            profiles: texts(profiles),
        }
    }

    /// As GStreamer 1.22 has it.
    pub fn older() -> Offer {
        let presets: &[&str] = &["default", "hp", "hq", "low-latency", "low-latency-hq", "low-latency-hp"];
        let properties: [(&str, &[&str]); 7] = [
            ("bitrate", &[]),
            ("gop-size", &[]),
            ("rc-mode", &["default", "constqp", "cbr", "vbr"]),
            ("zerolatency", &[]),
            ("bframes", &[]),
            ("vbv-buffer-size", &[]),
            ("preset", presets),
        ];
        offer(&properties, &["NV12", "I420"], &["main", "high", "baseline", "constrained-baseline"])
    }

    /// As its successor has it.
    pub fn newer() -> Offer {
        let properties: [(&str, &[&str]); 6] = [
            ("bitrate", &[]),
            ("gop-size", &[]),
            ("b-frames", &[]),
            ("tune", &["default", "high-quality", "low-latency", "ultra-low-latency"]),
            ("repeat-sequence-header", &[]),
            ("preset", &["p1", "p2", "p3", "p4"]),
        ];
        offer(&properties, &["NV12", "Y444"], &["main", "high", "baseline"])
    }

    fn bin(launch: &str) -> gst::Bin {
        gst::init().unwrap();
        // Another test may have done it.
        let _ = gstlipstream::plugin_register_static();
        gst::parse::launch(launch).unwrap().downcast().unwrap()
    }

    fn named(bin: &gst::Bin, name: &str) -> gst::Element {
        bin.by_name(name).unwrap_or_else(|| panic!("there is no {name}"))
    }

    #[test]
    fn properties_are_those_that_an_element_has() {
        let launch = "fakesrc ! x264enc name=h264-encoder bitrate=1500 key-int-max=30 speed-preset=superfast vbv-buf-capacity=300 ! fakesink";
        let told = Told::of(&named(&bin(launch), NAME));
        let settings = |told: &Told, offer: &Offer| {
            let settings = told.for_card(offer).into_iter().map(|(property, word)| format!("{property}={word}"));
            settings.collect::<Vec<_>>().join(" ")
        };
        let wanted =
            "bitrate=1500 gop-size=30 rc-mode=cbr zerolatency=true bframes=0 preset=low-latency-hp vbv-buffer-size=450";
        assert_eq!(settings(&told, &older()), wanted);
        let wanted = "bitrate=1500 gop-size=30 tune=ultra-low-latency b-frames=0 repeat-sequence-header=true preset=p1";
        assert_eq!(settings(&told, &newer()), wanted);
        let own = Told { gop: 0, preset: "slow".into(), ..told };
        let text = settings(&own, &newer());
        assert!(!text.contains("gop-size") && text.ends_with("preset=p4"), "{text}");
    }

    /// Another x264enc stands for the card's element.
    #[test]
    fn an_encoder_takes_the_place_of_the_other_and_its_filters_ask_for_what_it_has() {
        let bin = bin(
            "videotestsrc num-buffers=3 ! videoconvert ! video/x-raw,width=64,height=64,format=I420 ! queue \
             ! x264enc name=h264-encoder bitrate=321 bframes=2 tune=zerolatency ! video/x-h264,profile=constrained-baseline \
             ! h264parse ! fakesink name=out videotestsrc num-buffers=3 ! video/x-raw,format=I420 ! fakesink name=other",
        );
        let card = gst::ElementFactory::make("x264enc").name(NAME).build().unwrap();
        let formats = ["NV12", "Y444"].map(str::to_owned).into();
        let offer = Offer { formats, profiles: vec!["main".into()], ..Offer::of(&card) };
        let before = named(&bin, NAME);
        replace(&before, &card, &offer).unwrap();
        assert!(named(&bin, NAME) == card && before.parent().is_none());
        assert_eq!((card.property::<u32>("bitrate"), card.property::<u32>("bframes")), (321, 0));
        bin.set_state(gst::State::Playing).unwrap();
        let ended = bin
            .bus()
            .unwrap()
            .timed_pop_filtered(gst::ClockTime::from_seconds(20), &[gst::MessageType::Eos, gst::MessageType::Error]);
        let caps = |element: &str| {
            let caps = named(&bin, element).static_pad("sink").unwrap().current_caps().unwrap();
            caps.structure(0).unwrap().to_owned()
        };
        assert!(ended.is_some_and(|message| message.type_() == gst::MessageType::Eos));
        assert_eq!(caps(NAME).get::<&str>("format").unwrap(), "NV12");
        assert_eq!(caps("out").get::<&str>("profile").unwrap(), "main");
        assert_eq!(caps("other").get::<&str>("format").unwrap(), "I420", "what is not the encoder's stays");
        bin.set_state(gst::State::Null).unwrap();
    }

    #[test]
    fn every_graph_for_sessions_has_a_place_for_it_and_x264_stays() {
        for name in ["avatar", "relay", "dub", "rtmp-push"] {
            let (graph, _) = crate::session::graphs::find(None, name).unwrap();
            let bin = bin(&graph.launch(&[]).unwrap());
            let x264 = named(&bin, NAME);
            Chosen::default().put_into(&bin).unwrap();
            assert!(named(&bin, NAME) == x264, "{name}");
            let card = gst::ElementFactory::make("x264enc").name(NAME).build().unwrap();
            replace(&x264, &card, &Offer { formats: vec!["NV12".into()], ..Offer::of(&card) }).unwrap();
            let filter = card.static_pad("sink").unwrap().peer().unwrap().parent_element().unwrap();
            let asked = filter.property::<gst::Caps>("caps");
            assert_eq!(asked.structure(0).unwrap().get::<&str>("format").unwrap(), "NV12", "{name}");
        }
    }

    #[test]
    fn a_place_that_is_not_linked_is_named_and_a_graph_without_one_stays() {
        let bin = bin("x264enc name=h264-encoder fakesrc ! fakesink name=out");
        let card = gst::ElementFactory::make("x264enc").build().unwrap();
        let refused = replace(&named(&bin, NAME), &card, &newer()).unwrap_err();
        assert_eq!(refused, "it is not linked yet");
        let other = self::bin("fakesrc ! identity name=h264-encoder ! fakesink");
        Chosen { card: Some(newer()) }.put_into(&other).unwrap();
        assert!(is_a("identity")(&named(&other, NAME)));
    }
}
