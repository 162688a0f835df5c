//! A push by RTMP or RTMPS.

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

use super::{Feed, Report, Settings};
use crate::{
    address::Checked,
    rtmp::{
        client::{Publisher, Target},
        flow::Flow,
    },
};

/// Pushes until the connection breaks; `Ok` at the end of the session.
pub(super) async fn push(checked: &Checked, settings: &Settings, feed: Feed, report: &Report) -> Result<(), String> {
    let target = target(checked)?;
    let secret = target.stream.clone();
    let work = async {
        let socket = connect(checked, settings).await?;
        if checked.url.scheme() == "rtmps" {
            let name = ServerName::try_from(checked.host.clone()).map_err(|error| error.to_string())?;
            let connecting = TlsConnector::from(tls()).connect(name, socket);
            let socket = timeout(settings.patience, connecting)
                .await
                .map_err(|_| "TLS: no answer in time".to_owned())?
                .map_err(|error| format!("TLS: {error}"))?;
            send(socket, &target, settings, feed, report).await
        } else {
            send(socket, &target, settings, feed, report).await
        }
    };
    // Some servers repeat the name in what they refuse.
    work.await.map_err(|error: String| error.replace(&secret, "***"))
}

async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    socket: S,
    target: &Target,
    settings: &Settings,
    mut feed: Feed,
    report: &Report,
) -> Result<(), String> {
    let mut publisher = Publisher::open(socket, target, settings.patience).await.map_err(|error| error.to_string())?;
    report.connected();
    let mut flow = Flow::new(true);
    loop {
        tokio::select! {
            packet = feed.next() => {
                let Some(packet) = packet else {
                    publisher.close().await;
                    return Ok(());
                };
                for out in flow.packet(&packet, || feed.header()) {
                    publisher.queue(out.kind, out.timestamp, out.data);
                }
            }
            heard = publisher.listen() => heard.map_err(|error| error.to_string())?,
        }
        publisher.flush().await.map_err(|error| error.to_string())?;
    }
}

/// To the first address that answers, of those that were checked.
pub(super) async fn connect(checked: &Checked, settings: &Settings) -> Result<TcpStream, String> {
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

/// Application and stream: the last part of the path and the query are the stream, as ffmpeg and OBS cut it.
fn target(checked: &Checked) -> Result<Target, String> {
    let url = &checked.url;
    let path = url.path().trim_start_matches('/');
    let (app, stream) = path
        .rsplit_once('/')
        .filter(|(app, stream)| !app.is_empty() && !stream.is_empty())
        .ok_or("the URL must be rtmp://HOST/APP/STREAM")?;
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    Ok(Target {
        tc_url: format!("{}://{}{port}/{app}", url.scheme(), checked.host),
        app: app.to_owned(),
        stream: format!("{stream}{query}"),
    })
}

/// Certificates are checked against Mozilla's roots.
pub(super) fn tls() -> Arc<rustls::ClientConfig> {
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions of TLS")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}
