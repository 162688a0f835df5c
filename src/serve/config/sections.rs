//! The sections of the configuration, and what their keys allow.

use std::{net::IpAddr, path::PathBuf};

use lipstream_engines::runtime;
use url::Url;

use crate::{
    cluster,
    http::IceServer,
    serve::{
        section::section,
        value::{NatsUrl, Secret, StorageUrl, StoreUrl, Value, any, within},
    },
    session,
};

const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

section! {
    /// HTTP: the operator page, the API, WHIP and WHEP, metrics.
    Server "server" {
        /// Address to listen on. Beyond loopback it needs auth.keys, or auth.allow_open.
        bind: IpAddr = LOOPBACK, any;
        /// 0 takes any free port and prints it.
        port: u16 = 8080, any;
        /// Where clients reach the server, when a proxy with TLS stands in front of it: "https://lips.example". Needs
        /// auth.keys, or auth.allow_open.
        public_url: Option<Url> = None, any;
        /// Web pages of other origins that may use the API: "https://app.example"; "*" is any.
        cors_origins: Vec<String> = Vec::new(), origins;
    }
}

section! {
    /// Who may use the API. Clients send a key as "Authorization: Bearer KEY".
    Auth "auth" {
        /// Keys of at least 16 characters; empty is open to everyone who reaches the port.
        keys: Vec<Secret> = Vec::new(), any;
        /// File with more keys, one a line; "" is none.
        keys_file: Option<PathBuf> = None, any;
        /// Store of tenants, whose keys open what is theirs: "sqlite:///var/lib/lipstream/tenants.db", made where there is
        /// none; "" is none. `lipstream keys` manages it.
        store: Option<StoreUrl> = None, any;
        /// Listen beyond loopback without keys.
        allow_open: bool = false, any;
    }
}

section! {
    /// RTMP: publish to rtmp://HOST:PORT/APP/SESSION, play rtmp://HOST:PORT/APP/SESSION/synced.
    Rtmp "rtmp" {
        /// Off: no port is opened.
        enabled: bool = true, any;
        /// Address to listen on. Beyond loopback it needs auth.keys or auth.allow_open.
        bind: IpAddr = LOOPBACK, any;
        /// 0 takes any free port and prints it.
        port: u16 = 1935, any;
        /// First part of the path in RTMP URLs.
        app: String = "live".into(), path_part;
    }
}

section! {
    /// WebRTC: WHIP publishes, WHEP plays.
    Webrtc "webrtc" {
        /// STUN and TURN servers: "stun:stun.example:3478", "turn:user:password@turn.example:3478".
        ice_servers: Vec<String> = Vec::new(), ice_servers;
        /// First UDP port that is tried for media; all peers share one. 0 lets the system choose.
        udp_port_min: u16 = 0, any;
        /// Last UDP port that is tried for media.
        udp_port_max: u16 = 0, any;
        /// Public addresses of this machine, when it is behind a one-to-one NAT.
        public_ips: Vec<IpAddr> = Vec::new(), any;
        /// Most viewers of all sessions together.
        max_viewers: u32 = 200, within(1..=100_000);
        /// Most publishers of all sessions together.
        max_publishers: u32 = 32, within(1..=10_000);
    }
}

section! {
    /// What holds for all sessions.
    Sessions "sessions" {
        /// A session `demo` with the demo avatar that always runs.
        demo: bool = true, any;
        /// Engine where a session does not say; `lipstream engines` lists them.
        engine: String = crate::render::DEFAULT_ENGINE.into(), engine;
        /// Device of the engine: auto, cpu, openvino, cuda[:n], tensorrt[:n].
        device: String = "auto".into(), device;
        /// What encodes H.264: auto (the card's encoder where GStreamer has it and it starts, else x264), x264 or nvh264.
        encoder: String = "auto".into(), encoder;
        /// Engines that go on where one fails or cannot be loaded: "latentsync15 -> compact", each chain an entry of the list.
        fallbacks: Vec<String> = Vec::new(), chains;
        /// What is before a face stays before its mouth: auto, by the network that is built in; off, not; or an ONNX file that knows
        /// what is. A session or a render may choose between auto and off.
        occlusion: String = "auto".into(), any;
        /// Folder with graph files of your own, looked at before those that are built in; "" is none.
        graphs: Option<PathBuf> = None, any;
        /// Seconds without viewers after which a session's graph stops.
        idle_seconds: u32 = 30, within(1..=86_400);
        /// Seconds of speech that may wait in a session.
        speech_seconds: u32 = 600, within(1..=3600);
        /// Seconds for which speech waits while nobody watches its session; then it is dropped, and `ended` says so.
        speech_kept_seconds: u32 = 30, within(1..=86_400);
        /// Most sessions, running or not.
        max_sessions: u32 = 64, within(1..=10_000);
        /// Part of the machine's cores, and of a card's time, that sessions may use; what would need more is refused. Above 1
        /// more are let in than the machine holds by the prices of sessions that all speak.
        load: f64 = 0.85, within(0.05..=1000.0);
        /// Milliseconds for which a batch of an engine on a card waits at most for those of other sessions: none while half of
        /// the card's time is free, all of them when none is. Latency is declared for so long; 0 never waits.
        batch_timeout_ms: u32 = 5, within(0..=1000);
        /// Refuse sessions for the load of other programs too; false warns of it in the log.
        count_others: bool = false, any;
        /// Seconds from one check of a session's sync of mouth and voice to the next; 0 checks none. Above 2 not every frame is judged.
        sync_check_seconds: u32 = 1, within(0..=60);
        /// Seconds for which a session's mouth must be off by the same before it is corrected, by two frames at most; 0 only
        /// tells.
        sync_correct_seconds: u32 = 60, within(0..=3600);
        /// What becomes of publishers to names that no session has: "refuse", or a graph, of which a session begins and ends
        /// with its publisher. "auto" is relay where only this machine reaches RTMP or a publish_key is set, else refuse.
        on_publish: String = "auto".into(), path_part;
        /// Key that such publishers must add to the URL as ?key=KEY; "" asks for none.
        publish_key: Option<Secret> = None, any;
        /// Sessions may pull from and push to loopback and private addresses.
        private_addresses: bool = false, any;
        /// Sessions may pull file:// URLs of this machine.
        files: bool = false, any;
    }
}

section! {
    /// Avatars: videos of a person, uploaded, checked and prepared.
    Avatars "avatars" {
        /// Folder that holds them; "" is $XDG_DATA_HOME/lipstream/avatars.
        folder: Option<PathBuf> = None, any;
        /// Largest upload, in megabytes.
        max_upload_mb: u32 = 500, within(1..=10_000);
        /// Refuse avatars without a consent record, at their upload and at their use; the demo needs none.
        require_consent: bool = false, any;
        /// Uploads that wait to be prepared; one is prepared at a time.
        max_waiting: u32 = 8, within(1..=100);
    }
}

section! {
    /// Offline renders through the API.
    Renders "renders" {
        /// Folder that holds them; "" is $XDG_DATA_HOME/lipstream/renders.
        folder: Option<PathBuf> = None, any;
        /// Renders that wait; one is rendered at a time.
        max_waiting: u32 = 32, within(1..=1000);
        /// Hours after which a result is deleted.
        kept_hours: u32 = 24, within(1..=8760);
        /// Gigabytes that results may take together, in a cluster those of all nodes; the oldest go first.
        kept_gb: u32 = 10, within(1..=10_000);
        /// In a cluster, seconds of silence of a node after which another one is given what it renders.
        takeover_seconds: u32 = 15, within(2..=600);
        /// In a cluster, seconds of a part: what is longer than one and a half of them is cut where the speech is silent, and several
        /// nodes render it. 0 cuts nothing.
        split_seconds: u32 = 60, within(0..=3600);
    }
}

section! {
    /// Where results of renders are kept, and in a cluster what they are made of.
    Storage "storage" {
        /// "s3://BUCKET/PREFIX", or "file:///FOLDER"; "" keeps them in renders.folder.
        url: Option<StorageUrl> = None, any;
        /// An S3 server that is not Amazon's: "http://minio.example:9000"; "" is AWS_ENDPOINT_URL, or Amazon's.
        endpoint: Option<Url> = None, any;
        /// "" is AWS_REGION, or us-east-1.
        region: String = String::new(), any;
        /// File with the keys as `~/.aws/credentials` has them; "" takes AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the role
        /// of the machine.
        credentials_file: Option<PathBuf> = None, any;
    }
}

section! {
    /// What says of a picture that a machine made a part of it.
    Marks "marks" {
        /// Streams: user data in H.264, metadata of RTMP, a header of WHEP.
        streams: bool = true, any;
        /// Offline renders in MP4: a signed C2PA manifest.
        files: bool = true, any;
        /// Streams and renders: a pattern in the generated part of the picture that nobody sees and `lipstream detect` finds.
        watermark: bool = true, any;
        /// Certificate chain in PEM that signs them, the signer's first; "" is one that is made here and says so.
        certificate: Option<PathBuf> = None, any;
        /// Its private key in PEM.
        certificate_key: Option<PathBuf> = None, any;
    }
}

section! {
    /// Many machines: nodes that share sessions, and find one another by NATS with JetStream. Every node needs the same keys.
    Cluster "cluster" {
        /// NATS servers: "nats://10.0.0.5:4222", or "tls://" for TLS; none is this machine alone. `--cluster` goes before it.
        url: Vec<NatsUrl> = Vec::new(), any;
        /// File with a user's JWT and seed, as `nsc` writes it; "" is none. A user and password may stand in the URL.
        credentials: Option<PathBuf> = None, any;
        /// Certificates in PEM that the servers' are signed by, beside the well-known ones; "" is none.
        certificates: Option<PathBuf> = None, any;
        /// Name of this node, which no other has; "" is that of the machine.
        node: Option<String> = None, node;
        /// Where other nodes reach this one by HTTP: "http://10.0.0.7:8080"; "" is the address that it listens on.
        advertise: Option<Url> = None, node_url;
        /// Where they reach its RTMP: "10.0.0.7:1935"; "" is the host of the above with its own port.
        advertise_rtmp: Option<String> = None, any;
        /// Seconds that sessions have to pause in what they say before they move, when the node is drained or told to end.
        drain_seconds: u32 = 30, within(0..=3600);
        /// Servers that keep what JetStream keeps: 1, or up to as many as there are.
        replicas: u32 = 1, within(1..=5);
        /// Megabytes of speech that waits to be spoken, of all sessions together, which JetStream keeps.
        speech_mb: u32 = 256, within(1..=100_000);
    }
}

section! {
    /// Bounds on what clients may take.
    Limits "limits" {
        /// HTTP connections at a time.
        connections: u32 = 512, within(8..=100_000);
        /// Seconds in which a request's head must have come.
        header_seconds: u32 = 10, within(1..=300);
        /// Seconds in which some of a request's body must come.
        body_idle_seconds: u32 = 30, within(1..=3600);
        /// Largest JSON or SDP body, in kilobytes.
        json_kb: u32 = 256, within(16..=4096);
        /// Largest speech file or stream of one request, in megabytes.
        speak_mb: u32 = 512, within(1..=10_000);
        /// Largest input of an offline render, in megabytes.
        render_mb: u32 = 2000, within(1..=100_000);
    }
}

#[allow(clippy::ptr_arg, reason = "a check takes the key's own type")]
fn origins(origins: &Vec<String>) -> Result<(), String> {
    let good = |text: &String| {
        text == "*"
            || Url::parse(text).is_ok_and(|url| url.origin().is_tuple() && url.origin().ascii_serialization() == *text)
    };
    let must = "each of the list must be an origin, scheme and host without a path: \"https://app.example\", or \"*\"";
    if origins.iter().all(good) { Ok(()) } else { Err(must.into()) }
}

/// The engines of `a -> b -> c`.
pub(super) fn chain_of(text: &str) -> Vec<String> {
    text.split("->").map(|engine| engine.trim().to_owned()).collect()
}

#[allow(clippy::ptr_arg, reason = "a check takes the key's own type")]
fn chains(chains: &Vec<String>) -> Result<(), String> {
    let good = |text: &String| {
        let chain = chain_of(text);
        let twice = |(n, name): (usize, &String)| chain[..n].contains(name);
        chain.len() > 1 && chain.iter().all(|name| engine(name).is_ok()) && !chain.iter().enumerate().any(twice)
    };
    let must = "each of the list must be two engines or more, none of them twice: \"latentsync15 -> compact\"";
    if chains.iter().all(good) { Ok(()) } else { Err(must.into()) }
}

/// The name of an engine, which may say a version.
#[allow(clippy::ptr_arg, reason = "a check takes the key's own type")]
fn engine(text: &String) -> Result<(), String> {
    let (name, version) = text.split_once('@').unwrap_or((text, "1"));
    path_part(&name.to_owned()).and(path_part(&version.to_owned()))
}

#[allow(clippy::ref_option, reason = "a check takes the key's own type")]
fn node(name: &Option<String>) -> Result<(), String> {
    name.as_ref().map_or(Ok(()), |name| cluster::check_name(name))
}

#[allow(clippy::ref_option, reason = "a check takes the key's own type")]
fn node_url(url: &Option<Url>) -> Result<(), String> {
    let good = |url: &Url| url.scheme() == "http" && url.path() == "/" && url.query().is_none();
    let must = "must be http://HOST:PORT: nodes talk to one another on a network of their own, without TLS";
    if url.as_ref().is_none_or(good) { Ok(()) } else { Err(must.into()) }
}

#[allow(clippy::ptr_arg, reason = "a check takes the key's own type")]
fn path_part(text: &String) -> Result<(), String> {
    let good = (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && !text.starts_with('.');
    if good { Ok(()) } else { Err("must be 1 to 64 of a-z A-Z 0-9 . _ -".into()) }
}

#[allow(clippy::ptr_arg, reason = "a check takes the key's own type")]
fn ice_servers(servers: &Vec<String>) -> Result<(), String> {
    let must = "each of the list must be \"stun:HOST:PORT\" or \"turn:USER:PASSWORD@HOST:PORT\"";
    if servers.iter().all(|server| ice_server(server).is_some()) { Ok(()) } else { Err(must.into()) }
}

/// `turn:user:password@host:port?transport=udp` in its parts.
pub(super) fn ice_server(text: &str) -> Option<IceServer> {
    let (scheme, rest) = text.split_once(':')?;
    let turn = matches!(scheme, "turn" | "turns");
    let (user, host) = rest.rsplit_once('@').map_or((None, rest), |(user, host)| (Some(user), host));
    if host.is_empty() || (!turn && (user.is_some() || !matches!(scheme, "stun" | "stuns"))) {
        return None;
    }
    let user = user.map(|user| user.split_once(':')).map_or(Some(None), |split| split.map(Some))?;
    Some(IceServer {
        urls: vec![format!("{scheme}:{host}")],
        username: user.map(|(name, _)| name.to_owned()),
        credential: user.map(|(_, password)| password.to_owned()),
    })
}

#[allow(clippy::ptr_arg, reason = "a check takes the key's own type")]
fn device(device: &String) -> Result<(), String> {
    let parsed = device.parse::<runtime::Device>();
    parsed.map(|_| ()).map_err(|_| "must be auto, cpu, openvino, cuda[:n] or tensorrt[:n]".into())
}

#[allow(clippy::ptr_arg, reason = "a check takes the key's own type")]
fn encoder(encoder: &String) -> Result<(), String> {
    encoder.parse::<session::Encoder>().map(drop)
}
