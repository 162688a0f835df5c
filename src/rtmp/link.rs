//! One RTMP connection without its socket: what both ends do alike. Bytes that arrived go into `input`, bytes to send
//! are taken from `out`.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{
    amf::{self, Value},
    chunk::{self, Message, OUR_CHUNK, kind},
};

/// Bytes after which a peer acknowledges (5.4.4); the customary size.
const WINDOW: u32 = 2_500_000;
/// Commands and metadata are far smaller; media is not AMF.
const MAX_COMMAND: usize = 64 << 10;

/// Events of user control messages (7.1.7).
mod event {
    pub const STREAM_BEGIN: u16 = 0;
    pub const STREAM_END: u16 = 1;
    pub const BUFFER_LENGTH: u16 = 3;
    pub const PING: u16 = 6;
    pub const PONG: u16 = 7;
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Chunk(#[from] chunk::Error),
    #[error("{0}")]
    Amf(#[from] amf::Error),
    #[error("a command without a name, or longer than 64 KiB")]
    Command,
}

/// A command of a client, or an answer to one.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    pub name: String,
    pub transaction: f64,
    pub object: Value,
    pub arguments: Vec<Value>,
    /// The message stream that it is about.
    pub stream: u32,
}

/// What arrives besides what a link answers itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Command(Command),
    Audio { timestamp: u32, data: Bytes },
    Video { timestamp: u32, data: Bytes },
}

#[derive(Default)]
pub struct Link {
    pub input: BytesMut,
    pub out: BytesMut,
    reader: chunk::Reader,
    writer: chunk::Writer,
    received: u64,
    acknowledged: u64,
    window: u64,
    /// An aggregate message that is being taken apart.
    aggregate: Option<Aggregate>,
}

struct Aggregate {
    rest: Bytes,
    /// What is added to the timestamps in it.
    shift: Option<u32>,
    timestamp: u32,
}

impl Link {
    /// A server's, to a peer that has said nothing yet: messages that are longer than commands are refused until
    /// [`expect_media`](Self::expect_media).
    pub fn of_commands() -> Self {
        Self { reader: chunk::Reader::of_commands(), ..Self::default() }
    }

    pub fn expect_media(&mut self) {
        self.reader.expect_media();
    }

    /// `count` bytes have been added to `input`.
    pub fn arrived(&mut self, count: usize) {
        self.received += count as u64;
        if self.window > 0 && self.received - self.acknowledged >= self.window {
            self.acknowledged = self.received;
            // The number wraps at 2^32.
            self.send(kind::ACKNOWLEDGEMENT, 0, 0, Bytes::copy_from_slice(&(self.received as u32).to_be_bytes()));
        }
    }

    /// The next event of what has arrived; `None` when more must arrive first.
    pub fn event(&mut self) -> Result<Option<Event>, Error> {
        loop {
            if let Some(event) = self.disaggregate() {
                return Ok(Some(event));
            }
            let Some(message) = self.reader.read(&mut self.input)? else { return Ok(None) };
            let Message { kind, stream, timestamp, mut data } = message;
            match kind {
                kind::AUDIO => return Ok(Some(Event::Audio { timestamp, data })),
                kind::VIDEO => return Ok(Some(Event::Video { timestamp, data })),
                kind::AGGREGATE => self.aggregate = Some(Aggregate { rest: data, shift: None, timestamp }),
                kind::COMMAND | kind::COMMAND_AMF3 => {
                    // An AMF3 command is AMF0 behind a byte 0.
                    if kind == kind::COMMAND_AMF3 && data.first() == Some(&0) {
                        data.advance(1);
                    }
                    return command(data, stream).map(Event::Command).map(Some);
                }
                kind::WINDOW_SIZE => self.window = data.try_get_u32().unwrap_or(0).into(),
                kind::USER_CONTROL if data.try_get_u16() == Ok(event::PING) => {
                    let time = data.try_get_u32().unwrap_or(0);
                    self.user_control(event::PONG, &time.to_be_bytes());
                }
                _ => {}
            }
        }
    }

    /// The next tag of an aggregate message (7.1.6): FLV tags, each with eleven bytes in front and four behind.
    fn disaggregate(&mut self) -> Option<Event> {
        let aggregate = self.aggregate.as_mut()?;
        while aggregate.rest.remaining() >= 11 {
            let rest = &mut aggregate.rest;
            let kind = rest.get_u8();
            let length = rest.get_uint(3) as usize;
            let low = rest.get_uint(3) as u32;
            let own = low | u32::from(rest.get_u8()) << 24;
            rest.advance(3);
            if rest.remaining() < length {
                break;
            }
            let data = rest.split_to(length);
            rest.advance(rest.remaining().min(4));
            let shift = *aggregate.shift.get_or_insert(aggregate.timestamp.wrapping_sub(own));
            let timestamp = own.wrapping_add(shift);
            match kind {
                kind::AUDIO => return Some(Event::Audio { timestamp, data }),
                kind::VIDEO => return Some(Event::Video { timestamp, data }),
                _ => {}
            }
        }
        self.aggregate = None;
        None
    }

    pub fn send(&mut self, kind: u8, stream: u32, timestamp: u32, data: Bytes) {
        self.writer.write(&Message { kind, stream, timestamp, data }, &mut self.out);
    }

    pub fn command(&mut self, stream: u32, values: &[Value]) {
        self.send(kind::COMMAND, stream, 0, amf::encode(values));
    }

    pub fn status(&mut self, stream: u32, level: &str, code: &str, description: &str) {
        let status = Value::object([
            ("level", Value::text(level)),
            ("code", Value::text(code)),
            ("description", Value::text(description)),
        ]);
        self.command(stream, &[Value::text("onStatus"), Value::Number(0.0), Value::Null, status]);
    }

    /// Larger chunks from here on.
    pub fn set_chunk_size(&mut self) {
        self.send(kind::SET_CHUNK_SIZE, 0, 0, Bytes::copy_from_slice(&(OUR_CHUNK as u32).to_be_bytes()));
    }

    /// What a server says before it answers `connect`.
    pub fn announce_window(&mut self) {
        self.send(kind::WINDOW_SIZE, 0, 0, Bytes::copy_from_slice(&WINDOW.to_be_bytes()));
        let mut limit = BytesMut::new();
        limit.put_u32(WINDOW);
        // 2: dynamic (5.4.5).
        limit.put_u8(2);
        self.send(kind::PEER_BANDWIDTH, 0, 0, limit.freeze());
    }

    pub fn stream_begins(&mut self, stream: u32) {
        self.user_control(event::STREAM_BEGIN, &stream.to_be_bytes());
    }

    pub fn stream_ends(&mut self, stream: u32) {
        self.user_control(event::STREAM_END, &stream.to_be_bytes());
    }

    /// As a player: how much it buffers.
    pub fn buffer_length(&mut self, stream: u32, milliseconds: u32) {
        self.user_control(event::BUFFER_LENGTH, &[stream.to_be_bytes(), milliseconds.to_be_bytes()].concat());
    }

    pub fn ping(&mut self, time: u32) {
        self.user_control(event::PING, &time.to_be_bytes());
    }

    fn user_control(&mut self, event: u16, data: &[u8]) {
        self.send(kind::USER_CONTROL, 0, 0, [&event.to_be_bytes(), data].concat().into());
    }
}

fn command(data: Bytes, stream: u32) -> Result<Command, Error> {
    if data.len() > MAX_COMMAND {
        return Err(Error::Command);
    }
    let mut values = amf::decode(data)?.into_iter();
    let Some(Value::String(name)) = values.next() else { return Err(Error::Command) };
    let transaction = values.next().and_then(|value| value.as_number()).unwrap_or(0.0);
    let object = values.next().unwrap_or(Value::Null);
    Ok(Command { name, transaction, object, arguments: values.collect(), stream })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `to` sees of what `from` has sent.
    fn pass(from: &mut Link, to: &mut Link) -> Vec<Event> {
        let sent = from.out.split();
        to.input.extend_from_slice(&sent);
        to.arrived(sent.len());
        std::iter::from_fn(|| to.event().unwrap()).collect()
    }

    #[test]
    fn pings_are_answered_and_bytes_acknowledged() {
        let (mut server, mut client) = (Link::default(), Link::default());
        server.announce_window();
        server.ping(7);
        assert_eq!(pass(&mut server, &mut client), []);
        assert!(!client.out.is_empty(), "the answer to the ping");
        client.out.clear();
        for _ in 0..3 {
            server.send(kind::VIDEO, 1, 0, vec![0; 1_000_000].into());
            assert_eq!(pass(&mut server, &mut client).len(), 1);
        }
        let mut reader = chunk::Reader::default();
        let acknowledgement = reader.read(&mut client.out).unwrap().unwrap();
        assert_eq!(acknowledgement.kind, kind::ACKNOWLEDGEMENT);
    }

    #[test]
    fn an_aggregate_is_taken_apart() {
        let mut data = BytesMut::new();
        for (kind, time, body) in [(9u8, 500u32, &b"video"[..]), (8, 520, b"sound")] {
            data.put_u8(kind);
            data.put_uint(body.len() as u64, 3);
            data.put_uint(time.into(), 3);
            data.put_slice(&[0, 0, 0, 0]);
            data.put_slice(body);
            data.put_u32(body.len() as u32 + 11);
        }
        let (mut a, mut b) = (Link::default(), Link::default());
        a.send(kind::AGGREGATE, 1, 9000, data.freeze());
        let expected = [
            Event::Video { timestamp: 9000, data: Bytes::from_static(b"video") },
            Event::Audio { timestamp: 9020, data: Bytes::from_static(b"sound") },
        ];
        assert_eq!(pass(&mut a, &mut b), expected);
    }

    #[test]
    fn a_huge_command_is_refused() {
        let (mut a, mut b) = (Link::default(), Link::default());
        a.send(kind::COMMAND, 0, 0, vec![5; 100_000].into());
        b.input.extend_from_slice(&a.out);
        assert_eq!(b.event(), Err(Error::Command));
    }
}
