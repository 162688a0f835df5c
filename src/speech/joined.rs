//! WAV files one after the other in one body, as some TTS send their sentences: their sound becomes one file's.

/// Bytes of a file before its sound.
const MAX_HEAD: usize = 1 << 20;
/// A size that says that the writer did not know it.
const UNKNOWN: u32 = 0xffff_ff00;

/// Passes a body on. Of one that begins as a WAV file only the first head passes, then the sound of every file; any other
/// passes as it is.
#[derive(Debug, Default)]
pub struct Joined {
    state: State,
    /// Bytes that are not understood yet.
    held: Vec<u8>,
    /// The format of the first file.
    format: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nothing is known yet.
    #[default]
    Start,
    /// Before the sound of a file.
    Head,
    /// Sound, with so many bytes left.
    Sound(usize),
    /// Sound of a length that nobody knows: it ends where another file begins.
    Endless,
    /// What follows sound: another file, or a chunk of this one.
    After,
    /// A chunk that is no sound, with so many bytes left.
    Skip(usize),
    /// No WAV file.
    Other,
}

impl Joined {
    /// Takes bytes and gives those that the decoder gets. Errors: a file of another format than the first, or without
    /// sound, for people.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        if self.state == State::Other {
            return Ok(bytes.to_vec());
        }
        self.held.extend_from_slice(bytes);
        let mut out = Vec::new();
        while self.step(&mut out)? {}
        Ok(out)
    }

    /// The rest, at the end of the body.
    pub fn finish(&mut self) -> Vec<u8> {
        match self.state {
            State::Start | State::Head | State::Endless | State::Other => std::mem::take(&mut self.held),
            _ => Vec::new(),
        }
    }

    /// Goes one step on; `false` where more bytes are needed.
    fn step(&mut self, out: &mut Vec<u8>) -> Result<bool, String> {
        match self.state {
            State::Start => {
                if self.held.len() < 12 {
                    return Ok(false);
                }
                self.state = if begins(&self.held) { State::Head } else { State::Other };
            }
            State::Head => return self.head(out),
            State::Sound(left) => {
                let count = left.min(self.held.len());
                out.extend(self.held.drain(..count));
                self.state = if count == left { State::After } else { State::Sound(left - count) };
                return Ok(count == left);
            }
            State::Endless => {
                if let Some(at) = (0..self.held.len().saturating_sub(11)).find(|at| begins(&self.held[*at..])) {
                    out.extend(self.held.drain(..at));
                    self.state = State::Head;
                    return Ok(true);
                }
                let sure = self.held.len().saturating_sub(11);
                out.extend(self.held.drain(..sure));
                return Ok(false);
            }
            State::After => {
                if self.held.len() < 12 {
                    return Ok(false);
                }
                // A chunk of an odd size is followed by a byte that fills it up.
                if !begins(&self.held) && self.held[0] == 0 {
                    self.held.drain(..1);
                    return Ok(true);
                }
                self.state = match begins(&self.held) {
                    true => State::Head,
                    false => State::Skip(8 + padded(size(&self.held[4..8]))),
                };
            }
            State::Skip(left) => {
                let count = left.min(self.held.len());
                self.held.drain(..count);
                self.state = if count == left { State::After } else { State::Skip(left - count) };
                return Ok(count == left);
            }
            State::Other => {
                out.append(&mut self.held);
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn head(&mut self, out: &mut Vec<u8>) -> Result<bool, String> {
        let mut at = 12;
        let mut format = Vec::new();
        while let Some(chunk) = self.held.get(at..at + 8) {
            let length = size(&chunk[4..]);
            if &chunk[..4] == b"data" {
                if self.format.is_empty() {
                    out.extend_from_slice(&self.held[..at + 8]);
                    self.format = format;
                } else if self.format != format {
                    return Err("the WAV files in the body have different formats: send each by itself".into());
                }
                self.held.drain(..at + 8);
                let known = length != 0 && length < UNKNOWN as usize;
                self.state = if known { State::Sound(length) } else { State::Endless };
                return Ok(true);
            }
            if &chunk[..4] == b"fmt " {
                let Some(body) = self.held.get(at + 8..at + 8 + length.min(MAX_HEAD)) else { break };
                format = body.to_vec();
            }
            at = at.saturating_add(8 + padded(length));
            if at > MAX_HEAD {
                return Err("a WAV file in the body has no sound in its first megabyte".into());
            }
        }
        Ok(false)
    }
}

fn begins(bytes: &[u8]) -> bool {
    bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WAVE")
}

fn size(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |n, byte| n << 8 | usize::from(*byte))
}

fn padded(size: usize) -> usize {
    size + size % 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let mut out = [&kind[..], &(body.len() as u32).to_le_bytes(), body].concat();
        out.resize(padded(out.len()), 0);
        out
    }

    fn wav(sound: &[u8], more: &[u8]) -> Vec<u8> {
        let body = [&b"WAVE"[..], &chunk(b"fmt ", &[1; 16]), &chunk(b"data", sound), more].concat();
        [&b"RIFF"[..], &(body.len() as u32).to_le_bytes(), &body].concat()
    }

    fn joined(body: &[u8], piece: usize) -> Result<Vec<u8>, String> {
        let mut joined = Joined::default();
        let mut out = Vec::new();
        for piece in body.chunks(piece) {
            out.extend(joined.push(piece)?);
        }
        out.extend(joined.finish());
        Ok(out)
    }

    #[test]
    fn the_sound_of_all_files_follows_the_first_head() {
        let body = [wav(&[5; 101], &[]), wav(&[6; 50], &chunk(b"LIST", b"names")), wav(&[7; 30], &[])].concat();
        let wanted = [&wav(&[5; 101], &[])[..44 + 101], &[6; 50], &[7; 30]].concat();
        for piece in [1, 7, 44, 1000] {
            assert_eq!(joined(&body, piece).unwrap(), wanted, "pieces of {piece}");
        }
    }

    #[test]
    fn sound_of_an_unknown_length_ends_where_a_file_begins() {
        let mut first = wav(&[5; 100], &[]);
        first[40..44].fill(0xff);
        let body = [first.clone(), wav(&[6; 50], &[])].concat();
        for piece in [1, 9, 1000] {
            assert_eq!(joined(&body, piece).unwrap(), [&first[..], &[6; 50]].concat(), "pieces of {piece}");
        }
    }

    #[test]
    fn other_bodies_pass_and_other_formats_are_refused() {
        assert_eq!(joined(b"OggS and more of it", 3).unwrap(), b"OggS and more of it");
        assert_eq!(joined(b"short", 3).unwrap(), b"short");
        let mut other = wav(&[6; 50], &[]);
        other[20] = 3;
        assert!(joined(&[wav(&[5; 10], &[]), other].concat(), 16).unwrap_err().contains("different formats"));
    }
}
