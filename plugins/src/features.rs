//! Audio features between `lipaudioenc` and `lipdenoise`: `application/x-lipstream-features`, one buffer an audio hop,
//! `dims` little-endian f32, PTS = start of the hop, flag `GAP` where no voice was heard.

use lipstream_engines::audio::MOST_DIMS;

/// Name of the caps.
pub const NAME: &str = "application/x-lipstream-features";

/// What the caps say.
#[derive(Clone, Debug, PartialEq)]
pub struct FeaturesInfo {
    /// Hops a second.
    pub rate: gst::Fraction,
    /// Numbers in one feature vector.
    pub dims: usize,
    /// What made them, as [`lipstream_engines::audio::FrontEnd::key`] says: features of another front-end mean nothing to an
    /// engine.
    pub encoder: String,
    /// Audio that a feature needs after the start of its hop.
    pub overhang: gst::ClockTime,
}

/// Caps of any features.
pub fn any_caps() -> gst::Caps {
    gst::Caps::builder(NAME)
        .field("rate", gst::FractionRange::new(gst::Fraction::new(1, 1), gst::Fraction::new(1000, 1)))
        .field("dims", gst::IntRange::new(1, MOST_DIMS as i32))
        .build()
}

impl FeaturesInfo {
    pub fn to_caps(&self) -> gst::Caps {
        gst::Caps::builder(NAME)
            .field("rate", self.rate)
            .field("dims", self.dims as i32)
            .field("encoder", &self.encoder)
            .field("overhang", self.overhang.nseconds() as i64)
            .build()
    }

    /// Errors say which field is missing or refused.
    pub fn from_caps(caps: &gst::CapsRef) -> Result<Self, String> {
        let s = caps.structure(0).filter(|s| s.name() == NAME).ok_or_else(|| format!("{caps} are not features"))?;
        let rate = s.get::<gst::Fraction>("rate").map_err(|e| e.to_string())?;
        let dims = s.get::<i32>("dims").map_err(|e| e.to_string())?;
        let overhang = s.get::<i64>("overhang").map_err(|e| e.to_string())?;
        if rate.numer() < 1 || rate.denom() < 1 || !(1..=MOST_DIMS as i32).contains(&dims) {
            return Err(format!("rate {rate} or dims {dims} is out of range, which is at most {MOST_DIMS} numbers"));
        }
        Ok(Self {
            rate,
            dims: dims as usize,
            encoder: s.get("encoder").map_err(|e| e.to_string())?,
            overhang: gst::ClockTime::from_nseconds(
                u64::try_from(overhang).map_err(|_| format!("overhang {overhang} is negative"))?,
            ),
        })
    }
}

/// A buffer that holds one feature vector.
pub fn to_buffer(feature: &[f32], pts: gst::ClockTime, duration: gst::ClockTime) -> gst::Buffer {
    let bytes: Vec<u8> = feature.iter().flat_map(|v| v.to_le_bytes()).collect();
    let mut buffer = gst::Buffer::from_mut_slice(bytes);
    let b = buffer.get_mut().expect("the only reference");
    b.set_pts(pts);
    b.set_duration(duration);
    buffer
}

/// The feature vector in `buffer`; `None` unless it holds `dims` finite numbers.
pub fn from_buffer(buffer: &gst::BufferRef, dims: usize) -> Option<Vec<f32>> {
    let map = buffer.map_readable().ok()?;
    if map.len() != dims * 4 {
        return None;
    }
    let feature: Vec<f32> = map.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    feature.iter().all(|v| v.is_finite()).then_some(feature)
}
