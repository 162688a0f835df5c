//! The connection to the cluster's NATS servers.

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_nats::{
    Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr,
    connection::State,
    jetstream::{
        self,
        kv::Store,
        stream::{self, DiscardPolicy},
    },
};
use tokio::sync::watch;

use crate::error::{Failure, Result};

/// Time for the first connection.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time for each attempt to connect: with the longest pause and a beat of a node it is less than what others wait before they judge.
const ATTEMPT: Duration = Duration::from_secs(2);
/// How often a server is asked whether it is there; after two of these without an answer it is not.
const PING: Duration = Duration::from_secs(1);
/// Longest wait for an answer of JetStream.
const ANSWER: Duration = Duration::from_secs(2);
/// Pause before a server is tried again, which grows by itself up to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How the cluster is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `nats://` and `tls://` URLs, which may have a user and a password.
    pub servers: Vec<String>,
    /// File with a user's JWT and seed.
    pub credentials: Option<PathBuf>,
    /// PEM file with the certificates of those who sign the servers'.
    pub certificates: Option<PathBuf>,
    /// This node's name.
    pub node: String,
    /// Servers that keep what JetStream keeps.
    pub replicas: usize,
}

/// The connection, which comes back by itself.
pub struct Cluster {
    settings: Settings,
    client: Client,
    jetstream: jetstream::Context,
    connections: watch::Receiver<u64>,
}

impl Cluster {
    /// Connects to one of the servers, and checks that JetStream is there.
    pub async fn connect(settings: Settings) -> Result<Arc<Self>> {
        let shown = shown(&settings.servers);
        let wrong = |cause: String| Failure::usage(format!("cluster {shown}: {cause}"));
        let servers: Vec<ServerAddr> = settings
            .servers
            .iter()
            .map(|url| url.parse())
            .collect::<Result<_, _>>()
            .map_err(|e| wrong(format!("is no address of a NATS server: {e}")))?;
        let mut options = ConnectOptions::new();
        // One user for all servers.
        let user = servers.iter().find_map(|server| Some((server.username()?, server.password()?)));
        if let Some((user, password)) = user {
            options = options.user_and_password(user.to_owned(), password.to_owned());
        }
        if let Some(file) = &settings.credentials {
            let read = options.credentials_file(file).await;
            options = read.map_err(|e| Failure::usage(format!("cluster.credentials: {}: {e}", file.display())))?;
        }
        if let Some(file) = &settings.certificates {
            if !file.is_file() {
                return Err(Failure::usage(format!("cluster.certificates: {}: is not a file", file.display())));
            }
            options = options.add_root_certificates(file.clone());
        }
        // Two of rustls' providers are built in, so that it takes none by itself. Another part may have chosen already.
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let (told, connections) = watch::channel(0u64);
        let told = Arc::new(told);
        let options = options
            .name(format!("lipstream {}", settings.node))
            .connection_timeout(ATTEMPT)
            .ping_interval(PING)
            .request_timeout(Some(ANSWER))
            .ignore_discovered_servers()
            .reconnect_delay_callback(|attempts| {
                let doubled = PAUSES.0.saturating_mul(1 << attempts.min(6) as u32);
                doubled.min(PAUSES.1)
            })
            .event_callback(move |event| {
                let told = told.clone();
                async move {
                    match event {
                        Event::Connected => told.send_modify(|count| *count += 1),
                        Event::Disconnected => {
                            tracing::warn!("the cluster's NATS server is away; sessions go on, and it is tried again");
                        }
                        Event::ServerError(error) => tracing::warn!("the cluster's NATS server: {error}"),
                        _ => {}
                    }
                }
            });
        let connected = tokio::time::timeout(PATIENCE, options.connect(servers)).await;
        let late = || {
            Failure::run(format!("cluster {shown}: no NATS server answers within {} s: {START}", PATIENCE.as_secs()))
        };
        let client = connected.map_err(|_| late())?.map_err(|error| {
            Failure::run(format!(
                "cluster {shown}: {}",
                match error.kind() {
                    ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation =>
                        "the NATS server refuses the credentials: set cluster.credentials, or user and password in the URL"
                            .to_owned(),
                    ConnectErrorKind::Tls => format!("{error}: set cluster.certificates where a CA of your own signs"),
                    _ => format!("{error}: {START}"),
                }
            ))
        })?;
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(ANSWER);
        check_jetstream(&client).await.map_err(|error| {
            Failure::run(format!(
                "cluster {shown}: the NATS server has no JetStream for this user ({error}): start it with `nats-server -js`, or \
                 allow its account JetStream"
            ))
        })?;
        tracing::info!("node `{}` is connected to the cluster {shown}", settings.node);
        Ok(Arc::new(Self { settings, client, jetstream, connections }))
    }

    /// This node's name.
    pub fn node(&self) -> &str {
        &self.settings.node
    }

    /// Servers that keep what JetStream keeps.
    pub fn replicas(&self) -> usize {
        self.settings.replicas
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Answers within 2 s or fails.
    pub fn jetstream(&self) -> &jetstream::Context {
        &self.jetstream
    }

    /// A bucket that keeps the last value of each key, made where there is none; one that is there stays as it is.
    ///
    /// The client's own way asks for the account first, of which servers before 2.10 tell less than it reads.
    pub async fn bucket(&self, name: &str, description: &str) -> Result<Store, String> {
        let config = stream::Config {
            name: format!("KV_{name}"),
            description: Some(description.to_owned()),
            subjects: vec![format!("$KV.{name}.>")],
            max_messages_per_subject: 1,
            discard: DiscardPolicy::New,
            allow_rollup: true,
            deny_delete: true,
            allow_direct: true,
            num_replicas: self.replicas(),
            ..stream::Config::default()
        };
        self.jetstream.get_or_create_stream(config).await.map_err(|e| e.to_string())?;
        self.jetstream.get_key_value(name).await.map_err(|e| e.to_string())
    }

    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Changes with each new connection.
    pub fn connections(&self) -> watch::Receiver<u64> {
        self.connections.clone()
    }
}

/// Why there is no JetStream.
async fn check_jetstream(client: &Client) -> Result<(), String> {
    let answer = client.request("$JS.API.INFO", "".into()).await.map_err(|e| e.to_string())?;
    let answer: serde_json::Value = serde_json::from_slice(&answer.payload).map_err(|e| e.to_string())?;
    answer.get("error").map_or(Ok(()), |error| Err(error["description"].as_str().unwrap_or("no reason").to_owned()))
}

const START: &str = "start one with `nats-server -js`, or correct cluster.url";

/// The servers without user and password.
fn shown(servers: &[String]) -> String {
    let plain = |url: &String| match url::Url::parse(url) {
        Ok(url) => format!("{}://{}", url.scheme(), &url[url::Position::BeforeHost..url::Position::AfterPort]),
        Err(_) => "?".to_owned(),
    };
    servers.iter().map(plain).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(
            shown(&["nats://anna:secret@10.0.0.5:4222".into(), "tls://b".into()]),
            "nats://10.0.0.5:4222,tls://b"
        );
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named_with_a_cure() {
        // A port that was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let servers = vec![format!("nats://user:hunter22@127.0.0.1:{port}")];
        let settings = Settings { servers, credentials: None, certificates: None, node: "a".into(), replicas: 1 };
        let error = Cluster::connect(settings).await.err().unwrap().to_string();
        assert!(error.contains(&port.to_string()) && error.contains("nats-server -js"), "{error}");
        assert!(!error.contains("hunter22"), "{error}");
    }
}
