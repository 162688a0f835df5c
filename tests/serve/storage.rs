//! Results of renders in a bucket of S3.

use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
};

use serde_json::Value;

use super::{NO_DEMO, Server, common::*};

/// A form that renders the demo avatar with `seconds` of the demo's speech.
pub fn form(seconds: f64, folder: &std::path::Path, options: &str) -> Vec<u8> {
    let audio = folder.join("speech.wav");
    ffmpeg(&format!("-i {} -t {seconds}", demo_audio().display()), &audio);
    let field = |name: &str| format!("--B\r\ncontent-disposition: form-data; name=\"{name}\"");
    let mut form = format!("{}\r\n\r\ndemo\r\n{}\r\n\r\n{options}\r\n", field("avatar"), field("options")).into_bytes();
    form.extend(format!("{}; filename=\"a.wav\"\r\n\r\n", field("audio")).into_bytes());
    form.extend(std::fs::read(audio).expect("ffmpeg wrote it"));
    form.extend(b"\r\n--B--\r\n");
    form
}

pub const FORM: &str = "multipart/form-data; boundary=B";

/// Bytes of a result, or of a part of it, with status and the headers of a part.
fn fetch(server: &Server, path: &str, headers: &[(&str, &str)]) -> (u16, String, String, Vec<u8>) {
    let mut request = ureq::http::Request::builder().method("GET").uri(format!("{}{path}", server.url));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut answer = server.agent.run(request.body(()).expect("is a request")).expect("is answered");
    let header = |name| answer.headers().get(name).map_or("", |v| v.to_str().expect("is text")).to_owned();
    let (range, tag) = (header("content-range"), header("etag"));
    let status = answer.status().as_u16();
    (status, range, tag, answer.body_mut().read_to_vec().expect("is read"))
}

#[test]
fn a_result_is_kept_in_s3_and_read_in_parts() {
    let Some(s3) = s3::S3::start("videos") else { return };
    let mut environment = vec![NO_DEMO, ("LIPSTREAM_STORAGE_URL", "s3://videos/tests/lips")];
    environment.extend(s3.environment());
    let server = Server::start(&environment);
    let (status, _, text) = server.send("POST", "/api/v1/renders", FORM, &form(0.6, server.folder.path(), "{}"));
    assert_eq!(status, 202, "{text}");
    let render: Value = serde_json::from_str(&text).expect("is JSON");
    let path = format!("/api/v1/renders/{}", render["id"].as_str().expect("has an id"));
    let mut done = Value::Null;
    server.wait("it is rendered", |s| {
        done = s.get(&path);
        assert_ne!(done["state"], "failed", "{done}");
        done["state"] == "done"
    });
    let names = s3.names("videos");
    assert_eq!(names, [format!("tests/lips/renders/{}/result.mp4", render["id"].as_str().unwrap())]);
    assert_eq!(common_names(&server), Vec::<String>::new(), "nothing of it is left here");

    let result = format!("{path}/result");
    let (status, _, tag, whole) = fetch(&server, &result, &[]);
    assert_eq!((status, Some(whole.len() as u64)), (200, done["bytes"].as_u64()));
    assert!(whole == s3.get("videos", &names[0]));
    let size = whole.len();
    let (status, range, _, part) = fetch(&server, &result, &[("range", "bytes=100-299"), ("if-range", &tag)]);
    assert_eq!((status, range), (206, format!("bytes 100-299/{size}")));
    assert!(part == whole[100..300]);
    let (status, _, _, tail) = fetch(&server, &result, &[("range", "bytes=-7")]);
    assert!(status == 206 && tail == whole[size - 7..]);
    let (status, _, _, all) = fetch(&server, &result, &[("range", "bytes=0-9"), ("if-range", "\"another\"")]);
    assert!(status == 200 && all == whole);
    let (status, range, ..) = fetch(&server, &result, &[("range", "bytes=99999999-")]);
    assert_eq!((status, range), (416, format!("bytes */{size}")));

    assert_eq!(server.send("DELETE", &path, "", b"").0, 204);
    server.wait("it is removed", |_| s3.names("videos").is_empty());
}

/// Folders of renders on the disk of the server.
fn common_names(server: &Server) -> Vec<String> {
    names(&server.folder.path().join("data/lipstream/renders"))
}

#[test]
fn a_storage_that_does_not_let_us_in_is_told_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let refused = |environment: &[(&str, &str)]| {
        let mut command = lipstream(folder.path());
        let ports = [("LIPSTREAM_SERVER_PORT", "0"), ("LIPSTREAM_RTMP_PORT", "0"), NO_DEMO];
        fail(command.arg("serve").envs(ports).envs(environment.iter().copied())).1
    };
    let deny = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", deny.local_addr().expect("is bound"));
    thread::spawn(move || {
        for mut stream in deny.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    let url = ("LIPSTREAM_STORAGE_URL", "s3://videos");
    let keys = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "a-secret-that-is-not-shown")];
    let error = refused(&[url, ("LIPSTREAM_STORAGE_ENDPOINT", &address), keys[0], keys[1]]);
    assert!(error.contains("s3://videos") && error.contains("the keys do not allow it"), "{error}");
    assert!(!error.contains(keys[1].1), "{error}");
    let missing = folder.path().join("no-keys").display().to_string();
    let error = refused(&[url, ("LIPSTREAM_STORAGE_CREDENTIALS_FILE", &missing)]);
    assert!(error.contains("storage.credentials_file") && error.contains("no-keys"), "{error}");
    let error = refused(&[("LIPSTREAM_STORAGE_URL", "ftp://videos")]);
    assert!(error.contains("LIPSTREAM_STORAGE_URL=ftp://videos: must be \"s3://BUCKET/PREFIX\""), "{error}");
    if let Some(s3) = s3::S3::start("videos") {
        let mut environment = s3.environment().to_vec();
        environment.push(("LIPSTREAM_STORAGE_URL", "s3://others/a"));
        let error = refused(&environment);
        assert!(error.contains("there is no such bucket"), "{error}");
    }
}
