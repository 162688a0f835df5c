//! Players of today see and hear what a session gives, and end when it does.

use std::{path::Path, process::Command};

use crate::{
    PATIENCE, alone,
    common::{self, service::Service},
    delete, installed,
    live::{eventually, free_port},
    mpv::{self, Mpv},
    speak, stage,
    vlc::{self, Vlc},
};

/// A first viewer comes and goes; and then the session runs for a while that nobody watches, so that what is left of it, and
/// a clock that does not begin with the next viewer, would be seen.
fn watched_and_left(service: &Service) {
    common::succeed(
        Command::new("ffmpeg")
            .args(["-nostdin", "-v", "error", "-i", &format!("{}/stage/synced", service.rtmp), "-t", "0.2"])
            .args(["-f", "null", "-"]),
    );
    let uptime = || service.session("stage")["uptime"].as_f64().unwrap();
    let left = uptime();
    eventually(PATIENCE, "some seconds without viewers", || uptime() > left + 8.0);
    assert_eq!(service.session("stage")["viewers"], 0);
}

#[test]
fn mpv_and_vlc_join_late_by_rtmp_and_end_with_the_session() {
    if !installed(Path::new(mpv::PROGRAM)) || !installed(Path::new(vlc::PROGRAM)) {
        return;
    }
    let _alone = alone();
    let service = stage(&[]);
    watched_and_left(&service);
    let url = format!("{}/stage/synced", service.rtmp);
    let (mut mpv, mut vlc) = (Mpv::play(&url), Vlc::play(&url));
    mpv.watch(|| speak(&service, "stage"));
    mpv.assert_steady(0.0);
    vlc.watch();
    delete(&service, "stage");
    mpv.end();
    vlc.end();
}

#[test]
fn mpv_is_pushed_to_by_srt_and_ends_with_the_session() {
    if !installed(Path::new(mpv::PROGRAM)) {
        return;
    }
    let _alone = alone();
    let port = free_port();
    let mut mpv = Mpv::play(&format!("srt://127.0.0.1:{port}?mode=listener"));
    let service = stage(&[&format!("srt://127.0.0.1:{port}")]);
    mpv.watch(|| speak(&service, "stage"));
    let start = mpv.number("demuxer-start-time").unwrap();
    mpv.assert_steady(start);
    assert_eq!(service.session("stage")["pushes"][0]["connected"], true);
    delete(&service, "stage");
    mpv.end();
}
