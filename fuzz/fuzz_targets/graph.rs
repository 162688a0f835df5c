//! Graph files, and values for their parameters: whatever a value holds, it stays one value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lipstream::graph::Graph;

const GRAPH: &str = r#"
description = "of each type"
launch = "a x={text} y={number} z={path}"
[params.text]
type = "string"
default = ""
doc = "text"
[params.number]
type = "int"
default = 1
min = 0
max = 9
doc = "number"
[params.path]
type = "path"
default = "x"
doc = "file"
"#;

fuzz_target!(|input: (&str, &str, &str)| {
    let (file, name, value) = input;
    let setting = [format!("{name}={value}")];
    if let Ok(graph) = Graph::parse("fuzz.toml", file) {
        let _ = (graph.help(), graph.params(), graph.launch(&[]), graph.launch(&setting));
    }
    let own = Graph::parse("own.toml", GRAPH).expect("a graph");
    for name in ["text", "number", "path"] {
        let _ = own.launch(&[format!("{name}={value}")]);
    }
});
