//! The operator's page in a real Chromium: what its forms send.

use std::{
    io::Write,
    net::TcpStream,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    ALONE,
    chromium::Chromium,
    common::{demo_video, ffmpeg, service::Service, succeed},
    harness::{KEY, Nats, Node},
};

/// The value of a script, as soon as it is something.
#[track_caller]
fn until(browser: &mut Chromium, script: &str) -> Value {
    let start = Instant::now();
    loop {
        let found = browser.run(script);
        if found.as_str().is_some_and(|text| !text.is_empty()) || found == json!(true) {
            return found;
        }
        let said = browser.run("document.getElementById('uploads').textContent");
        assert!(start.elapsed() < Duration::from_secs(120), "{script}: {found}, uploads: {said}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn the_form_for_an_avatar_sends_the_consent_of_its_person_and_the_page_shows_it() {
    if !crate::chromium::installed() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let asked = [("LIPSTREAM_AVATARS_REQUIRE_CONSENT", "true"), ("LIPSTREAM_SESSIONS_DEMO", "false")];
    let service = Service::start_with("", &asked);
    let folder = tempfile::tempdir().unwrap();
    let clip = folder.path().join("clip.mp4");
    let size = "-an -t 1.2 -vf scale=640:-2 -c:v libx264 -preset ultrafast";
    ffmpeg(&format!("-i {} {size}", demo_video().display()), &clip);
    let base64 = String::from_utf8(succeed(Command::new("base64").args(["-w0"]).arg(&clip)).stdout).unwrap();
    let mut browser = Chromium::open(&service.url);
    until(&mut browser, "document.querySelectorAll('#avatars li').length > 0");
    browser.run(&format!(
        "window.dialog = document.getElementById('avatar-dialog');
        window.send = (name, fill) => {{
            document.getElementById('new-avatar').click();
            const fields = dialog.querySelector('form').elements;
            fields.name.value = name;
            const bytes = Uint8Array.from(atob('{base64}'), (c) => c.charCodeAt(0));
            const files = new DataTransfer();
            files.items.add(new File([bytes], 'clip.mp4', {{ type: 'video/mp4' }}));
            fields.video.files = files.files;
            for (const [field, value] of Object.entries(fill)) fields[field].value = value;
            dialog.querySelector('button[type=submit]').click();
        }};"
    ));
    // The operator asks for a record, and the form says what is missing.
    browser.run("send('nobody', {})");
    let refused = until(&mut browser, "dialog.querySelector('.form-error').textContent");
    assert!(refused.as_str().unwrap().contains("consent"), "{refused}");
    browser.run("dialog.querySelector('.cancel').click()");

    browser.run(
        "send('zoe', { person: 'Zoë Åström', date: '2026-11-28', purpose: 'Films of Example Ltd', statement: 'I agree.' })",
    );
    let shown = until(
        &mut browser,
        "dialog.querySelector('.form-error').textContent || document.querySelector('#avatars .consent')?.textContent",
    );
    assert_eq!(shown, "Zoë Åström agreed on 2026-11-28: Films of Example Ltd");
    let avatars: Value = serde_json::from_str(&service.send("GET", "/api/v1/avatars", "", b"").1).unwrap();
    let avatar = avatars.as_array().unwrap().iter().find(|avatar| avatar["name"] == "zoe").unwrap();
    let sum = succeed(Command::new("sh").args(["-c", "printf 'I agree.' | sha256sum"])).stdout;
    let hash = String::from_utf8(sum).unwrap()[..64].to_owned();
    let consent = &avatar["consent"];
    assert_eq!((&consent["person"], &consent["statement_sha256"]), (&json!("Zoë Åström"), &json!(hash)));
    assert!(consent.get("statement").is_none(), "the text itself is not kept: {consent}");
    let left = browser.run(
        "['person', 'date', 'purpose', 'statement'].map((name) => dialog.querySelector(`[name=${name}]`).value).join('')",
    );
    assert_eq!(left, "", "nothing of it is left in the form");
}

#[test]
fn the_page_shows_the_nodes_of_a_cluster_and_which_are_silent() {
    if !crate::chromium::installed() {
        return;
    }
    let Some(nats) = Nats::start() else { return };
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start("a", nats.port, folder.path(), &[]);
    let other = json!({
        "name": "b", "instance": "1", "version": "0", "url": "http://10.0.0.2:8080", "public_url": null, "rtmp": null, "sessions": 7,
        "sessions_free": 3, "measured": true, "cores": 16.0, "cores_used": 7.5, "resources": [], "engines": [], "draining": false
    });
    let mut to_nats = TcpStream::connect(("127.0.0.1", nats.port)).unwrap();
    to_nats.write_all(b"CONNECT {\"verbose\":false}\r\n").unwrap();
    let mut say = |draining: bool| {
        let text = Value::Object(
            other.as_object().unwrap().clone().into_iter().chain([("draining".into(), draining.into())]).collect(),
        );
        let text = text.to_string();
        to_nats.write_all(format!("PUB lipstream.node.b {}\r\n{text}\r\n", text.len()).as_bytes()).unwrap();
    };
    let mut browser = Chromium::open(&node.service.url);
    until(&mut browser, "document.getElementById('key-dialog').open");
    browser.run(&format!(
        "document.querySelector('#key-dialog input').value = '{KEY}'; document.getElementById('key-dialog').close()"
    ));
    // The cells of a row, as they are shown.
    let mut row = |say: &mut dyn FnMut(), name: &str, state: &str| {
        crate::harness::until(&format!("{name} is {state}"), || {
            say();
            let rows = browser.run(
                "document.getElementById('nodes-panel').hidden ? [] : [...document.getElementById('nodes').rows]
                    .map((row) => [row.className, ...[...row.cells].map((cell) => cell.innerText)])",
            );
            let found = rows.as_array()?.iter().find(|row| row[1] == name && row[4] == state).cloned()?;
            let room = browser.run("document.getElementById('nodes-free').textContent").as_str()?.to_owned();
            Some((found, room))
        })
    };
    let (own, _) = row(&mut || say(false), "a", "takes sessions");
    assert_eq!((&own[0], &own[2], &own[5]), (&json!(""), &json!("0"), &json!("0.0 s ago")));
    assert!(own[3].as_str().unwrap().parse::<u32>().unwrap() > 0, "{own}");
    let (other, room) = row(&mut || say(false), "b", "takes sessions");
    assert_eq!((&other[2], &other[3]), (&json!("7"), &json!("3")), "{other}");
    assert!(room.starts_with("room for ") && room != "room for 3 sessions", "those of both: {room}");
    let (other, _) = row(&mut || say(true), "b", "being drained");
    assert_eq!((&other[3], &other[0]), (&json!("–"), &json!("")), "{other}");
    row(&mut || say(false), "b", "takes sessions");
    let (silent, room) = row(&mut || {}, "b", "not heard");
    assert_eq!((&silent[0], &silent[3]), (&json!("bad"), &json!("–")), "{silent}");
    assert!(room.starts_with("room for "), "{room}");
}
