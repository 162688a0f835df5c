//! Versions of an engine in its folder, and what else may lie there.

use std::fs;

use lipstream_engines::{
    Result,
    manifest::{Package, Versions},
};

const FILE: &str = "aliases.toml";

/// A folder of engines, with versions of `anna` that are the engine that is built in.
fn engines(versions: &[&str]) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    for version in versions {
        let folder = home.path().join("anna").join(version);
        fs::create_dir_all(&folder).unwrap();
        Package::find("compact").unwrap().copy_to(&folder, "anna", "a version", &[]).unwrap();
    }
    home
}

fn anna(home: &tempfile::TempDir) -> Result<Versions> {
    Versions::within("anna", Some(home.path()))
}

#[test]
fn names_are_versions_aliases_and_the_newest_where_nobody_says() {
    let home = engines(&["2", "10", "9-rc"]);
    let versions = anna(&home).unwrap();
    assert_eq!(versions.versions().collect::<Vec<_>>(), ["2", "9-rc", "10"]);
    assert_eq!(versions.open(None).unwrap().manifest().name, "anna@10");
    assert_eq!(versions.open(Some("2")).unwrap().manifest().name, "anna@2");
    let cause = versions.open(Some("3")).unwrap_err().to_string();
    assert!(cause.contains("no version or alias `3`; it has 2, 9-rc, 10"), "{cause}");

    fs::write(home.path().join("anna").join(FILE), "share = 10\n[aliases]\nstable = '2'\ncanary = '11'\n").unwrap();
    let versions = anna(&home).unwrap();
    assert_eq!((versions.resolve(None).unwrap(), versions.aliases().share), ("2", 10));
    let cause = versions.open(Some("canary")).unwrap_err().to_string();
    assert!(cause.contains("no version `11`, which its alias `canary` names"), "{cause}");
}

#[test]
fn an_engine_of_its_own_is_a_version_beside_those_in_folders() {
    let home = engines(&["2"]);
    let folder = home.path().join("anna");
    Package::find("compact").unwrap().copy_to(&folder, "anna", "flat", &[]).unwrap();
    let versions = anna(&home).unwrap();
    assert_eq!(versions.versions().collect::<Vec<_>>(), ["0.1.0", "2"]);
    // As it was called before there were versions.
    assert_eq!(versions.open(None).unwrap().manifest().name, "anna");
    assert_eq!(versions.open(Some("0.1.0")).unwrap().manifest().name, "anna");
    assert_eq!((versions.called("0.1.0"), versions.called("2")), ("anna".into(), "anna@2".into()));
    let built_in = Versions::within("compact", None).unwrap();
    assert_eq!((built_in.resolve(None).unwrap(), built_in.is_versioned()), ("0.1.0", false));
}

#[test]
fn what_lies_in_the_folder_is_not_trusted() {
    let home = engines(&["1"]);
    let folder = home.path().join("anna");
    // Names that are none, a folder without an engine, one that leads elsewhere.
    let outside = engines(&["1"]);
    for name in ["..x", ".hidden", "a b", "empty"] {
        fs::create_dir(folder.join(name)).unwrap();
    }
    std::os::unix::fs::symlink(outside.path().join("anna/1"), folder.join("2")).unwrap();
    std::os::unix::fs::symlink(folder.join("loop"), folder.join("loop")).unwrap();
    assert_eq!(anna(&home).unwrap().versions().collect::<Vec<_>>(), ["1"]);
    // Another engine's manifest.
    fs::create_dir(folder.join("3")).unwrap();
    Package::find("compact").unwrap().copy_to(&folder.join("3"), "berta", "another", &[]).unwrap();
    let cause = anna(&home).unwrap().open(Some("3")).unwrap_err().to_string();
    assert!(cause.contains("`name`: is `berta` in the folder of `anna`"), "{cause}");
    for (text, cause) in [
        ("share = 101", "share: 101 is more than 100 percent"),
        ("share = 5", "share: 5 percent of the sessions need an alias `canary`"),
        ("[aliases]\n'../x' = '1'", "`../x` must be 1 to 32 of a-z, 0-9 and -"),
        ("[aliases]\nstable = '../1'", "aliases.stable: `../1` is no version"),
        ("stable = '1'", "unknown field `stable`"),
        (&"#".repeat(70_000), "not a file of at most"),
    ] {
        fs::write(folder.join(FILE), text).unwrap();
        let found = anna(&home).unwrap_err().to_string();
        assert!(found.contains(cause), "{found}");
    }
    for name in ["../anna", "anna/1", "", ".", "anna@1"] {
        assert!(Versions::within(name, Some(home.path())).is_err(), "{name}");
    }
}
