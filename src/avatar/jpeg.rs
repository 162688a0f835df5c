//! Frames as JPEG and back, one at a time, by GStreamer's elements on libjpeg-turbo.
//!
//! JPEG stores every frame by itself, so that any can be shown after any other, and 4:2:0 as it is. The luma and chroma
//! codes of the video go through untouched: JPEG's own idea of their range and matrix is left out on both ways.

use gst::prelude::*;
use gst_app::{AppSink, AppSrc};
use gst_video::{VideoFormat, VideoInfo};

use crate::error::{Failure, Result};

/// Quality 0..100: about 41 dB on a person; decoding takes 1.8 ms at 720p on one core of 2023.
const QUALITY: i32 = 92;
/// A frame takes milliseconds; more than this is a machine that has stopped.
const PATIENCE: gst::ClockTime = gst::ClockTime::from_seconds(2);

/// I420 of a size, the way that all frames of an avatar are in memory.
pub fn info(width: u32, height: u32) -> Result<VideoInfo> {
    Ok(VideoInfo::builder(VideoFormat::I420, width, height).build()?)
}

/// One buffer in, one buffer out.
struct Pump {
    pipeline: gst::Pipeline,
    source: AppSrc,
    sink: AppSink,
    count: u64,
}

impl Pump {
    fn new(element: &gst::Element, caps: &gst::Caps) -> Result<Self> {
        let pipeline = gst::Pipeline::new();
        crate::background::adopt(&pipeline);
        let source = AppSrc::builder().caps(caps).format(gst::Format::Time).build();
        let sink = AppSink::builder().sync(false).max_buffers(2).build();
        pipeline.add_many([source.upcast_ref(), element, sink.upcast_ref()])?;
        gst::Element::link_many([source.upcast_ref(), element, sink.upcast_ref()])?;
        pipeline.set_state(gst::State::Playing)?;
        Ok(Self { pipeline, source, sink, count: 0 })
    }

    fn turn(&mut self, mut buffer: gst::Buffer) -> Result<gst::Sample> {
        // A distance that no element mistakes for a repeat.
        let pts = gst::ClockTime::from_mseconds(40 * self.count);
        self.count += 1;
        let header = buffer.make_mut();
        header.set_pts(pts);
        header.set_dts(None);
        header.set_duration(gst::ClockTime::from_mseconds(40));
        let refused = |cause: &str| Failure::run(format!("a frame cannot be converted: {cause}"));
        self.source.push_buffer(buffer).map_err(|e| refused(&e.to_string()))?;
        let bus = self.pipeline.bus().expect("a pipeline has a bus");
        let mut waited = gst::ClockTime::ZERO;
        let step = gst::ClockTime::from_mseconds(200);
        while waited < PATIENCE {
            if let Some(sample) = self.sink.try_pull_sample(step) {
                return Ok(sample);
            }
            crate::media::check(&bus, gst::ClockTime::ZERO, crate::error::Kind::Run)?;
            waited += step;
        }
        Err(refused("nothing came out"))
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        // Going to NULL does not fail; what it frees is gone either way.
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// See the module.
pub struct Encoder(Pump);

impl Encoder {
    pub fn new(info: &VideoInfo) -> Result<Self> {
        let element = gst::ElementFactory::make("jpegenc").property("quality", QUALITY).build()?;
        Ok(Self(Pump::new(&element, &info.to_caps()?)?))
    }

    pub fn encode(&mut self, frame: gst::Buffer) -> Result<Vec<u8>> {
        let sample = self.0.turn(frame)?;
        let buffer = sample.buffer().ok_or_else(|| Failure::run("an encoded sample without a buffer"))?;
        Ok(buffer.map_readable()?.to_vec())
    }
}

/// See the module.
pub struct Decoder {
    pump: Pump,
    info: VideoInfo,
}

impl Decoder {
    pub fn new(info: &VideoInfo) -> Result<Self> {
        let element = gst::ElementFactory::make("jpegdec").build()?;
        let caps = gst::Caps::builder("image/jpeg")
            .field("width", info.width() as i32)
            .field("height", info.height() as i32)
            .build();
        Ok(Self { pump: Pump::new(&element, &caps)?, info: info.clone() })
    }

    /// The frame as I420 with default strides. Errors: what is no JPEG of the decoder's size in 4:2:0.
    pub fn decode(&mut self, jpeg: Vec<u8>) -> Result<gst::Buffer> {
        let sample = self.pump.turn(gst::Buffer::from_mut_slice(jpeg))?;
        let found = sample.caps().and_then(|caps| VideoInfo::from_caps(caps).ok());
        let found = found.ok_or_else(|| Failure::run("a decoded frame without caps"))?;
        let buffer = sample.buffer_owned().ok_or_else(|| Failure::run("a decoded sample without a buffer"))?;
        drop(sample);
        let same = (found.format(), found.width(), found.height())
            == (VideoFormat::I420, self.info.width(), self.info.height());
        if !same {
            return Err(Failure::input(format!(
                "a stored frame is {}x{} {} in place of {}x{} I420",
                found.width(),
                found.height(),
                found.format(),
                self.info.width(),
                self.info.height()
            )));
        }
        self.packed(buffer)
    }

    /// `buffer` itself where its planes lie as `info` says, a copy otherwise.
    fn packed(&self, mut buffer: gst::Buffer) -> Result<gst::Buffer> {
        let fits = buffer
            .meta::<gst_video::VideoMeta>()
            .is_none_or(|meta| meta.stride() == &self.info.stride()[..3] && meta.offset() == &self.info.offset()[..3]);
        if fits && buffer.size() == self.info.size() {
            let header = buffer.make_mut();
            header.set_pts(None);
            header.set_duration(None);
            return Ok(buffer);
        }
        let from = gst_video::VideoFrame::from_buffer_readable(buffer, &self.info)
            .map_err(|_| Failure::run("a decoded frame cannot be read"))?;
        let target = gst::Buffer::with_size(self.info.size())?;
        let mut to = gst_video::VideoFrame::from_buffer_writable(target, &self.info)
            .map_err(|_| Failure::run("a frame cannot be written"))?;
        from.copy(&mut to)?;
        Ok(to.into_buffer())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_frame_of_the_size_is_refused_soon() {
        gst::init().unwrap();
        let (small, large) = (info(64, 48).unwrap(), info(128, 96).unwrap());
        let black = gst::Buffer::from_slice(vec![16u8; large.size()]);
        let jpeg = Encoder::new(&large).unwrap().encode(black).unwrap();
        let started = std::time::Instant::now();
        assert!(Decoder::new(&small).unwrap().decode(jpeg.clone()).unwrap_err().message.contains("128x96"));
        assert!(Decoder::new(&large).unwrap().decode(b"no picture at all".to_vec()).is_err());
        // A cut picture may be shown in part; it must neither panic nor hang.
        let _ = Decoder::new(&large).unwrap().decode(jpeg[..jpeg.len() / 8].to_vec());
        assert!(started.elapsed() < std::time::Duration::from_secs(60));
    }
}
