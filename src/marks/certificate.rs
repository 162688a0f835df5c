//! Who signs the manifests of files: the operator's certificate, else one that is made here and says so.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use etcetera::BaseStrategy;
use openssl::{
    asn1::Asn1Time,
    bn::{BigNum, MsbOption},
    ec::{EcGroup, EcKey},
    ecdsa::EcdsaSig,
    error::ErrorStack,
    hash::MessageDigest,
    nid::Nid,
    pkey::{Id, PKey, Private},
    rsa::Padding,
    sign::{RsaPssSaltlen, Signer},
    x509::{
        X509, X509Builder, X509Name,
        extension::{AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectKeyIdentifier},
    },
};

use crate::error::{Failure, Result};

/// Largest PEM file that is read.
const MAX_PEM: u64 = 1 << 20;
/// Ten years.
const DAYS: u32 = 3650;
/// In the subject of a certificate that is made here: readers show the organisation as who has signed.
const ORGANISATION: &str = "Self-made by Lipstream, vouched for by nobody";
const COMMON_NAME: &str = "Lipstream self-made certificate";

/// Signatures of COSE that C2PA knows (C2PA specification 2.2, 13.2; RFC 9053), by the name of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Es256,
    Es384,
    Es512,
    Ps256,
    EdDsa,
}

impl Algorithm {
    /// What is signed by such a key.
    fn of(key: &PKey<Private>) -> Option<Self> {
        match key.id() {
            Id::EC => match key.ec_key().ok()?.group().curve_name()? {
                Nid::X9_62_PRIME256V1 => Some(Self::Es256),
                Nid::SECP384R1 => Some(Self::Es384),
                Nid::SECP521R1 => Some(Self::Es512),
                _ => None,
            },
            Id::ED25519 => Some(Self::EdDsa),
            Id::RSA if key.bits() >= 2048 => Some(Self::Ps256),
            _ => None,
        }
    }
}

/// A certificate with its chain and its key.
#[derive(Clone)]
pub struct Identity {
    /// In DER, the signer's first.
    chain: Vec<Vec<u8>>,
    key: PKey<Private>,
    algorithm: Algorithm,
    self_made: bool,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Identity").field("self_made", &self.self_made).finish_non_exhaustive()
    }
}

impl Identity {
    /// The operator's: a chain in PEM, the signer's certificate first, and its key in PEM. Errors name the file.
    pub fn from_files(chain: &Path, key: &Path) -> Result<Self> {
        let failure = |path: &Path, cause: &str| Failure::input(format!("{}: {cause}", path.display()));
        let (chain_pem, key_pem) = (read(chain)?, read(key)?);
        let own = PKey::private_key_from_pem_callback(&key_pem, |_| Ok(0))
            .map_err(|_| failure(key, "is no private key in PEM, or one with a password"))?;
        let certificates =
            X509::stack_from_pem(&chain_pem).map_err(|_| failure(chain, "is no chain of certificates in PEM"))?;
        let first = certificates.first().ok_or_else(|| failure(chain, "holds no certificate"))?;
        if !first.public_key().is_ok_and(|public| public.public_eq(&own)) {
            return Err(failure(key, &format!("is not the key of the first certificate of {}", chain.display())));
        }
        let known = "must be a key of P-256, P-384, P-521, Ed25519 or RSA with at least 2048 bits";
        Self::new(&certificates, own, false).ok_or_else(|| failure(key, known))
    }

    /// One that says in its subject that it is made here. It is kept in the user's data, so that the files of one installation are
    /// known as such; where that cannot be written it is made anew each time.
    pub fn self_made() -> Result<Self> {
        let place = etcetera::choose_base_strategy().ok().map(|dirs| dirs.data_dir().join("lipstream/self-made.pem"));
        Self::self_made_in(place.as_deref())
    }

    pub(super) fn self_made_in(place: Option<&Path>) -> Result<Self> {
        let failure = |e: ErrorStack| Failure::run(format!("no certificate can be made to sign files: {e}"));
        if let Some(identity) = place.and_then(|place| Self::kept(&read(place).ok()?)) {
            return Ok(identity);
        }
        let (chain, key) = make().map_err(failure)?;
        let pem = || -> std::result::Result<Vec<u8>, ErrorStack> {
            let chain =
                chain.iter().map(|certificate| certificate.to_pem()).collect::<std::result::Result<Vec<_>, _>>()?;
            Ok([chain.concat(), key.private_key_to_pem_pkcs8()?].concat())
        };
        if let Some(place) = place
            && let Err(e) = keep(place, &pem().map_err(failure)?)
        {
            tracing::info!("{}: cannot be written, so the certificate is for once: {e}", place.display());
        }
        Self::new(&chain, key, true).ok_or_else(|| Failure::run("the certificate that was made cannot be used"))
    }

    /// Of a file that holds both; `None` where it is broken or expires within a day.
    fn kept(pem: &[u8]) -> Option<Self> {
        let chain = X509::stack_from_pem(pem).ok()?;
        let tomorrow = Asn1Time::days_from_now(1).ok()?;
        if chain.iter().any(|certificate| certificate.not_after() < tomorrow) {
            return None;
        }
        let key = PKey::private_key_from_pem_callback(pem, |_| Ok(0)).ok()?;
        chain.first()?.public_key().ok().filter(|public| public.public_eq(&key))?;
        Self::new(&chain, key, true)
    }

    fn new(chain: &[X509], key: PKey<Private>, self_made: bool) -> Option<Self> {
        let algorithm = Algorithm::of(&key)?;
        let chain = chain.iter().map(|certificate| certificate.to_der().ok()).collect::<Option<_>>()?;
        Some(Self { chain, key, algorithm, self_made })
    }

    pub fn is_self_made(&self) -> bool {
        self.self_made
    }

    /// Certificates in DER, the signer's first.
    pub(super) fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// The number of its algorithm in COSE.
    pub(super) fn cose_algorithm(&self) -> i64 {
        match self.algorithm {
            Algorithm::Es256 => -7,
            Algorithm::Es384 => -35,
            Algorithm::Es512 => -36,
            Algorithm::Ps256 => -37,
            Algorithm::EdDsa => -8,
        }
    }

    /// A signature in COSE's form, always as long.
    pub(super) fn sign(&self, data: &[u8]) -> std::result::Result<Vec<u8>, ErrorStack> {
        let curve = |digest: MessageDigest, length: i32| -> std::result::Result<Vec<u8>, ErrorStack> {
            let mut signer = Signer::new(digest, &self.key)?;
            signer.update(data)?;
            let signature = EcdsaSig::from_der(&signer.sign_to_vec()?)?;
            Ok([signature.r().to_vec_padded(length)?, signature.s().to_vec_padded(length)?].concat())
        };
        match self.algorithm {
            Algorithm::Es256 => curve(MessageDigest::sha256(), 32),
            Algorithm::Es384 => curve(MessageDigest::sha384(), 48),
            Algorithm::Es512 => curve(MessageDigest::sha512(), 66),
            Algorithm::EdDsa => Signer::new_without_digest(&self.key)?.sign_oneshot_to_vec(data),
            Algorithm::Ps256 => {
                let mut signer = Signer::new(MessageDigest::sha256(), &self.key)?;
                signer.set_rsa_padding(Padding::PKCS1_PSS)?;
                signer.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)?;
                signer.set_rsa_mgf1_md(MessageDigest::sha256())?;
                signer.update(data)?;
                signer.sign_to_vec()
            }
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let failure = |cause: String| Failure::input(format!("{}: {cause}", path.display()));
    let meta = fs::metadata(path).map_err(|e| failure(e.to_string()))?;
    if !meta.is_file() || meta.len() > MAX_PEM {
        return Err(failure("is no PEM file of at most a megabyte".into()));
    }
    fs::read(path).map_err(|e| failure(e.to_string()))
}

/// Writes a file that only its owner reads, whole or not at all.
fn keep(path: &Path, pem: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let new: PathBuf = path.with_extension(format!("{}.part", std::process::id()));
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| file.write_all(pem))
        .and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // The cause is told by whoever asked.
        let _ = fs::remove_file(&new);
    }
    written
}

/// Chain and key. A certificate must not sign itself (C2PA specification 2.2, 14.5.1): an authority is made for this one
/// signature, and its key forgotten.
fn make() -> std::result::Result<(Vec<X509>, PKey<Private>), ErrorStack> {
    let (authority_key, key) = (new_key()?, new_key()?);
    let authority_name = name("Lipstream self-made authority")?;
    let mut authority = begin(&authority_name, &authority_name, &authority_key)?;
    authority.append_extension(BasicConstraints::new().critical().ca().pathlen(0).build()?)?;
    authority.append_extension(KeyUsage::new().critical().key_cert_sign().build()?)?;
    let id = SubjectKeyIdentifier::new().build(&authority.x509v3_context(None, None))?;
    authority.append_extension(id)?;
    authority.sign(&authority_key, MessageDigest::sha256())?;
    let authority = authority.build();

    let mut own = begin(&name(COMMON_NAME)?, &authority_name, &key)?;
    own.append_extension(BasicConstraints::new().critical().build()?)?;
    own.append_extension(KeyUsage::new().critical().digital_signature().build()?)?;
    own.append_extension(ExtendedKeyUsage::new().email_protection().build()?)?;
    let context = own.x509v3_context(Some(&authority), None);
    let ids =
        [SubjectKeyIdentifier::new().build(&context)?, AuthorityKeyIdentifier::new().keyid(true).build(&context)?];
    for id in ids {
        own.append_extension(id)?;
    }
    own.sign(&authority_key, MessageDigest::sha256())?;
    Ok((vec![own.build(), authority], key))
}

fn new_key() -> std::result::Result<PKey<Private>, ErrorStack> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    PKey::from_ec_key(EcKey::generate(&group)?)
}

fn name(common: &str) -> std::result::Result<X509Name, ErrorStack> {
    let mut name = X509Name::builder()?;
    name.append_entry_by_text("O", ORGANISATION)?;
    name.append_entry_by_text("CN", common)?;
    Ok(name.build())
}

fn begin(subject: &X509Name, issuer: &X509Name, key: &PKey<Private>) -> std::result::Result<X509Builder, ErrorStack> {
    let mut builder = X509::builder()?;
    // Version 3.
    builder.set_version(2)?;
    let mut serial = BigNum::new()?;
    serial.rand(127, MsbOption::MAYBE_ZERO, false)?;
    let serial = serial.to_asn1_integer()?;
    builder.set_serial_number(&serial)?;
    builder.set_subject_name(subject)?;
    builder.set_issuer_name(issuer)?;
    builder.set_pubkey(key)?;
    let (now, end) = (Asn1Time::days_from_now(0)?, Asn1Time::days_from_now(DAYS)?);
    builder.set_not_before(&now)?;
    builder.set_not_after(&end)?;
    Ok(builder)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_certificate_of_its_own_says_so_is_kept_and_made_again_when_broken() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("data/self-made.pem");
        let made = Identity::self_made_in(Some(&place)).unwrap();
        let own = X509::from_der(&made.chain()[0]).unwrap();
        let subject = format!("{:?}", own.subject_name());
        assert!(subject.contains("Self-made by Lipstream") && made.is_self_made(), "{subject}");
        let authority = X509::from_der(&made.chain()[1]).unwrap();
        assert!(own.verify(&authority.public_key().unwrap()).unwrap());
        assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Identity::self_made_in(Some(&place)).unwrap().chain(), made.chain());
        fs::write(&place, "broken").unwrap();
        assert_ne!(Identity::self_made_in(Some(&place)).unwrap().chain(), made.chain());
        assert!(Identity::self_made_in(Some(Path::new("/proc/nothing/x.pem"))).is_ok());
    }

    #[test]
    fn keys_that_cannot_sign_are_told_by_file_and_cause() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        let (chain, key) = make().unwrap();
        let chain = write("chain.pem", &[chain[0].to_pem().unwrap(), chain[1].to_pem().unwrap()].concat());
        let right = write("key.pem", &key.private_key_to_pem_pkcs8().unwrap());
        let identity = Identity::from_files(&chain, &right).unwrap();
        assert!(!identity.is_self_made() && identity.sign(b"x").unwrap().len() == 64);
        let other = write("other.pem", &new_key().unwrap().private_key_to_pem_pkcs8().unwrap());
        let junk = write("junk.pem", b"junk");
        for (chain, key, says) in [
            (&chain, &other, "other.pem: is not the key of the first certificate of "),
            (&chain, &junk, "junk.pem: is no private key in PEM"),
            (&junk, &right, "junk.pem: holds no certificate"),
            (&folder.path().join("none"), &right, "none: No such file"),
        ] {
            let failure = Identity::from_files(chain, key).unwrap_err().to_string();
            assert!(failure.contains(says), "{failure}");
        }
    }
}
