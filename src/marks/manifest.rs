//! The C2PA manifest of a file: signed, it says how the file was made, and a change of any byte shows.
//!
//! What C2PA's own library does for all kinds of files, this does for MP4 that we have written ourselves: one
//! manifest of version 2 claims (C2PA specification 2.2, 10 to 13 and A.5). `tests/render.rs` lets that library read it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

use ciborium::Value;
use lipstream_engines::digest;
use sha2::{Digest, Sha256};

use super::{
    SOURCE_TYPE,
    certificate::Identity,
    jumbf::{Kind, cbor_box, encode, map, superbox},
    parent::Parent,
};
use crate::media::{
    boxes::{self, boxed},
    sequence,
};

/// Type of the box that holds the manifest store.
pub(super) const UUID: [u8; 16] =
    [0xD8, 0xFE, 0xC3, 0xD6, 0x1B, 0x0E, 0x48, 0x3C, 0x92, 0x97, 0x58, 0x28, 0x87, 0x7E, 0xC4, 0x81];
const ACTIONS: &str = "c2pa.actions.v2";
const HASH: &str = "c2pa.hash.bmff.v3";
const INGREDIENT: &str = "c2pa.ingredient.v3";
/// What else than C2PA's own words we say.
const RENDER: &str = "lipstream.render";
/// Where assertions are, as seen from their manifest.
const ASSERTIONS: &str = "self#jumbf=c2pa.assertions";
/// Largest index that is moved.
const MAX_MOOV: u64 = 1 << 30;
/// Bytes that are hashed at a time.
const PIECE: usize = 1 << 20;

/// How a file was made.
#[derive(Clone, Copy, Debug)]
pub struct Making<'a> {
    /// Name that the file will have.
    pub title: &'a str,
    /// Name of the engine.
    pub engine: &'a str,
    pub video: &'a Path,
    pub audio: &'a Path,
    /// A second voice.
    pub second_audio: Option<&'a Path>,
}

/// Puts a manifest into an MP4 or MOV whose index (`moov`) is its last box, in front of that, so that no media move.
pub fn embed(path: &Path, making: &Making, identity: &Identity) -> io::Result<()> {
    let mut inputs = vec![("video", file_hash(making.video)?), ("audio", file_hash(making.audio)?)];
    if let Some(second) = making.second_audio {
        inputs.push(("second voice", file_hash(second)?));
    }
    let parent = Parent::of(making.video)?;
    let name = format!("urn:c2pa:{}", uuid());
    let store =
        |hash: [u8; 32]| store(&name, hash, (&inputs, parent.as_ref()), making, identity).map_err(io::Error::other);
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let moov = boxes::top_level(&mut file)?.pop();
    let Some(moov) = moov.filter(|last| last.kind == *b"moov" && last.size <= MAX_MOOV) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "its index is not at its end"));
    };
    file.seek(SeekFrom::Start(moov.offset))?;
    let mut index = Vec::new();
    file.read_to_end(&mut index)?;
    // As large as it will be: hashes and signatures of one kind have one length.
    let room = store([0; 32])?;
    file.seek(SeekFrom::Start(moov.offset))?;
    file.write_all(&room)?;
    file.write_all(&index)?;
    let hash = hash_of(&mut file)?;
    let signed = store(hash)?;
    if signed.len() != room.len() {
        return Err(io::Error::other("two signatures of different lengths"));
    }
    file.seek(SeekFrom::Start(moov.offset))?;
    file.write_all(&signed)?;
    file.sync_all()
}

/// Of every box but those that are left out, its place and its bytes (C2PA specification 2.2, 18.6).
fn hash_of(file: &mut File) -> io::Result<[u8; 32]> {
    let (mut hash, mut piece) = (Sha256::new(), vec![0; PIECE]);
    for found in boxes::top_level(file)? {
        file.seek(SeekFrom::Start(found.offset))?;
        let mut head = [0; 24];
        let count = head.len().min(found.size as usize);
        file.read_exact(&mut head[..count])?;
        let ours = found.kind == *b"uuid" && head[8..] == UUID;
        if ours || matches!(&found.kind, b"ftyp" | b"mfra") {
            continue;
        }
        hash.update(found.offset.to_be_bytes());
        hash.update(&head[..count]);
        let mut left = found.size - count as u64;
        while left > 0 {
            let count = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            file.read_exact(&mut piece[..count])?;
            hash.update(&piece[..count]);
            left -= count as u64;
        }
    }
    Ok(hash.finalize().into())
}

/// What [`hash_of`] leaves out.
fn exclusions() -> Value {
    let manifest = map([("offset", 8.into()), ("value", Value::Bytes(UUID.into()))]);
    let excluded = [("/uuid", Value::Array(vec![manifest])), ("/ftyp", Value::Null), ("/mfra", Value::Null)];
    let entry = |(xpath, data): (&str, Value)| {
        let none = || Value::Null;
        map([
            ("xpath", xpath.into()),
            ("length", none()),
            ("data", data),
            ("subset", none()),
            ("version", none()),
            ("flags", none()),
            ("exact", none()),
        ])
    };
    Value::Array(excluded.into_iter().map(entry).collect())
}

/// The box with the manifest store, for a file whose other bytes have `hash`.
fn store(
    name: &str,
    hash: [u8; 32],
    (inputs, parent): (&[(&str, String)], Option<&Parent>),
    making: &Making,
    identity: &Identity,
) -> Result<Vec<u8>, openssl::error::ErrorStack> {
    let software = || map([("name", "lipstream".into()), ("version", env!("CARGO_PKG_VERSION").into())]);
    // What has a manifest of its own was opened and changed; else a new thing was made of the parts.
    let made = map([
        ("action", if parent.is_some() { "c2pa.edited" } else { "c2pa.created" }.into()),
        ("digitalSourceType", SOURCE_TYPE.into()),
        ("softwareAgent", software()),
        ("description", format!("The engine {} has made the mouth; the rest is the video's", making.engine).into()),
    ]);
    let mut actions = vec![made];
    let mut assertions = Vec::new();
    for (i, (role, hash)) in inputs.iter().enumerate() {
        let label = if i == 0 { INGREDIENT.to_owned() } else { format!("{INGREDIENT}__{i}") };
        let parent = parent.filter(|_| i == 0);
        let mut ingredient = vec![
            ("dc:title".into(), (*role).into()),
            ("relationship".into(), if parent.is_some() { "parentOf" } else { "componentOf" }.into()),
            ("description".into(), format!("SHA-256 {hash}").into()),
        ];
        ingredient.extend(parent.into_iter().flat_map(Parent::fields));
        let made = Assertion::new(label, &Value::Map(ingredient));
        let parameters = map([("ingredients", Value::Array(vec![made.link()]))]);
        match parent {
            Some(_) => actions.insert(0, map([("action", "c2pa.opened".into()), ("parameters", parameters)])),
            None => actions.push(map([("action", "c2pa.placed".into()), ("parameters", parameters)])),
        }
        assertions.push(made);
    }
    let hashes = inputs
        .iter()
        .map(|(role, hash)| map([("role", (*role).into()), ("alg", "sha256".into()), ("hash", hash.as_str().into())]));
    let signer = if identity.is_self_made() {
        "a certificate that this installation has made for itself: it shows that the file is unchanged, not who has made it"
    } else {
        "the operator's certificate"
    };
    let render =
        map([("engine", making.engine.into()), ("inputs", Value::Array(hashes.collect())), ("signer", signer.into())]);
    let hash = map([
        ("exclusions", exclusions()),
        ("alg", "sha256".into()),
        ("hash", Value::Bytes(hash.into())),
        ("name", "jumbf manifest".into()),
    ]);
    let actions = map([("actions", Value::Array(actions)), ("allActionsIncluded", true.into())]);
    for (label, value) in [(ACTIONS, &actions), (RENDER, &render), (HASH, &hash)] {
        assertions.push(Assertion::new(label.to_owned(), value));
    }
    let claim = encode(&map([
        ("instanceID", format!("xmp:iid:{}", uuid()).into()),
        ("claim_generator_info", software()),
        ("signature", format!("self#jumbf=/c2pa/{name}/c2pa.signature").into()),
        ("created_assertions", Value::Array(assertions.iter().map(Assertion::link).collect())),
        ("dc:title", making.title.into()),
        ("alg", "sha256".into()),
    ]));
    let signature = signature(&claim, identity)?;
    let assertions: Vec<u8> = assertions.into_iter().flat_map(|assertion| assertion.bytes).collect();
    let manifest = [
        superbox(Kind::Assertions, "c2pa.assertions", &assertions),
        cbor_box(Kind::Claim, "c2pa.claim.v2", &claim),
        cbor_box(Kind::Signature, "c2pa.signature", &signature),
    ];
    let manifest = superbox(Kind::Manifest, name, &manifest.concat());
    // The last is the file's.
    let kept = parent.map_or(&[][..], Parent::manifests);
    let store = superbox(Kind::Store, "c2pa", &[kept, &manifest].concat());
    // Version and flags, the box's purpose, no place of a Merkle tree.
    let head = [UUID.as_slice(), &[0; 4], b"manifest\0", &[0; 8]];
    Ok(boxed(b"uuid", &[head.concat(), store].concat()))
}

/// One thing that is said.
struct Assertion {
    label: String,
    bytes: Vec<u8>,
}

impl Assertion {
    fn new(label: String, value: &Value) -> Self {
        Self { bytes: cbor_box(Kind::Cbor, &label, &encode(value)), label }
    }

    /// Where it is, with the hash of what is in its box.
    fn link(&self) -> Value {
        let hash = Sha256::digest(&self.bytes[8..]);
        map([("url", format!("{ASSERTIONS}/{}", self.label).into()), ("hash", Value::Bytes(hash.to_vec()))])
    }
}

/// COSE_Sign1 (RFC 9052, 4.2) of a claim that is elsewhere, tagged.
fn signature(claim: &[u8], identity: &Identity) -> Result<Vec<u8>, openssl::error::ErrorStack> {
    let chain = identity.chain().iter().map(|certificate| Value::Bytes(certificate.clone())).collect();
    // `alg` and `x5chain`.
    let protected = Value::Map(vec![(1.into(), identity.cose_algorithm().into()), (33.into(), Value::Array(chain))]);
    let protected = Value::Bytes(encode(&protected));
    let none = Value::Bytes(Vec::new());
    let said = Value::Array(vec!["Signature1".into(), protected.clone(), none, Value::Bytes(claim.to_vec())]);
    let signature = Value::Bytes(identity.sign(&encode(&said))?);
    let signed = Value::Array(vec![protected, Value::Map(Vec::new()), Value::Null, signature]);
    Ok(encode(&Value::Tag(18, Box::new(signed))))
}

/// SHA-256 of a file in hexadecimal.
fn file_hash(path: &Path) -> io::Result<String> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    sequence::read_all(path).and_then(digest::sha256_of).map_err(named)
}

/// A random one (RFC 9562, 5.4).
fn uuid() -> String {
    let number: u128 = rand::random();
    let kept = !((0xF << 76) | (0x3 << 62));
    let number = (number & kept) | (0x4 << 76) | (0x2 << 62);
    let digits = format!("{number:032x}");
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_comes_before_the_index_and_media_stay_where_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.mp4");
        let before = [boxed(b"ftyp", b"isom"), boxed(b"mdat", &[7; 5000]), boxed(b"moov", b"index")].concat();
        std::fs::write(&path, &before).unwrap();
        let identity = Identity::self_made_in(None).unwrap();
        let making = Making { title: "a.mp4", engine: "compact", video: &path, audio: &path, second_audio: None };
        embed(&path, &making, &identity).unwrap();
        let after = std::fs::read(&path).unwrap();
        assert_eq!(after[..5020], before[..5020]);
        assert!(after.ends_with(&boxed(b"moov", b"index")));
        let kinds = boxes::top_level(&mut File::open(&path).unwrap()).unwrap();
        assert!(kinds.iter().map(|b| &b.kind).eq([b"ftyp", b"mdat", b"uuid", b"moov"]));
        let holds = |bytes: &[u8]| after.windows(bytes.len()).any(|window| window == bytes);
        let video = digest::sha256(&before);
        assert!(holds(SOURCE_TYPE.as_bytes()) && holds(video.as_bytes()) && holds(b"for itself"));
        let hash = hash_of(&mut File::open(&path).unwrap()).unwrap();
        assert!(holds(&hash), "the hash of what is there is not the one that is signed");

        // What is made of a file with a manifest keeps it, and says so.
        let next = folder.path().join("next.mp4");
        std::fs::write(&next, &before).unwrap();
        embed(&next, &making, &identity).unwrap();
        let parent = Parent::of(&path).unwrap().unwrap();
        let made = std::fs::read(&next).unwrap();
        let found = |bytes: &[u8]| made.windows(bytes.len()).any(|window| window == bytes);
        assert!(found(parent.manifests()) && found(b"parentOf") && found(b"c2pa.opened") && found(b"c2pa.edited"));
        assert!(Parent::of(&next).unwrap().unwrap().manifests().len() > 2 * parent.manifests().len());
        let cut = |end: usize| {
            std::fs::write(&next, &after[..end]).unwrap();
            Parent::of(&next).unwrap().is_none()
        };
        assert!([0, 7, 5025, 5060, 5100, 6000].into_iter().all(cut), "half a manifest is none");

        let second = folder.path().join("b.wav");
        std::fs::write(&second, b"another voice").unwrap();
        embed(&path, &Making { second_audio: Some(&second), ..making }, &identity).unwrap();
        let after = std::fs::read(&path).unwrap();
        let holds = |bytes: &[u8]| after.windows(bytes.len()).any(|window| window == bytes);
        assert!(holds(b"second voice") && holds(digest::sha256(b"another voice").as_bytes()));

        std::fs::write(&path, [boxed(b"moov", b""), boxed(b"mdat", b"")].concat()).unwrap();
        assert!(embed(&path, &making, &identity).unwrap_err().to_string().contains("not at its end"));
    }

    #[test]
    fn a_uuid_is_random_and_says_so() {
        let one = uuid();
        assert!(one.len() == 36 && one.as_bytes()[14] == b'4' && b"89ab".contains(&one.as_bytes()[19]), "{one}");
        assert_ne!(one, uuid());
    }
}
