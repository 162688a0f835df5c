//! Sessions that a tenant has in the whole cluster: a list in the bucket of sessions, which grows and shrinks by revisions, so that however
//! many nodes are asked at once no more than the quota are given.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use async_nats::jetstream::kv::{CreateErrorKind, Operation, Store, UpdateErrorKind};

/// Seconds after which a place without a session is free: whoever took it has died.
const UNUSED: u64 = 30;
/// Others that are faster, before it is given up.
const TRIES: usize = 200;

type Places = BTreeMap<String, u64>;

fn key(tenant: &str) -> String {
    format!("tenant.{}", super::records::key_of(tenant))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Changes the list of a tenant; `change` says whether it has changed. The error is the server's.
async fn change(store: &Store, tenant: &str, change: impl Fn(&mut Places) -> bool) -> Result<bool, String> {
    let key = key(tenant);
    for _ in 0..TRIES {
        let entry = store.entry(&key).await.map_err(|e| e.to_string())?;
        let entry = entry.filter(|entry| entry.operation == Operation::Put);
        let mut places: Places =
            entry.as_ref().and_then(|entry| serde_json::from_slice(&entry.value).ok()).unwrap_or_default();
        if !change(&mut places) {
            return Ok(false);
        }
        let text = serde_json::to_vec(&places).unwrap_or_default().into();
        let written = match &entry {
            Some(entry) => store.update(&key, text, entry.revision).await.map_err(|e| match e.kind() {
                UpdateErrorKind::WrongLastRevision => None,
                _ => Some(e.to_string()),
            }),
            None => store.create(&key, text).await.map_err(|e| match e.kind() {
                CreateErrorKind::AlreadyExists => None,
                _ => Some(e.to_string()),
            }),
        };
        match written {
            Ok(_) => return Ok(true),
            Err(None) => {}
            Err(Some(error)) => return Err(error),
        }
    }
    Err("too many nodes ask at once".into())
}

/// Takes a place of `tenant` for session `id`; false where it has `most` already. `known` is whether a session is there.
pub async fn take(
    store: &Store,
    tenant: &str,
    id: &str,
    most: Option<u64>,
    known: impl Fn(&str) -> bool,
) -> Result<bool, String> {
    change(store, tenant, |places| take_one(places, id, most, now(), &known)).await
}

fn take_one(places: &mut Places, id: &str, most: Option<u64>, now: u64, known: impl Fn(&str) -> bool) -> bool {
    places.retain(|id, since| known(id) || since.saturating_add(UNUSED) > now);
    if !places.contains_key(id) && most.is_some_and(|most| places.len() as u64 >= most) {
        return false;
    }
    places.insert(id.to_owned(), now);
    true
}

/// Gives the place of session `id` back. Where the server is away the place is free when it is found unused.
pub async fn give_back(store: &Store, tenant: &str, id: &str) {
    let _ = change(store, tenant, |places| places.remove(id).is_some()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_gets_its_quota_and_places_of_the_dead_are_free_again() {
        let mut places = Places::new();
        let known = |id: &str| id == "a";
        assert!(take_one(&mut places, "a", Some(2), 100, known));
        assert!(take_one(&mut places, "b", Some(2), 100, known));
        assert!(!take_one(&mut places, "c", Some(2), 100 + UNUSED - 1, known));
        assert!(take_one(&mut places, "a", Some(2), 100, known), "it has its place");
        assert!(take_one(&mut places, "c", Some(2), 100 + UNUSED, known), "nobody came to b");
        assert_eq!(places.keys().collect::<Vec<_>>(), ["a", "c"]);
        assert!(take_one(&mut places, "d", None, 100, known));
    }
}
