//! The configuration: a TOML file, environment variables over it, every key checked.

mod sections;

use std::{fmt::Write as _, path::Path, path::PathBuf, time::Duration};

use etcetera::BaseStrategy;
use lipstream_engines::{occlusion::Masks, runtime};

pub use self::sections::{Auth, Avatars, Cluster, Limits, Marks, Renders, Rtmp, Server, Sessions, Storage, Webrtc};
use self::sections::{chain_of, ice_server};
use super::{
    section::{Section, check_known, suggest},
    value::{Secret, Value},
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
const SESSION_KEYS: [&str; 18] = [
    "id",
    "graph",
    "engine",
    "look_ahead_ms",
    "speaker",
    "speaker_b",
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

#[cfg(test)]
mod tests;
