//! The documentation and what is in `contrib/` name only what exists: metrics, configuration, routes, files.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use lipstream::{
    http,
    serve::Config,
    tenants::scope::{Allow, ROUTES, Route},
};
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn below(folder: &str, ending: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_str().is_some_and(|name| name.ends_with(ending)) {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "{folder}: no {ending}");
    found
}

/// Words of `text` that start with one of `starts` and go on with `a-z0-9_`.
fn names(text: &str, starts: &[&str]) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.split(|c| !word(c))
        .filter(|name| starts.iter().any(|start| name.starts_with(start)) && !name.ends_with('_'))
        .map(str::to_owned)
        .collect()
}

const METRICS: [&str; 2] = ["lipstream_", "process_"];

/// Names that the code gives to metrics: complete string literals.
fn metrics() -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    for (_, text) in below("src/metrics", ".rs") {
        let literals = text.split('"').skip(1).step_by(2);
        known.extend(literals.filter(|l| names(l, &METRICS).contains(*l)).map(str::to_owned));
    }
    assert!(known.len() > 20, "{known:?}");
    known
}

/// A histogram's series have the names that Prometheus gives them.
fn family(name: &str) -> &str {
    ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
}

/// Blocks of `language` in Markdown.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    text.split("\n```").filter_map(|part| part.strip_prefix(language)?.strip_prefix('\n')).collect()
}

#[test]
fn metrics_that_are_written_about_exist_and_all_are_written_about() {
    let known = metrics();
    let mut told = BTreeSet::new();
    for (path, text) in below("docs", ".md").into_iter().chain(below("contrib/grafana", ".json")) {
        for name in names(&text, &METRICS) {
            let real = known.contains(&name) || known.contains(family(&name));
            assert!(real, "{}: no metric is called {name}", path.display());
            if path.ends_with("docs/metrics.md") {
                told.insert(family(&name).to_owned());
                told.insert(name);
            }
        }
    }
    let untold: Vec<_> = known.difference(&told).collect();
    assert!(untold.is_empty(), "docs/metrics.md does not tell of {untold:?}");
}

#[test]
fn the_dashboard_is_json_and_has_panels_that_ask_for_something() {
    let text = fs::read_to_string(root().join("contrib/grafana/lipstream.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() >= 8);
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let expression = panel["targets"][0]["expr"].as_str().unwrap();
        assert!(!names(expression, &METRICS).is_empty(), "{}: {expression}", panel["title"]);
    }
}

#[test]
fn configuration_in_the_documentation_is_accepted() {
    let mut count = 0;
    for (path, text) in below("docs", ".md") {
        for block in blocks(&text, "toml") {
            Config::parse(&path.display().to_string(), block).unwrap_or_else(|e| panic!("{e}\n{block}"));
            count += 1;
        }
    }
    assert!(count >= 4, "{count} blocks");
}

#[test]
fn environment_variables_and_keys_in_the_documentation_exist() {
    let template: toml::Table = toml::from_str(&Config::template()).unwrap();
    let keys: BTreeSet<String> = template
        .iter()
        .filter_map(|(section, keys)| Some((section, keys.as_table()?)))
        .flat_map(|(section, keys)| keys.keys().map(move |key| format!("{section}.{key}")))
        .collect();
    let variables: BTreeSet<String> =
        keys.iter().map(|key| format!("LIPSTREAM_{}", key.replace('.', "_").to_uppercase())).collect();
    // Read elsewhere: the library of ONNX Runtime, footage for tests, the program for benches.
    let others = ["LIPSTREAM_ORT_LIB", "LIPSTREAM_SHARED", "LIPSTREAM_BINARY"];
    let sections: BTreeSet<&str> = template.keys().map(String::as_str).collect();
    for (path, text) in below("docs", ".md") {
        let words = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.');
        for word in text.split(words).map(|word| word.trim_matches('.')) {
            if word.starts_with("LIPSTREAM_") {
                assert!(variables.contains(word) || others.contains(&word), "{}: {word}", path.display());
            }
        }
        // `section.key` in backquotes.
        for quoted in text.split('`').skip(1).step_by(2) {
            let Some((section, key)) = quoted.split(' ').next().and_then(|word| word.split_once('.')) else { continue };
            let is_key = key.chars().all(|c| c.is_ascii_lowercase() || c == '_') && key != "md" && key != "toml";
            if sections.contains(section) && is_key {
                assert!(keys.contains(&format!("{section}.{key}")), "{}: no key {section}.{key}", path.display());
            }
        }
    }
}

#[test]
fn routes_in_the_documentation_exist() {
    let document: Value = serde_json::from_str(&http::openapi()).unwrap();
    let known: Vec<Vec<&str>> =
        document["paths"].as_object().unwrap().keys().map(|path| path.split('/').collect()).collect();
    let mut count = 0;
    for (path, text) in below("docs", ".md") {
        for piece in text.split("/api/v1/").skip(1) {
            let end = piece.find(|c: char| !(c.is_ascii_alphanumeric() || "/{}._-".contains(c))).unwrap_or(piece.len());
            let route = piece[..end].trim_end_matches(['.', '/']);
            // The WebSocket is described in words: OpenAPI has none. What clients of LiveAvatar are told is no route alone.
            if route.ends_with("/audio") || route == "liveavatar" {
                continue;
            }
            let route = format!("/api/v1/{route}");
            let parts: Vec<&str> = route.split('/').collect();
            let fits = |known: &Vec<&str>| {
                known.len() == parts.len() && known.iter().zip(&parts).all(|(k, p)| k == p || k.starts_with('{'))
            };
            assert!(known.iter().any(fits), "{}: no route {route}", path.display());
            count += 1;
        }
    }
    assert!(count > 20, "{count} routes");
}

#[test]
fn links_of_the_documentation_lead_somewhere() {
    let readme = root().join("README.md");
    let first = fs::read_to_string(&readme).unwrap();
    for page in fs::read_dir(root().join("docs")).unwrap() {
        let page = page.unwrap().file_name().into_string().unwrap();
        let told = !page.ends_with(".md") || first.contains(&format!("(docs/{page})"));
        assert!(told, "README.md does not lead to docs/{page}");
    }
    for (path, text) in below("docs", ".md").into_iter().chain([(readme, first)]) {
        for piece in text.split("](").skip(1) {
            let Some((target, _)) = piece.split_once(')') else { continue };
            let target = target.split('#').next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") {
                let file = path.parent().unwrap().join(target);
                assert!(file.exists(), "{}: {target} is not there", path.display());
            }
        }
    }
}

/// What pages load is built from the sources, whose types are those of the server's document.
#[test]
fn the_client_of_pages_is_what_its_sources_give() {
    let folder = tempfile::tempdir().unwrap();
    let sdk = root().join("sdk/js");
    let run = |command: &mut Command| {
        let output = command.current_dir(&sdk).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{said}");
    };
    let api = folder.path().join("api.ts");
    run(Command::new("python3").args(["generate.py", "../../docs/openapi.json"]).arg(&api));
    let same = fs::read_to_string(&api).unwrap() == fs::read_to_string(sdk.join("src/api.ts")).unwrap();
    assert!(
        same,
        "sdk/js/src/api.ts is not docs/openapi.json: run `sdk/js/generate.py docs/openapi.json sdk/js/src/api.ts`"
    );
    let tools = root().join(".lipstream/js");
    if !tools.is_dir() {
        println!("skipped: .lipstream/js is missing (LIPSTREAM_SETUP_TESTS=1 scripts/setup.sh)");
        return;
    }
    run(Command::new(tools.join("tsc/lib/tsc")).args(["--noEmit", "--emitDeclarationOnly", "false"]));
    let built = folder.path().join("lipstream.js");
    let package: Value = serde_json::from_str(&fs::read_to_string(sdk.join("package.json")).unwrap()).unwrap();
    let build = package["scripts"]["build"].as_str().unwrap();
    let options: Vec<&str> = build
        .split(' ')
        .skip_while(|word| *word != "esbuild")
        .skip(1)
        .filter(|word| !word.starts_with("--outfile"))
        .collect();
    run(Command::new(tools.join("esbuild/bin/esbuild")).args(options).arg(format!("--outfile={}", built.display())));
    let same = fs::read_to_string(&built).unwrap() == fs::read_to_string(sdk.join("dist/lipstream.js")).unwrap();
    assert!(same, "sdk/js/dist/lipstream.js is not what its sources give: run `npm ci && npm run build` in sdk/js");
}

/// What is deployed with is what Kubernetes, compose and the program take.
#[test]
fn deployments_are_what_kubernetes_compose_and_the_program_take() {
    for (path, text) in below("deploy", ".toml") {
        let shown = path.display().to_string();
        let config = Config::parse(&shown, &text).unwrap_or_else(|e| panic!("{e}"));
        assert!(config.storage().is_some() && !config.server.bind.is_loopback(), "{shown}");
    }
    let template: toml::Table = toml::from_str(&Config::template()).unwrap();
    for (path, text) in below("deploy", ".yaml") {
        let words =
            text.split(|c: char| !(c.is_ascii_uppercase() || c == '_')).filter_map(|w| w.strip_prefix("LIPSTREAM_"));
        for word in words {
            let known = template.iter().any(|(section, keys)| {
                let key = word.to_lowercase().strip_prefix(&format!("{section}_")).map(str::to_owned);
                key.is_some_and(|key| keys.as_table().is_some_and(|keys| keys.contains_key(&key)))
            });
            assert!(known, "{}: LIPSTREAM_{word} is no variable", path.display());
        }
        for probe in text.split("path: ").skip(1).filter(|rest| rest.starts_with('/') && path.ends_with("cpu.yaml")) {
            let asked = probe.split([',', ' ', '\n']).next().unwrap();
            let public = |route: &Route| route.path == asked && route.allow == Allow::Public;
            assert!(asked == "/metrics" || ROUTES.iter().any(public), "{}: {asked}", path.display());
        }
    }
    let python = root().join(".lipstream/deploy/bin/python");
    if !python.is_file() {
        println!("skipped: .lipstream/deploy is missing (LIPSTREAM_SETUP_TESTS=1 scripts/setup.sh)");
        return;
    }
    let checked = Command::new(python).args(["tests/deploy/check.py", "deploy"]).current_dir(root()).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
    assert!(checked.status.success() && said.contains("resources of Kubernetes"), "{said}");
}
