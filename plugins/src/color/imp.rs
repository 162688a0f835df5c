use std::sync::{
    LazyLock,
    atomic::{AtomicBool, Ordering},
};

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_base::subclass::{BaseTransformMode, prelude::*};
use gst_video::{
    VideoColorRange, VideoConverter, VideoFormat, VideoFrame, VideoFrameRef, VideoInfo, VideoTransferFunction,
    prelude::*, subclass::prelude::*, video_frame::Writable,
};
use lipstream_engines::image::{ColorSpace, Matrix, Range, Recolor, ToneMap, Transfer};
use parking_lot::Mutex;

use super::{
    KEPT,
    pixels::{change, copy, fill, flatten, map_picture},
};
use crate::video;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("lipcolor", gst::DebugColorFlags::empty(), Some("Lipstream tone mapping and alpha"))
});

/// What is tone-mapped.
const DEEP: VideoFormat = VideoFormat::I42010le;
/// What the formats of a tone-mapped and of a flattened picture are.
const MAPPED: VideoFormat = VideoFormat::I420;
const FLAT: VideoFormat = VideoFormat::Rgba;
/// Fields of caps that change with the picture.
const CHANGED: [&str; 6] =
    ["format", "colorimetry", "chroma-site", "mastering-display-info", "content-light-level", "alpha-mode"];

/// What is done with pictures of the caps that are set.
enum Conversion {
    Map {
        map: ToneMap,
        /// To 10-bit 4:2:0 in the picture's own colours; `None` where it is that.
        convert: Option<Box<(VideoConverter, VideoFrame<Writable>)>>,
    },
    Flatten {
        /// To RGBA; `None` where it is that.
        convert: Option<VideoConverter>,
    },
    Keep {
        /// To one of [`KEPT`] in the picture's own colours; `None` where it is that.
        convert: Option<VideoConverter>,
        /// To other colours then. GStreamer 1.22 makes alpha 0 or 255 where it does.
        recolor: Option<Recolor>,
    },
}

#[derive(Default, glib::Properties)]
#[properties(wrapper_type = super::LipColor)]
pub struct LipColor {
    /// 0xRRGGBB; black by default.
    #[property(
        get = |this: &Self| *this.background.lock(),
        set = |this: &Self, rgb| *this.background.lock() = rgb,
        type = u32,
        nick = "Background",
        blurb = "What shows through where a picture is transparent, 0xRRGGBB",
        maximum = 0xff_ffff,
        mutable_playing
    )]
    background: Mutex<u32>,
    /// Alpha passes, and the colours of what nobody sees become those beside it.
    #[property(
        get,
        set,
        nick = "Keep alpha",
        blurb = "Keep the transparency of a picture that has one, rather than lay it on the background",
        mutable_ready
    )]
    keep_alpha: AtomicBool,
    /// Nothing by default.
    #[property(
        get = |this: &Self| this.colorimetry.lock().clone(),
        set = Self::set_colorimetry,
        type = Option<String>,
        nick = "Colorimetry",
        blurb = "That of YUV pictures whose alpha is kept, such as bt709; none: what follows decides, and else the picture",
        mutable_playing
    )]
    colorimetry: Mutex<Option<String>>,
    /// Set by caps; `None` while pictures pass.
    conversion: Mutex<Option<Conversion>>,
}

#[glib::object_subclass]
impl ObjectSubclass for LipColor {
    const NAME: &'static str = "GstLipColor";
    type Type = super::LipColor;
    type ParentType = gst_video::VideoFilter;
}

#[glib::derived_properties]
impl ObjectImpl for LipColor {}

impl GstObjectImpl for LipColor {}

impl ElementImpl for LipColor {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Lipstream colour",
                "Filter/Converter/Video",
                "Tone-maps pictures of high dynamic range and lays transparent ones on a colour; passes all others",
                "Lipstream",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let caps = gst_video::VideoCapsBuilder::new().build();
            let pad = |name, direction| gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps);
            vec![
                pad("src", gst::PadDirection::Src).expect("valid caps"),
                pad("sink", gst::PadDirection::Sink).expect("valid caps"),
            ]
        });
        &TEMPLATES
    }
}

impl BaseTransformImpl for LipColor {
    const MODE: BaseTransformMode = BaseTransformMode::NeverInPlace;
    const PASSTHROUGH_ON_SAME_CAPS: bool = false;
    const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

    fn transform_caps(
        &self,
        direction: gst::PadDirection,
        caps: &gst::Caps,
        filter: Option<&gst::Caps>,
    ) -> Option<gst::Caps> {
        let mut other = gst::Caps::new_empty();
        let known = |structure: &gst::StructureRef| {
            let caps = gst::Caps::builder_full().structure(structure.to_owned()).build();
            // What is not fixed, or no picture yet, may come to be anything.
            if caps.is_fixed() { VideoInfo::from_caps(&caps).ok() } else { None }
        };
        let changed = |structure: &gst::StructureRef, to: Option<VideoFormat>| {
            let mut structure = structure.to_owned();
            structure.remove_fields(CHANGED);
            match to {
                Some(MAPPED) => {
                    structure.set("format", MAPPED.to_str());
                    structure.set("colorimetry", "bt709");
                }
                Some(format) => structure.set("format", format.to_str()),
                None => {}
            }
            structure
        };
        let target = other.get_mut().expect("caps just made have one owner");
        for structure in caps.iter() {
            if direction == gst::PadDirection::Src {
                target.append_structure(structure.to_owned());
                target.append_structure(changed(structure, None));
                continue;
            }
            let info = known(structure);
            let own = info
                .as_ref()
                .map(|info| self.colorimetry.lock().clone().unwrap_or_else(|| info.colorimetry().to_string()));
            match info.map(|info| kind(&info)) {
                Some(Kind::Same) => target.append_structure(structure.to_owned()),
                Some(Kind::Hdr(_)) => target.append_structure(changed(structure, Some(MAPPED))),
                Some(Kind::Transparent(format)) => {
                    let format = if self.keeps_alpha() { kept(format) } else { FLAT };
                    let other = changed(structure, Some(format));
                    if let Some(colorimetry) = own.filter(|_| format != KEPT[2] && format != FLAT) {
                        let mut same = other.clone();
                        same.set("colorimetry", colorimetry);
                        target.append_structure(same);
                    }
                    target.append_structure(other);
                }
                None => {
                    target.append_structure(structure.to_owned());
                    target.append_structure(changed(structure, Some(MAPPED)));
                    let formats = if self.keeps_alpha() { &KEPT[..] } else { &[FLAT] };
                    formats.iter().for_each(|format| target.append_structure(changed(structure, Some(*format))));
                }
            }
        }
        gst::trace!(CAT, imp = self, "{direction:?}: {caps} is {other}");
        Some(match filter {
            Some(filter) => filter.intersect_with_mode(&other, gst::CapsIntersectMode::First),
            None => other,
        })
    }
}

impl VideoFilterImpl for LipColor {
    fn set_info(
        &self,
        incaps: &gst::Caps,
        in_info: &VideoInfo,
        _outcaps: &gst::Caps,
        out_info: &VideoInfo,
    ) -> Result<(), gst::LoggableError> {
        let refused = |e: glib::BoolError| gst::loggable_error!(CAT, "no conversion: {e}");
        let conversion = match kind(in_info) {
            Kind::Same => None,
            Kind::Hdr(transfer) => {
                let map = ToneMap::new(transfer, matrix(in_info), range(in_info), peak(incaps));
                let convert = (in_info.format() != DEEP)
                    .then(|| video::converter(in_info, DEEP, &in_info.colorimetry()).map_err(refused).map(Box::new))
                    .transpose()?;
                Some(Conversion::Map { map, convert })
            }
            Kind::Transparent(format) => {
                let keep = self.keeps_alpha();
                let recolor = if keep { Recolor::new(space(in_info), space(out_info)) } else { None };
                let convert = if format == out_info.format() {
                    None
                } else if recolor.is_some() {
                    let own = in_info.colorimetry();
                    let between = VideoInfo::builder(out_info.format(), out_info.width(), out_info.height());
                    let between = between.colorimetry(&own).interlace_mode(in_info.interlace_mode());
                    let between = between.fps(in_info.fps()).par(in_info.par()).build().map_err(refused)?;
                    Some(VideoConverter::new(in_info, &between, None).map_err(refused)?)
                } else {
                    Some(VideoConverter::new(in_info, out_info, None).map_err(refused)?)
                };
                Some(if keep { Conversion::Keep { convert, recolor } } else { Conversion::Flatten { convert } })
            }
        };
        gst::debug!(
            CAT,
            imp = self,
            "{incaps}: {}",
            match &conversion {
                None => "passes",
                Some(Conversion::Map { .. }) => "is tone-mapped",
                Some(Conversion::Flatten { .. }) => "is laid on the background",
                Some(Conversion::Keep { .. }) => "keeps its alpha",
            }
        );
        self.obj().set_passthrough(conversion.is_none());
        *self.conversion.lock() = conversion;
        Ok(())
    }

    fn transform_frame(
        &self,
        inframe: &VideoFrameRef<&gst::BufferRef>,
        outframe: &mut VideoFrameRef<&mut gst::BufferRef>,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let background = *self.background.lock();
        let mut conversion = self.conversion.lock();
        let done = match conversion.as_mut() {
            Some(Conversion::Map { map, convert: Some(convert) }) => {
                let (converter, planar) = &mut **convert;
                converter.frame_ref(inframe, &mut planar.as_mut_video_frame_ref());
                map_picture(map, &planar.as_video_frame_ref(), outframe)
            }
            Some(Conversion::Map { map, convert: None }) => map_picture(map, inframe, outframe),
            Some(Conversion::Flatten { convert }) => {
                copy(convert.as_mut(), inframe, outframe)?;
                flatten(outframe, background);
                Ok(())
            }
            Some(Conversion::Keep { convert, recolor }) => {
                copy(convert.as_mut(), inframe, outframe)?;
                if let Some(recolor) = recolor {
                    change(recolor, outframe);
                }
                fill(outframe);
                Ok(())
            }
            None => Err(lipstream_engines::Error::invalid("no caps")),
        };
        match done {
            Ok(()) => Ok(gst::FlowSuccess::Ok),
            Err(e) => {
                gst::element_imp_error!(self, gst::StreamError::Failed, ["a picture cannot be converted: {e}"]);
                Err(gst::FlowError::Error)
            }
        }
    }
}

impl LipColor {
    fn keeps_alpha(&self) -> bool {
        self.keep_alpha.load(Ordering::Relaxed)
    }

    fn set_colorimetry(&self, colorimetry: Option<String>) {
        let before = std::mem::replace(&mut *self.colorimetry.lock(), colorimetry.clone());
        if before != colorimetry {
            self.obj().reconfigure_src();
        }
    }
}

enum Kind {
    Same,
    Hdr(Transfer),
    Transparent(VideoFormat),
}

/// The format of a picture that keeps its alpha.
fn kept(format: VideoFormat) -> VideoFormat {
    let [same, yuv, rgb] = KEPT;
    match format {
        _ if format == same => same,
        _ if gst_video::VideoFormatInfo::from_format(format).is_yuv() => yuv,
        _ => rgb,
    }
}

fn kind(info: &VideoInfo) -> Kind {
    match info.colorimetry().transfer() {
        VideoTransferFunction::Smpte2084 => return Kind::Hdr(Transfer::Pq),
        VideoTransferFunction::AribStdB67 => return Kind::Hdr(Transfer::Hlg),
        _ => {}
    }
    if info.format_info().has_alpha() { Kind::Transparent(info.format()) } else { Kind::Same }
}

/// What is known of a picture's colours; RGB has no luma to tell.
fn space(info: &VideoInfo) -> ColorSpace {
    if info.format_info().is_yuv() { ColorSpace::Yuv(video::matrix(info), range(info)) } else { ColorSpace::Rgb }
}

fn matrix(info: &VideoInfo) -> Matrix {
    match info.colorimetry().matrix() {
        gst_video::VideoColorMatrix::Bt709 => Matrix::Bt709,
        gst_video::VideoColorMatrix::Bt601 => Matrix::Bt601,
        _ => Matrix::Bt2020,
    }
}

fn range(info: &VideoInfo) -> Range {
    if info.colorimetry().range() == VideoColorRange::Range0_255 { Range::Full } else { Range::Limited }
}

/// The brightest light in cd/m² that the stream says it has, else that its mastering display had.
fn peak(caps: &gst::Caps) -> Option<f32> {
    let light = gst_video::VideoContentLightLevel::from_caps(caps).ok().map(|l| f32::from(l.max_content_light_level()));
    let display = || {
        let info = gst_video::VideoMasteringDisplayInfo::from_caps(caps).ok()?;
        // In units of 0.0001 cd/m².
        Some(info.max_display_mastering_luminance() as f32 / 10_000.0)
    };
    light.filter(|l| *l > 0.0).or_else(display)
}
