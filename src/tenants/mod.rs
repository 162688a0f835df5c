//! Tenants: whose keys open what, what each may hold, what is counted for each.
//!
//! ```text
//! request ─► key ─► rate ─► scope of the route ─► object is its own ─► handler
//!                                                     usage, audit ─► store
//! ```
//!
//! No request waits for a disk: keys, limits and counters are in memory. [`Tenants::look_after`] reads the store when
//! another program has changed it, and writes what has been counted.

mod audit;
mod caller;
pub mod command;
mod key;
mod quota;
mod registry;
pub mod scope;
pub mod store;
mod tenant;
mod usage;

pub use self::{
    audit::Entry,
    caller::Caller,
    key::{Key, KeyInfo, NewKey},
    quota::{Exceeded, Held, Limits, Place},
    registry::Tenants,
    scope::Scope,
    store::{Failure, Store},
    tenant::{Tenant, TenantInfo},
    usage::{Month, Row, Totals, csv},
};

#[doc(hidden)]
pub use self::key::{from_hex, hash, hex};

/// Whether `name` can be a tenant's: part of URLs and a label of metrics as it is.
pub fn check_name(name: &str) -> Result<(), String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let good = (1..=64).contains(&name.len())
        && name.bytes().all(plain)
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let must = "a tenant's name must be 1 to 64 of a-z A-Z 0-9 . _ -, starting with a letter or a digit";
    if good { Ok(()) } else { Err(must.into()) }
}
