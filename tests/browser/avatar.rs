//! `<lipstream-avatar>` of `sdk/js` in a real Chromium, as pages have it.

use std::{
    io::Write,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::{
    ALONE,
    chromium::Chromium,
    common::{root, service::Service},
    number,
};

/// Puts an element in a page, and helpers beside it. `until(f)` waits until `f()` is something.
const PAGE: &str = "(async () => {
    await import('/web/lipstream.js');
    window.sleep = (ms) => new Promise((done) => setTimeout(done, ms));
    window.until = async (what, ms = 20000) => {
        const end = performance.now() + ms;
        for (;;) {
            const found = await what();
            if (found) return found;
            if (performance.now() > end) throw new Error(`not within ${ms} ms: ${what}`);
            await sleep(50);
        }
    };
    window.inbound = async () => {
        const found = { frames: 0, energy: 0 };
        for (const report of (await avatar.player.peer.getStats()).values()) {
            if (report.type !== 'inbound-rtp') continue;
            if (report.kind === 'video') found.frames = report.framesDecoded;
            else found.energy = report.totalAudioEnergy;
        }
        return found;
    };
    window.states = [];
    window.avatar = document.createElement('lipstream-avatar');
    avatar.addEventListener('state', ({ detail }) => states.push(detail.state));
    avatar.setAttribute('session', 'demo');
    document.body.append(avatar);
    await until(() => avatar.state === 'playing');
    return [avatar.video.videoWidth, avatar.video.videoHeight];
})()";

#[test]
fn the_avatar_element_plays_speaks_and_is_interrupted() {
    if !crate::chromium::installed() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let service = Service::start("");
    let mut browser = Chromium::open(&service.url);
    assert_eq!(browser.run(PAGE), serde_json::json!([1280, 720]));
    assert_eq!(browser.run("states"), serde_json::json!(["connecting", "playing"]));
    assert_eq!(browser.run("avatar.shadowRoot.querySelector('.note').hidden"), true);

    // A tone of 1.5 s in pieces, as an agent's TTS gives it.
    let told = browser.run(
        "(async () => {
            window.told = [];
            for (const type of ['agent.speak_started', 'agent.speak_ended', 'agent.speak_interrupted', 'agent.interrupted']) {
                avatar.speech.on(type, (event) => told.push(event.type));
            }
            const before = await inbound();
            const utterance = avatar.begin('tone');
            for (let piece = 0; piece < 30; piece++) {
                utterance.write(Int16Array.from({ length: 1200 }, (_, i) => 9000 * Math.sin((piece * 1200 + i) / 12)));
            }
            const end = await utterance.end();
            const after = await inbound();
            return { end, told: [...told], energy: after.energy - before.energy, frames: after.frames - before.frames };
        })()",
    );
    assert_eq!(told["told"], serde_json::json!(["agent.speak_started", "agent.speak_ended"]), "{told}");
    assert!((number(&told["end"], "spokenMs") - 1500.0).abs() < 30.0 && told["end"]["cut"].is_null(), "{told}");
    assert!(number(&told, "energy") > 1e-3 && number(&told, "frames") > 20.0, "{told}");

    let speech = root().join("demo/speech.flac");
    let bytes: Vec<String> = std::fs::read(speech).unwrap().iter().map(u8::to_string).collect();
    let cut = browser.run(&format!(
        "(async () => {{
            const queued = await avatar.speak(new Blob([new Uint8Array([{}])], {{ type: 'audio/flac' }}), {{ utterance: 'file' }});
            await until(() => avatar.session.status().then((s) => s.speaking));
            const ms = await avatar.interrupt();
            const status = await until(() => avatar.session.status().then((s) => !s.speaking && s));
            return {{ queued: queued.seconds, ms, left: status.speech_queued_ms }};
        }})()",
        bytes.join(",")
    ));
    assert!(number(&cut, "queued") > 3.0 && number(&cut, "left") == 0.0, "{cut}");
    assert!((0.0..1000.0).contains(&number(&cut, "ms")), "{cut}");

    let silent = browser.run("avatar.begin('silence').end()");
    assert_eq!(number(&silent, "spokenMs"), 0.0, "{silent}");

    // The fake microphone beeps.
    let heard = browser.run(
        "(async () => {
            const before = (await inbound()).energy;
            await avatar.startMicrophone();
            const voice = await until(() => avatar.session.status().then((s) => s.publishing_voice));
            await until(() => inbound().then((now) => now.energy > before + 1e-4));
            avatar.stopMicrophone();
            const gone = await until(() => avatar.session.status().then((s) => !s.publishing_voice));
            return { voice, gone, on: avatar.microphoneOn };
        })()",
    );
    assert_eq!(heard, serde_json::json!({ "voice": true, "gone": true, "on": false }));

    let source = browser.run(
        "(async () => {
            const peer = new RTCPeerConnection();
            peer.addTransceiver('video', { direction: 'recvonly' });
            await peer.setLocalDescription();
            const offer = { method: 'POST', headers: { 'Content-Type': 'application/sdp' }, body: peer.localDescription.sdp };
            const answer = await fetch('/whep/demo', offer);
            await fetch(answer.headers.get('Location'), { method: 'DELETE' });
            return answer.headers.get('X-Digital-Source-Type');
        })()",
    );
    assert!(source.as_str().is_some_and(|s| s.ends_with("/compositeWithTrainedAlgorithmicMedia")), "{source}");

    // Out of the page it takes nothing; moved within it, it goes on.
    browser.run("document.body.prepend(avatar); sleep(300)");
    assert_eq!(browser.run("avatar.state"), "playing");
    // The server's own page is a viewer too.
    let viewers = service.session("demo")["viewers"].as_u64().unwrap();
    browser.run("avatar.remove(); sleep(300)");
    assert_eq!(browser.run("avatar.state"), "closed");
    let gone = (0..50).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        service.session("demo")["viewers"].as_u64() == Some(viewers - 1)
    });
    assert!(gone, "{viewers} viewers, and still {}", service.session("demo")["viewers"]);
}

#[test]
fn the_avatar_element_comes_back_after_the_server() {
    if !crate::chromium::installed() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let service = Service::start("");
    let port = service.url.rsplit(':').next().unwrap().to_owned();
    let mut browser = Chromium::open(&service.url);
    browser.run(PAGE);
    browser.run("avatar.speech.open()");
    drop(service);
    browser.run("until(() => avatar.state === 'reconnecting')");
    assert_eq!(browser.run("avatar.shadowRoot.querySelector('.note').textContent"), "Reconnecting…");
    let _again = Service::start_with("", &[("LIPSTREAM_SERVER_PORT", &port)]);
    browser.run("until(() => avatar.state === 'playing', 40000)");
    let end = browser.run(
        "(async () => {
            const utterance = avatar.begin();
            utterance.write(new Int16Array(12000).fill(0));
            return utterance.end();
        })()",
    );
    assert!((number(&end, "spokenMs") - 500.0).abs() < 30.0, "{end}");
}

/// A folder by HTTP, as a site of its own has it.
pub struct Site {
    child: Child,
    pub url: String,
}

impl Site {
    pub fn of(folder: &str) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("python3")
            .args(["-m", "http.server", &port.to_string(), "--bind", "127.0.0.1", "--directory"])
            .arg(root().join(folder))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let there = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        assert!(there, "python3 serves nothing");
        Self { child, url: format!("http://127.0.0.1:{port}") }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_page_of_another_origin_has_the_avatar_by_a_token() {
    if !crate::chromium::installed() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let site = Site::of("contrib/digital-human");
    let key = "0123456789abcdef-key";
    let service =
        Service::start_with("", &[("LIPSTREAM_AUTH_KEYS", key), ("LIPSTREAM_SERVER_CORS_ORIGINS", &site.url)]);
    let page = |secret: &str, session: &str| format!("{}/?server={}&session={session}{secret}", site.url, service.url);
    let wait = |what: &str| {
        format!(
            "(async () => {{
                let avatar;
                for (let i = 0; i < 800; i++) {{
                    // The page makes it once it has the module.
                    avatar = document.getElementById('avatar');
                    if (avatar?.state && {what}) return avatar.shadowRoot.querySelector('.note').textContent;
                    await new Promise((done) => setTimeout(done, 50));
                }}
                return `not so: ${{avatar?.state}} ${{avatar?.shadowRoot?.querySelector('.note').textContent}}`;
            }})()"
        )
    };
    // Nothing is shown to who has no key, and it is said once.
    let mut browser = Chromium::open(&page("", "demo"));
    let said = browser.run(&wait("avatar.state === 'refused'"));
    assert!(said.as_str().unwrap().contains("asks for a key"), "{said}");
    drop(browser);
    let ask = |call: &str, bearer: &str, body: &str| -> Value {
        let url = format!("{}/api/v1/liveavatar/sessions/{call}", service.url);
        let answer = ureq::post(url)
            .header("Authorization", format!("Bearer {bearer}"))
            .header("Content-Type", "application/json")
            .send(body)
            .unwrap();
        serde_json::from_str(&answer.into_body().read_to_string().unwrap()).unwrap()
    };
    let token = ask("token", key, r#"{"avatar_id": "demo", "mode": "LITE"}"#)["data"]["session_token"].clone();
    let token = token.as_str().unwrap();
    let begun = ask("start", token, "{}");
    let session = begun["data"]["session_id"].as_str().unwrap_or_else(|| panic!("{begun}"));
    // As browsers are, which play no sound before a click.
    let policy = ["--autoplay-policy=document-user-activation-required"];
    let mut browser = Chromium::open_with(&page(&format!("#token={token}"), session), &policy);
    assert_eq!(browser.look(&wait("avatar.state === 'playing'")), "");
    let sound = "(async () => {
        const unmute = avatar.shadowRoot.querySelector('[part=unmute]');
        for (let i = 0; i < 100 && unmute.hidden; i++) await new Promise((done) => setTimeout(done, 50));
        return [unmute.hidden, avatar.video.muted, avatar.video.paused, avatar.video.getAttribute('aria-label')];
    })()";
    assert_eq!(browser.look(sound), serde_json::json!([false, true, false, "The digital human"]));
    browser.run("avatar.shadowRoot.querySelector('[part=unmute]').click()");
    assert_eq!(browser.run(&wait("!avatar.video.muted && !avatar.video.paused")), "");
    let spoken = browser.run(
        "avatar.speak(new Int16Array(8000).buffer, { type: 'audio/L16;rate=16000;channels=1' }).then(({ seconds }) => seconds)",
    );
    // The resampler keeps a little.
    assert!(spoken.as_f64().is_some_and(|seconds| (seconds - 0.5).abs() < 0.05), "{spoken}");
    assert!(browser.run("avatar.interrupt()").as_f64().is_some());
    let state = || -> Value {
        let url = format!("{}/api/v1/sessions/{session}", service.url);
        let answer = ureq::get(url).header("Authorization", format!("Bearer {key}")).call().unwrap();
        serde_json::from_str(&answer.into_body().read_to_string().unwrap()).unwrap()
    };
    let becomes = |field: &str, value: Value| {
        (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(100));
            state()[field] == value
        })
    };
    browser.run("document.getElementById('talk').click()");
    assert!(becomes("publishing_voice", true.into()), "{}", state());
    browser.run("document.getElementById('talk').click()");
    assert!(becomes("publishing_voice", false.into()), "{}", state());
    assert_eq!(state()["viewers"], 1);
    browser.run("location.href = 'about:blank'");
    assert!(becomes("viewers", 0.into()), "the page is left: {}", state());
}

/// More than the session has space for waits in the page, and none of it is lost.
#[test]
fn speech_that_is_made_faster_than_it_fits_is_spoken_whole() {
    if !crate::chromium::installed() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let service = Service::start_with("", &[("LIPSTREAM_SESSIONS_SPEECH_SECONDS", "2")]);
    let mut browser = Chromium::open(&service.url);
    browser.run(PAGE);
    let end = browser.run(
        "(() => {
            const utterance = avatar.begin();
            for (let second = 0; second < 5; second++) utterance.write(new Int16Array(24000).fill(1000));
            return utterance.end();
        })()",
    );
    assert!((number(&end, "spokenMs") - 5000.0).abs() < 60.0 && end["cut"].is_null(), "{end}");
}

/// The block of `language` in the section of docs/agents.md.
fn example(section: &str, language: &str) -> String {
    let text = std::fs::read_to_string(root().join("docs/agents.md")).unwrap();
    let (_, after) = text.split_once(&format!("\n## {section}\n")).expect("docs/agents.md has the section");
    let (_, block) = after.split_once(&format!("\n```{language}\n")).expect("the section has the block");
    block.split_once("\n```").expect("the block ends").0.to_owned()
}

#[test]
fn the_agents_of_ten_lines_speak_as_they_are_written() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let service = Service::start("");
    let folder = tempfile::tempdir().unwrap();
    // A voice that takes no words: espeak-ng is not there everywhere.
    let (voice, wav) = (folder.path().join("espeak-ng"), folder.path().join("voice.wav"));
    crate::common::ffmpeg("-f lavfi -i sine=d=0.5", &wav);
    std::fs::write(&voice, format!("#!/bin/sh\ncat {}\n", wav.display())).unwrap();
    crate::common::succeed(Command::new("chmod").arg("+x").arg(&voice));
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let run = |command: &mut Command| {
        let command =
            command.env("PATH", &path).env("PYTHONPATH", "sdk/python/src").env("PYTHONDONTWRITEBYTECODE", "1");
        let mut child = command.current_dir(root()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"Hello there\n").unwrap();
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let seconds = told.trim().strip_suffix(" s").and_then(|seconds| seconds.parse::<f64>().ok());
        assert!(output.status.success() && seconds.is_some_and(|s| (s - 0.5).abs() < 0.1), "{}: {told}", output.status);
    };
    let code = |language| example("In ten lines", language).replace("http://127.0.0.1:8080", &service.url);
    let python = root().join(".lipstream/agents/bin/python");
    if python.exists() {
        run(Command::new(python).args(["-c", &code("python")]));
    } else {
        println!("skipped: {} is not there (LIPSTREAM_SETUP_TESTS=1 scripts/setup.sh)", python.display());
    }
    if Command::new("node").arg("--version").output().is_ok() {
        run(Command::new("node").args(["--input-type=module", "-e", &code("js")]));
    } else {
        println!("skipped: there is no node");
    }
}
