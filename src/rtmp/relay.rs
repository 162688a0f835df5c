//! A peer whose session another server has: its bytes go there, and that server's come back.
//!
//! RTMP can send a peer elsewhere in the answer to `connect` only, which comes before it names its session, and neither ffmpeg nor OBS nor
//! GStreamer goes there. So the other server hears all that the peer has said. It answers it as this one did, byte for byte,
//! since it is the same program; of its answers so much is left out as the peer has had.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::handshake;

/// What has passed between the peer and this server after their handshake.
pub(super) struct Met<'a> {
    pub said: &'a [u8],
    /// Bytes of the answers.
    pub answered: usize,
}

/// Passes a peer on to the server `to` until one of them leaves. `rest` is what the peer has still to be sent.
pub(super) async fn pass_on(
    to: &str,
    met: Met<'_>,
    rest: &[u8],
    mut read: OwnedReadHalf,
    mut write: OwnedWriteHalf,
    (patience, stop): (Duration, CancellationToken),
) -> io::Result<()> {
    let mut server = timeout(patience, TcpStream::connect(to)).await??;
    server.set_nodelay(true)?;
    handshake::connect(&mut server, patience).await?;
    server.write_all(met.said).await?;
    write.write_all(rest).await?;
    let mut had = vec![0; met.answered];
    timeout(patience, server.read_exact(&mut had)).await??;
    let (mut from, mut there) = server.into_split();
    tokio::select! {
        done = tokio::io::copy(&mut read, &mut there) => done.map(drop),
        done = tokio::io::copy(&mut from, &mut write) => done.map(drop),
        () = stop.cancelled() => Ok(()),
    }
}
