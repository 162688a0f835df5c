//! Avatars: videos of a person, prepared so that any frame can be shown at any time.

mod clip;
mod consent;
mod jpeg;
mod matte;
mod mix;
mod name;
mod owned;
mod player;
mod prepare;
mod store;
#[cfg(test)]
mod tests;
mod transition;

#[doc(hidden)]
pub use self::clip::Index;
pub use self::{
    consent::{Consent, Given},
    player::Player,
    store::{Avatar, DEMO, Rejection, Store, Summary},
};
