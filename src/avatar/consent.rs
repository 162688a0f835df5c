//! What the person in an avatar has agreed to. The statement itself stays with the operator; its hash shows later which it was.

use std::time::{SystemTime, UNIX_EPOCH};

use lipstream_engines::digest;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Longest name and purpose, in characters.
const PERSON: usize = 200;
const PURPOSE: usize = 1000;

/// The consent record of an avatar.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Consent {
    /// Who has agreed.
    pub person: String,
    /// On which day, as `2026-11-28`.
    pub date: String,
    /// To what.
    pub purpose: String,
    /// SHA-256 of the statement that they made, in hexadecimal.
    pub statement_sha256: String,
    /// When the server was told, in seconds since 1970.
    pub recorded: f64,
}

/// A consent as it comes with an upload.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ConsentGiven)]
pub struct Given {
    /// Who agrees: 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200)]
    person: String,
    /// On which day, as `2026-11-28`.
    #[schema(pattern = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]
    date: String,
    /// To what: 1 to 1000 characters.
    #[schema(min_length = 1, max_length = 1000)]
    purpose: String,
    /// SHA-256 of the statement that they made, a signed form or a recording, in hexadecimal.
    #[schema(pattern = "^[0-9A-Fa-f]{64}$")]
    statement_sha256: Option<String>,
    /// In its place the statement's text, which is hashed as UTF-8 and not kept.
    statement: Option<String>,
}

impl Given {
    /// Reads it from JSON. The error names the field and says what it must be.
    pub fn parse(json: &str) -> Result<Consent, String> {
        let given: Self = serde_json::from_str(json).map_err(|e| format!("consent: {e}"))?;
        given.record().map_err(|cause| format!("consent: {cause}"))
    }

    fn record(self) -> Result<Consent, String> {
        let text = |field: &str, text: &str, most: usize| {
            let text = text.trim();
            let good = !text.is_empty() && text.chars().count() <= most && !text.chars().any(char::is_control);
            if good { Ok(text.to_owned()) } else { Err(format!("`{field}` must be a line of 1 to {most} characters")) }
        };
        if !is_date(&self.date) {
            return Err("`date` must be a day such as 2026-11-28".into());
        }
        let statement_sha256 = match (self.statement_sha256, self.statement) {
            (Some(hash), None) if hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
                hash.to_ascii_lowercase()
            }
            (Some(_), None) => return Err("`statement_sha256` must be 64 hexadecimal digits".into()),
            (None, Some(statement)) if !statement.trim().is_empty() => digest::sha256(statement.as_bytes()),
            _ => return Err("needs one of `statement_sha256` and `statement`".into()),
        };
        Ok(Consent {
            person: text("person", &self.person, PERSON)?,
            date: self.date,
            purpose: text("purpose", &self.purpose, PURPOSE)?,
            statement_sha256,
            recorded: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64()),
        })
    }
}

/// Whether it is a day of ISO 8601's extended format.
fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    let shape = bytes.len() == 10
        && bytes.iter().enumerate().all(|(i, b)| if matches!(i, 4 | 7) { *b == b'-' } else { b.is_ascii_digit() });
    let number = |range: std::ops::Range<usize>| text.get(range).and_then(|digits| digits.parse::<u32>().ok());
    let (Some(year), Some(month), Some(day)) = (number(0..4), number(5..7), number(8..10)) else { return false };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    shape && (1..=12).contains(&month) && (1..=days).contains(&day)
}

impl Consent {
    /// Whether the other says the same, whenever it was told.
    pub fn same(&self, other: &Self) -> bool {
        Self { recorded: other.recorded, ..self.clone() } == *other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_hashed_and_what_is_wrong_is_named() {
        let with = |fields: &str| Given::parse(&format!("{{\"person\": \"Ann Ö\", \"purpose\": \"Ads\", {fields}}}"));
        let consent = with("\"date\": \"2024-02-29\", \"statement\": \"abc\"").unwrap();
        // NIST's example of SHA-256.
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!((consent.person.as_str(), consent.statement_sha256.as_str()), ("Ann Ö", hash));
        let upper = format!("\"date\": \"2024-02-29\", \"statement_sha256\": \"{}\"", hash.to_uppercase());
        assert!(with(&upper).unwrap().same(&consent));
        for (fields, says) in [
            ("\"date\": \"2023-02-29\", \"statement\": \"a\"", "`date` must be a day"),
            ("\"date\": \"28.11.2026\", \"statement\": \"a\"", "`date` must be a day"),
            ("\"date\": \"2026-1é-01\", \"statement\": \"a\"", "`date` must be a day"),
            ("\"date\": \"2026-11-28\"", "one of `statement_sha256` and `statement`"),
            ("\"date\": \"2026-11-28\", \"statement_sha256\": \"12\"", "64 hexadecimal digits"),
            ("\"date\": \"2026-11-28\", \"statement\": \"a\", \"more\": 1", "unknown field `more`"),
        ] {
            let error = with(fields).unwrap_err();
            assert!(error.starts_with("consent: ") && error.contains(says), "{error}");
        }
        let nobody = Given::parse(r#"{"person": " ", "purpose": "x", "date": "2026-11-28", "statement": "a"}"#);
        assert!(nobody.unwrap_err().contains("`person` must be a line of 1 to 200"));
    }
}
