//! An S3 server: moto of PyPI.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

/// Ends with the test.
pub struct S3 {
    child: Child,
    /// `http://HOST:PORT`
    pub url: String,
}

impl S3 {
    /// With an empty bucket. `None` where it is not installed.
    pub fn start(bucket: &str) -> Option<Self> {
        let python = super::root().join(".lipstream/moto/bin/python");
        if !python.is_file() {
            eprintln!("skipped: no moto (LIPSTREAM_SETUP_TESTS=1 scripts/setup.sh installs it)");
            return None;
        }
        let mut command = Command::new(python);
        command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("moto starts");
        let mut lines = BufReader::new(child.stderr.take().expect("is piped")).lines().map_while(Result::ok);
        let url =
            lines.find_map(|line| Some(line.split_once("Running on ")?.1.trim().to_owned())).expect("moto listens");
        std::thread::spawn(move || lines.for_each(drop));
        let server = Self { child, url };
        ureq::put(format!("{}/{bucket}", server.url)).send_empty().expect("a bucket is made");
        Some(server)
    }

    /// Names of the objects of a bucket.
    pub fn names(&self, bucket: &str) -> Vec<String> {
        let mut answer = ureq::get(format!("{}/{bucket}?list-type=2", self.url)).call().expect("moto lists");
        let text = answer.body_mut().read_to_string().expect("is text");
        text.split("<Key>").skip(1).filter_map(|rest| Some(rest.split_once("</Key>")?.0.to_owned())).collect()
    }

    /// An object.
    pub fn get(&self, bucket: &str, name: &str) -> Vec<u8> {
        let signed =
            "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
        let asked = ureq::get(format!("{}/{bucket}/{name}", self.url)).header("authorization", signed);
        let mut answer = asked.call().expect("moto answers");
        answer.body_mut().read_to_vec().expect("is read")
    }

    /// Environment variables of those who use it.
    pub fn environment(&self) -> [(&str, &str); 4] {
        [
            ("LIPSTREAM_STORAGE_ENDPOINT", &self.url),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ]
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
