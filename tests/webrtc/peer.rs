//! A WebRTC client over loopback: offers, trickles, sends, receives, loses packets and stalls as it is told.

use std::{
    collections::VecDeque,
    net::{SocketAddr, UdpSocket},
    sync::mpsc::{Receiver, Sender, channel},
    thread::JoinHandle,
    time::{Duration, Instant, UNIX_EPOCH},
};

use str0m::{
    Candidate, Event, Input, Output, Rtc,
    change::{SdpAnswer, SdpPendingOffer},
    format::Codec,
    media::{Direction, Frequency, KeyframeRequestKind, MediaKind, MediaTime, Mid},
    net::{Protocol, Receive},
};

/// A frame or sound as it has come.
#[derive(Debug)]
pub struct Media {
    pub video: bool,
    pub codec: Codec,
    pub data: Vec<u8>,
    pub contiguous: bool,
    /// RTP time and clock rate.
    pub rtp: u64,
    pub rate: u32,
    /// The last Sender Report of its stream: the wall clock time in seconds that belongs to this RTP time.
    pub captured: Option<f64>,
}

/// What a peer is told.
pub enum Order {
    Answer(String),
    /// Loses every n-th media packet that comes.
    Lose(usize),
    /// Loses every n-th media packet that it sends.
    LoseSent(usize),
    /// Takes media at this rate, in bit/s, through a queue of a quarter of a second; more is lost.
    Throttle(u64),
    Pli,
    /// Stops reading and sending, without a word.
    Stall,
    /// Sends a frame or a sound with its time.
    Send {
        video: bool,
        time: Duration,
        data: Vec<u8>,
    },
    /// Says good-bye.
    Close,
    /// New ICE credentials, as they go into a fragment, and those of the answer to it.
    Restart(Sender<(String, String)>),
    Restarted(String),
}

/// What a peer says.
#[derive(Debug)]
pub enum News {
    Connected,
    Media(Media),
    KeyFrameWanted,
    Gone,
}

pub struct Peer {
    pub offer: String,
    orders: Sender<Order>,
    pub news: Receiver<News>,
    thread: Option<JoinHandle<()>>,
}

/// What is offered.
#[derive(Clone, Copy)]
pub struct Wish {
    pub video: Option<Codec>,
    pub audio: bool,
    pub direction: Direction,
    /// Whether the offer names the peer's own address.
    pub candidates: bool,
}

pub const PLAY: Wish = Wish { video: Some(Codec::H264), audio: true, direction: Direction::RecvOnly, candidates: true };
pub const PUBLISH: Wish = Wish { direction: Direction::SendOnly, ..PLAY };

impl Peer {
    pub fn new(wish: Wish) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
        let local = socket.local_addr().unwrap();
        let now = Instant::now();
        let mut rtc = Rtc::builder()
            .clear_codecs()
            .enable_opus(true, false)
            .enable_h264(wish.video == Some(Codec::H264))
            .enable_vp8(wish.video == Some(Codec::Vp8))
            .set_rtcp_report_interval_audio(Duration::from_millis(300))
            .set_rtcp_report_interval_video(Duration::from_millis(300))
            .build(now);
        rtc.add_local_candidate(Candidate::host(local, "udp").unwrap());
        let mut changes = rtc.sdp_api();
        let audio = wish.audio.then(|| changes.add_media(MediaKind::Audio, wish.direction, None, None, None));
        let video = wish.video.map(|_| changes.add_media(MediaKind::Video, wish.direction, None, None, None));
        let (offer, pending) = changes.apply().unwrap();
        let mut text = offer.to_sdp_string();
        if !wish.candidates {
            text = text.lines().filter(|l| !l.contains("candidate")).map(|l| format!("{l}\r\n")).collect();
        }
        let (orders, receiver) = channel();
        let (sender, news) = channel();
        let mut work = Work {
            rtc,
            pending: Some(pending),
            socket,
            local,
            audio,
            video,
            news: sender,
            packets: 0,
            lose: None,
            sent: 0,
            lose_sent: None,
            throttle: None,
            queue: VecDeque::new(),
            stalled: false,
        };
        let thread = std::thread::spawn(move || work.run(&receiver));
        Self { offer: text, orders, news, thread: Some(thread) }
    }

    pub fn tell(&self, order: Order) {
        self.orders.send(order).unwrap();
    }

    /// Waits for the connection.
    pub fn connected(&self) {
        self.wait("a connection", |news| matches!(news, News::Connected).then_some(()));
    }

    /// The first of the news that is wanted.
    pub fn wait<T>(&self, what: &str, mut wanted: impl FnMut(News) -> Option<T>) -> T {
        let until = Instant::now() + Duration::from_secs(15);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.news.recv_timeout(left) {
                Ok(news) => {
                    if let Some(found) = wanted(news) {
                        return found;
                    }
                }
                Err(_) => panic!("no {what} in 15 s"),
            }
        }
    }

    /// What comes until so many pictures and so many sounds have, however slow the machine is.
    pub fn enough(&self, pictures: usize, sounds: usize) -> Vec<Media> {
        let mut media: Vec<Media> = Vec::new();
        let mut left = [sounds, pictures];
        while left != [0, 0] {
            let one = self.wait("medium more", |news| if let News::Media(one) = news { Some(one) } else { None });
            let left = &mut left[usize::from(one.video)];
            *left = left.saturating_sub(1);
            media.push(one);
        }
        media
    }

    /// Media that come in this time.
    pub fn media(&self, time: Duration) -> Vec<Media> {
        let until = Instant::now() + time;
        let mut media = Vec::new();
        while let Ok(news) = self.news.recv_timeout(until.saturating_duration_since(Instant::now())) {
            if let News::Media(one) = news {
                media.push(one);
            }
        }
        media
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::Stall);
        let (nobody, _) = channel();
        drop(std::mem::replace(&mut self.orders, nobody));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Work {
    rtc: Rtc,
    pending: Option<SdpPendingOffer>,
    socket: UdpSocket,
    local: SocketAddr,
    audio: Option<Mid>,
    video: Option<Mid>,
    news: Sender<News>,
    packets: usize,
    lose: Option<usize>,
    sent: usize,
    lose_sent: Option<usize>,
    throttle: Option<u64>,
    /// Packets on their way through a slow link, with the time of their arrival.
    queue: VecDeque<(Instant, SocketAddr, Vec<u8>)>,
    stalled: bool,
}

impl Work {
    fn run(&mut self, orders: &Receiver<Order>) {
        let mut buffer = vec![0; 2000];
        loop {
            loop {
                match orders.try_recv() {
                    Ok(order) => {
                        self.obey(order);
                        self.drain();
                    }
                    Err(std::sync::mpsc::TryRecvError::Empty) => break,
                    Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
                }
            }
            let read = self.socket.recv_from(&mut buffer);
            let now = Instant::now();
            if self.stalled {
                continue;
            }
            if let Ok((size, source)) = read {
                self.arrive(now, source, &buffer[..size]);
            }
            while self.queue.front().is_some_and(|(at, ..)| *at <= now) {
                let (at, source, data) = self.queue.pop_front().unwrap();
                self.receive(at, source, &data);
            }
            self.rtc.handle_input(Input::Timeout(Instant::now())).unwrap();
            self.drain();
            if !self.rtc.is_alive() {
                let _ = self.news.send(News::Gone);
                self.stalled = true;
            }
        }
    }

    fn arrive(&mut self, now: Instant, source: SocketAddr, data: &[u8]) {
        let media = is_media(data);
        if media {
            self.packets += 1;
            if self.lose.is_some_and(|n| self.packets.is_multiple_of(n)) {
                return;
            }
        }
        if let (true, Some(rate)) = (media, self.throttle) {
            let from = self.queue.back().map_or(now, |(at, ..)| *at).max(now);
            if from - now < Duration::from_millis(250) {
                let length = Duration::from_secs_f64(data.len() as f64 * 8.0 / rate as f64);
                self.queue.push_back((from + length, source, data.to_vec()));
            }
            return;
        }
        self.receive(now, source, data);
    }

    fn receive(&mut self, at: Instant, source: SocketAddr, data: &[u8]) {
        if let Ok(receive) = Receive::new(Protocol::Udp, source, self.local, data) {
            self.rtc.handle_input(Input::Receive(at, receive)).unwrap();
            self.drain();
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Answer(answer) => {
                let answer = SdpAnswer::from_sdp_string(&answer).unwrap();
                self.rtc.sdp_api().accept_answer(self.pending.take().unwrap(), answer).unwrap();
            }
            Order::Lose(n) => self.lose = Some(n),
            Order::LoseSent(n) => self.lose_sent = Some(n),
            Order::Throttle(rate) => self.throttle = Some(rate),
            Order::Stall => self.stalled = true,
            Order::Close => self.rtc.close().unwrap(),
            Order::Pli => {
                let mut writer = self.rtc.writer(self.video.unwrap()).unwrap();
                writer.request_keyframe(None, KeyframeRequestKind::Pli).unwrap();
            }
            Order::Send { video, time, data } => {
                let (mid, rate) =
                    if video { (self.video, Frequency::NINETY_KHZ) } else { (self.audio, Frequency::FORTY_EIGHT_KHZ) };
                let ticks = (time.as_nanos() * u128::from(rate.get()) / 1_000_000_000) as u64;
                let Some(writer) = self.rtc.writer(mid.unwrap()) else { return };
                let Some(pt) = writer.payload_params().next().map(|params| params.pt()) else { return };
                let _ = writer.write(pt, Instant::now(), MediaTime::new(ticks, rate), data);
            }
            Order::Restart(reply) => {
                let mut changes = self.rtc.sdp_api();
                let credentials = changes.ice_restart(true);
                let (_, pending) = changes.apply().unwrap();
                self.pending = Some(pending);
                reply.send((credentials.ufrag, credentials.pass)).unwrap();
            }
            Order::Restarted(answer) => {
                let answer = SdpAnswer::from_sdp_string(&answer).unwrap();
                self.rtc.sdp_api().accept_answer(self.pending.take().unwrap(), answer).unwrap();
            }
        }
    }

    fn drain(&mut self) {
        loop {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(_) => return,
                Output::Transmit(out) => {
                    if is_media(&out.contents) {
                        self.sent += 1;
                        if self.lose_sent.is_some_and(|n| self.sent.is_multiple_of(n)) {
                            continue;
                        }
                    }
                    let _ = self.socket.send_to(&out.contents, out.destination);
                }
                Output::Event(event) => self.hear(event),
            }
        }
    }

    fn hear(&self, event: Event) {
        let news = match event {
            Event::Connected => News::Connected,
            Event::KeyframeRequest(_) => News::KeyFrameWanted,
            Event::MediaData(data) => {
                let rate = data.time.denom();
                let captured = data.last_sender_info.map(|info| {
                    let ntp = info.ntp_time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
                    let since = data.time.numer() as i64 - info.rtp_time.numer() as i64;
                    ntp + since as f64 / f64::from(rate)
                });
                News::Media(Media {
                    video: Some(data.mid) == self.video,
                    codec: data.params.spec().codec,
                    data: data.data.to_vec(),
                    contiguous: data.contiguous,
                    rtp: data.time.numer(),
                    rate,
                    captured,
                })
            }
            _ => return,
        };
        let _ = self.news.send(news);
    }
}

/// Media are RTP by their first byte, and not RTCP by their second (RFC 5761).
fn is_media(data: &[u8]) -> bool {
    data.len() > 1 && (128..192).contains(&data[0]) && !(192..224).contains(&data[1])
}
