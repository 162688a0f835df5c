//! Words of options: what becomes of transparency, labels, speakers, versions of engines and their aliases.
#![no_main]

use gstlipstream::{alpha::Mode, selector::Selector};
use libfuzzer_sys::fuzz_target;
use lipstream::marks;
use lipstream_engines::{
    manifest::{Aliases, repository},
    occlusion::Masks,
};

fuzz_target!(|text: &str| {
    let _ = (text.parse::<Mode>(), text.parse::<Selector>(), text.parse::<Masks>(), marks::check_label(text));
    if let Some((name, version)) = repository::split(text) {
        assert!(name.len() + version.len() < text.len());
    }
    let _ = repository::is_version(text);
    let _ = toml::from_str::<Aliases>(text).map(|aliases| aliases.check());
});
