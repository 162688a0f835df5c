//! Keys of S3 as AWS's programs keep them: `~/.aws/credentials`, a file with sections, of which `[default]` is read.

use std::{fmt, path::Path};

/// Largest file that is read.
const MOST: u64 = 64 << 10;

/// A pair of keys, and the token of those that end.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    pub id: String,
    pub secret: String,
    pub token: Option<String>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// The keys of a file. Errors never quote what is in it.
pub fn read(path: &Path) -> Result<Keys, String> {
    let wrong = |cause: &dyn fmt::Display| format!("storage.credentials_file = \"{}\": {cause}", path.display());
    let meta = std::fs::metadata(path).map_err(|e| wrong(&e))?;
    if !meta.is_file() || meta.len() > MOST {
        return Err(wrong(&"is not a text file of at most 64 kB"));
    }
    parse(&std::fs::read_to_string(path).map_err(|e| wrong(&e))?).map_err(|cause| wrong(&cause))
}

pub(super) fn parse(text: &str) -> Result<Keys, &'static str> {
    let (mut id, mut secret, mut token) = (None, None, None);
    // What stands before the first section counts as of `[default]`.
    let mut ours = true;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';'])) {
        if let Some(section) = line.strip_prefix('[') {
            ours = section.trim_end_matches(']').trim() == "default";
            continue;
        }
        let Some((name, value)) = line.split_once('=').filter(|_| ours) else { continue };
        let value = value.trim().to_owned();
        match name.trim().to_ascii_lowercase().as_str() {
            "aws_access_key_id" => id = Some(value),
            "aws_secret_access_key" => secret = Some(value),
            "aws_session_token" => token = Some(value),
            _ => {}
        }
    }
    let filled = |value: Option<String>| value.filter(|value| !value.is_empty() && value.is_ascii());
    let must = "must have the lines `aws_access_key_id = ...` and `aws_secret_access_key = ...` in [default]";
    Ok(Keys { id: filled(id).ok_or(must)?, secret: filled(secret).ok_or(must)?, token: filled(token) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_section_is_read_and_others_are_not() {
        let text = "# ours\n[other]\naws_access_key_id = no\n[default]\naws_access_key_id=AKID\n AWS_SECRET_ACCESS_KEY = s=cret\n\
                    [third]\naws_session_token = no\n";
        let keys = parse(text).unwrap();
        assert_eq!((keys.id.as_str(), keys.secret.as_str(), &keys.token), ("AKID", "s=cret", &None));
        assert_eq!(format!("{keys:?}"), "(hidden)");
        assert!(
            parse("aws_access_key_id = a\naws_secret_access_key = b\naws_session_token = c").unwrap().token.is_some()
        );
        for bad in ["", "[default]\naws_access_key_id = a", "aws_access_key_id =\naws_secret_access_key = b"] {
            assert!(parse(bad).unwrap_err().contains("aws_secret_access_key"), "{bad}");
        }
    }
}
