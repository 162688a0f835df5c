//! The file that a render writes: its container, its codecs, and that it appears whole or not at all.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use clap::ValueEnum;

use super::{edit_list, matroska};
use crate::{
    error::{Failure, Result},
    marks::{
        Identity,
        manifest::{self, Making},
    },
    media::sequence::Pattern,
    termination,
};

/// Container, by the extension of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    Mp4,
    Mov,
    Matroska,
    WebM,
    /// Numbered PNG files, without sound.
    Pictures,
}

/// How the audio is stored. All but `aac` and `opus` keep every sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AudioCodec {
    Aac,
    Alac,
    Flac,
    Pcm,
    Opus,
}

/// Samples that avenc_aac puts in front of the sound.
const AAC_PRIMING: u64 = 1024;

impl Container {
    pub fn of(path: &Path) -> Result<Self> {
        if Pattern::of(path).is_some_and(|pattern| pattern.is_png()) {
            return Ok(Self::Pictures);
        }
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        match extension.as_str() {
            "mp4" | "m4v" => Ok(Self::Mp4),
            "mov" => Ok(Self::Mov),
            "mkv" => Ok(Self::Matroska),
            "webm" => Ok(Self::WebM),
            _ => Err(Failure::usage(format!(
                "{}: the output must end in .mp4, .mov, .mkv or .webm, or be pictures as %05d.png",
                path.display()
            ))),
        }
    }

    /// What it can hold, the default first.
    pub fn audio_codecs(self) -> &'static [AudioCodec] {
        match self {
            Self::Mp4 => &[AudioCodec::Aac, AudioCodec::Alac],
            Self::Mov => &[AudioCodec::Aac, AudioCodec::Alac, AudioCodec::Pcm],
            Self::Matroska => &[AudioCodec::Flac, AudioCodec::Pcm, AudioCodec::Opus],
            Self::WebM => &[AudioCodec::Opus],
            // Nothing is heard of it.
            Self::Pictures => &[AudioCodec::Pcm],
        }
    }

    pub fn choose(self, wanted: Option<AudioCodec>) -> Result<AudioCodec> {
        let codecs = self.audio_codecs();
        let Some(wanted) = wanted else { return Ok(codecs[0]) };
        if codecs.contains(&wanted) {
            return Ok(wanted);
        }
        let names: Vec<String> = codecs.iter().map(|c| c.to_string()).collect();
        Err(Failure::usage(format!("{self} cannot hold {wanted} audio; it holds {}", names.join(", "))))
    }

    /// Whether it can keep transparency, as we write it.
    pub fn holds_alpha(self) -> bool {
        matches!(self, Self::Mov | Self::WebM | Self::Pictures)
    }

    /// Whether a file of it can have a C2PA manifest, as we write them.
    pub fn holds_manifests(self) -> bool {
        matches!(self, Self::Mp4 | Self::Mov)
    }

    pub fn muxer(self) -> &'static str {
        match self {
            Self::Mp4 => "mp4mux name=mux",
            Self::Mov => "qtmux name=mux",
            Self::Matroska => "matroskamux name=mux",
            Self::WebM => "webmmux name=mux",
            Self::Pictures => "multifilesink name=file-out",
        }
    }
}

impl std::fmt::Display for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Mp4 => "MP4",
            Self::Mov => "MOV",
            Self::Matroska => "Matroska",
            Self::WebM => "WebM",
            Self::Pictures => "a sequence of PNG files",
        })
    }
}

impl std::fmt::Display for AudioCodec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.to_possible_value().expect("no codec is hidden").get_name())
    }
}

impl AudioCodec {
    /// The elements from raw audio to what the muxer takes. Conversions of format do not dither, so a lossless codec
    /// gives back what came in wherever it has enough bits.
    pub fn encoder(self) -> &'static str {
        match self {
            Self::Aac => "audioconvert ! audioresample ! avenc_aac name=aenc aac-coder=fast bitrate=160000 ! aacparse",
            Self::Alac => "audioconvert dithering=none ! avenc_alac name=aenc",
            Self::Flac => "audioconvert dithering=none ! flacenc name=aenc ! flacparse",
            Self::Pcm => "audioconvert dithering=none",
            Self::Opus => "audioconvert ! audioresample ! opusenc name=aenc bitrate=128000",
        }
    }
}

/// The output while it is written: a file beside it that takes its name when it is complete, and is removed otherwise.
pub struct Unfinished {
    target: PathBuf,
    /// Of pictures, which are written into a folder of their own beside where they belong.
    pattern: Option<Pattern>,
    path: PathBuf,
    finished: bool,
}

impl Unfinished {
    /// Creates the file, which shows early whether the place can be written.
    pub fn create(target: &Path) -> Result<Self> {
        let failure =
            |cause: std::io::Error| Failure::output(format!("{}: cannot be written: {cause}", target.display()));
        if let Some(pattern) = Pattern::of(target).filter(Pattern::is_png) {
            let path = pattern.folder().join(format!(".lipstream.{}.part", std::process::id()));
            fs::create_dir_all(&path).map_err(failure)?;
            termination::set_unfinished(Some(&path));
            return Ok(Self { target: target.to_owned(), pattern: Some(pattern), path, finished: false });
        }
        if target.is_dir() {
            return Err(Failure::output(format!("{}: is a folder", target.display())));
        }
        let name = target
            .file_name()
            .ok_or_else(|| Failure::output(format!("{}: is not the name of a file", target.display())))?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}.part", std::process::id()));
        let path = target.with_file_name(hidden);
        File::create(&path).map_err(failure)?;
        termination::set_unfinished(Some(&path));
        Ok(Self { target: target.to_owned(), pattern: None, path, finished: false })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As `multifilesink` takes it, of pictures.
    pub fn location(&self) -> Option<String> {
        let name = self.target.file_name()?;
        self.pattern.as_ref().and_then(|_| Pattern::of(&self.path.join(name))).map(|pattern| pattern.location())
    }

    /// Gives the file its name.
    pub fn finish_as_it_is(mut self) -> Result<()> {
        let failure = |e: std::io::Error| Failure::output(format!("{}: {e}", self.target.display()));
        fs::rename(&self.path, &self.target).map_err(failure)?;
        self.finished = true;
        Ok(())
    }

    /// Makes the container say when the sound begins and ends, which the packets of an encoder do not, adds the manifest, if
    /// any, then gives the file its name.
    pub fn finish(
        mut self,
        container: Container,
        codec: AudioCodec,
        length: Length,
        manifest: Option<(Making, &Identity)>,
    ) -> Result<()> {
        let failure = |cause: String| Failure::output(format!("{}: {cause}", self.target.display()));
        let described = match container {
            Container::Mp4 | Container::Mov => {
                let priming = if codec == AudioCodec::Aac { AAC_PRIMING } else { 0 };
                edit_list::trim_audio(&self.path, priming, length.samples, length.rate)
            }
            Container::Matroska | Container::WebM => matroska::set_duration(&self.path, length.whole().nseconds()),
            Container::Pictures => Ok(()),
        };
        described.map_err(|e| failure(e.to_string()))?;
        if let Some((making, identity)) = &manifest {
            manifest::embed(&self.path, making, identity)
                .map_err(|e| failure(format!("the manifest cannot be added: {e}; --no-marks renders without one")))?;
        }
        match &self.pattern {
            None => fs::rename(&self.path, &self.target).map_err(|e| failure(e.to_string()))?,
            Some(pattern) => {
                for picture in fs::read_dir(&self.path).map_err(|e| failure(e.to_string()))? {
                    let picture = picture.map_err(|e| failure(e.to_string()))?;
                    fs::rename(picture.path(), pattern.folder().join(picture.file_name()))
                        .map_err(|e| failure(e.to_string()))?;
                }
                fs::remove_dir(&self.path).map_err(|e| failure(e.to_string()))?;
            }
        }
        self.finished = true;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.finished {
            // Where even removing fails, the cause that brought us here is the one to report.
            let _ = match self.pattern {
                Some(_) => fs::remove_dir_all(&self.path),
                None => fs::remove_file(&self.path),
            };
        }
        termination::set_unfinished(None);
    }
}

/// What went in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Length {
    /// Of the sound.
    pub samples: u64,
    pub rate: u32,
    /// When the last picture ends.
    pub pictures: gst::ClockTime,
}

impl Length {
    /// When picture and sound have both ended.
    fn whole(self) -> gst::ClockTime {
        let sound = u128::from(self.samples) * 1_000_000_000 / u128::from(self.rate.max(1));
        self.pictures.max(gst::ClockTime::from_nseconds(sound as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_chooses_the_container() {
        assert_eq!(Container::of(Path::new("a/b.MP4")).unwrap(), Container::Mp4);
        assert_eq!(Container::of(Path::new("b.mkv")).unwrap(), Container::Matroska);
        assert!(Container::of(Path::new("b")).unwrap_err().message.contains(".webm"));
    }

    #[test]
    fn a_codec_that_the_container_cannot_hold_is_refused_with_those_it_can() {
        let failure = Container::Mp4.choose(Some(AudioCodec::Flac)).unwrap_err();
        assert_eq!(failure.message, "MP4 cannot hold flac audio; it holds aac, alac");
    }

    #[test]
    fn an_unfinished_output_leaves_the_old_one_alone_and_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out.mp4");
        fs::write(&target, b"old").unwrap();
        let unfinished = Unfinished::create(&target).unwrap();
        fs::write(unfinished.path(), b"half").unwrap();
        drop(unfinished);
        assert_eq!(fs::read(&target).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
