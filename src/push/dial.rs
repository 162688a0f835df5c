//! A connection to one of the addresses that were checked, with TLS where the URL's scheme asks for it.

use std::{io, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{self, RootCertStore, pki_types::ServerName},
};

use super::Settings;
use crate::address::Checked;

/// Schemes of what runs over TLS.
const SECURE: [&str; 3] = ["rtmps", "whips", "https"];

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Connects to the first address that answers; each step may take the settings' patience.
pub(super) async fn connect(checked: &Checked, settings: &Settings) -> Result<Box<dyn Stream>, String> {
    let socket = reach(checked, settings).await?;
    if !SECURE.contains(&checked.url.scheme()) {
        return Ok(Box::new(socket));
    }
    let name = ServerName::try_from(checked.host.clone()).map_err(|error| error.to_string())?;
    match timeout(settings.patience, TlsConnector::from(tls()).connect(name, socket)).await {
        Ok(Ok(socket)) => Ok(Box::new(socket)),
        Ok(Err(error)) => Err(format!("TLS: {error}")),
        Err(_) => Err("TLS: no answer in time".into()),
    }
}

async fn reach(checked: &Checked, settings: &Settings) -> Result<TcpStream, String> {
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in &checked.addresses {
        match timeout(settings.patience, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => {
                socket.set_nodelay(true).map_err(|error| error.to_string())?;
                return Ok(socket);
            }
            Ok(Err(error)) => failed = error,
            Err(_) => failed = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(format!("cannot connect: {failed}"))
}

/// Certificates are checked against Mozilla's roots.
fn tls() -> Arc<rustls::ClientConfig> {
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions of TLS")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}
