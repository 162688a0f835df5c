//! Avatars: videos of a person, prepared so that any frame can be shown at any time.

mod player;
mod store;

pub use self::{
    player::Player,
    store::{Avatar, Rejection, Store, Summary},
};
