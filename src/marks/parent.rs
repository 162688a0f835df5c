//! The C2PA manifest that a file brought along: it stays with what is made of the file.
//!
//! What it says is neither checked nor read here: it is kept to the byte, and named by its hash, so that a reader can check it.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
    path::Path,
};

use ciborium::Value;
use sha2::{Digest, Sha256};

use super::{jumbf::map, manifest::UUID};
use crate::media::boxes;

/// Largest manifest store that is kept, and most boxes at the top of a file in which one is sought.
const MOST_BYTES: u64 = 16 << 20;
const MOST_BOXES: usize = 100_000;
/// In front of the store within its box: the box's own type, version and flags, the purpose, the place of a Merkle tree.
const PURPOSE: &[u8] = b"manifest\0";
const HEAD: usize = 16 + 4 + PURPOSE.len() + 8;
/// Bytes of a description's type and toggles before its label.
const LABEL_AT: usize = 17;

/// See the module.
#[derive(Debug)]
pub struct Parent {
    /// Its manifests, boxes one after another; the last one is that of the file.
    manifests: Vec<u8>,
    label: String,
    hash: [u8; 32],
    signature: [u8; 32],
}

impl Parent {
    /// That of an MP4 or MOV; `None` of a file without one, or with one that is not made as such are.
    pub fn of(path: &Path) -> io::Result<Option<Self>> {
        let mut file = File::open(path)?;
        let found = boxes::first_of(
            &mut file,
            MOST_BOXES,
            |found| found.kind == *b"uuid" && (HEAD as u64 + 16..MOST_BYTES).contains(&found.size),
            |file, found| {
                let mut bytes = vec![0; found.size as usize];
                file.seek(SeekFrom::Start(found.offset))?;
                file.read_exact(&mut bytes)?;
                Ok((bytes[8..24] == UUID).then_some(bytes))
            },
        )?;
        Ok(found.and_then(|bytes| Self::read(&bytes)))
    }

    /// Of the box with the store.
    fn read(bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(8..8 + HEAD)?;
        if head[..16] != UUID || head[20..20 + PURPOSE.len()] != *PURPOSE {
            return None;
        }
        let store =
            labelled(bytes, 8 + HEAD..bytes.len()).find(|(label, _)| label == "c2pa").map(|(_, range)| range)?;
        let (label, last) = labelled(bytes, store.clone()).last()?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_' | '.');
        if label.len() > 200 || !label.chars().all(plain) {
            return None;
        }
        let (_, signature) = labelled(bytes, last.clone()).find(|(label, _)| label == "c2pa.signature")?;
        let first = labelled(bytes, store.clone()).next()?.1;
        // A hash is of what is in a box, its description too.
        let hash = |range: Range<usize>| Sha256::digest(&bytes[range.start..range.end]).into();
        Some(Self {
            manifests: bytes[first.start - 8..store.end].to_vec(),
            hash: hash(last),
            signature: hash(signature),
            label,
        })
    }

    pub fn manifests(&self) -> &[u8] {
        &self.manifests
    }

    /// The fields of an ingredient that name it.
    pub fn fields(&self) -> [(Value, Value); 3] {
        let at = |end: &str, hash: &[u8; 32]| {
            let url = format!("self#jumbf=/c2pa/{}{end}", self.label);
            map([("url", url.into()), ("hash", Value::Bytes(hash.to_vec()))])
        };
        // Nothing was checked, so that nothing is said.
        let codes = || Value::Array(Vec::new());
        let nothing = map([("success", codes()), ("informational", codes()), ("failure", codes())]);
        [
            ("activeManifest".into(), at("", &self.hash)),
            ("claimSignature".into(), at("/c2pa.signature", &self.signature)),
            ("validationResults".into(), map([("activeManifest", nothing)])),
        ]
    }
}

/// For bytes of any kind: whether they are a manifest, of which all that is asked can be told.
pub(super) fn read(bytes: &[u8]) -> bool {
    Parent::read(bytes).is_some_and(|parent| parent.manifests().len() <= bytes.len() && parent.fields().len() == 3)
}

/// Superboxes within `range` that have a label: it, and the range of what is in each, its description first.
fn labelled(bytes: &[u8], range: Range<usize>) -> impl Iterator<Item = (String, Range<usize>)> {
    boxes::children(bytes, range).filter(|(kind, _)| kind == b"jumb").filter_map(|(_, outer)| {
        let inner = outer.start + 8..outer.end;
        let description = boxes::child(bytes, inner.clone(), b"jumd")?;
        let label = bytes.get(description.start + 8 + LABEL_AT..description.end)?;
        let label = label.split(|byte| *byte == 0).next()?;
        Some((String::from_utf8(label.to_vec()).ok()?, inner))
    })
}
