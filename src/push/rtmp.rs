//! A push by RTMP or RTMPS.

use super::{
    Feed, Settings,
    dial::{self, Stream},
};
use crate::{
    address::Checked,
    link::Report,
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
        let socket = dial::connect(checked, settings).await?;
        send(socket, &target, settings, feed, report).await
    };
    // Some servers repeat the name in what they refuse.
    work.await.map_err(|error: String| error.replace(&secret, "***"))
}

async fn send(
    socket: Box<dyn Stream>,
    target: &Target,
    settings: &Settings,
    mut feed: Feed,
    report: &Report,
) -> Result<(), String> {
    let mut publisher = Publisher::open(socket, target, settings.patience).await.map_err(|error| error.to_string())?;
    report.connected();
    let mut flow = Flow::new(true, feed.is_marked());
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
