//! What is told of a source's pictures.

use gst_video::{VideoInfo, VideoInterlaceMode, VideoTransferFunction};

/// A change that a viewer could notice.
pub struct Change {
    pub kind: &'static str,
    pub text: String,
    /// Something is lost that the source has.
    pub warning: bool,
}

fn change(kind: &'static str, warning: bool, text: impl Into<String>) -> Change {
    Change { kind, text: text.into(), warning }
}

/// What is changed in pictures of this format.
pub fn of(info: &VideoInfo, keep_alpha: bool) -> Vec<Change> {
    let mut list = Vec::new();
    let format = info.format_info();
    let hdr = match info.colorimetry().transfer() {
        VideoTransferFunction::Smpte2084 => Some("PQ"),
        VideoTransferFunction::AribStdB67 => Some("HLG"),
        _ => None,
    };
    if let Some(name) = hdr {
        list.push(change("tone-mapped", true, format!("the picture is HDR ({name}): it is tone-mapped to BT.709")));
    }
    if format.has_alpha() {
        list.push(match keep_alpha {
            true => change("alpha", false, "the picture has transparency: it is kept"),
            false => change("flattened", true, "the picture has transparency: it is laid on the background colour"),
        });
    }
    if info.interlace_mode() != VideoInterlaceMode::Progressive {
        list.push(change("deinterlaced", false, "the picture is interlaced: it is deinterlaced"));
    }
    let (n, d) = (info.par().numer(), info.par().denom());
    if n != d {
        let text = format!("the pixels are not square ({n}:{d}): the picture is scaled to its true shape");
        list.push(change("square-pixels", false, text));
    }
    if hdr.is_none() && format.depth().first().is_some_and(|bits| *bits > 8) {
        let bits = format.depth()[0];
        list.push(change("bit-depth", false, format!("the picture has {bits} bits a channel: 8 are kept")));
    }
    if format.is_yuv() && format.n_components() > 1 && (format.w_sub()[1], format.h_sub()[1]) != (1, 1) {
        list.push(change("chroma", false, format!("the picture is {}: its colour is kept at 4:2:0", info.format())));
    }
    list
}

/// A picture of another size than the one before.
pub fn resized(from: (u32, u32), to: (u32, u32), size: (u32, u32)) -> Change {
    let text = format!(
        "the picture changes from {} to {}: it is scaled to {} with borders where the shape differs",
        pixels(from.0, from.1),
        pixels(to.0, to.1),
        pixels(size.0, size.1)
    );
    change("scaled", true, text)
}

fn pixels(width: u32, height: u32) -> String {
    format!("{width}x{height}")
}
