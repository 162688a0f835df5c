//! The other side of WHIP: offers a session's output to a server, for pushing.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use str0m::{
    Candidate, Event, IceConnectionState, Input, Output, Rtc,
    bwe::Bitrate,
    change::{SdpAnswer, SdpPendingOffer},
    media::{Direction, MediaKind, Mid},
    net::{Protocol, Receive},
};
use tokio::net::UdpSocket;

use super::{
    Settings, codecs, dtls,
    negotiate::{FIRST_GUESS, extensions, track},
    play::Play,
};
use crate::{
    address::is_public,
    live::{Packet, Viewer},
};

/// Largest datagram.
const DATAGRAM: usize = 2048;
/// How often it looks whether the server is still there.
const TICK: Duration = Duration::from_millis(250);
/// The stream that both tracks belong to.
const STREAM: &str = "lipstream";

/// An offer that waits for its answer.
pub(crate) struct Caller {
    rtc: Rtc,
    pending: SdpPendingOffer,
    mids: [Mid; 2],
    socket: UdpSocket,
    local: SocketAddr,
}

/// An agreed connection.
pub(crate) struct Call {
    rtc: Rtc,
    play: Play,
    socket: UdpSocket,
    local: SocketAddr,
    connected: bool,
    start: Instant,
    heard: Instant,
}

impl Caller {
    /// Offers H.264 in constrained baseline and Opus, from an address of this machine. Gives the offer's text too.
    pub async fn offer(from: IpAddr) -> Result<(Self, String), String> {
        let socket = UdpSocket::bind((from, 0)).await.map_err(|error| format!("no UDP port for WebRTC: {error}"))?;
        let local = socket.local_addr().map_err(|error| error.to_string())?;
        let mut config = Rtc::builder()
            .set_crypto_provider(dtls::provider())
            .set_extension_map(extensions())
            .enable_bwe(Some(Bitrate::bps(FIRST_GUESS)));
        codecs::offered(config.codec_config());
        let mut rtc = config.build(Instant::now());
        let candidate = Candidate::host(local, "udp").map_err(|error| error.to_string())?;
        rtc.add_local_candidate(candidate);
        let mut change = rtc.sdp_api();
        let mids = [MediaKind::Video, MediaKind::Audio]
            .map(|kind| change.add_media(kind, Direction::SendOnly, Some(STREAM.into()), None, None));
        let (offer, pending) = change.apply().ok_or("the offer is empty")?;
        let text = offer.to_sdp_string();
        Ok((Self { rtc, pending, mids, socket, local }, text))
    }

    /// Takes the answer; without `private`, candidates that are no public addresses are passed over. `viewer` watches
    /// H.264 and Opus, and `first` is what has come from it.
    pub fn answer(mut self, answer: &str, private: bool, viewer: Viewer, first: Packet) -> Result<Call, String> {
        let wrong = |error: &dyn std::fmt::Display| format!("the server's answer is no SDP that fits: {error}");
        let kept: Vec<&str> = answer.lines().filter(|line| private || !is_private_candidate(line)).collect();
        let answer = SdpAnswer::from_sdp_string(&(kept.join("\r\n") + "\r\n")).map_err(|error| wrong(&error))?;
        self.rtc.sdp_api().accept_answer(self.pending, answer).map_err(|error| wrong(&error))?;
        let [video, audio] = self.mids.map(|mid| track(&mut self.rtc, mid));
        if video.is_none() {
            return Err("the server takes no H.264 in constrained baseline".into());
        }
        let mut play = Play::new(viewer, video, audio);
        play.take(first, false);
        let now = Instant::now();
        let Self { rtc, socket, local, .. } = self;
        Ok(Call { rtc, play, socket, local, connected: false, start: now, heard: now })
    }
}

impl Call {
    /// Sends until the session ends, which is `Ok`, or the connection breaks. `connected` is called when media flow.
    pub async fn run(mut self, settings: &Settings, connected: impl Fn()) -> Result<(), String> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut buffer = vec![0; DATAGRAM];
        let failed = |error: str0m::RtcError| format!("WebRTC: {error}");
        loop {
            let before = self.connected;
            let deadline = self.drain(settings).await.map_err(failed)?;
            if self.connected && !before {
                connected();
            }
            if !self.rtc.is_alive() {
                return Err("the server has ended the connection".into());
            }
            if !self.connected && self.start.elapsed() > settings.setup_timeout {
                return Err("no media connection: no UDP packet of the server's candidates came back".into());
            }
            if self.connected && self.heard.elapsed() > settings.idle_timeout {
                return Err("the server has fallen silent".into());
            }
            let now = Instant::now();
            if self.connected && self.play.write(&mut self.rtc, now).map_err(failed)? {
                self.drain(settings).await.map_err(failed)?;
                self.rtc.handle_input(Input::Timeout(now)).map_err(failed)?;
                continue;
            }
            let due = self.play.due().filter(|_| self.connected).unwrap_or(now + TICK).min(deadline);
            tokio::select! {
                packet = self.play.next() => match packet {
                    Some(packet) => self.play.take(packet, self.connected),
                    None => {
                        // It says good-bye; the server may be gone.
                        let _ = self.rtc.close();
                        let _ = self.drain(settings).await;
                        return Ok(());
                    }
                },
                received = self.socket.recv_from(&mut buffer) => {
                    // An ICMP answer shows up as an error here; the timeouts decide.
                    let Ok((size, source)) = received else { continue };
                    let Ok(receive) = Receive::new(Protocol::Udp, source, self.local, &buffer[..size]) else { continue };
                    let input = Input::Receive(Instant::now(), receive);
                    if self.rtc.accepts(&input) {
                        self.heard = Instant::now();
                        self.rtc.handle_input(input).map_err(failed)?;
                    }
                }
                () = tokio::time::sleep_until(due.into()) => {
                    self.rtc.handle_input(Input::Timeout(Instant::now())).map_err(failed)?;
                }
                _ = tick.tick() => {}
            }
        }
    }

    /// Sends what is to be sent and hears what has happened; gives the time at which the library wants to be called.
    async fn drain(&mut self, settings: &Settings) -> Result<Instant, str0m::RtcError> {
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(at) => return Ok(at),
                Output::Transmit(out) => {
                    // What the system does not take is lost, as in a network.
                    let _ = self.socket.send_to(&out.contents, out.destination).await;
                }
                Output::Event(Event::Connected) if !self.connected => {
                    self.connected = true;
                    self.play.connect(&mut self.rtc, settings.max_bitrate, Instant::now());
                }
                Output::Event(Event::IceConnectionStateChange(IceConnectionState::Disconnected)) => {
                    tracing::debug!("WHIP push: connection lost");
                }
                Output::Event(Event::KeyframeRequest(_)) => self.play.picture_lost(Instant::now()),
                Output::Event(Event::EgressBitrateEstimate(estimate)) => {
                    self.play.estimate(&estimate, Instant::now());
                }
                Output::Event(_) => {}
            }
        }
    }
}

/// A candidate whose address is none that everybody may be sent packets to; names are not looked up.
fn is_private_candidate(line: &str) -> bool {
    let Some(candidate) = line.strip_prefix("a=candidate:") else { return false };
    let address = candidate.split_ascii_whitespace().nth(4).and_then(|address| address.parse::<IpAddr>().ok());
    address.is_none_or(|address| !is_public(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_offer_has_what_servers_take() {
        let (_, offer) = Caller::offer(IpAddr::from([127, 0, 0, 1])).await.unwrap();
        for part in ["a=sendonly", "profile-level-id=42e01f", "opus/48000/2", "a=setup:actpass", "a=group:BUNDLE"] {
            assert!(offer.contains(part), "{part}: {offer}");
        }
        assert!(!offer.contains("video-orientation") && !offer.contains("VP8"), "{offer}");
    }

    #[test]
    fn candidates_in_private_networks_are_told() {
        for (address, private) in [("10.0.0.1", true), ("x.local", true), ("1.1.1.1", false), ("::1", true)] {
            assert_eq!(
                is_private_candidate(&format!("a=candidate:1 1 UDP 1 {address} 9 typ host")),
                private,
                "{address}"
            );
        }
        assert!(!is_private_candidate("a=mid:0"));
    }
}
