//! What the service says when it is ready: where it is, and a line to try it with.

use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::Config;

/// Where clients reach the service.
pub struct Addresses {
    http: String,
    rtmp: Option<String>,
}

impl Addresses {
    pub fn new(config: &Config, http: SocketAddr, rtmp: Option<SocketAddr>) -> Self {
        let public = config.server.public_url.as_ref();
        let own = format!("http://{}", reachable(http));
        let host = public.and_then(|url| url.host_str());
        let rtmp = rtmp.map(|address| match host {
            Some(host) => format!("rtmp://{host}:{}/{}", address.port(), config.rtmp.app),
            None => format!("rtmp://{}/{}", reachable(address), config.rtmp.app),
        });
        Self { http: public.map_or(own, |url| url.as_str().trim_end_matches('/').to_owned()), rtmp }
    }

    /// Where RTMP clients publish and play, without the session.
    pub fn rtmp(&self) -> Option<String> {
        self.rtmp.clone()
    }

    pub fn print(&self, config: &Config) {
        // Whoever reads this may have gone; the service goes on.
        let _ = self.write(config, &mut std::io::stdout().lock());
    }

    fn write(&self, config: &Config, out: &mut impl Write) -> std::io::Result<()> {
        let http = &self.http;
        writeln!(out, "Page     {http}/")?;
        writeln!(out, "API      {http}/api/v1/sessions, described by {http}/openapi.json")?;
        if let Some(rtmp) = &self.rtmp {
            writeln!(out, "RTMP     publish {rtmp}/SESSION, play {rtmp}/SESSION/synced")?;
        }
        writeln!(out, "WebRTC   publish {http}/whip/SESSION, play {http}/whep/SESSION")?;
        let specs = config.specs();
        if let Some(spec) = specs.first() {
            let auth = &config.auth;
            let open = auth.keys.is_empty() && auth.keys_file.is_none() && auth.store.is_none();
            let key = if open { "" } else { "-H 'Authorization: Bearer KEY' " };
            writeln!(out, "Speak    curl -X POST -T speech.wav {key}{http}/api/v1/sessions/{}/speak", spec.id)?;
        }
        out.flush()
    }
}

/// An address that a client can use where all of the machine's are bound.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port()),
        _ => address,
    }
}
