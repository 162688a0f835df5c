//! The operator's page in a real Chromium: what its forms send.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    ALONE,
    chromium::Chromium,
    common::{demo_video, ffmpeg, service::Service, succeed},
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
