//! Keys: random, kept as hashes, shown once.

use std::{fmt, sync::Arc, time::Instant};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
pub use lipstream_engines::digest::hexadecimal as hex;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::{
    Scope, Tenant,
    quota::{Bucket, Wait},
};

/// So that a key that has leaked can be told from other text.
const PREFIX: &str = "lsk_";
/// Longest text that is hashed to look for a key.
const LONGEST: usize = 256;

pub type Hash = [u8; 32];

/// A new key, as it is shown once.
pub fn make() -> String {
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()))
}

/// What is kept of a key. SHA-256 is enough: its 256 random bits cannot be guessed, so that a slow hash would only delay
/// requests.
pub fn hash(key: &[u8]) -> Option<Hash> {
    (key.len() <= LONGEST).then(|| Sha256::digest(key).into())
}

pub fn from_hex(text: &str) -> Option<Hash> {
    let digits = text.as_bytes().chunks_exact(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok());
    digits.collect::<Option<Vec<u8>>>()?.try_into().ok()
}

/// The name of a key: a part of its hash, which says nothing of the key.
pub fn id(hash: &Hash) -> String {
    hex(&hash[..8])
}

/// What is known about a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Key)]
pub struct KeyInfo {
    /// Its name in the audit log; not the key.
    pub id: String,
    pub tenant: String,
    pub scopes: Vec<Scope>,
    pub note: String,
    /// Seconds since 1970.
    pub created: i64,
    /// When it was revoked.
    pub revoked: Option<i64>,
}

/// A key that is wanted.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    pub tenant: String,
    /// All where nothing is said.
    #[serde(default = "all")]
    pub scopes: Vec<Scope>,
    /// What it is for; at most 200 bytes.
    #[serde(default)]
    #[schema(max_length = 200)]
    pub note: String,
}

fn all() -> Vec<Scope> {
    Scope::ALL.into()
}

impl NewKey {
    pub fn check(&self) -> Result<(), String> {
        super::check_name(&self.tenant)?;
        if self.scopes.is_empty() {
            return Err(format!("scopes: must be some of {}", super::scope::list(&Scope::ALL)));
        }
        if self.note.len() > 200 || self.note.chars().any(char::is_control) {
            return Err("note: must be at most 200 bytes without control characters".into());
        }
        Ok(())
    }
}

/// A key that is in force.
pub struct Key {
    pub id: String,
    pub tenant: Arc<Tenant>,
    scopes: Vec<Scope>,
    bucket: Mutex<Bucket>,
    /// Cancelled when it is revoked: what it has opened ends.
    revoked: CancellationToken,
}

impl Key {
    pub(super) fn new(id: String, tenant: Arc<Tenant>, scopes: Vec<Scope>) -> Self {
        Self { id, tenant, scopes, bucket: Mutex::default(), revoked: CancellationToken::new() }
    }

    pub fn has(&self, scopes: &[Scope]) -> bool {
        self.scopes.iter().any(|scope| scopes.contains(scope))
    }

    pub fn scopes(&self) -> &[Scope] {
        &self.scopes
    }

    pub fn is_revoked(&self) -> bool {
        self.revoked.is_cancelled()
    }

    pub fn revoked(&self) -> &CancellationToken {
        &self.revoked
    }

    pub(super) fn revoke(&self) {
        self.revoked.cancel();
    }

    /// Counts a request against the rate of the tenant's keys.
    pub fn request(&self) -> Result<(), Wait> {
        let limits = self.tenant.limits();
        self.bucket.lock().take(&limits, Instant::now()).inspect_err(|_| self.tenant.count_late())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} of {})", self.id, self.tenant.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_and_their_hashes_read_back() {
        let (a, b) = (make(), make());
        assert!(a != b && a.starts_with(PREFIX) && a.len() == PREFIX.len() + 43, "{a}");
        let known = hash(a.as_bytes()).unwrap();
        assert_eq!(from_hex(&hex(&known)), Some(known));
        assert_ne!(Some(known), hash(b.as_bytes()));
        assert_eq!(id(&known), hex(&known)[..16]);
        for bad in ["", "00", "zz", &"0".repeat(63), &"ä".repeat(32)] {
            assert_eq!(from_hex(bad), None, "{bad}");
        }
        assert_eq!(hash(&[b'a'; LONGEST + 1]), None);
    }
}
