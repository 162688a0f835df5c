use gst::prelude::*;

use super::{Graph, command_line};
use crate::error::Kind;

const GRAPH: &str = r#"
description = "Test"
launch = """
filesrc name=in location={path} ! identity name=id sleep-time={number} ! video/x-raw,width={number} ! {sink} name=out
"""
[params.path]
type = "path"
required = true
doc = "A file"
[params.number]
type = "int"
default = 320
min = 16
max = 4096
doc = "A number"
[params.sink]
type = "enum"
values = ["fakesink", "autovideosink"]
default = "fakesink"
doc = "Where it goes"
"#;

fn graph() -> Graph {
    Graph::parse("test", GRAPH).unwrap()
}

fn set(values: &[&str]) -> Vec<String> {
    values.iter().map(|v| v.to_string()).collect()
}

#[test]
fn defaults_and_settings_stand_in_the_line() {
    let launch = graph().launch(&set(&["path=a.mp4", "number=640"])).unwrap();
    assert_eq!(
        launch,
        r#"filesrc name=in location="a.mp4" ! identity name=id sleep-time=640 ! video/x-raw,width=640 ! fakesink name=out"#
    );
}

#[test]
fn a_hostile_path_arrives_as_it_is_and_makes_no_element() {
    gst::init().unwrap();
    let hostile = [
        "a b.mp4",
        r#"x" ! fakesink name=evil "#,
        r#"x\" ! fakesink name=evil "#,
        r#"x\\" ! fakesink name=evil "#,
        r#""quoted""#,
        r#"""#,
        r#"" ! fakesink name=evil "#,
        r"back\slash",
        r"ends with \",
        "a ! fakesink name=evil",
        "it's",
        "$(touch evil) `touch evil` ; &",
        "{sink}",
        "{{path}}",
        "ünïcødé 日本",
        "evil. ! fakesink",
        "(string)x",
        "a=b,c=d;e",
        "two  blanks   and   more",
    ];
    for path in hostile {
        let launch = graph().launch(&[format!("path={path}")]).unwrap();
        let pipeline = gst::parse::launch(&launch).unwrap_or_else(|e| panic!("{path}: {e} in {launch}"));
        let bin = pipeline.downcast::<gst::Bin>().unwrap();
        let names: Vec<_> =
            bin.children().iter().map(|e| e.name().to_string()).filter(|n| !n.starts_with("caps")).collect();
        assert_eq!(names.len(), 3, "{path}: {names:?}");
        assert!(bin.by_name("evil").is_none(), "{path}");
        let location: String = bin.by_name("in").unwrap().property("location");
        assert_eq!(location, path, "in {launch}");
    }
}

#[test]
fn a_control_character_is_refused() {
    for path in ["a\nb", "a\0b", "a\tb", "\u{85}"] {
        let failure = graph().launch(&[format!("path={path}")]).unwrap_err();
        assert_eq!(failure.kind, Kind::Usage);
        assert!(failure.message.contains("control character"), "{failure}");
    }
}

#[test]
fn a_value_of_the_wrong_type_or_range_is_refused_with_the_reason() {
    let cases = [
        ("number=12 ! fakesink", "is not a whole number"),
        ("number=5", "is less than 16"),
        ("number=99999", "is more than 4096"),
        ("sink=fdsink", "is not one of fakesink, autovideosink"),
        ("nothing=1", "has no parameter `nothing`; it has number, path, sink"),
        ("path", "is not KEY=VALUE"),
        ("path=", "is empty"),
    ];
    for (setting, reason) in cases {
        let failure = graph().launch(&set(&["path=x", setting])).unwrap_err();
        assert!(failure.kind == Kind::Usage && failure.message.contains(reason), "{setting}: {failure}");
    }
}

#[test]
fn a_required_parameter_is_asked_for_with_its_documentation() {
    let failure = graph().launch(&[]).unwrap_err();
    assert!(failure.message.contains("--set path=... (A file)"), "{failure}");
}

#[test]
fn a_graph_file_that_contradicts_itself_is_refused() {
    let cases = [
        (GRAPH.replace("{number}", "320"), "params.number is not used"),
        (GRAPH.replace("[params.sink]", "[params.sing]"), "{sink}, which is no parameter"),
        (GRAPH.replace("default = 320", "default = 5"), "default: is less than 16"),
        (GRAPH.replace("required = true", ""), "needs `default`"),
        (GRAPH.replace("doc = \"A file\"", "doc = \"\""), "`doc` is empty"),
        (GRAPH.replace("required = true", "color = 1"), "unknown field `color`"),
        (GRAPH.replace("{sink}", "{sink"), "is not a parameter in braces"),
        (GRAPH.replace("\"fakesink\", ", "\"fakesink ! x\", "), "must be made of letters"),
    ];
    for (text, reason) in cases {
        let failure = Graph::parse("test", &text).unwrap_err();
        assert!(failure.message.contains(reason), "{reason}: {failure}");
    }
}

#[test]
fn the_printed_line_survives_a_shell() {
    let launch = graph().launch(&set(&[r#"path=it's "a" $x \ b"#])).unwrap();
    let line = command_line(&launch).replace("gst-launch-1.0 -e", "printf '%s\\n'");
    let output = std::process::Command::new("sh").arg("-c").arg(&line).output().unwrap();
    let arguments: Vec<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(arguments.join(" "), launch);
}

#[test]
fn the_help_says_type_range_default_and_meaning() {
    let help = graph().help();
    assert!(help.contains("number (int, 16..4096, default 320)\n      A number"), "{help}");
    assert!(help.contains("path (path, required)"), "{help}");
}
