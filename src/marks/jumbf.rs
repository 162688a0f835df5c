//! Boxes of JUMBF (ISO/IEC 19566-5) with CBOR (RFC 8949) in them, as a C2PA manifest store is made of.

use ciborium::Value;

use crate::media::boxes::boxed;

/// What a superbox holds, by the first four bytes of its type (C2PA specification 2.2, 11.1.4).
#[derive(Clone, Copy)]
pub enum Kind {
    Store,
    Manifest,
    Assertions,
    Claim,
    Signature,
    Cbor,
}

/// The rest of every type.
const TYPE: [u8; 12] = [0x00, 0x11, 0x00, 0x10, 0x80, 0x00, 0x00, 0xAA, 0x00, 0x38, 0x9B, 0x71];
/// The box may be asked for, and has a label.
const TOGGLES: u8 = 0b11;

/// A superbox with a label around others.
pub fn superbox(kind: Kind, label: &str, content: &[u8]) -> Vec<u8> {
    let name: &[u8; 4] = match kind {
        Kind::Store => b"c2pa",
        Kind::Manifest => b"c2ma",
        Kind::Assertions => b"c2as",
        Kind::Claim => b"c2cl",
        Kind::Signature => b"c2cs",
        Kind::Cbor => b"cbor",
    };
    let description = [name, TYPE.as_slice(), &[TOGGLES], label.as_bytes(), &[0]].concat();
    boxed(b"jumb", &[boxed(b"jumd", &description), content.to_vec()].concat())
}

/// A superbox with one box of CBOR.
pub fn cbor_box(kind: Kind, label: &str, data: &[u8]) -> Vec<u8> {
    superbox(kind, label, &boxed(b"cbor", data))
}

pub fn encode(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("memory takes all that is written");
    bytes
}

/// A map with text as keys, in this order.
pub fn map<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Map(fields.into_iter().map(|(key, value)| (key.into(), value)).collect())
}
