//! RTMP's chunk stream: messages cut into chunks and put together again (Adobe's RTMP 1.0 specification, section 5.3).
//!
//! Nothing here does input or output. The reader holds only bytes that have arrived, whatever lengths the peer
//! announces.

use std::collections::HashMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Chunk size until a peer sets another (5.4.1).
pub const INITIAL_CHUNK: usize = 128;
/// What we send: the usual compromise between headers and the delay of sound behind a large picture.
pub const OUR_CHUNK: usize = 4096;
/// A key frame of 4K at a high bit rate has about 2 MB.
pub const MAX_MESSAGE: usize = 8 << 20;
/// Before a peer publishes it sends commands only, which have a few kilobytes. Whoever has said nothing yet cannot make
/// many connections hold megabytes each.
const MAX_COMMANDS: usize = 128 << 10;
/// A publisher uses three to five chunk streams.
const MAX_STREAMS: usize = 32;
/// Unfinished messages of all chunk streams together.
const MAX_HELD: usize = 16 << 20;
/// From here on a timestamp is in the four bytes after the header (5.3.1.3).
const EXTENDED: u32 = 0xFF_FFFF;

/// Message types (5.4, 7.1).
pub mod kind {
    pub const SET_CHUNK_SIZE: u8 = 1;
    pub const ABORT: u8 = 2;
    pub const ACKNOWLEDGEMENT: u8 = 3;
    pub const USER_CONTROL: u8 = 4;
    pub const WINDOW_SIZE: u8 = 5;
    pub const PEER_BANDWIDTH: u8 = 6;
    pub const AUDIO: u8 = 8;
    pub const VIDEO: u8 = 9;
    pub const DATA_AMF3: u8 = 15;
    pub const COMMAND_AMF3: u8 = 17;
    pub const DATA: u8 = 18;
    pub const COMMAND: u8 = 20;
    pub const AGGREGATE: u8 = 22;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// One of [`kind`].
    pub kind: u8,
    /// Message stream: 0 for the connection, otherwise what createStream gave.
    pub stream: u32,
    /// Milliseconds, wrapping at 2^32.
    pub timestamp: u32,
    pub data: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("a chunk continues a stream that has not begun: this is no RTMP")]
    NotBegun,
    #[error("a message of {0} bytes is announced; at most {1} are accepted, {MAX_MESSAGE} while publishing")]
    MessageSize(usize, usize),
    #[error("a chunk size of {0} is outside 1..=16777215")]
    ChunkSize(u32),
    #[error("more than {MAX_STREAMS} chunk streams or {MAX_HELD} bytes of unfinished messages")]
    TooMuch,
}

#[derive(Default)]
struct Stream {
    timestamp: u32,
    /// The timestamp field as it came, a difference in all but type 0; a type 3 chunk repeats it.
    field: u32,
    extended: bool,
    length: usize,
    kind: u8,
    stream: u32,
    partial: BytesMut,
    /// A message has begun and lacks data.
    open: bool,
}

/// Puts messages together.
pub struct Reader {
    chunk: usize,
    streams: HashMap<u32, Stream>,
    /// The chunk that is being read: its stream and the bytes that it lacks.
    current: Option<(u32, usize)>,
    held: usize,
    /// Longest message.
    longest: usize,
}

impl Default for Reader {
    /// For a peer that may send media.
    fn default() -> Self {
        Self { chunk: INITIAL_CHUNK, streams: HashMap::new(), current: None, held: 0, longest: MAX_MESSAGE }
    }
}

impl Reader {
    /// For a peer that has not yet asked to publish.
    pub fn of_commands() -> Self {
        Self { longest: MAX_COMMANDS, ..Self::default() }
    }

    /// From now on the peer may send media.
    pub fn expect_media(&mut self) {
        self.longest = MAX_MESSAGE;
    }

    /// Takes bytes from `input` up to the end of the next message; `None` when they do not suffice. Chunk size and
    /// abort messages are acted on here and returned all the same.
    pub fn read(&mut self, input: &mut BytesMut) -> Result<Option<Message>, Error> {
        loop {
            let (id, lacks) = match self.current.take() {
                Some(current) => current,
                None => match self.header(input)? {
                    Some(begun) => begun,
                    None => return Ok(None),
                },
            };
            let stream = self.streams.get_mut(&id).ok_or(Error::NotBegun)?;
            let take = lacks.min(input.len());
            self.held += take;
            if self.held > MAX_HELD.min(2 * self.longest) {
                return Err(Error::TooMuch);
            }
            stream.partial.extend_from_slice(&input[..take]);
            input.advance(take);
            if take < lacks {
                self.current = Some((id, lacks - take));
                return Ok(None);
            }
            if stream.partial.len() < stream.length {
                continue;
            }
            stream.open = false;
            self.held -= stream.partial.len();
            let data = std::mem::take(&mut stream.partial).freeze();
            let message = Message { kind: stream.kind, stream: stream.stream, timestamp: stream.timestamp, data };
            self.obey(&message)?;
            return Ok(Some(message));
        }
    }

    fn obey(&mut self, message: &Message) -> Result<(), Error> {
        let mut data = message.data.clone();
        match message.kind {
            kind::SET_CHUNK_SIZE => {
                // The highest bit is 0 by the specification; sizes beyond a message's make no difference.
                let size = data.try_get_u32().unwrap_or(0);
                self.chunk = match size {
                    1..=0x7FFF_FFFF => (size as usize).min(EXTENDED as usize),
                    _ => return Err(Error::ChunkSize(size)),
                };
            }
            kind::ABORT => {
                if let Some(stream) = data.try_get_u32().ok().and_then(|id| self.streams.get_mut(&id)) {
                    self.held -= stream.partial.len();
                    stream.partial.clear();
                    stream.open = false;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Reads a chunk's headers; gives its chunk stream and the bytes of data that follow.
    fn header(&mut self, input: &mut BytesMut) -> Result<Option<(u32, usize)>, Error> {
        let Some(&first) = input.first() else { return Ok(None) };
        let (format, low) = (first >> 6, first & 0x3F);
        // Ids 64 and more are in one or two further bytes (5.3.1.1).
        let basic = match low {
            0 => 2,
            1 => 3,
            _ => 1,
        };
        let fields = [11, 7, 3, 0][usize::from(format)];
        if input.len() < basic + fields {
            return Ok(None);
        }
        let id = match low {
            0 => 64 + u32::from(input[1]),
            1 => 64 + u32::from(input[1]) + 256 * u32::from(input[2]),
            _ => low.into(),
        };
        if format != 0 && !self.streams.contains_key(&id) {
            return Err(Error::NotBegun);
        }
        if self.streams.len() >= MAX_STREAMS && !self.streams.contains_key(&id) {
            return Err(Error::TooMuch);
        }
        let header = &input[basic..basic + fields];
        let u24 = |at: usize| u32::from_be_bytes([0, header[at], header[at + 1], header[at + 2]]);
        let extended = match format {
            3 => self.streams[&id].extended,
            _ => u24(0) == EXTENDED,
        };
        let rest = &input[basic + fields..];
        if extended && rest.len() < 4 {
            return Ok(None);
        }
        let field = match (extended, format) {
            (true, _) => u32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]),
            (false, 3) => self.streams[&id].field,
            (false, _) => u24(0),
        };
        let stream = self.streams.entry(id).or_default();
        let mut consumed = basic + fields + if extended { 4 } else { 0 };
        if format == 3 && extended && stream.open && field != stream.field {
            // Some encoders leave the extended timestamp out of the chunks that continue a message.
            consumed -= 4;
        }
        if !(format == 3 && stream.open) {
            if stream.open {
                // A message that the peer gave up.
                self.held -= stream.partial.len();
                stream.partial.clear();
            }
            if format < 2 {
                let length = u24(3) as usize;
                if length > self.longest {
                    return Err(Error::MessageSize(length, self.longest));
                }
                stream.length = length;
                stream.kind = header[6];
            }
            if format == 0 {
                stream.stream = u32::from_le_bytes([header[7], header[8], header[9], header[10]]);
                stream.timestamp = field;
            } else {
                stream.timestamp = stream.timestamp.wrapping_add(field);
            }
            stream.field = field;
            stream.extended = extended;
            stream.open = true;
        }
        input.advance(consumed);
        Ok(Some((id, (stream.length - stream.partial.len()).min(self.chunk))))
    }
}

/// Cuts messages into chunks. Every message has a full header: a few bytes more, and no difference between peers in how
/// they count timestamp differences.
pub struct Writer {
    chunk: usize,
}

impl Default for Writer {
    fn default() -> Self {
        Self { chunk: INITIAL_CHUNK }
    }
}

impl Writer {
    pub fn write(&mut self, message: &Message, out: &mut BytesMut) {
        let id: u8 = match message.kind {
            kind::AUDIO => 4,
            kind::VIDEO => 6,
            kind::COMMAND => 3,
            kind::DATA => 5,
            _ => 2,
        };
        let extended = (message.timestamp >= EXTENDED).then_some(message.timestamp);
        let length = message.data.len().min(MAX_MESSAGE);
        out.reserve(length + 16 + 5 * (length / self.chunk));
        out.put_u8(id);
        out.put_uint(extended.map_or(message.timestamp, |_| EXTENDED).into(), 3);
        out.put_uint(length as u64, 3);
        out.put_u8(message.kind);
        out.put_u32_le(message.stream);
        extended.inspect(|timestamp| out.put_u32(*timestamp));
        for (index, part) in message.data[..length].chunks(self.chunk).enumerate() {
            if index > 0 {
                out.put_u8(0xC0 | id);
                extended.inspect(|timestamp| out.put_u32(*timestamp));
            }
            out.put_slice(part);
        }
        if let (kind::SET_CHUNK_SIZE, Ok(size)) = (message.kind, message.data.clone().try_get_u32()) {
            self.chunk = size.max(1) as usize;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, timestamp: u32, length: usize) -> Message {
        Message { kind, stream: 1, timestamp, data: (0..length).map(|i| (i % 251) as u8).collect() }
    }

    fn read_all(reader: &mut Reader, bytes: &[u8]) -> Result<Vec<Message>, Error> {
        let mut input = BytesMut::from(bytes);
        std::iter::from_fn(|| reader.read(&mut input).transpose()).collect()
    }

    #[test]
    fn messages_survive_any_cut_of_the_connection() {
        let mut writer = Writer::default();
        let mut out = BytesMut::new();
        let sent = [
            message(kind::COMMAND, 0, 300),
            Message { kind: kind::SET_CHUNK_SIZE, stream: 0, timestamp: 0, data: Bytes::from_static(&[0, 0, 16, 0]) },
            message(kind::VIDEO, 40, 20_000),
            message(kind::AUDIO, 41, 0),
            message(kind::AUDIO, 60, 128),
        ];
        sent.iter().for_each(|m| writer.write(m, &mut out));
        for step in [1, 7, 4096, out.len()] {
            let mut reader = Reader::default();
            let (mut input, mut got) = (BytesMut::new(), Vec::new());
            for part in out.chunks(step) {
                input.extend_from_slice(part);
                while let Some(message) = reader.read(&mut input).unwrap() {
                    got.push(message);
                }
            }
            assert_eq!(got, sent, "in steps of {step}");
            assert_eq!(reader.held, 0);
        }
    }

    #[test]
    fn timestamps_pass_the_24_bit_limit_and_the_wrap() {
        let mut writer = Writer::default();
        let mut out = BytesMut::new();
        let times = [EXTENDED - 40, EXTENDED, EXTENDED + 40, u32::MAX - 10, 29];
        let sent: Vec<_> = times.iter().map(|t| message(kind::VIDEO, *t, 500)).collect();
        sent.iter().for_each(|m| writer.write(m, &mut out));
        assert_eq!(read_all(&mut Reader::default(), &out).unwrap(), sent);
    }

    #[test]
    fn differences_are_added_and_a_repeated_header_repeats_them() {
        // Type 0 at 1000, type 1 +40, type 2 +20, type 3 (again +20); one byte of data each.
        let bytes = [
            &[4, 0, 3, 232, 0, 0, 1, 8, 1, 0, 0, 0, 0xAA][..],
            &[0x44, 0, 0, 40, 0, 0, 1, 8, 0xAB],
            &[0x84, 0, 0, 20, 0xAC],
            &[0xC4, 0xAD],
        ]
        .concat();
        let got = read_all(&mut Reader::default(), &bytes).unwrap();
        assert_eq!(got.iter().map(|m| m.timestamp).collect::<Vec<_>>(), [1000, 1040, 1060, 1080]);
    }

    #[test]
    fn an_extended_timestamp_may_be_left_out_of_continuations() {
        let mut bytes = vec![6, 0xFF, 0xFF, 0xFF, 0, 0, 200, 9, 1, 0, 0, 0, 1, 0, 0, 0];
        bytes.extend_from_slice(&[7; 128]);
        bytes.push(0xC6);
        bytes.extend_from_slice(&[7; 72]);
        let got = read_all(&mut Reader::default(), &bytes).unwrap();
        assert_eq!((got[0].timestamp, got[0].data.len()), (0x0100_0000, 200));
    }

    #[test]
    fn lies_about_sizes_are_refused_without_memory() {
        let header = |length: [u8; 3]| [&[3, 0, 0, 0][..], &length, &[20, 0, 0, 0, 0]].concat();
        let result = read_all(&mut Reader::default(), &header([0xFF, 0xFF, 0xFF]));
        assert_eq!(result, Err(Error::MessageSize(0xFF_FFFF, MAX_MESSAGE)));
        let picture = header([2, 0, 1]);
        assert_eq!(read_all(&mut Reader::default(), &picture), Ok(Vec::new()));
        let mut reader = Reader::of_commands();
        assert_eq!(read_all(&mut reader, &picture), Err(Error::MessageSize((2 << 16) + 1, MAX_COMMANDS)));
        reader.expect_media();
        assert_eq!(read_all(&mut reader, &picture), Ok(Vec::new()));
        assert_eq!(read_all(&mut Reader::default(), &[0xC3, 1]), Err(Error::NotBegun));
        let zero = [2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(read_all(&mut Reader::default(), &zero), Err(Error::ChunkSize(0)));
        let many: Vec<u8> = (0..100u8).flat_map(|id| [0, id, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0]).collect();
        assert_eq!(read_all(&mut Reader::default(), &many), Err(Error::TooMuch));
    }
}
