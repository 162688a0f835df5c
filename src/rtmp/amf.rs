//! AMF0, the encoding of RTMP's commands and metadata (Action Message Format AMF 0, Adobe 2007).
//!
//! References (marker 7) are refused: no live client uses them, and a few hundred bytes of them expand without bound.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Objects in objects; a connect command has one level, metadata two.
const MAX_DEPTH: usize = 16;
/// Values in one message, however nested.
const MAX_VALUES: usize = 4096;

const NUMBER: u8 = 0;
const BOOLEAN: u8 = 1;
const STRING: u8 = 2;
const OBJECT: u8 = 3;
const NULL: u8 = 5;
const UNDEFINED: u8 = 6;
const ECMA_ARRAY: u8 = 8;
const OBJECT_END: u8 = 9;
const STRICT_ARRAY: u8 = 10;
const DATE: u8 = 11;
const LONG_STRING: u8 = 12;
const UNSUPPORTED: u8 = 13;
const XML: u8 = 15;
const TYPED_OBJECT: u8 = 16;

/// A value. Keys keep their order.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Number(f64),
    Boolean(bool),
    String(String),
    Object(Vec<(String, Value)>),
    /// An object that is marked as an array with names, as metadata is.
    Map(Vec<(String, Value)>),
    Array(Vec<Value>),
    /// Null, undefined, unsupported.
    Null,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("AMF0 ends in the middle of a value")]
    Short,
    #[error("AMF0 text is no UTF-8")]
    Text,
    #[error("AMF0 marker {0} is not accepted")]
    Marker(u8),
    #[error("AMF0 is nested too deeply or has too many values")]
    TooLarge,
}

impl Value {
    pub fn text(text: &str) -> Self {
        Self::String(text.to_owned())
    }

    pub fn object<const N: usize>(fields: [(&str, Value); N]) -> Self {
        Self::Object(fields.map(|(name, value)| (name.to_owned(), value)).into())
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The field `name` of an object or a map.
    pub fn get(&self, name: &str) -> Option<&Value> {
        match self {
            Self::Object(fields) | Self::Map(fields) => fields.iter().find(|(n, _)| n == name).map(|(_, v)| v),
            _ => None,
        }
    }

    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Number(number) => {
                out.put_u8(NUMBER);
                out.put_f64(*number);
            }
            Self::Boolean(on) => {
                out.put_u8(BOOLEAN);
                out.put_u8((*on).into());
            }
            Self::String(text) if text.len() > usize::from(u16::MAX) => {
                out.put_u8(LONG_STRING);
                out.put_u32(text.len() as u32);
                out.put_slice(text.as_bytes());
            }
            Self::String(text) => {
                out.put_u8(STRING);
                put_name(text, out);
            }
            Self::Object(fields) => {
                out.put_u8(OBJECT);
                put_fields(fields, out);
            }
            Self::Map(fields) => {
                out.put_u8(ECMA_ARRAY);
                out.put_u32(fields.len() as u32);
                put_fields(fields, out);
            }
            Self::Array(values) => {
                out.put_u8(STRICT_ARRAY);
                out.put_u32(values.len() as u32);
                values.iter().for_each(|value| value.encode(out));
            }
            Self::Null => out.put_u8(NULL),
        }
    }
}

/// All values of a message. A value that the message's end cuts off ends the list, as several encoders leave out the
/// last end marker.
pub fn decode(mut data: Bytes) -> Result<Vec<Value>, Error> {
    let mut budget = MAX_VALUES;
    let mut values = Vec::new();
    while data.has_remaining() {
        match value(&mut data, 0, &mut budget) {
            Ok(value) => values.push(value),
            Err(Error::Short) if !values.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(values)
}

pub fn encode(values: &[Value]) -> Bytes {
    let mut out = BytesMut::new();
    values.iter().for_each(|value| value.encode(&mut out));
    out.freeze()
}

fn value(data: &mut Bytes, depth: usize, budget: &mut usize) -> Result<Value, Error> {
    if depth > MAX_DEPTH || *budget == 0 {
        return Err(Error::TooLarge);
    }
    *budget -= 1;
    match data.try_get_u8().map_err(|_| Error::Short)? {
        NUMBER => Ok(Value::Number(data.try_get_f64().map_err(|_| Error::Short)?)),
        BOOLEAN => Ok(Value::Boolean(data.try_get_u8().map_err(|_| Error::Short)? != 0)),
        STRING => Ok(Value::String(name(data)?)),
        OBJECT => Ok(Value::Object(fields(data, depth, budget)?)),
        NULL | UNDEFINED | UNSUPPORTED => Ok(Value::Null),
        ECMA_ARRAY => {
            // The count is a hint that some encoders get wrong.
            data.try_get_u32().map_err(|_| Error::Short)?;
            Ok(Value::Map(fields(data, depth, budget)?))
        }
        STRICT_ARRAY => {
            let count = data.try_get_u32().map_err(|_| Error::Short)?;
            (0..count).map(|_| value(data, depth + 1, budget)).collect::<Result<_, _>>().map(Value::Array)
        }
        DATE => {
            let number = data.try_get_f64().map_err(|_| Error::Short)?;
            data.try_get_i16().map_err(|_| Error::Short)?;
            Ok(Value::Number(number))
        }
        LONG_STRING | XML => {
            let length = data.try_get_u32().map_err(|_| Error::Short)? as usize;
            Ok(Value::String(text(data, length)?))
        }
        TYPED_OBJECT => {
            name(data)?;
            Ok(Value::Object(fields(data, depth, budget)?))
        }
        marker => Err(Error::Marker(marker)),
    }
}

fn fields(data: &mut Bytes, depth: usize, budget: &mut usize) -> Result<Vec<(String, Value)>, Error> {
    let mut fields = Vec::new();
    loop {
        let name = name(data)?;
        if name.is_empty() && data.first().is_none_or(|marker| *marker == OBJECT_END) {
            if data.has_remaining() {
                data.advance(1);
            }
            return Ok(fields);
        }
        fields.push((name, value(data, depth + 1, budget)?));
    }
}

fn name(data: &mut Bytes) -> Result<String, Error> {
    let length = data.try_get_u16().map_err(|_| Error::Short)?;
    text(data, length.into())
}

fn text(data: &mut Bytes, length: usize) -> Result<String, Error> {
    if data.remaining() < length {
        return Err(Error::Short);
    }
    String::from_utf8(data.split_to(length).into()).map_err(|_| Error::Text)
}

fn put_name(name: &str, out: &mut BytesMut) {
    // Names are ours and short; what does not fit is cut at a character.
    let mut length = name.len().min(usize::from(u16::MAX));
    while !name.is_char_boundary(length) {
        length -= 1;
    }
    out.put_u16(length as u16);
    out.put_slice(&name.as_bytes()[..length]);
}

fn put_fields(fields: &[(String, Value)], out: &mut BytesMut) {
    for (name, value) in fields {
        put_name(name, out);
        value.encode(out);
    }
    out.put_slice(&[0, 0, OBJECT_END]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let values = vec![
            Value::text("connect"),
            Value::Number(1.0),
            Value::object([
                ("app", Value::text("live")),
                ("list", Value::Array(vec![Value::text("avc1"), Value::Null])),
                ("map", Value::Map(vec![("hvc1".into(), Value::Number(4.0))])),
            ]),
            Value::Boolean(true),
            Value::String("x".repeat(70_000)),
        ];
        assert_eq!(decode(encode(&values)).unwrap(), values);
    }

    #[test]
    fn references_and_deep_nesting_are_refused() {
        assert_eq!(decode(Bytes::from_static(&[7, 0, 0])), Err(Error::Marker(7)));
        let deep: Vec<u8> = std::iter::repeat_n([10, 0, 0, 0, 1], 50).flatten().collect();
        assert_eq!(decode(deep.into()), Err(Error::TooLarge));
        let mut many = vec![10, 0xFF, 0xFF, 0xFF, 0xFF];
        many.resize(100_000, 5);
        assert_eq!(decode(many.into()), Err(Error::TooLarge));
    }

    #[test]
    fn a_last_value_cut_short_does_not_spoil_the_others() {
        let whole = encode(&[Value::text("onMetaData"), Value::object([("width", Value::Number(640.0))])]);
        let cut = whole.slice(..whole.len() - 3);
        assert_eq!(decode(cut).unwrap(), [Value::text("onMetaData")]);
        assert_eq!(decode(Bytes::from_static(&[2, 0, 9, b'a'])), Err(Error::Short));
    }
}
