//! Sound of a file.

use std::path::Path;

use crate::pull;

/// All of it, mono at 16 kHz in -1..1.
pub fn samples(path: &Path) -> Result<Vec<f32>, String> {
    let launch = "filesrc name=in ! decodebin ! audioconvert ! audioresample \
                  ! audio/x-raw,format=F32LE,rate=16000,channels=1 ! appsink name=out sync=false";
    let mut samples = Vec::new();
    pull::each(launch, path, "sound", |sample| {
        let map = sample.buffer().ok_or("no buffer")?.map_readable().map_err(|e| e.to_string())?;
        samples.extend(map.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)));
        Ok(())
    })?;
    Ok(samples)
}
