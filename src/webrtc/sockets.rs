//! UDP: one port for all peers.
//!
//! A datagram belongs to the peer whose ICE name its STUN request carries (the user name is `ours:theirs`, RFC 8445
//! section 7.2.2); other datagrams to the peer that has proven to own their source address. Everything else is dropped.
//!
//! A server for this machine alone listens at the machine's other addresses too: Firefox and libnice take no part on
//! loopback. It hears no other machine there. A request from an address that is not this machine's own is dropped, and
//! the system drops what comes over a network under an IPv4 address of this machine.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdSocket},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use parking_lot::RwLock;
use str0m::ice::StunMessage;
use tokio::{net::UdpSocket, sync::mpsc, task::JoinSet};

use super::Settings;
use crate::error::{Failure, Result};

/// Datagrams that may wait for a peer's task; more are lost, as in a network.
pub(super) const INBOX: usize = 512;
/// Source addresses that one peer may own; a browser has a few a network interface.
const MAX_SOURCES: usize = 16;
/// Largest datagram that is read; peers keep below the MTU of an Ethernet.
const MAX_DATAGRAM: usize = 2048;

/// What has come for a peer.
pub(super) struct Datagram {
    pub at: Instant,
    pub source: SocketAddr,
    /// The candidate at which it came.
    pub destination: SocketAddr,
    pub data: Bytes,
}

struct Port {
    socket: UdpSocket,
    /// The address that peers are told of.
    candidate: SocketAddr,
}

/// The sockets and who listens to them.
pub(super) struct Sockets {
    ports: Vec<Port>,
    table: RwLock<Table>,
    this_machine: bool,
    stray: AtomicU64,
}

#[derive(Default)]
struct Table {
    names: HashMap<String, (u64, mpsc::Sender<Datagram>)>,
    sources: HashMap<SocketAddr, (u64, mpsc::Sender<Datagram>)>,
}

impl Sockets {
    /// Binds the sockets. To be called inside the runtime.
    pub fn bind(settings: &Settings) -> Result<Self> {
        let mut addresses = settings.bind.clone();
        if addresses.is_empty() || settings.this_machine {
            addresses.extend(local_addresses().into_iter().filter(|address| !settings.bind.contains(address)));
        }
        let sockets = match &settings.ports {
            None => bind_all(&addresses, 0),
            Some(range) => range.clone().find_map(|port| bind_all(&addresses, port).ok()).ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::AddrInUse,
                    format!("no UDP port of {}-{} is free", range.start(), range.end()),
                )
            }),
        }
        .map_err(|error| {
            let names: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            Failure::run(format!("cannot listen for WebRTC on {}: {error}", names.join(", ")))
        })?;
        let mut ports = Vec::new();
        for socket in sockets {
            let io = |error: io::Error| Failure::run(format!("cannot listen for WebRTC: {error}"));
            let local = socket.local_addr().map_err(io)?;
            let candidate = match settings.public.iter().find(|public| public.is_ipv4() == local.is_ipv4()) {
                Some(public) if !local.ip().is_loopback() && !settings.this_machine => {
                    SocketAddr::new(*public, local.port())
                }
                _ => local,
            };
            if candidate.ip().is_unspecified() {
                return Err(Failure::usage(format!(
                    "WebRTC listens on {}, which peers cannot be told of: name the address, or set the public one",
                    local.ip()
                )));
            }
            socket.set_nonblocking(true).map_err(io)?;
            if ports.iter().all(|port: &Port| port.candidate != candidate) {
                ports.push(Port { socket: UdpSocket::from_std(socket).map_err(io)?, candidate });
            }
        }
        Ok(Self { ports, table: RwLock::default(), this_machine: settings.this_machine, stray: AtomicU64::new(0) })
    }

    /// Addresses that peers are told of.
    pub fn candidates(&self) -> impl Iterator<Item = SocketAddr> {
        self.ports.iter().map(|port| port.candidate)
    }

    /// Sends at once or not at all: what does not fit into the socket's buffer is lost, as in a network.
    pub fn send(&self, source: SocketAddr, destination: SocketAddr, data: &[u8]) {
        let port = self.ports.iter().find(|port| port.candidate == source);
        if let Some(port) = port.or_else(|| self.ports.first()) {
            // A peer whose packets are lost or whose address cannot be reached asks again or times out.
            let _ = port.socket.try_send_to(data, destination);
        }
    }

    /// Reads until the future is dropped.
    pub async fn read(self: Arc<Self>) {
        let mut tasks = JoinSet::new();
        for index in 0..self.ports.len() {
            let this = self.clone();
            tasks.spawn(async move { this.read_port(index).await });
        }
        tasks.join_all().await;
    }

    async fn read_port(&self, index: usize) {
        let port = &self.ports[index];
        let mut buffer = vec![0; MAX_DATAGRAM];
        loop {
            match port.socket.recv_from(&mut buffer).await {
                Ok((size, source)) => self.dispatch(port.candidate, source, &buffer[..size]),
                Err(error) => {
                    // An ICMP answer to something sent (the peer is gone) shows up here and concerns one peer only.
                    tracing::debug!(%error, "WebRTC socket");
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    fn dispatch(&self, destination: SocketAddr, source: SocketAddr, data: &[u8]) {
        let inbox = {
            let name = name(data).filter(|_| !self.this_machine || is_own(source.ip()));
            let table = self.table.read();
            let named = name.and_then(|name| table.names.get(&name));
            named.or_else(|| table.sources.get(&source)).map(|(_, inbox)| inbox.clone())
        };
        let Some(inbox) = inbox else {
            self.stray.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let datagram = Datagram { at: Instant::now(), source, destination, data: Bytes::copy_from_slice(data) };
        if inbox.try_send(datagram).is_err() {
            self.stray.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sends STUN requests to `name` to a peer's inbox.
    pub fn listen(&self, name: &str, peer: u64, inbox: mpsc::Sender<Datagram>) {
        self.table.write().names.insert(name.to_owned(), (peer, inbox));
    }

    /// Gives a peer what comes from `source`, after a STUN request from there has shown the peer's password.
    pub fn claim(&self, source: SocketAddr, peer: u64, inbox: &mpsc::Sender<Datagram>) {
        if self.table.read().sources.get(&source).is_some_and(|(owner, _)| *owner == peer) {
            return;
        }
        let mut table = self.table.write();
        if table.sources.values().filter(|(owner, _)| *owner == peer).count() < MAX_SOURCES {
            table.sources.insert(source, (peer, inbox.clone()));
        }
    }

    /// Forgets a peer.
    pub fn forget(&self, peer: u64) {
        let mut table = self.table.write();
        table.names.retain(|_, (owner, _)| *owner != peer);
        table.sources.retain(|_, (owner, _)| *owner != peer);
    }

    /// Datagrams that belonged to nobody or came faster than their peer took them.
    pub fn stray(&self) -> u64 {
        self.stray.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    fn entries(&self) -> usize {
        let table = self.table.read();
        table.names.len() + table.sources.len()
    }
}

/// Whether a datagram is STUN, by its first byte (RFC 7983 section 7).
pub(super) fn is_stun(data: &[u8]) -> bool {
    matches!(data.first(), Some(0..=3))
}

/// Our half of the user name of a STUN request.
fn name(data: &[u8]) -> Option<String> {
    if !is_stun(data) {
        return None;
    }
    let message = StunMessage::parse(data).ok()?;
    message.is_binding_request().then(|| message.split_username().map(|(ours, _)| ours.to_owned()))?
}

/// Whether an address is one of this machine's: only those can be bound.
fn is_own(address: IpAddr) -> bool {
    address.to_canonical().is_loopback() || StdSocket::bind((address, 0)).is_ok()
}

fn bind_all(addresses: &[IpAddr], port: u16) -> io::Result<Vec<StdSocket>> {
    addresses.iter().map(|address| StdSocket::bind((*address, port))).collect()
}

/// Loopback, and the addresses from which this machine reaches the networks of either family.
fn local_addresses() -> Vec<IpAddr> {
    let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    // Addresses for documentation (RFC 5737, RFC 3849): connecting a UDP socket sends nothing, it only asks for a route.
    let probes = [
        (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))),
        (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))),
    ];
    for (from, to) in probes {
        let route = StdSocket::bind((from, 0)).and_then(|socket| {
            socket.connect((to, 9))?;
            socket.local_addr()
        });
        if let Ok(route) = route
            && !addresses.contains(&route.ip())
        {
            addresses.push(route.ip());
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings::default()
    }

    #[tokio::test]
    async fn a_range_of_ports_gives_its_first_free_one() {
        let first = Sockets::bind(&settings()).expect("loopback");
        let taken = first.candidates().next().expect("one socket").port();
        let range = taken..=taken.saturating_add(20);
        let second = Sockets::bind(&Settings { ports: Some(range), ..settings() }).expect("one of 20 is free");
        assert_ne!(second.candidates().next().expect("one socket").port(), taken);
        let error = Sockets::bind(&Settings { ports: Some(taken..=taken), ..settings() }).err().expect("taken");
        assert!(error.to_string().contains(&taken.to_string()), "{error}");
    }

    #[tokio::test]
    async fn a_public_address_replaces_the_local_one() {
        let public = IpAddr::from([203, 0, 113, 5]);
        let bind = vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2])];
        let sockets = Sockets::bind(&Settings { bind, public: vec![public], ..settings() }).expect("loopback");
        assert!(sockets.candidates().all(|candidate| candidate.ip().is_loopback()), "loopback is never public");
        let wildcard = Settings { bind: vec![IpAddr::from([0, 0, 0, 0])], ..settings() };
        assert!(Sockets::bind(&wildcard).is_err(), "no peer can be told of 0.0.0.0");
        let sockets = Sockets::bind(&Settings { public: vec![public], ..wildcard }).expect("any");
        assert_eq!(sockets.candidates().next().expect("one").ip(), public);
    }

    #[tokio::test]
    async fn a_server_for_this_machine_is_at_its_other_addresses_and_hears_no_other_machine() {
        let sockets = Sockets::bind(&Settings { this_machine: true, ..settings() }).expect("own addresses");
        let told: Vec<IpAddr> = sockets.candidates().map(|candidate| candidate.ip()).collect();
        assert_eq!(told, local_addresses(), "loopback first");
        let (inbox, mut datagrams) = mpsc::channel(8);
        sockets.listen("abcd", 7, inbox);
        let request = request("abcd:efgh");
        let from = |ip: IpAddr| sockets.dispatch(SocketAddr::new(told[0], 1), SocketAddr::new(ip, 9), &request);
        from(IpAddr::from([198, 51, 100, 7]));
        from("2001:db8::7".parse().expect("an address"));
        assert_eq!(sockets.stray(), 2);
        assert!(datagrams.try_recv().is_err(), "another machine is heard");
        told.iter().for_each(|own| from(*own));
        told.iter().for_each(|own| assert_eq!(datagrams.try_recv().expect("heard").source.ip(), *own));
    }

    /// A STUN request with a user name, and with a priority and a signature of nothing, without which it is none.
    fn request(name: &str) -> Vec<u8> {
        let padded = name.len().next_multiple_of(4);
        let mut data = vec![0, 1, 0, (4 + padded + 8 + 24) as u8, 0x21, 0x12, 0xa4, 0x42];
        data.extend([0; 12]);
        data.extend([0, 6, 0, name.len() as u8]);
        data.extend(name.bytes());
        data.resize(24 + padded, 0);
        data.extend([0, 0x24, 0, 4, 0, 0, 0, 1]);
        data.extend([0, 8, 0, 20]);
        data.extend([0; 20]);
        data
    }

    #[tokio::test]
    async fn a_peer_that_goes_leaves_nothing_and_may_not_own_the_world() {
        let sockets = Sockets::bind(&settings()).expect("loopback");
        let (inbox, _datagrams) = mpsc::channel(1);
        sockets.listen("abcd", 7, inbox.clone());
        for port in 1..1000 {
            sockets.claim(SocketAddr::from(([127, 0, 0, 1], port)), 7, &inbox);
        }
        assert_eq!(sockets.entries(), 1 + MAX_SOURCES);
        sockets.forget(7);
        assert_eq!(sockets.entries(), 0);
    }

    #[test]
    fn garbage_names_nobody() {
        for data in [&[][..], &[0], &[0, 1, 0, 8, 0x21], &[0; 2000], &[0x80; 40], b"GET / HTTP/1.1"] {
            assert_eq!(name(data), None);
        }
    }
}
