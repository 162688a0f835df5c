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
use lipstream_engines::image::{
    Matrix, PlaneMut, Range, ToneMap, Transfer,
    alpha::{Samples, fill_hidden, fill_hidden_420},
};
use parking_lot::Mutex;

use crate::video;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("lipcolor", gst::DebugColorFlags::empty(), Some("Lipstream tone mapping and alpha"))
});

/// What is tone-mapped.
const DEEP: VideoFormat = VideoFormat::I42010le;
/// What the formats of a tone-mapped and of a flattened picture are.
const MAPPED: VideoFormat = VideoFormat::I420;
const FLAT: VideoFormat = VideoFormat::Rgba;
/// What those are whose alpha is kept: the first where they are of it, else the second where they are YUV, else the third.
const KEPT: [VideoFormat; 3] = [VideoFormat::A420, VideoFormat::Ayuv, VideoFormat::Rgba];
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
        /// To one of [`KEPT`]; `None` where it is that.
        convert: Option<VideoConverter>,
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
            match known(structure).map(|info| kind(&info)) {
                Some(Kind::Same) => target.append_structure(structure.to_owned()),
                Some(Kind::Hdr(_)) => target.append_structure(changed(structure, Some(MAPPED))),
                Some(Kind::Transparent(format)) => {
                    let format = if self.keeps_alpha() { kept(format) } else { FLAT };
                    target.append_structure(changed(structure, Some(format)));
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
                let convert = if format == out_info.format() {
                    None
                } else {
                    Some(VideoConverter::new(in_info, out_info, None).map_err(refused)?)
                };
                let keep = self.keeps_alpha();
                Some(if keep { Conversion::Keep { convert } } else { Conversion::Flatten { convert } })
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
            Some(Conversion::Keep { convert }) => {
                copy(convert.as_mut(), inframe, outframe)?;
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

fn map_picture(
    map: &ToneMap,
    from: &VideoFrameRef<&gst::BufferRef>,
    to: &mut VideoFrameRef<&mut gst::BufferRef>,
) -> lipstream_engines::Result<()> {
    let invalid = |_| lipstream_engines::Error::invalid("a plane of the picture cannot be read");
    let plane = |i: u32| {
        let stride = usize::try_from(from.plane_stride()[i as usize]).unwrap_or(0);
        from.plane_data(i).map(|data| (data, stride)).map_err(|_| ())
    };
    let size = (to.width() as usize, to.height() as usize);
    let strides: Vec<usize> = to.plane_stride().iter().map(|s| usize::try_from(*s).unwrap_or(0)).collect();
    let input = [plane(0).map_err(invalid)?, plane(1).map_err(invalid)?, plane(2).map_err(invalid)?];
    let [y, cb, cr, _] = to.planes_data_mut();
    map.picture(size, input, [(y, strides[0]), (cb, strides[1]), (cr, strides[2])])
}

fn copy(
    converter: Option<&mut VideoConverter>,
    from: &VideoFrameRef<&gst::BufferRef>,
    to: &mut VideoFrameRef<&mut gst::BufferRef>,
) -> Result<(), gst::FlowError> {
    match converter {
        Some(converter) => converter.frame_ref(from, to),
        None => from.copy(to).map_err(|_| gst::FlowError::Error)?,
    }
    Ok(())
}

/// Gives the pixels that nobody sees the colours beside them, in one of the formats [`KEPT`].
fn fill(frame: &mut VideoFrameRef<&mut gst::BufferRef>) {
    let size = (frame.width() as usize, frame.height() as usize);
    let format = frame.format();
    let strides: Vec<usize> = frame.plane_stride().iter().map(|s| usize::try_from(*s).unwrap_or(0)).collect();
    if format == KEPT[0] {
        let planes = frame.planes_data_mut().into_iter().zip(strides);
        let planes: Vec<_> = planes.map(|(data, stride)| PlaneMut { data, stride }).collect();
        if let Ok(planes) = <[PlaneMut; 4]>::try_from(planes) {
            fill_hidden_420(planes, size);
        }
        return;
    }
    // Alpha is the first byte of AYUV and the last of RGBA.
    let (alpha, channels) = if format == KEPT[1] { (0, [1, 2, 3]) } else { (3, [0, 1, 2]) };
    let stride = strides[0];
    let Ok(data) = frame.plane_data_mut(0) else { return };
    let rows = data.chunks(stride.max(1)).take(size.1);
    let weights: Vec<u8> = rows.flat_map(|row| row.chunks_exact(4).take(size.0).map(|pixel| pixel[alpha])).collect();
    fill_hidden(&mut Samples { data, stride, step: 4, offsets: &channels }, size, &weights);
}

/// Lays RGBA pixels on a colour; alpha is straight.
fn flatten(frame: &mut VideoFrameRef<&mut gst::BufferRef>, background: u32) {
    let below = [background >> 16, background >> 8, background].map(|c| c & 0xff);
    let (width, stride) = (frame.width() as usize, frame.plane_stride()[0] as usize);
    let Ok(data) = frame.plane_data_mut(0) else { return };
    for row in data.chunks_mut(stride.max(1)) {
        for pixel in row.chunks_exact_mut(4).take(width) {
            let alpha = u32::from(pixel[3]);
            if alpha == 255 {
                continue;
            }
            for (channel, below) in pixel.iter_mut().zip(below) {
                *channel = ((u32::from(*channel) * alpha + below * (255 - alpha) + 127) / 255) as u8;
            }
            pixel[3] = 255;
        }
    }
}
