use std::sync::LazyLock;

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_base::subclass::{BaseTransformMode, prelude::*};
use gst_video::{
    VideoConverter, VideoFormat, VideoFrame, VideoFrameRef, VideoInfo, prelude::*, subclass::prelude::*,
    video_frame::Writable,
};
use lipstream_engines::image::{
    FrameMut, Plane, PlaneMut,
    alpha::{lay_on, lay_rgb_on, matte_codes},
};
use parking_lot::Mutex;

use super::Mode;
use crate::video;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("lipalpha", gst::DebugColorFlags::empty(), Some("Lipstream transparency for encoders"))
});

/// What leaves where pictures are changed.
const OUT: VideoFormat = VideoFormat::I420;
/// Fields of caps that a change of the format changes.
const CHANGED: [&str; 4] = ["format", "colorimetry", "chroma-site", "alpha-mode"];
/// Largest side of a picture; a stack is as high twice.
const MAX_SIDE: i32 = 16_384;

/// What is done with pictures of the caps that are set.
struct Work {
    mode: Mode,
    /// To planar YUV, with alpha where there is one; `None` where it is that.
    convert: Option<(VideoConverter, VideoFrame<Writable>)>,
}

#[derive(Default)]
pub struct LipAlpha {
    mode: Mutex<Mode>,
    /// Set by caps; `None` while pictures pass.
    work: Mutex<Option<Work>>,
}

#[glib::object_subclass]
impl ObjectSubclass for LipAlpha {
    const NAME: &'static str = "GstLipAlpha";
    type Type = super::LipAlpha;
    type ParentType = gst_video::VideoFilter;
}

impl ObjectImpl for LipAlpha {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            vec![
                glib::ParamSpecString::builder("alpha")
                    .nick("Alpha")
                    .blurb(
                        "What becomes of transparency: drop (laid on black), keep, key:#rrggbb (laid on that colour), stack (a matte below \
                         the picture) or matte (nothing else)",
                    )
                    .default_value(Some("drop"))
                    .mutable_ready()
                    .build(),
            ]
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, _pspec: &glib::ParamSpec) {
        let text: Option<String> = value.get().expect("checked by GObject");
        match text.as_deref().unwrap_or("drop").parse() {
            Ok(mode) => *self.mode.lock() = mode,
            Err(error) => gst::warning!(CAT, imp = self, "alpha stays {}: it {error}", self.mode()),
        }
    }

    fn property(&self, _id: usize, _pspec: &glib::ParamSpec) -> glib::Value {
        self.mode().to_string().to_value()
    }
}

impl GstObjectImpl for LipAlpha {}

impl ElementImpl for LipAlpha {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Lipstream alpha",
                "Filter/Converter/Video",
                "Lays transparent pictures on a colour, or puts a matte below them, for encoders that have no alpha",
                "Lipstream",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let pad = |name, direction, height| {
                let caps = gst_video::VideoCapsBuilder::new().format_list(video::FORMATS);
                let caps = caps.width_range(1..=MAX_SIDE).height_range(1..=height).build();
                gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps).expect("a valid template")
            };
            vec![pad("sink", gst::PadDirection::Sink, MAX_SIDE), pad("src", gst::PadDirection::Src, 2 * MAX_SIDE)]
        });
        &TEMPLATES
    }
}

impl BaseTransformImpl for LipAlpha {
    const MODE: BaseTransformMode = BaseTransformMode::NeverInPlace;
    const PASSTHROUGH_ON_SAME_CAPS: bool = false;
    const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

    fn transform_caps(
        &self,
        direction: gst::PadDirection,
        caps: &gst::Caps,
        filter: Option<&gst::Caps>,
    ) -> Option<gst::Caps> {
        let mode = self.mode();
        let mut other = gst::Caps::new_empty();
        let target = other.get_mut().expect("caps just made have one owner");
        for structure in caps.iter() {
            let known = gst::Caps::builder_full().structure(structure.to_owned()).build();
            let info = if known.is_fixed() { VideoInfo::from_caps(&known).ok() } else { None };
            match (direction, mode) {
                (_, Mode::Keep) => target.append_structure(structure.to_owned()),
                (gst::PadDirection::Sink, _) => match info {
                    Some(info) if passes(mode, &info) => target.append_structure(structure.to_owned()),
                    Some(info) => target.append_structure(changed(structure, mode, &info)),
                    None => {
                        if !matches!(mode, Mode::Stack | Mode::Matte) {
                            target.append_structure(structure.to_owned());
                        }
                        target.append_structure(anything(structure, mode));
                    }
                },
                (_, Mode::Stack | Mode::Matte) => target.append_structure(before(structure, mode)),
                _ => {
                    // What is opaque passes; what is not leaves as I420.
                    target.append_structure(structure.to_owned());
                    target.append_structure(before_laid(structure));
                }
            }
        }
        Some(match filter {
            Some(filter) => filter.intersect_with_mode(&other, gst::CapsIntersectMode::First),
            None => other,
        })
    }
}

impl VideoFilterImpl for LipAlpha {
    fn set_info(
        &self,
        incaps: &gst::Caps,
        in_info: &VideoInfo,
        _outcaps: &gst::Caps,
        out_info: &VideoInfo,
    ) -> Result<(), gst::LoggableError> {
        let mode = self.mode();
        let refused = |e: glib::BoolError| gst::loggable_error!(CAT, "no conversion: {e}");
        let work = if passes(mode, in_info) {
            None
        } else {
            let planar = if in_info.format_info().has_alpha() { VideoFormat::A420 } else { VideoFormat::I420 };
            let lays = mode.background().is_some() && packed(in_info.format()).is_some();
            let convert = (in_info.format() != planar && !lays)
                .then(|| video::converter(in_info, planar, &out_info.colorimetry()).map_err(refused))
                .transpose()?;
            Some(Work { mode, convert })
        };
        gst::debug!(CAT, imp = self, "{incaps}: {}", if work.is_some() { mode.to_string() } else { "passes".into() });
        self.obj().set_passthrough(work.is_none());
        *self.work.lock() = work;
        Ok(())
    }

    fn transform_frame(
        &self,
        inframe: &VideoFrameRef<&gst::BufferRef>,
        outframe: &mut VideoFrameRef<&mut gst::BufferRef>,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let mut work = self.work.lock();
        let done = match work.as_mut() {
            Some(Work { mode, convert: Some((converter, planar)) }) => {
                converter.frame_ref(inframe, &mut planar.as_mut_video_frame_ref());
                turn(*mode, &planar.as_video_frame_ref(), outframe)
            }
            Some(Work { mode, convert: None }) => match (mode.background(), packed(inframe.format())) {
                (Some(color), Some(red_first)) => lay_packed(color, red_first, inframe, outframe),
                _ => turn(*mode, inframe, outframe),
            },
            None => Err(lipstream_engines::Error::invalid("no caps")),
        };
        match done {
            Ok(()) => Ok(gst::FlowSuccess::Ok),
            Err(e) => {
                gst::element_imp_error!(self, gst::StreamError::Failed, ["the alpha of a picture cannot be used: {e}"]);
                Err(gst::FlowError::Error)
            }
        }
    }
}

impl LipAlpha {
    fn mode(&self) -> Mode {
        *self.mode.lock()
    }
}

/// Whether pictures of this format leave as they come.
fn passes(mode: Mode, info: &VideoInfo) -> bool {
    match mode {
        Mode::Keep => true,
        Mode::Stack | Mode::Matte => false,
        Mode::Drop | Mode::Key(_) => !info.format_info().has_alpha(),
    }
}

/// What a picture of fixed caps leaves as.
fn changed(structure: &gst::StructureRef, mode: Mode, info: &VideoInfo) -> gst::Structure {
    let mut structure = structure.to_owned();
    if !info.format_info().is_yuv() {
        structure.remove_fields(CHANGED);
    }
    structure.set("format", OUT.to_str());
    if mode == Mode::Stack {
        structure.set("width", (info.width() & !1).max(2) as i32);
        structure.set("height", (2 * (info.height() & !1).max(2)) as i32);
    }
    structure
}

/// What pictures of caps that are not fixed may leave as.
fn anything(structure: &gst::StructureRef, mode: Mode) -> gst::Structure {
    let mut structure = structure.to_owned();
    structure.remove_fields(CHANGED);
    structure.set("format", OUT.to_str());
    if mode == Mode::Stack {
        structure.remove_fields(["width", "height"]);
    }
    structure
}

/// What may come where a stack or a matte of `structure` leaves.
fn before(structure: &gst::StructureRef, mode: Mode) -> gst::Structure {
    let mut structure = structure.to_owned();
    structure.remove_fields(CHANGED);
    if mode == Mode::Stack {
        structure.remove_fields(["width", "height"]);
    }
    structure
}

/// What may come with alpha where `structure` leaves.
fn before_laid(structure: &gst::StructureRef) -> gst::Structure {
    let mut structure = structure.to_owned();
    structure.remove_fields(CHANGED);
    structure.set("format", gst::List::new(["A420", "RGBA", "BGRA"]));
    structure
}

/// Whether red is the first of the four bytes of a pixel, and blue the third, or the other way round; `None` of other formats.
fn packed(format: VideoFormat) -> Option<bool> {
    match format {
        VideoFormat::Rgba => Some(true),
        VideoFormat::Bgra => Some(false),
        _ => None,
    }
}

/// Lays packed R, G, B with alpha on a colour.
fn lay_packed(
    color: [u8; 3],
    red_first: bool,
    from: &VideoFrameRef<&gst::BufferRef>,
    to: &mut VideoFrameRef<&mut gst::BufferRef>,
) -> lipstream_engines::Result<()> {
    let stride = usize::try_from(from.plane_stride()[0]).map_err(|_| invalid_planes())?;
    let data = from.plane_data(0).map_err(|_| invalid_planes())?;
    let (width, height) = (from.width() as usize, from.height() as usize);
    if data.len() < height.saturating_sub(1) * stride + 4 * width {
        return Err(invalid_planes());
    }
    let (format, matrix, range) = video::layout(to.info())?;
    let size = (to.width() as usize, to.height() as usize);
    if size != (width, height) {
        return Err(invalid_planes());
    }
    let strides: Vec<usize> = to.plane_stride().iter().map(|s| usize::try_from(*s).unwrap_or(0)).collect();
    let own = to.planes_data_mut().into_iter().zip(strides).take(3);
    let own = own.map(|(data, stride)| PlaneMut { data, stride }).collect();
    let mut frame = FrameMut::new(format, size, matrix, range, own)?;
    lay_rgb_on(&mut frame, Plane { data, stride }, red_first, color);
    Ok(())
}

/// From planar YUV, with alpha or without, to what leaves.
fn turn(
    mode: Mode,
    from: &VideoFrameRef<&gst::BufferRef>,
    to: &mut VideoFrameRef<&mut gst::BufferRef>,
) -> lipstream_engines::Result<()> {
    let invalid = |_| lipstream_engines::Error::invalid("a plane of the picture cannot be read");
    let plane = |i: u32| {
        let stride = usize::try_from(from.plane_stride()[i as usize]).unwrap_or(0);
        from.plane_data(i).map(|data| Plane { data, stride }).map_err(invalid)
    };
    let alpha = if from.format() == VideoFormat::A420 { Some(plane(3)?) } else { None };
    let info = to.info().clone();
    let width = to.width() as usize;
    let height = if mode == Mode::Stack { to.height() as usize / 2 } else { to.height() as usize };
    let strides: Vec<usize> = to.plane_stride().iter().map(|s| usize::try_from(*s).unwrap_or(0)).collect();
    let mut planes = to.planes_data_mut().into_iter().zip(strides);
    let mut own = Vec::with_capacity(3);
    for n in 0..3 {
        let (source, (data, stride)) = (plane(n)?, planes.next().ok_or_else(invalid_planes)?);
        let (columns, rows) = match (mode, n) {
            // Nothing of the picture is left.
            (Mode::Matte, _) => (0, 0),
            (_, 0) => (width, height),
            _ => (width.div_ceil(2), height.div_ceil(2)),
        };
        for (line, copy) in data.chunks_mut(stride.max(1)).zip(source.data.chunks(source.stride.max(1))).take(rows) {
            let columns = columns.min(line.len()).min(copy.len());
            line[..columns].copy_from_slice(&copy[..columns]);
        }
        own.push(PlaneMut { data, stride });
    }
    let (format, matrix, range) = video::layout(&info)?;
    match mode.background() {
        Some(color) => {
            let mut frame = FrameMut::new(format, (width, height), matrix, range, own)?;
            if let Some(alpha) = alpha {
                lay_on(&mut frame, alpha, color);
            }
        }
        None => {
            let codes = match mode {
                Mode::Matte => std::array::from_fn(|alpha| alpha as u8),
                _ => matte_codes(video::space(&info)?),
            };
            for (n, plane) in own.into_iter().enumerate() {
                let (columns, rows) = if n == 0 { (width, height) } else { (width.div_ceil(2), height.div_ceil(2)) };
                let first = if mode == Mode::Stack { rows } else { 0 };
                let lines = plane.data.chunks_mut(plane.stride.max(1)).skip(first).take(rows);
                for (y, line) in lines.enumerate() {
                    let line = &mut line[..columns];
                    match alpha {
                        _ if n > 0 => line.fill(128),
                        Some(alpha) => {
                            let alphas = &alpha.data[y * alpha.stride..];
                            line.iter_mut().zip(alphas).for_each(|(code, alpha)| *code = codes[usize::from(*alpha)]);
                        }
                        None => line.fill(codes[255]),
                    }
                }
            }
        }
    }
    Ok(())
}

fn invalid_planes() -> lipstream_engines::Error {
    lipstream_engines::Error::invalid("the picture lacks a plane")
}
