//! Tenants and keys in memory, as the store has them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use parking_lot::RwLock;

use super::{
    Caller, Entry, Failure, Key, Month, Scope, Store, Tenant,
    audit::Log,
    key::{self, Hash},
};
use crate::avatar;

/// How often what has been counted is written, and the store is looked at for changes.
const BEAT: Duration = Duration::from_millis(300);
/// How often what old processes have left is added up.
const TIDY: Duration = Duration::from_secs(600);

type Result<T, E = Failure> = std::result::Result<T, E>;

/// See the module.
pub struct Tenants {
    store: Store,
    known: RwLock<Known>,
    audit: Log,
    avatars: Arc<avatar::Store>,
    /// This start of the server, in the store.
    process: String,
    /// One reads the store at a time, and one writes: an older state does not replace a newer one. Holds the number of
    /// changes that have been read.
    reading: tokio::sync::Mutex<i64>,
    writing: tokio::sync::Mutex<()>,
    failing: AtomicBool,
}

#[derive(Default)]
struct Known {
    /// Those that have been removed since the start of the server too: a name stays one tenant.
    tenants: BTreeMap<String, Arc<Tenant>>,
    keys: HashMap<Hash, Arc<Key>>,
}

impl Tenants {
    /// Opens the store and reads it.
    pub async fn open(url: &str, avatars: Arc<avatar::Store>) -> Result<Arc<Self>> {
        let tenants = Self {
            store: Store::open(url).await?,
            known: RwLock::default(),
            audit: Log::default(),
            avatars,
            process: key::hex(&rand::random::<[u8; 8]>()),
            reading: tokio::sync::Mutex::new(-1),
            writing: tokio::sync::Mutex::default(),
            failing: AtomicBool::new(false),
        };
        tenants.read().await?;
        tenants.tidy().await?;
        Ok(Arc::new(tenants))
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The key in force that `text` is.
    pub fn find(&self, text: &[u8]) -> Option<Arc<Key>> {
        let hash = key::hash(text)?;
        self.known.read().keys.get(&hash).filter(|key| !key.is_revoked()).cloned()
    }

    pub fn get(&self, name: &str) -> Option<Arc<Tenant>> {
        self.known.read().tenants.get(name).filter(|tenant| !tenant.is_removed()).cloned()
    }

    /// The tenant `name` itself, without one of its keys.
    pub fn caller(&self, name: &str) -> Option<Caller> {
        let key = |tenant| Arc::new(Key::new("cluster".into(), tenant, Scope::ALL.into()));
        self.get(name).map(key).map(Caller::Tenant)
    }

    pub fn list(&self) -> Vec<Arc<Tenant>> {
        self.known.read().tenants.values().filter(|tenant| !tenant.is_removed()).cloned().collect()
    }

    pub fn record(&self, entry: Entry) {
        self.audit.record(entry);
    }

    /// Entries of the audit log that were left out.
    pub fn unrecorded(&self) -> u64 {
        self.audit.lost()
    }

    /// Counts anew what the avatars of a tenant take.
    pub fn count_avatars(&self, name: &str) {
        if let Some(tenant) = self.get(name) {
            tenant.set_avatar_bytes(self.avatars.bytes_of(name));
        }
    }

    /// Reads what the store has now.
    pub async fn read(&self) -> Result<()> {
        let mut seen = self.reading.lock().await;
        // Before the rest: what changes meanwhile is read again.
        let changes = self.store.changes().await?;
        let (tenants, keys) = (self.store.tenants().await?, self.store.keys().await?);
        let month = Month::now();
        let others = self.store.others(month, &self.process).await?;
        // The disk is asked about those alone that are new; of the others it is counted with each change.
        let new: Vec<String> = {
            let known = self.known.read();
            tenants.iter().map(|(name, _)| name).filter(|name| !known.tenants.contains_key(*name)).cloned().collect()
        };
        let avatars = self.avatars.clone();
        let sizes = move || {
            new.into_iter()
                .map(|name| {
                    let bytes = avatars.bytes_of(&name);
                    (name, bytes)
                })
                .collect()
        };
        let sizes: HashMap<String, u64> = tokio::task::spawn_blocking(sizes).await.unwrap_or_default();
        let mut known = self.known.write();
        let mut keys_now = HashMap::new();
        for (name, limits) in &tenants {
            let tenant = known.tenants.entry(name.clone()).or_insert_with(|| {
                let tenant = Tenant::new(name.clone(), *limits);
                tenant.set_avatar_bytes(sizes.get(name).copied().unwrap_or_default());
                Arc::new(tenant)
            });
            tenant.set_limits(*limits);
            tenant.meter().lock().set_others(month, others.get(name).copied().unwrap_or_default());
        }
        for tenant in known.tenants.values() {
            tenant.set_removed(!tenants.iter().any(|(name, _)| *name == tenant.name));
        }
        for kept in keys.into_iter().filter(|kept| kept.info.revoked.is_none()) {
            let Some(tenant) = known.tenants.get(&kept.info.tenant).filter(|tenant| !tenant.is_removed()) else {
                continue;
            };
            let key = known.keys.get(&kept.hash).cloned();
            let made = || Arc::new(Key::new(kept.info.id.clone(), tenant.clone(), kept.info.scopes.clone()));
            keys_now.insert(kept.hash, key.unwrap_or_else(made));
        }
        for (hash, key) in std::mem::replace(&mut known.keys, keys_now) {
            if !known.keys.contains_key(&hash) {
                key.revoke();
            }
        }
        *seen = changes;
        Ok(())
    }

    /// Writes what has been counted since the last time.
    pub async fn write(&self) -> Result<()> {
        let _one = self.writing.lock().await;
        // Those that have been removed too: what they used stays.
        let tenants: Vec<_> = self.known.read().tenants.values().cloned().collect();
        let mut usage = Vec::new();
        for tenant in &tenants {
            let changed = tenant.meter().lock().take_changed();
            usage.extend(changed.into_iter().map(|(month, totals)| (tenant.name.clone(), month, totals)));
        }
        let audit = self.audit.take();
        if usage.is_empty() && audit.is_empty() {
            return Ok(());
        }
        let written = self.store.write(&self.process, &usage, &audit).await;
        if written.is_err() {
            for (name, month, _) in &usage {
                tenants.iter().filter(|t| t.name == *name).for_each(|t| t.meter().lock().put_back(*month));
            }
            self.audit.put_back(audit);
        }
        written
    }

    /// Adds up the months before the last one, in which no process writes any more.
    async fn tidy(&self) -> Result<()> {
        self.store.tidy(Month::now().before()).await
    }

    /// Reads and writes until nobody has the tenants any more.
    pub async fn look_after(tenants: Weak<Self>) {
        let mut tidied = Instant::now();
        loop {
            tokio::time::sleep(BEAT).await;
            let Some(tenants) = tenants.upgrade() else { return };
            let mut done = tenants.beat().await;
            if done.is_ok() && tidied.elapsed() > TIDY {
                tidied = Instant::now();
                done = tenants.tidy().await;
            }
            match done {
                Err(failure) if !tenants.failing.swap(true, Relaxed) => {
                    tracing::error!(
                        "{failure}; usage is kept in memory and keys stay as they are until it works again"
                    );
                }
                Ok(()) if tenants.failing.swap(false, Relaxed) => tracing::warn!("the store of tenants works again"),
                _ => {}
            }
        }
    }

    async fn beat(&self) -> Result<()> {
        self.write().await?;
        let changes = self.store.changes().await?;
        if changes == *self.reading.lock().await { Ok(()) } else { self.read().await }
    }

    /// Writes the last of it; for the end of the program.
    pub async fn close(&self) {
        if let Err(failure) = self.write().await {
            tracing::error!("{failure}; what was used in the last moments is not counted");
        }
    }
}
