//! WHIP and WHEP with a real peer over loopback.

mod clients;
mod harness;
mod peer;
mod play;
mod publish;
mod requests;
