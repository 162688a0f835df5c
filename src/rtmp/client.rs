//! The publishing side of RTMP, for pushing to other servers.

use std::{io, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split},
    time::timeout,
};

use super::{
    amf::Value,
    handshake,
    link::{self, Command, Event, Link},
};

/// Read at a time; servers send little to a publisher.
const READ: usize = 16 << 10;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the server speaks no RTMP that we know: {0}")]
    Protocol(#[from] link::Error),
    #[error("the server refuses: {0}")]
    Refused(String),
    #[error("the server has closed the connection")]
    Closed,
    #[error("the server did not answer in time")]
    Silent,
}

/// Where to publish: the parts of `rtmp://host/app/stream`.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// `rtmp://host:port/app`, which servers with several names look at.
    pub tc_url: String,
    pub app: String,
    /// With its query. It is a secret on most platforms.
    pub stream: String,
}

/// A connection that publishes.
pub struct Publisher<S> {
    read: ReadHalf<S>,
    write: WriteHalf<S>,
    link: Link,
    stream: u32,
    patience: Duration,
}

impl<S: AsyncRead + AsyncWrite> Publisher<S> {
    /// Connects over `socket` and begins to publish; each step may take `patience`.
    pub async fn open(mut socket: S, target: &Target, patience: Duration) -> Result<Self, Error>
    where
        S: Unpin,
    {
        handshake::connect(&mut socket, patience).await.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => Error::Silent,
            io::ErrorKind::UnexpectedEof => Error::Closed,
            _ => Error::Io(error),
        })?;
        let (read, write) = split(socket);
        let mut publisher = Self { read, write, link: Link::default(), stream: 1, patience };
        timeout(patience, publisher.begin(target)).await.map_err(|_| Error::Silent)??;
        Ok(publisher)
    }

    async fn begin(&mut self, target: &Target) -> Result<(), Error> {
        let link = &mut self.link;
        link.set_chunk_size();
        let about = Value::object([
            ("app", Value::text(&target.app)),
            ("type", Value::text("nonprivate")),
            // Several platforms let in only what calls itself so.
            ("flashVer", Value::text("FMLE/3.0 (compatible; Lipstream)")),
            ("tcUrl", Value::text(&target.tc_url)),
        ]);
        link.command(0, &[Value::text("connect"), Value::Number(1.0), about]);
        self.answer("_result", Some(1.0)).await?;
        let name = Value::text(&target.stream);
        for (transaction, command) in [(2.0, "releaseStream"), (3.0, "FCPublish")] {
            let values = [Value::text(command), Value::Number(transaction), Value::Null, name.clone()];
            self.link.command(0, &values);
        }
        self.link.command(0, &[Value::text("createStream"), Value::Number(4.0), Value::Null]);
        let created = self.answer("_result", Some(4.0)).await?;
        self.stream = created.arguments.first().and_then(Value::as_number).unwrap_or(1.0) as u32;
        let live = Value::text("live");
        self.link.command(self.stream, &[Value::text("publish"), Value::Number(5.0), Value::Null, name, live]);
        self.answer("onStatus", None).await?;
        Ok(())
    }

    /// Waits for the answer `name` to the command `transaction`.
    async fn answer(&mut self, name: &str, transaction: Option<f64>) -> Result<Command, Error> {
        self.flush().await?;
        loop {
            if let Some(command) = self.next().await? {
                // Answers of `_error` to commands that a server need not know are no refusal.
                let ours = transaction.is_none_or(|transaction| transaction == command.transaction);
                if command.name == "_error" && ours {
                    return Err(Error::Refused(described(&command)));
                }
                if command.name == name && ours {
                    return Ok(command);
                }
            }
            self.flush().await?;
        }
    }

    /// The next command from the server, `None` after something else. An error status is an error. Cancel safe.
    async fn next(&mut self) -> Result<Option<Command>, Error> {
        match self.link.event()? {
            Some(Event::Command(command)) => {
                let failed = command.name == "onStatus"
                    && command.arguments.first().and_then(|info| info.get("level")).and_then(Value::as_str)
                        == Some("error");
                if failed || command.name == "close" {
                    return Err(Error::Refused(described(&command)));
                }
                Ok(Some(command))
            }
            Some(_) => Ok(None),
            None => {
                self.link.input.reserve(READ);
                let count = self.read.read_buf(&mut self.link.input).await?;
                if count == 0 {
                    return Err(Error::Closed);
                }
                self.link.arrived(count);
                Ok(None)
            }
        }
    }

    /// Takes in what the server says; returns after each piece, with an error when it ends the stream. Cancel safe.
    pub async fn listen(&mut self) -> Result<(), Error> {
        self.next().await.map(drop)
    }

    /// Queues a message.
    pub fn queue(&mut self, kind: u8, timestamp: u32, data: Bytes) {
        self.link.send(kind, self.stream, timestamp, data);
    }

    /// Sends what is queued; a server that takes nothing for the patience given is given up.
    pub async fn flush(&mut self) -> Result<(), Error> {
        while !self.link.out.is_empty() {
            timeout(self.patience, self.write.write_buf(&mut self.link.out)).await.map_err(|_| Error::Silent)??;
        }
        Ok(timeout(self.patience, self.write.flush()).await.map_err(|_| Error::Silent)??)
    }

    /// Says that the stream ends, and closes.
    pub async fn close(mut self) {
        let number = Value::Number(self.stream.into());
        self.link.command(0, &[Value::text("deleteStream"), Value::Number(6.0), Value::Null, number]);
        if self.flush().await.is_ok() {
            let _ = timeout(self.patience, self.write.shutdown()).await;
        }
    }
}

/// What the server says, short and in one line.
fn described(command: &Command) -> String {
    let info = command.arguments.first();
    let field = |name: &str| info.and_then(|info| info.get(name)).and_then(Value::as_str).unwrap_or_default();
    let text = [field("code"), field("description")].join(" ");
    let text: String = text.trim().chars().filter(|c| !c.is_control()).take(200).collect();
    if text.is_empty() { "without a reason".into() } else { text }
}
