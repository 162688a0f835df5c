//! What GStreamer 1.22's demuxers lose of a file, put back where it is lost.

use std::{collections::HashMap, sync::OnceLock};

use gst::{glib, prelude::*};

use super::movie::{self, Track};

/// What the demuxer calls DNxHR, which it does not know; the decoder of DNxHD takes it.
const DNXHR: &str = "video/x-gst-fourcc-AVdh";

/// Makes every demuxer that `bin` comes to hold say what its file says. Call it before the bin starts.
///
/// The demuxer of MP4 and MOV drops the range of the `colr` box and knows no mirrored picture. The colours of the box are
/// given with their range where the file can be read; else those of the bitstream hold. It has no name for DNxHR either, and
/// does not say which of several tracks is to be played.
pub fn mend(bin: &gst::Bin) {
    bin.connect_deep_element_added(|_, _, element| {
        if element.type_().name() == "GstQTDemux" {
            mend_movie(element);
        }
    });
}

fn mend_movie(demuxer: &gst::Element) {
    let known = OnceLock::<HashMap<u32, Track>>::new();
    demuxer.connect_pad_added(move |demuxer, pad| {
        let tracks = known.get_or_init(|| {
            let path = source(demuxer).and_then(|uri| glib::filename_from_uri(&uri).ok());
            path.map(|(path, _)| movie::tracks(&path)).unwrap_or_default()
        });
        // The stream's identifier ends with the number of its track.
        let number = pad.stream_id().and_then(|id| id.rsplit('/').next()?.parse().ok());
        let track = number.and_then(|number: u32| tracks.get(&number)).cloned().unwrap_or_default();
        if track.enabled {
            mark(pad);
        }
        if !pad.name().starts_with("video") {
            return;
        }
        if let Some(caps) = pad.current_caps().filter(|caps| caps.structure(0).is_some_and(|s| s.name() == DNXHR)) {
            // The decoder is chosen by what the pad says already.
            let _ = pad.store_sticky_event(&gst::event::Caps::new(&colored(caps, &Track::default())));
        }
        if let Some(orientation) = track.mirrored {
            tell_orientation(pad, orientation);
        }
        pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            let caps = match info.event().map(|event| event.view()) {
                Some(gst::EventView::Caps(event)) => event.caps_owned(),
                _ => return gst::PadProbeReturn::Ok,
            };
            info.data = Some(gst::PadProbeData::Event(gst::event::Caps::new(&colored(caps, &track))));
            gst::PadProbeReturn::Ok
        });
    });
}

/// Marks a stream as one to be played, as other demuxers do.
fn mark(pad: &gst::Pad) {
    let Some(start) = pad.sticky_event::<gst::event::StreamStart>(0) else { return };
    let builder = gst::event::StreamStart::builder(start.stream_id()).flags(gst::StreamFlags::SELECT);
    let marked =
        builder.seqnum(start.seqnum()).group_id_if_some(start.group_id()).stream_if_some(start.stream()).build();
    // A pad that takes no events any more has no streams either.
    let _ = pad.store_sticky_event(&marked);
}

/// The URI of what a demuxer reads.
fn source(demuxer: &gst::Element) -> Option<String> {
    let mut query = gst::query::Uri::new();
    let answered = demuxer.static_pad("sink")?.peer_query(&mut query);
    answered.then(|| query.uri().map(Into::into)).flatten()
}

fn colored(mut caps: gst::Caps, track: &Track) -> gst::Caps {
    for structure in caps.make_mut().iter_mut() {
        if structure.name() == DNXHR {
            structure.set_name("video/x-dnxhd");
        }
        match &track.colorimetry {
            Some(colorimetry) => structure.set("colorimetry", colorimetry.to_string()),
            // Raw video has no bitstream that would say it.
            None if structure.name() != "video/x-raw" => structure.remove_field("colorimetry"),
            None => {}
        }
    }
    caps
}

/// Sends the tag before the first buffer.
fn tell_orientation(pad: &gst::Pad, orientation: &'static str) {
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, _| {
        let mut tags = gst::TagList::new();
        let own = tags.get_mut().expect("a list just made has one owner");
        own.add::<gst::tags::ImageOrientation>(&orientation, gst::TagMergeMode::Replace);
        own.set_scope(gst::TagScope::Stream);
        pad.push_event(gst::event::Tag::new(tags));
        gst::PadProbeReturn::Remove
    });
}
