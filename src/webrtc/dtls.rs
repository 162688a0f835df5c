//! DTLS 1.2 by OpenSSL, for str0m.
//!
//! The library's own (the crate `dimpl`) asks for ECDSA certificates only, in every back end of it; OpenSSL takes RSA
//! too, which is what GStreamer's `webrtcbin` and older libraries have. SRTP and hashes stay with the library's back end.
//! A certificate proves nothing by its issuer: the library compares its hash with that of the offer.

use std::{
    collections::VecDeque,
    fmt, io,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use openssl::{
    asn1::Asn1Time,
    bn::{BigNum, MsbOption},
    ec::{EcGroup, EcKey},
    error::ErrorStack,
    hash::MessageDigest,
    nid::Nid,
    pkey::PKey,
    srtp::SrtpProfileId,
    ssl::{
        self, ErrorCode, HandshakeError, MidHandshakeSslStream, ShutdownState, Ssl, SslContext, SslMethod, SslOptions,
        SslStream, SslVerifyMode, SslVersion,
    },
    x509::{X509, X509Builder, X509NameBuilder},
};
use parking_lot::Mutex;
use str0m::crypto::{CryptoError, CryptoProvider, dtls::*, from_feature_flags};
use str0m_proto::crypto::dtls::{DtlsCryptoError, DtlsCryptoOperation};

/// Forward secrecy and authenticated encryption, and what older peers have.
const CIPHERS: &str = "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES";
/// In the order of preference.
const SRTP_PROFILES: &str = "SRTP_AEAD_AES_128_GCM:SRTP_AEAD_AES_256_GCM:SRTP_AES128_CM_SHA1_80";
/// RFC 5764, section 4.2.
const LABEL: &str = "EXTRACTOR-dtls_srtp";
/// How often a handshake looks whether its last flight must be sent again; OpenSSL keeps the time (1 s, then doubled).
const LOOK: Duration = Duration::from_millis(250);
/// Largest record that is read.
const RECORD: usize = 1 << 14;
/// Datagram size where the library names none.
const MTU: usize = 1200;
/// Datagrams that may wait to be sent: no flight of a handshake has as many.
const MAX_WAITING: usize = 64;

/// The library's providers with this DTLS.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(CryptoProvider { dtls_provider: &OpenSsl, ..from_feature_flags() })).clone()
}

#[derive(Debug)]
struct OpenSsl;

impl DtlsProvider for OpenSsl {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        certificate().ok()
    }

    fn new_dtls(
        &self,
        cert: &DtlsCert,
        _now: Instant,
        _version: DtlsVersion,
        mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let ssl = ssl(cert, mtu.unwrap_or(MTU)).map_err(|error| CryptoError::Other(error.to_string()))?;
        Ok(Box::new(Dtls {
            state: Mutex::new(State::Waiting(ssl, Wire::default())),
            active: false,
            out: VecDeque::new(),
            closing: false,
        }))
    }
}

/// A self-signed certificate with a P-256 key, which every peer takes (RFC 8827, section 6.5).
fn certificate() -> Result<DtlsCert, ErrorStack> {
    let key = PKey::from_ec_key(EcKey::generate(&*EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?)?)?;
    let mut name = X509NameBuilder::new()?;
    name.append_entry_by_text("CN", "WebRTC")?;
    let name = name.build();
    let mut serial = BigNum::new()?;
    serial.rand(127, MsbOption::MAYBE_ZERO, false)?;
    let mut builder = X509Builder::new()?;
    builder.set_version(2)?;
    builder.set_serial_number(&*serial.to_asn1_integer()?)?;
    // Clocks of peers that look at the dates may be late.
    let yesterday = std::time::SystemTime::now() - Duration::from_secs(86_400);
    let since = yesterday.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    builder.set_not_before(&*Asn1Time::from_unix(i64::try_from(since).unwrap_or_default())?)?;
    builder.set_not_after(&*Asn1Time::days_from_now(365)?)?;
    builder.set_subject_name(&name)?;
    builder.set_issuer_name(&name)?;
    builder.set_pubkey(&key)?;
    builder.sign(&key, MessageDigest::sha256())?;
    Ok(DtlsCert { certificate: builder.build().to_der()?, private_key: key.private_key_to_der()? })
}

fn ssl(cert: &DtlsCert, mtu: usize) -> Result<Ssl, ErrorStack> {
    let mut context = SslContext::builder(SslMethod::dtls())?;
    context.set_min_proto_version(Some(SslVersion::DTLS1_2))?;
    context.set_cipher_list(CIPHERS)?;
    context.set_tlsext_use_srtp(SRTP_PROFILES)?;
    // Any certificate that the peer can sign with: whether it is the offer's is decided by its hash.
    context.set_verify_callback(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT, |_, _| true);
    context.set_certificate(&*X509::from_der(&cert.certificate)?)?;
    context.set_private_key(&*PKey::private_key_from_der(&cert.private_key)?)?;
    context.set_options(SslOptions::NO_QUERY_MTU | SslOptions::NO_TICKET | SslOptions::NO_RENEGOTIATION);
    let mut ssl = Ssl::new(&context.build())?;
    ssl.set_mtu(u32::try_from(mtu).unwrap_or(MTU as u32))?;
    Ok(ssl)
}

/// What OpenSSL reads and writes: a datagram at a time.
#[derive(Default)]
struct Wire {
    incoming: Option<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
}

impl io::Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let datagram = self.incoming.take().ok_or(io::ErrorKind::WouldBlock)?;
        let size = datagram.len().min(buf.len());
        buf[..size].copy_from_slice(&datagram[..size]);
        Ok(size)
    }
}

impl io::Write for Wire {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        // More are lost, as in a network.
        if self.outgoing.len() < MAX_WAITING {
            self.outgoing.push_back(buf.to_vec());
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum State {
    /// Nothing has come and nothing was sent.
    Waiting(Ssl, Wire),
    Handshake(MidHandshakeSslStream<Wire>),
    Connected(SslStream<Wire>),
    Failed,
}

impl State {
    fn wire(&mut self) -> Option<&mut Wire> {
        match self {
            Self::Waiting(_, wire) => Some(wire),
            Self::Handshake(stream) => Some(stream.get_mut()),
            Self::Connected(stream) => Some(stream.get_mut()),
            Self::Failed => None,
        }
    }

    /// Goes on with the handshake; `true` where this has ended it.
    fn shake(&mut self, active: bool) -> Result<bool, DtlsImplError> {
        let outcome = match std::mem::replace(self, Self::Failed) {
            Self::Waiting(ssl, wire) if active => ssl.connect(wire),
            Self::Waiting(ssl, wire) => ssl.accept(wire),
            Self::Handshake(stream) => stream.handshake(),
            other => {
                *self = other;
                return Ok(false);
            }
        };
        let (next, done) = match outcome {
            Ok(stream) => (Self::Connected(stream), true),
            Err(HandshakeError::WouldBlock(stream)) => (Self::Handshake(stream), false),
            // A flight that is sent again, because its answer has stayed away, clears the mark that there was nothing to
            // read: OpenSSL then tells neither a cause nor that it waits.
            Err(HandshakeError::Failure(stream)) if is_no_cause(stream.error()) => (Self::Handshake(stream), false),
            Err(HandshakeError::SetupFailure(error)) => return Err(failed("set-up", &error)),
            Err(HandshakeError::Failure(stream)) => return Err(failed("handshake", stream.error())),
        };
        *self = next;
        Ok(done)
    }
}

/// Reads and writes of [`Wire`] fail in no other way.
fn is_no_cause(error: &ssl::Error) -> bool {
    error.code() == ErrorCode::SYSCALL && error.io_error().is_none() && error.ssl_error().is_none()
}

/// The library's error has no text: the log has it.
fn failed(what: &str, error: &dyn fmt::Display) -> DtlsImplError {
    tracing::info!("DTLS {what}: {error}");
    DtlsImplError::CryptoError(DtlsCryptoError::OperationFailed(DtlsCryptoOperation::VerifySignature))
}

enum Out {
    Packet(Vec<u8>),
    Certificate(Vec<u8>),
    Keys(Vec<u8>, SrtpProfile),
    Connected,
    Data(Vec<u8>),
    Closed,
}

impl Out {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Packet(bytes) | Self::Certificate(bytes) | Self::Data(bytes) => bytes,
            _ => &[],
        }
    }
}

struct Dtls {
    /// Locked for `Sync` only: all calls have the instance for themselves.
    state: Mutex<State>,
    active: bool,
    out: VecDeque<Out>,
    closing: bool,
}

impl fmt::Debug for Dtls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dtls").field("active", &self.active).finish_non_exhaustive()
    }
}

impl Dtls {
    fn go_on(&mut self) -> Result<(), DtlsImplError> {
        let done = self.state.get_mut().shake(self.active);
        // An alert that says why goes out where it fails too.
        self.collect();
        if done? { self.connect() } else { Ok(()) }
    }

    fn collect(&mut self) {
        if let Some(wire) = self.state.get_mut().wire() {
            self.out.extend(wire.outgoing.drain(..).map(Out::Packet));
        }
    }

    fn connect(&mut self) -> Result<(), DtlsImplError> {
        let State::Connected(stream) = self.state.get_mut() else { return Ok(()) };
        let ssl = stream.ssl();
        let certificate = ssl.peer_certificate().ok_or_else(|| failed("handshake", &"no certificate"))?;
        let certificate = certificate.to_der().map_err(|error| failed("certificate", &error))?;
        let profile = match ssl.selected_srtp_profile().map(|profile| profile.id()) {
            Some(SrtpProfileId::SRTP_AEAD_AES_128_GCM) => SrtpProfile::AEAD_AES_128_GCM,
            Some(SrtpProfileId::SRTP_AEAD_AES_256_GCM) => SrtpProfile::AEAD_AES_256_GCM,
            Some(SrtpProfileId::SRTP_AES128_CM_SHA1_80) => SrtpProfile::AES128_CM_SHA1_80,
            _ => return Err(failed("handshake", &"the peer has no SRTP profile in common")),
        };
        let mut keys = vec![0; profile.keying_material_len()];
        ssl.export_keying_material(&mut keys, LABEL, None).map_err(|error| failed("keys", &error))?;
        // The certificate first: keys of a peer that is not the offer's are not used.
        self.out.extend([Out::Certificate(certificate), Out::Keys(keys, profile), Out::Connected]);
        Ok(())
    }

    fn read(&mut self) {
        let State::Connected(stream) = self.state.get_mut() else { return };
        let mut buffer = vec![0; RECORD];
        // What does not decrypt is dropped; `Err` is that, and that there is nothing left.
        while let Ok(size @ 1..) = stream.ssl_read(&mut buffer) {
            self.out.push_back(Out::Data(buffer[..size].to_vec()));
        }
        if stream.get_shutdown().contains(ShutdownState::RECEIVED) && !self.closing {
            self.closing = true;
            // Tells the peer that it was heard; it may be gone.
            let _ = stream.shutdown();
            self.collect();
            self.out.push_back(Out::Closed);
        } else {
            self.collect();
        }
    }
}

impl DtlsInstance for Dtls {
    fn set_active(&mut self, active: bool) {
        self.active = active;
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        let state = self.state.get_mut();
        let connected = matches!(state, State::Connected(_));
        match state.wire() {
            Some(wire) => wire.incoming = Some(packet.to_vec()),
            None => return Err(DtlsImplError::ConnectionClosed),
        }
        if !connected {
            self.go_on()?;
        }
        self.read();
        Ok(())
    }

    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        let handshake = matches!(self.state.get_mut(), State::Handshake(_));
        let Some(next) = self.out.pop_front() else {
            let wait = if handshake { LOOK } else { Duration::from_secs(3600) };
            return DtlsOutput::Timeout(Instant::now() + wait);
        };
        let needed = next.bytes().len();
        if needed > buf.len() {
            self.out.push_front(next);
            return DtlsOutput::BufferTooSmall { needed };
        }
        buf[..needed].copy_from_slice(next.bytes());
        let bytes = &buf[..needed];
        match next {
            Out::Packet(_) => DtlsOutput::Packet(bytes),
            Out::Certificate(_) => DtlsOutput::PeerCert(bytes),
            Out::Data(_) => DtlsOutput::ApplicationData(bytes),
            Out::Keys(keys, profile) => DtlsOutput::KeyingMaterial(KeyingMaterial::new(&keys), profile),
            Out::Connected => DtlsOutput::Connected,
            Out::Closed => DtlsOutput::CloseNotify,
        }
    }

    fn handle_timeout(&mut self, _now: Instant) -> Result<(), DtlsImplError> {
        match self.state.get_mut() {
            // The client begins; a server waits.
            State::Waiting(..) if self.active => self.go_on(),
            State::Handshake(_) => self.go_on(),
            _ => Ok(()),
        }
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        let State::Connected(stream) = self.state.get_mut() else { return Ok(0) };
        let sent = stream.ssl_write(data).map_err(|error| failed("write", &error))?;
        self.collect();
        Ok(sent)
    }

    fn is_active(&self) -> bool {
        self.active
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        matches!(*self.state.lock(), State::Connected(_)).then_some(ProtocolVersion::DTLS1_2)
    }

    fn is_closing(&self) -> bool {
        self.closing
    }

    fn is_closed(&self) -> bool {
        self.closing && self.out.is_empty()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.closing = true;
        if let State::Connected(stream) = self.state.get_mut() {
            // Whether the peer hears it is not ours to know.
            let _ = stream.shutdown();
            self.collect();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(active: bool) -> Box<dyn DtlsInstance> {
        with(&OpenSsl.generate_certificate().unwrap(), active)
    }

    fn with(cert: &DtlsCert, active: bool) -> Box<dyn DtlsInstance> {
        let mut instance = OpenSsl.new_dtls(cert, Instant::now(), DtlsVersion::Dtls12, None).unwrap();
        instance.set_active(active);
        instance
    }

    /// Datagrams that an instance sends, and whether it is connected.
    fn poll(instance: &mut dyn DtlsInstance) -> (Vec<Vec<u8>>, bool) {
        let (mut sent, mut connected, mut buffer) = (Vec::new(), false, vec![0; RECORD]);
        loop {
            match instance.poll_output(&mut buffer) {
                DtlsOutput::Packet(packet) => sent.push(packet.to_vec()),
                DtlsOutput::Connected => connected = true,
                DtlsOutput::Timeout(_) => return (sent, connected),
                _ => {}
            }
        }
    }

    #[test]
    fn flights_that_are_lost_are_sent_again() {
        let (mut client, mut server) = (instance(true), instance(false));
        let (mut done, mut lost) = ((false, false), (0, 0));
        let start = Instant::now();
        while done != (true, true) {
            assert!(start.elapsed() < Duration::from_secs(20), "{done:?}, {lost:?} lost");
            // The first flight of each is lost.
            let (sent, connected) = poll(&mut *client);
            done.0 |= connected;
            for packet in sent {
                match lost.0 {
                    0 => lost.0 = 1,
                    _ => server.handle_packet(&packet).unwrap(),
                }
            }
            let (sent, connected) = poll(&mut *server);
            done.1 |= connected;
            let drop_all = lost.1 == 0 && !sent.is_empty();
            lost.1 += usize::from(drop_all);
            sent.iter().filter(|_| !drop_all).for_each(|packet| client.handle_packet(packet).unwrap());
            std::thread::sleep(Duration::from_millis(20));
            client.handle_timeout(Instant::now()).unwrap();
            server.handle_timeout(Instant::now()).unwrap();
        }
        assert_eq!(lost, (1, 1));
    }

    fn rsa(bits: u32) -> DtlsCert {
        let key = PKey::from_rsa(openssl::rsa::Rsa::generate(bits).unwrap()).unwrap();
        let mut builder = X509Builder::new().unwrap();
        builder.set_pubkey(&key).unwrap();
        builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
        builder.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
        builder.sign(&key, MessageDigest::sha256()).unwrap();
        DtlsCert { certificate: builder.build().to_der().unwrap(), private_key: key.private_key_to_der().unwrap() }
    }

    #[test]
    fn a_peer_with_an_rsa_certificate_is_taken() {
        let (mut client, mut server) = (with(&rsa(2048), true), instance(false));
        let mut done = (false, false);
        client.handle_timeout(Instant::now()).unwrap();
        for _ in 0..20 {
            let (sent, connected) = poll(&mut *client);
            done.0 |= connected;
            sent.iter().for_each(|packet| server.handle_packet(packet).unwrap());
            let (sent, connected) = poll(&mut *server);
            done.1 |= connected;
            sent.iter().for_each(|packet| client.handle_packet(packet).unwrap());
        }
        assert_eq!(done, (true, true));
        // Of 1024 bits OpenSSL makes no use itself, at Debian's level of security.
        let weak = OpenSsl.new_dtls(&rsa(1024), Instant::now(), DtlsVersion::Dtls12, None);
        assert!(weak.is_err());
    }
}
