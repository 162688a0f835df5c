//! RTMP's plain handshake (Adobe's RTMP 1.0 specification, section 5.2): each side sends a version byte and 1536 bytes,
//! and returns those of the other. The digests of Flash's own variant are not checked: no encoder or player of today
//! asks for them.

use std::{io, time::Duration};

use rand::RngCore;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const VERSION: u8 = 3;
const SIZE: usize = 1536;

/// The server's side.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, patience: Duration) -> io::Result<()> {
    within(patience, async {
        let mut hello = [0; 1 + SIZE];
        stream.read_exact(&mut hello[..1]).await?;
        if hello[0] != VERSION {
            return Err(invalid("the first byte is not RTMP's version 3"));
        }
        stream.read_exact(&mut hello[1..]).await?;
        let mut answer = ours();
        answer.extend_from_slice(&hello[1..]);
        stream.write_all(&answer).await?;
        stream.flush().await?;
        stream.read_exact(&mut hello[1..]).await?;
        Ok(())
    })
    .await
}

/// The client's side.
pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, patience: Duration) -> io::Result<()> {
    within(patience, async {
        stream.write_all(&ours()).await?;
        stream.flush().await?;
        let mut answer = [0; 1 + 2 * SIZE];
        stream.read_exact(&mut answer).await?;
        if answer[0] != VERSION {
            return Err(invalid("the server's first byte is not RTMP's version 3"));
        }
        stream.write_all(&answer[1..=SIZE]).await?;
        stream.flush().await
    })
    .await
}

/// Version, time 0, zero, random bytes.
fn ours() -> Vec<u8> {
    let mut packet = vec![0; 1 + SIZE];
    packet[0] = VERSION;
    rand::rng().fill_bytes(&mut packet[9..]);
    packet
}

async fn within(patience: Duration, work: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    tokio::time::timeout(patience, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn both_sides_agree() {
        let (mut client, mut server) = tokio::io::duplex(8192);
        let (a, b) = tokio::join!(connect(&mut client, PATIENCE), accept(&mut server, PATIENCE));
        a.unwrap();
        b.unwrap();
    }

    #[tokio::test]
    async fn another_protocol_is_refused_at_its_first_byte() {
        let (mut client, mut server) = tokio::io::duplex(8192);
        client.write_all(b"G").await.unwrap();
        let error = accept(&mut server, PATIENCE).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
