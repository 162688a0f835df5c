//! The graphs that sessions can have: those built in, and the user's.

use std::path::Path;

use super::Refusal;
use crate::graph::{Graph, Service};

const BUILT_IN: [(&str, &str); 4] = [
    ("avatar", include_str!("../../graphs/avatar.toml")),
    ("relay", include_str!("../../graphs/relay.toml")),
    ("dub", include_str!("../../graphs/dub.toml")),
    ("rtmp-push", include_str!("../../graphs/rtmp-push.toml")),
];

/// A graph by its name: a file of the user's, or one built in.
pub fn find(folder: Option<&Path>, name: &str) -> Result<(Graph, Service), Refusal> {
    let plain =
        !name.is_empty() && name.len() <= 64 && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    if !plain {
        return Err(Refusal::Invalid(format!("graph: `{name}` is no name of letters, digits, - and _")));
    }
    let own = folder.map(|folder| folder.join(format!("{name}.toml"))).filter(|path| path.is_file());
    let graph = match own {
        Some(path) => Graph::read(&path).map_err(|e| Refusal::Invalid(format!("graph: {e}")))?,
        None => {
            let (_, text) = BUILT_IN.iter().find(|(known, _)| *known == name).ok_or_else(|| {
                Refusal::Invalid(format!("graph: there is no `{name}`; there are {}", names(folder).join(", ")))
            })?;
            Graph::parse(name, text).map_err(|e| Refusal::Invalid(format!("graph: {e}")))?
        }
    };
    match graph.session().cloned() {
        Some(service) => Ok((graph, service)),
        None => Err(Refusal::Invalid(format!("graph: `{name}` has no [session], so it is one for `lipstream run`"))),
    }
}

/// The names that [`find`] knows.
pub fn names(folder: Option<&Path>) -> Vec<String> {
    let mut names: Vec<String> = BUILT_IN.iter().map(|(name, _)| (*name).to_owned()).collect();
    let files = folder.and_then(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    names.extend(files.filter_map(|f| Some(f.file_name().to_str()?.strip_suffix(".toml")?.to_owned())));
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_graphs_that_are_built_in_are_in_order_and_have_a_session() {
        for (name, _) in BUILT_IN {
            let (graph, _) = find(None, name).unwrap();
            graph.launch(&[]).unwrap();
        }
    }

    #[test]
    fn a_name_is_no_path_and_an_unknown_one_is_told_what_there_is() {
        for name in ["../avatar", "", "a/b", "avatar.toml", "ü"] {
            assert!(matches!(find(None, name), Err(Refusal::Invalid(_))), "{name}");
        }
        let refusal = find(None, "avatr").unwrap_err().to_string();
        assert!(refusal.contains("avatar, dub, relay, rtmp-push"), "{refusal}");
    }

    #[test]
    fn a_file_of_the_users_goes_before_one_built_in_and_needs_a_session() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("relay.toml");
        std::fs::write(&file, "description = 'mine'\nlaunch = 'fakesrc ! fakesink'\n").unwrap();
        assert!(find(Some(folder.path()), "relay").unwrap_err().to_string().contains("no [session]"));
        std::fs::write(
            &file,
            "description = 'mine'\nlaunch = 'fakesrc ! fakesink'\n[session]\nvideo='pull'\nvoice='source'\n",
        )
        .unwrap();
        assert_eq!(find(Some(folder.path()), "relay").unwrap().1.video, crate::session::Video::Pull);
    }
}
