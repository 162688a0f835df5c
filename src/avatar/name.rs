//! Names of avatars and clips: they are part of paths and URLs.

/// 1 to 64 of `a-z A-Z 0-9 . _ -`, the first a letter or a digit.
pub fn check(what: &str, name: &str) -> Result<(), String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let good = (1..=64).contains(&name.len())
        && name.bytes().all(plain)
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if good {
        return Ok(());
    }
    let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    Err(format!(
        "`{shown}` cannot be the name of a {what}: take 1 to 64 of a-z A-Z 0-9 . _ -, starting with a letter or a digit"
    ))
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_stay_within_their_folder() {
        for good in ["demo", "a", "Anna-2.new_x", "7"] {
            assert_eq!(super::check("clip", good), Ok(()));
        }
        for bad in ["", ".", "..", "../x", "a/b", "-x", ".new", "a b", "ä", "a\0", &"x".repeat(65)] {
            assert!(super::check("clip", bad).is_err(), "{bad:?}");
        }
    }
}
