use std::{fmt, str::FromStr};

/// What becomes of a picture's transparency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// It is laid on black.
    #[default]
    Drop,
    /// It stays.
    Keep,
    /// It is laid on a colour, R, G, B.
    Key([u8; 3]),
    /// It becomes a grey picture below the picture.
    Stack,
    /// Nothing else is left of the picture: its alphas are the luma.
    Matte,
}

/// What is not one of the words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownMode(String);

impl fmt::Display for UnknownMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "must be drop, keep, stack, matte, key:#rrggbb or #rrggbb, not `{}`", self.0)
    }
}

impl std::error::Error for UnknownMode {}

impl Mode {
    /// The colour that a picture is laid on, where it is.
    pub fn background(self) -> Option<[u8; 3]> {
        match self {
            Self::Drop => Some([0; 3]),
            Self::Key(color) => Some(color),
            Self::Keep | Self::Stack | Self::Matte => None,
        }
    }
}

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Self, UnknownMode> {
        match text {
            "drop" => return Ok(Self::Drop),
            "keep" => return Ok(Self::Keep),
            "stack" => return Ok(Self::Stack),
            "matte" => return Ok(Self::Matte),
            _ => {}
        }
        let digits = text.strip_prefix("key:").unwrap_or(text).strip_prefix('#');
        let digits = digits.filter(|digits| digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let color = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let [_, color @ ..] = color.ok_or_else(|| UnknownMode(text.chars().take(40).collect()))?.to_be_bytes();
        Ok(Self::Key(color))
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drop => f.write_str("drop"),
            Self::Keep => f.write_str("keep"),
            Self::Stack => f.write_str("stack"),
            Self::Matte => f.write_str("matte"),
            Self::Key([r, g, b]) => write!(f, "key:#{r:02x}{g:02x}{b:02x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_written() {
        for word in ["drop", "keep", "stack", "matte", "key:#00ff7f"] {
            assert_eq!(word.parse::<Mode>().unwrap().to_string(), word);
        }
        assert_eq!("#00FF00".parse(), Ok(Mode::Key([0, 255, 0])));
        for wrong in ["", "key", "key:", "key:green", "#00ff0", "#+1ff00", "#00ff0\u{e9}", "Drop"] {
            assert!(wrong.parse::<Mode>().unwrap_err().to_string().contains(wrong), "{wrong}");
        }
    }
}
