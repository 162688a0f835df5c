//! The configuration: a TOML file, environment variables over it, every key checked.

use std::{fmt::Write as _, net::IpAddr, path::Path, path::PathBuf, time::Duration};

use etcetera::BaseStrategy;
use lipstream_engines::{occlusion::Masks, runtime};
use url::Url;

use super::{
    section::{Section, check_known, section, suggest},
    value::{NatsUrl, Secret, StorageUrl, StoreUrl, Value, any, within},
};
use crate::{
    cluster,
    error::{Failure, Result},
    http::IceServer,
    jobs,
    marks::Identity,
    session::{self, OnPublish, SessionSpec},
    storage, webrtc,
};

/// Largest configuration file that is read.
const MAX_FILE: u64 = 1 << 20;
/// Prefix of environment variables that override keys: `LIPSTREAM_<SECTION>_<KEY>`.
const PREFIX: &str = "LIPSTREAM_";
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

/// Everything that `lipstream serve` can be told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    pub server: Server,
    pub auth: Auth,
    pub rtmp: Rtmp,
    pub webrtc: Webrtc,
    pub sessions: Sessions,
    pub avatars: Avatars,
    pub renders: Renders,
    pub storage: Storage,
    pub marks: Marks,
    pub cluster: Cluster,
    pub limits: Limits,
    /// Sessions that exist from the start.
    pub session: Specs,
}

/// The `[[session]]` entries.
#[derive(Clone, Debug, Default)]
pub struct Specs(pub Vec<SessionSpec>);

impl PartialEq for Specs {
    fn eq(&self, other: &Self) -> bool {
        format!("{self:?}") == format!("{other:?}")
    }
}

/// Keys of a `[[session]]`.
const SESSION_KEYS: [&str; 17] = [
    "id",
    "graph",
    "engine",
    "look_ahead_ms",
    "speaker",
    "occlusion",
    "alpha",
    "label",
    "label_corner",
    "params",
    "avatar",
    "pull",
    "push",
    "play",
    "stream_key",
    "always_on",
    "idle_seconds",
];

const SESSION_HELP: &str = r#"
# Sessions that exist from the start, one [[session]] each; more come and go through the API. Remove the # to use one.
#
# An avatar that speaks what is posted to /api/v1/sessions/NAME/speak:
#[[session]]
#id = "anna"                # in URLs: letters, digits, . _ -
#graph = "avatar"           # avatar, relay, dub, rtmp-push, or a file NAME.toml in sessions.graphs
#avatar = "demo"
#always_on = true           # runs without viewers too
#idle_seconds = 30          # else stops so long after the last viewer
#params = { motion-gain = "1.2" }  # parameters of the graph; their values are strings
#
# A live stream whose lips follow its own sound, published by RTMP or WHIP and pushed on:
#[[session]]
#id = "stage"
#graph = "relay"
#stream_key = "a secret"    # publishers add ?key=... to the URL
#play = "stage-synced"      # RTMP clients may play it under this name too
#push = ["rtmp://live.example/app/KEY"]
#
# A stream that the server reads itself:
#[[session]]
#id = "remote"
#graph = "relay"
#pull = "rtmp://origin.example/live/name"
"#;

impl Config {
    /// The file, if any, with the environment over it.
    pub fn load(file: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Result<Self> {
        let mut config = match file {
            Some(path) => Self::parse(&path.display().to_string(), &read(path)?)?,
            None => Self::default(),
        };
        config.override_by(environment)?;
        config.check()?;
        Ok(config)
    }

    /// Reads a configuration file; `origin` is what errors call it.
    pub fn parse(origin: &str, text: &str) -> Result<Self> {
        let failure = |cause: String| Failure::usage(format!("{origin}: {cause}"));
        let file: toml::Table = toml::from_str(text).map_err(|e| failure(e.to_string().trim_end().to_owned()))?;
        let mut config = Self::default();
        for (name, value) in &file {
            if name == "session" {
                config.session = Specs(specs(value).map_err(&failure)?);
                continue;
            }
            let tables: Vec<&str> = config.sections().iter().map(|s| s.table()).chain(["session"]).collect();
            let mut sections = config.sections();
            let Some(section) = sections.iter_mut().find(|section| section.table() == name) else {
                return Err(failure(format!("has no section [{name}]; {}", suggest(name, tables.iter().copied()))));
            };
            let Some(table) = value.as_table() else {
                return Err(failure(format!("{name} = {value}: must be a section, [{name}]")));
            };
            for (key, value) in table {
                check_known(origin, &**section, key)?;
                section.set(key, value).map_err(&failure)?;
            }
        }
        Ok(config)
    }

    /// Environment variables of our sections; others that begin alike are not ours to judge.
    fn override_by(&mut self, environment: impl Iterator<Item = (String, String)>) -> Result<()> {
        for (name, text) in environment {
            let Some(rest) = name.strip_prefix(PREFIX).map(str::to_ascii_lowercase) else { continue };
            for section in self.sections() {
                let Some(key) = rest.strip_prefix(section.table()).and_then(|r| r.strip_prefix('_')) else { continue };
                check_known(&name, section, key)?;
                section.set_text(key, &text).map_err(|cause| Failure::usage(format!("{name}={cause}")))?;
            }
        }
        Ok(())
    }

    /// Rules between keys.
    fn check(&self) -> Result<()> {
        let (min, max) = (self.webrtc.udp_port_min, self.webrtc.udp_port_max);
        if (min == 0) != (max == 0) || min > max {
            return Err(Failure::usage(format!(
                "webrtc.udp_port_min = {min}, webrtc.udp_port_max = {max}: both must be 0, or a range of ports"
            )));
        }
        let listeners = [("server.bind", self.server.bind, true), ("rtmp.bind", self.rtmp.bind, self.rtmp.enabled)];
        for (key, bind, used) in listeners {
            if used && !bind.is_loopback() && !self.open_or_has_keys() {
                return Err(Failure::usage(format!(
                    "{key} = \"{bind}\": is reachable from other machines and nothing is asked for; set auth.keys, or \
                     auth.allow_open = true to let everyone in"
                )));
            }
        }
        if let Some(url) = self.server.public_url.as_ref().filter(|_| self.public() && !self.open_or_has_keys()) {
            return Err(Failure::usage(format!(
                "server.public_url = \"{url}\": others reach this server by it and nothing is asked for; set auth.keys, or \
                 auth.allow_open = true to let everyone in"
            )));
        }
        let mut ids: Vec<&str> = self.session.0.iter().map(|spec| spec.id.as_str()).collect();
        ids.sort_unstable();
        match ids.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(Failure::usage(format!("[[session]] id = \"{}\": is there twice", pair[0]))),
            None => Ok(()),
        }
    }

    fn on_publish(&self) -> OnPublish {
        let key = self.sessions.publish_key.as_ref().map(|key| key.0.clone());
        let trusted =
            key.is_some() || (self.rtmp.bind.is_loopback() && self.server.bind.is_loopback() && !self.public());
        match self.sessions.on_publish.as_str() {
            "refuse" => OnPublish::Refuse,
            "auto" if !trusted => OnPublish::Refuse,
            "auto" => OnPublish::Begin { graph: "relay".into(), key },
            graph => OnPublish::Begin { graph: graph.to_owned(), key },
        }
    }

    fn open_or_has_keys(&self) -> bool {
        let auth = &self.auth;
        auth.allow_open || !auth.keys.is_empty() || auth.keys_file.is_some() || auth.store.is_some()
    }

    /// Whether clients of other machines come by the public URL.
    fn public(&self) -> bool {
        self.server.public_url.as_ref().is_some_and(|url| match url.host() {
            Some(url::Host::Domain(name)) => name != "localhost",
            Some(url::Host::Ipv4(address)) => !address.is_loopback(),
            Some(url::Host::Ipv6(address)) => !address.is_loopback(),
            None => false,
        })
    }

    fn sections(&mut self) -> [&mut dyn Section; 11] {
        [
            &mut self.server,
            &mut self.auth,
            &mut self.rtmp,
            &mut self.webrtc,
            &mut self.sessions,
            &mut self.avatars,
            &mut self.renders,
            &mut self.storage,
            &mut self.marks,
            &mut self.cluster,
            &mut self.limits,
        ]
    }

    /// A commented file with the defaults, which parses to them.
    pub fn template() -> String {
        let mut config = Self::default();
        let mut out = String::from(
            "# Configuration of `lipstream serve`. Every key shows its default and may be left out.\n\
             # An environment variable LIPSTREAM_<SECTION>_<KEY> goes before the file: LIPSTREAM_SERVER_PORT=9000.\n",
        );
        for section in config.sections() {
            out.push('\n');
            comment(&mut out, section.about());
            // Writing to a String does not fail.
            let _ = writeln!(out, "[{}]", section.table());
            for (key, doc) in section.keys() {
                comment(&mut out, doc);
                let _ = writeln!(out, "{key} = {}", section.show(key));
            }
        }
        out.push_str(SESSION_HELP);
        out
    }

    /// All bearer keys, those of the file too.
    pub fn keys(&self) -> Result<Vec<Secret>> {
        let mut keys = self.auth.keys.clone();
        if let Some(path) = &self.auth.keys_file {
            let text = read(path)?;
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            for (number, line) in lines.enumerate() {
                let key = Secret::from_text(line);
                let failure = |must| Failure::usage(format!("{}: key {}: {must}", path.display(), number + 1));
                keys.push(key.map_err(failure)?);
            }
            if keys.is_empty() {
                return Err(Failure::usage(format!("auth.keys_file = \"{}\": has no key", path.display())));
            }
        }
        Ok(keys)
    }

    /// Sessions that exist from the start, the demo among them.
    pub fn specs(&self) -> Vec<SessionSpec> {
        let mut specs = self.session.0.clone();
        if self.sessions.demo && specs.iter().all(|spec| spec.id != "demo") {
            let mut demo = SessionSpec::new("demo", "avatar");
            demo.avatar = Some("demo".into());
            demo.always_on = true;
            // Its video runs through the shapes of a mouth.
            demo.params.insert("idle".into(), "rest".into());
            specs.insert(0, demo);
        }
        specs
    }

    /// What the manager wants to know.
    pub fn manager(&self) -> session::Settings {
        let sessions = &self.sessions;
        session::Settings {
            graphs: sessions.graphs.clone(),
            idle: Duration::from_secs(sessions.idle_seconds.into()),
            speech: Duration::from_secs(sessions.speech_seconds.into()),
            speech_kept: Duration::from_secs(sessions.speech_kept_seconds.into()),
            max_sessions: sessions.max_sessions as usize,
            load: sessions.load,
            count_others: sessions.count_others,
            batch_timeout: Duration::from_millis(sessions.batch_timeout_ms.into()),
            sync_check: Duration::from_secs(sessions.sync_check_seconds.into()),
            sync_correct: Duration::from_secs(sessions.sync_correct_seconds.into()),
            on_publish: self.on_publish(),
            private_addresses: sessions.private_addresses,
            files: sessions.files,
            engine: sessions.engine.clone(),
            device: sessions.device.clone(),
            // Found out when the service starts.
            encoder: session::ChosenEncoder::default(),
            fallbacks: sessions.fallbacks.iter().map(|chain| chain_of(chain)).collect(),
            occlusion: self.masks(),
            marks: self.marks.streams,
            watermark: self.marks.watermark,
        }
    }

    /// What encodes H.264; it asks GStreamer.
    pub fn encoder(&self) -> Result<session::ChosenEncoder> {
        let encoder = self.sessions.encoder.parse::<session::Encoder>();
        session::ChosenEncoder::of(encoder.map_err(|e| Failure::usage(format!("sessions.encoder: {e}")))?)
    }

    /// STUN and TURN servers.
    pub fn ice_servers(&self) -> Vec<IceServer> {
        self.webrtc.ice_servers.iter().filter_map(|server| ice_server(server)).collect()
    }

    /// What WebRTC is told. It hears this machine only, as long as all clients are there: media passes no HTTP proxy.
    pub fn webrtc(&self) -> webrtc::Settings {
        let own = &self.webrtc;
        let this_machine = self.server.bind.is_loopback() && !self.public();
        let servers = self.ice_servers().into_iter();
        let server = |s: IceServer| webrtc::IceServer { urls: s.urls, username: s.username, credential: s.credential };
        webrtc::Settings {
            bind: if this_machine { vec![self.server.bind] } else { Vec::new() },
            this_machine,
            ports: (own.udp_port_max > 0).then_some(own.udp_port_min..=own.udp_port_max),
            public: own.public_ips.clone(),
            ice_servers: servers.map(server).collect(),
            max_viewers: own.max_viewers as usize,
            max_publishers: own.max_publishers as usize,
            ..webrtc::Settings::default()
        }
    }

    /// The NATS servers of `line`, as the command line has them, in place of those of the file.
    pub fn set_cluster(&mut self, line: &str) -> Result<()> {
        self.cluster.url = Value::from_text(line).map_err(|must| Failure::usage(format!("--cluster: {must}")))?;
        Ok(())
    }

    /// How the cluster is reached; `None` where this machine is alone.
    pub fn cluster(&self) -> Result<Option<cluster::Settings>> {
        let own = &self.cluster;
        if own.url.is_empty() {
            return Ok(None);
        }
        Ok(Some(cluster::Settings {
            servers: own.url.iter().map(|url| url.0.clone()).collect(),
            credentials: own.credentials.clone(),
            certificates: own.certificates.clone(),
            node: own.node.clone().map_or_else(cluster::host_name, Ok)?,
            replicas: own.replicas as usize,
        }))
    }

    /// What looks for what is before faces.
    fn masks(&self) -> Masks {
        let Ok(masks) = self.sessions.occlusion.parse();
        masks
    }

    /// What offline renders are told.
    pub fn renders(&self) -> Result<jobs::Settings> {
        let device = self.sessions.device.parse();
        Ok(jobs::Settings {
            waiting: self.renders.max_waiting as usize,
            kept_for: Duration::from_secs(u64::from(self.renders.kept_hours) * 3600),
            bytes: u64::from(self.renders.kept_gb) << 30,
            engine: self.sessions.engine.clone(),
            runtime: runtime::Options {
                device: device.map_err(|e| Failure::usage(format!("sessions.device: {e}")))?,
                ..runtime::Options::default()
            },
            occlusion: self.masks(),
            signer: self.signer()?,
            watermark: self.marks.watermark,
            split: Some(self.renders.split_seconds).filter(|s| *s > 0).map(|s| Duration::from_secs(s.into())),
            ..jobs::Settings::default()
        })
    }

    /// Where results are kept; `None`: with the renders.
    pub fn storage(&self) -> Option<storage::Settings> {
        let own = &self.storage;
        Some(storage::Settings {
            url: own.url.as_ref()?.0.clone(),
            endpoint: own.endpoint.clone(),
            region: Some(own.region.clone()).filter(|region| !region.is_empty()),
            credentials: own.credentials_file.clone(),
        })
    }

    /// Who signs files.
    fn signer(&self) -> Result<Option<Identity>> {
        match (&self.marks.certificate, &self.marks.certificate_key) {
            _ if !self.marks.files => Ok(None),
            (Some(chain), Some(key)) => Identity::from_files(chain, key).map(Some),
            (None, None) => Identity::self_made().map(Some),
            _ => Err(Failure::usage("marks.certificate, marks.certificate_key: set both or none")),
        }
    }

    /// Folder of the avatars.
    pub fn avatars_folder(&self) -> Result<PathBuf> {
        self.avatars.folder.clone().map_or_else(|| data("avatars"), Ok)
    }

    /// Folder of the offline renders.
    pub fn renders_folder(&self) -> Result<PathBuf> {
        self.renders.folder.clone().map_or_else(|| data("renders"), Ok)
    }
}

/// A folder of ours in the user's data.
fn data(name: &str) -> Result<PathBuf> {
    let missing = |_| Failure::usage(format!("{name}.folder: neither XDG_DATA_HOME nor HOME is set; name a folder"));
    Ok(etcetera::choose_base_strategy().map_err(missing)?.data_dir().join("lipstream").join(name))
}

fn read(path: &Path) -> Result<String> {
    let failure = |cause: String| Failure::input(format!("{}: {cause}", path.display()));
    let meta = std::fs::metadata(path).map_err(|e| failure(e.to_string()))?;
    if !meta.is_file() || meta.len() > MAX_FILE {
        return Err(failure("is not a text file of at most a megabyte".into()));
    }
    std::fs::read_to_string(path).map_err(|e| failure(e.to_string()))
}

fn comment(out: &mut String, lines: &[&str]) {
    for line in lines {
        let _ = writeln!(out, "#{line}");
    }
}

fn specs(value: &toml::Value) -> Result<Vec<SessionSpec>, String> {
    let entries = value.as_array().ok_or("session: must be entries, [[session]]")?;
    let mut specs = Vec::new();
    for entry in entries {
        let table = entry.as_table().ok_or("session: must be entries, [[session]]")?;
        let id = table.get("id").and_then(toml::Value::as_str).unwrap_or("without id");
        if let Some(key) = table.keys().find(|key| !SESSION_KEYS.contains(&key.as_str())) {
            let hint = suggest(key, SESSION_KEYS.into_iter());
            return Err(format!("[[session]] `{id}` has no key `{key}`; {hint}"));
        }
        let spec = entry.clone().try_into::<SessionSpec>();
        specs.push(spec.map_err(|e| format!("[[session]] `{id}`: {}", e.to_string().trim_end()))?);
    }
    Ok(specs)
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
fn chain_of(text: &str) -> Vec<String> {
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
fn ice_server(text: &str) -> Option<IceServer> {
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

#[cfg(test)]
mod tests;
