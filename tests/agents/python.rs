//! Clients of agent frameworks in Python, in the environment that `scripts/setup.sh` makes.

use std::{path::PathBuf, process::Command};

use crate::{
    ALONE,
    common::{self, service::Service},
};

const KEY: &str = "a-key-for-the-tests";

fn python() -> PathBuf {
    common::root().join(".lipstream/agents/bin/python")
}

/// Whether the environment is there. `make test` has made it; other ways to run the tests may go without.
fn installed() -> bool {
    if python().exists() {
        return true;
    }
    let missing = format!("{} is not there (LIPSTREAM_SETUP_TESTS=1 scripts/setup.sh)", python().display());
    let needed = std::env::var("LIPSTREAM_SETUP_TESTS").is_ok_and(|value| value != "0");
    assert!(!needed, "{missing}; LIPSTREAM_SETUP_TESTS=0 goes without");
    println!("skipped: {missing}");
    false
}

fn run(arguments: &[&str], environment: &[(&str, &str)]) {
    let mut command = Command::new(python());
    command.args(arguments).env("PYTHONDONTWRITEBYTECODE", "1").current_dir(common::root());
    command.envs(environment.iter().copied());
    let output = common::succeed(&mut command);
    print!("{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn pipecats_own_heygen_client_works_with_another_address() {
    if !installed() {
        return;
    }
    let _alone = ALONE.blocking_lock();
    let service = Service::start_with("", &[("LIPSTREAM_AUTH_KEYS", KEY)]);
    run(&["tests/agents/pipecat_heygen.py", &service.url, KEY], &[]);
}

#[test]
fn the_sdk_for_python_does_what_its_own_tests_say() {
    if !installed() {
        return;
    }
    let _alone = ALONE.blocking_lock();
    let service = Service::start_with("", &[("LIPSTREAM_AUTH_KEYS", KEY)]);
    run(
        &["-m", "pytest", "-q", "-rs", "-s", "-p", "no:cacheprovider", "sdk/python/tests"],
        &[("LIPSTREAM_URL", &service.url), ("LIPSTREAM_KEY", KEY), ("PYTHONPATH", "sdk/python/src")],
    );
}
