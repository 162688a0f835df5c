//! What clients may say of what is before a face. Which network looks, the server's configuration says: clients name no files.

use lipstream_engines::occlusion::Masks;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Whether what is before a face stays before its mouth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Occlusion {
    /// It does.
    #[default]
    Auto,
    /// The mouth is pasted over it.
    Off,
}

impl Occlusion {
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            other => Err(format!("must be auto or off, not `{other}`")),
        }
    }

    /// What looks, where the server's `own` looks unless it is told otherwise.
    pub fn masks(self, own: &Masks) -> Masks {
        match (self, own) {
            (Self::Off, _) => Masks::Off,
            (Self::Auto, Masks::File(_)) => own.clone(),
            (Self::Auto, _) => Masks::Auto,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_turns_looking_on_and_off_and_the_server_says_by_what() {
        let file = Masks::File("mask.onnx".into());
        assert_eq!(Occlusion::Auto.masks(&file), file);
        assert_eq!(Occlusion::Auto.masks(&Masks::Off), Masks::Auto);
        assert_eq!(Occlusion::Off.masks(&file), Masks::Off);
        assert_eq!(Occlusion::parse("/etc/passwd"), Err("must be auto or off, not `/etc/passwd`".into()));
    }
}
