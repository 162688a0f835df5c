//! What may be set about WebRTC.

use std::{net::IpAddr, ops::RangeInclusive, time::Duration};

use crate::error::{Failure, Result};

/// A STUN or TURN server that clients are told of, in the `Link` headers of RFC 9725 section 4.6.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IceServer {
    /// `stun:host:port`, `turn:host:port?transport=udp`, ...
    pub urls: Vec<String>,
    pub username: Option<String>,
    pub credential: Option<String>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Addresses to listen on; empty takes loopback and the addresses of the default routes.
    pub bind: Vec<IpAddr>,
    /// All clients are on this machine: media is offered at its other addresses too, and what comes from elsewhere is
    /// dropped. Firefox and libnice use no loopback address.
    pub this_machine: bool,
    /// UDP ports of which the first free one is taken: all peers share it. `None` lets the system choose.
    pub ports: Option<RangeInclusive<u16>>,
    /// Addresses under which clients reach the server where they are not its own: behind NAT, in a container.
    pub public: Vec<IpAddr>,
    pub ice_servers: Vec<IceServer>,
    /// Most viewers of all sessions together.
    pub max_viewers: usize,
    /// Most publishers of all sessions together.
    pub max_publishers: usize,
    /// Bit rate up to which a viewer's network is probed, in bit/s, sound included.
    pub max_bitrate: u32,
    /// Time in which a peer must have connected.
    pub setup_timeout: Duration,
    /// Silence of its network after which a peer is gone. Browsers send a consent check every 5 s at most (RFC 7675).
    pub idle_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bind: vec![IpAddr::from([127, 0, 0, 1])],
            this_machine: false,
            ports: None,
            public: Vec::new(),
            ice_servers: Vec::new(),
            max_viewers: 200,
            max_publishers: 32,
            max_bitrate: 6_000_000,
            setup_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(12),
        }
    }
}

impl Settings {
    pub(super) fn check(&self) -> Result<()> {
        for server in &self.ice_servers {
            for url in &server.urls {
                link(url, server).map_err(|what| Failure::usage(format!("ICE server `{url}`: {what}")))?;
            }
        }
        match &self.ports {
            Some(ports) if ports.is_empty() || *ports.start() == 0 => Err(Failure::usage(format!(
                "WebRTC ports {}-{}: the first must be 1 or more and not above the last",
                ports.start(),
                ports.end()
            ))),
            _ => Ok(()),
        }
    }

    /// Values of the `Link` headers.
    pub(super) fn links(&self) -> Vec<String> {
        self.ice_servers
            .iter()
            .flat_map(|server| server.urls.iter().filter_map(move |url| link(url, server).ok()))
            .collect()
    }
}

fn link(url: &str, server: &IceServer) -> Result<String, &'static str> {
    let plain = |text: &str| text.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '<' | '>'));
    if !["stun:", "stuns:", "turn:", "turns:"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err("the URL starts with stun:, stuns:, turn: or turns:");
    }
    if !plain(url) {
        return Err("no space, quote or angle bracket may be in the URL");
    }
    let mut value = format!("<{url}>; rel=\"ice-server\"");
    if let (Some(username), Some(credential)) = (&server.username, &server.credential) {
        if !plain(username) || !plain(credential) {
            return Err("no space, quote or angle bracket may be in username and credential");
        }
        value += &format!("; username=\"{username}\"; credential=\"{credential}\"; credential-type=\"password\"");
    } else if url.starts_with("turn") {
        return Err("a TURN server needs `username` and `credential`");
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_name_each_server_with_its_credentials() {
        let settings = Settings {
            ice_servers: vec![
                IceServer { urls: vec!["stun:stun.example.org:3478".into()], ..IceServer::default() },
                IceServer {
                    urls: vec!["turn:turn.example.org?transport=udp".into()],
                    username: Some("anna".into()),
                    credential: Some("s3cret".into()),
                },
            ],
            ..Settings::default()
        };
        settings.check().expect("both are valid");
        assert_eq!(
            settings.links(),
            [
                "<stun:stun.example.org:3478>; rel=\"ice-server\"",
                "<turn:turn.example.org?transport=udp>; rel=\"ice-server\"; username=\"anna\"; \
                 credential=\"s3cret\"; credential-type=\"password\"",
            ]
        );
    }

    #[test]
    fn servers_that_cannot_be_a_header_are_refused() {
        for url in ["http://stun.example.org", "stun:a b", "stun:\u{e4}.org", "turn:turn.example.org"] {
            let server = IceServer { urls: vec![url.into()], ..IceServer::default() };
            let settings = Settings { ice_servers: vec![server], ..Settings::default() };
            let error = settings.check().expect_err(url).to_string();
            assert!(error.contains(url), "{error}");
        }
    }
}
