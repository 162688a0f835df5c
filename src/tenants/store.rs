//! The store on the disk, in SQLite. All that comes from outside is a bound parameter.

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Row as SqlRow, Transaction, TransactionBehavior, params};

use super::{
    Entry, KeyInfo, Limits, Month, NewKey, Totals,
    key::{self, Hash},
    scope,
    usage::Row,
};

/// Audit entries that are kept of each tenant, and as many of the operator.
const AUDITED: i64 = 10_000;
/// How long another program may hold the store.
const BUSY: Duration = Duration::from_secs(5);

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS tenants (name TEXT PRIMARY KEY, sessions INTEGER, session_seconds INTEGER, viewers INTEGER,
    stored_bytes INTEGER, requests_per_minute INTEGER, burst INTEGER);
CREATE TABLE IF NOT EXISTS tenant_keys (hash TEXT PRIMARY KEY, tenant TEXT NOT NULL, scopes TEXT NOT NULL, note TEXT NOT NULL,
    created INTEGER NOT NULL, revoked INTEGER);
CREATE TABLE IF NOT EXISTS changes (name TEXT PRIMARY KEY, number INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS tenant_usage (tenant TEXT NOT NULL, month TEXT NOT NULL, process TEXT NOT NULL,
    session_us INTEGER NOT NULL, gpu_us INTEGER NOT NULL, frames INTEGER NOT NULL, egress_bytes INTEGER NOT NULL,
    PRIMARY KEY (tenant, month, process));
CREATE TABLE IF NOT EXISTS audit (process TEXT NOT NULL, number INTEGER NOT NULL, time_ms INTEGER NOT NULL,
    tenant TEXT NOT NULL, key_id TEXT NOT NULL, method TEXT NOT NULL, route TEXT NOT NULL, object TEXT NOT NULL,
    status INTEGER NOT NULL, PRIMARY KEY (process, number));
CREATE INDEX IF NOT EXISTS audit_by_time ON audit (tenant, time_ms);
INSERT OR IGNORE INTO changes (name, number) VALUES ('keys', 0);
";

/// The store cannot be used, or does not have what is asked for.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("auth.store: {0}")]
    Address(&'static str),
    #[error("the store of tenants (auth.store) fails: {0}")]
    Store(#[from] rusqlite::Error),
    /// There is no such tenant or key.
    #[error("{0}")]
    Unknown(String),
    #[error("{0}")]
    Invalid(String),
    #[error("the store of tenants panicked; the server's log says more")]
    Fault,
}

type Result<T, E = Failure> = std::result::Result<T, E>;

/// See the module. Its calls run on threads that may block.
#[derive(Clone)]
pub struct Store(Arc<Mutex<Connection>>);

/// A key as the store has it.
pub struct Kept {
    pub hash: Hash,
    pub info: KeyInfo,
}

impl Store {
    /// Opens `sqlite:///PATH`, made where there is none.
    pub async fn open(url: &str) -> Result<Self> {
        let path = path(url).map_err(Failure::Address)?;
        let open = move || {
            let connection = Connection::open(&path)?;
            // In milliseconds; `Connection::busy_timeout` needs a newer SQLite than Debian 12 has.
            connection.pragma_update(None, "busy_timeout", BUSY.as_millis() as i64)?;
            // A crash of the server loses nothing that has been committed.
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            connection.execute_batch(TABLES)?;
            Ok(Self(Arc::new(Mutex::new(connection))))
        };
        tokio::task::spawn_blocking(open).await.unwrap_or(Err(Failure::Fault))
    }

    /// Runs `work` in a transaction, which is undone where that fails.
    async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let connection = self.0.clone();
        let change = move || {
            let mut connection = connection.lock();
            // Begun for writing: a reader that becomes a writer may be refused at once.
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        };
        tokio::task::spawn_blocking(change).await.unwrap_or(Err(Failure::Fault))
    }

    async fn look<T: Send + 'static>(&self, work: impl FnOnce(&Connection) -> Result<T> + Send + 'static) -> Result<T> {
        let connection = self.0.clone();
        tokio::task::spawn_blocking(move || work(&connection.lock())).await.unwrap_or(Err(Failure::Fault))
    }

    /// Grows with every change of tenants and keys.
    pub async fn changes(&self) -> Result<i64> {
        let changes = "SELECT number FROM changes WHERE name = 'keys'";
        self.look(move |store| Ok(store.query_row(changes, [], |row| row.get(0))?)).await
    }

    pub async fn tenants(&self) -> Result<Vec<(String, Limits)>> {
        let read = |row: &SqlRow<'_>| {
            let limit = |index| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(index)?.map(i64::cast_unsigned));
            let limits = Limits {
                sessions: limit(1)?,
                session_seconds: limit(2)?,
                viewers: limit(3)?,
                stored_bytes: limit(4)?,
                requests_per_minute: limit(5)?,
                burst: limit(6)?,
            };
            Ok((row.get(0)?, limits))
        };
        self.look(move |store| {
            let mut query = store.prepare(
                "SELECT name, sessions, session_seconds, viewers, stored_bytes, requests_per_minute, burst FROM tenants \
                 ORDER BY name",
            )?;
            Ok(query.query_map([], read)?.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Makes a tenant, or changes its limits.
    pub async fn put_tenant(&self, name: &str, limits: &Limits) -> Result<()> {
        super::check_name(name).map_err(Failure::Invalid)?;
        limits.check().map_err(Failure::Invalid)?;
        let (name, limits) = (name.to_owned(), *limits);
        self.change(move |store| {
            let number = |limit: Option<u64>| limit.map(u64::cast_signed);
            store.execute(
                "INSERT INTO tenants (name, sessions, session_seconds, viewers, stored_bytes, requests_per_minute, burst) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (name) DO UPDATE SET sessions = excluded.sessions, \
                 session_seconds = excluded.session_seconds, viewers = excluded.viewers, \
                 stored_bytes = excluded.stored_bytes, requests_per_minute = excluded.requests_per_minute, \
                 burst = excluded.burst",
                params![
                    name,
                    number(limits.sessions),
                    number(limits.session_seconds),
                    number(limits.viewers),
                    number(limits.stored_bytes),
                    number(limits.requests_per_minute),
                    number(limits.burst)
                ],
            )?;
            changed(store)
        })
        .await
    }

    /// Removes a tenant and revokes its keys; its usage and its audit log stay.
    pub async fn remove_tenant(&self, name: &str) -> Result<()> {
        let name = name.to_owned();
        self.change(move |store| {
            if store.execute("DELETE FROM tenants WHERE name = ?1", [&name])? == 0 {
                return Err(no_tenant(&name));
            }
            let revoke = "UPDATE tenant_keys SET revoked = ?1 WHERE tenant = ?2 AND revoked IS NULL";
            store.execute(revoke, params![now(), name])?;
            changed(store)
        })
        .await
    }

    pub async fn keys(&self) -> Result<Vec<Kept>> {
        let read = |row: &SqlRow<'_>| {
            let hash: String = row.get(0)?;
            let scopes: String = row.get(2)?;
            // A hash that is none was not written by us, and opens nothing.
            let Some(hash) = key::from_hex(&hash) else { return Ok(None) };
            let info = KeyInfo {
                id: key::id(&hash),
                tenant: row.get(1)?,
                scopes: scope::read(&scopes),
                note: row.get(3)?,
                created: row.get(4)?,
                revoked: row.get(5)?,
            };
            Ok(Some(Kept { hash, info }))
        };
        self.look(move |store| {
            let keys = "SELECT hash, tenant, scopes, note, created, revoked FROM tenant_keys ORDER BY created, hash";
            let mut query = store.prepare(keys)?;
            let keys = query.query_map([], read)?.collect::<Result<Vec<_>, _>>()?;
            Ok(keys.into_iter().flatten().collect())
        })
        .await
    }

    /// Makes a key; it is returned in full here and never again.
    pub async fn add_key(&self, new: &NewKey) -> Result<(String, KeyInfo)> {
        new.check().map_err(Failure::Invalid)?;
        let new = new.clone();
        self.change(move |store| {
            let (text, created) = (key::make(), now());
            let hash = key::hash(text.as_bytes()).ok_or(Failure::Fault)?;
            let made = store.execute(
                "INSERT INTO tenant_keys (hash, tenant, scopes, note, created) \
                 SELECT ?1, name, ?2, ?3, ?4 FROM tenants WHERE name = ?5",
                params![key::hex(&hash), scope::list(&new.scopes), new.note, created, new.tenant],
            )?;
            if made == 0 {
                return Err(no_tenant(&new.tenant));
            }
            changed(store)?;
            let NewKey { tenant, scopes, note } = new;
            Ok((text, KeyInfo { id: key::id(&hash), tenant, scopes, note, created, revoked: None }))
        })
        .await
    }

    /// Revokes a key by its id.
    pub async fn revoke(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.change(move |store| {
            let revoke = "UPDATE tenant_keys SET revoked = ?1 WHERE substr(hash, 1, 16) = ?2 AND revoked IS NULL";
            if store.execute(revoke, params![now(), id])? == 0 {
                let shown: String = id.chars().filter(|c| !c.is_control()).take(64).collect();
                let cause = format!("there is no key `{shown}` in force; the list of keys has their ids");
                return Err(Failure::Unknown(cause));
            }
            changed(store)
        })
        .await
    }

    /// Writes what the process has counted since it began, and what it was asked for, in one transaction.
    pub async fn write(&self, process: &str, usage: &[(String, Month, Totals)], audit: &[(i64, Entry)]) -> Result<()> {
        let (process, usage, audit) = (process.to_owned(), usage.to_vec(), audit.to_vec());
        self.change(move |store| {
            let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
            let mut insert = store.prepare(
                "INSERT INTO tenant_usage (tenant, month, process, session_us, gpu_us, frames, egress_bytes) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (tenant, month, process) DO UPDATE SET \
                 session_us = excluded.session_us, gpu_us = excluded.gpu_us, frames = excluded.frames, \
                 egress_bytes = excluded.egress_bytes",
            )?;
            for (tenant, month, totals) in usage {
                insert.execute(params![
                    tenant,
                    month.to_string(),
                    process,
                    number(totals.session_us),
                    number(totals.gpu_us),
                    number(totals.frames),
                    number(totals.egress_bytes)
                ])?;
            }
            let mut insert = store.prepare(
                "INSERT INTO audit (process, number, time_ms, tenant, key_id, method, route, object, status) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (process, number) DO NOTHING",
            )?;
            for (place, entry) in audit {
                let Entry { time_ms, tenant, key, method, route, object, status } = entry;
                insert.execute(params![process, place, time_ms, tenant, key, method, route, object, status])?;
            }
            Ok(())
        })
        .await
    }

    /// Usage by tenant and month, the newest month first.
    pub async fn usage(&self, tenant: Option<&str>, month: Option<Month>) -> Result<Vec<Row>> {
        let (tenant, month) = (tenant.map(str::to_owned), month.map(|month| month.to_string()));
        let read = |row: &SqlRow<'_>| {
            let number = |index| Ok::<_, rusqlite::Error>(row.get::<_, i64>(index)?.max(0).cast_unsigned());
            let totals =
                Totals { session_us: number(2)?, gpu_us: number(3)?, frames: number(4)?, egress_bytes: number(5)? };
            Ok(Row::new(row.get(0)?, row.get(1)?, totals))
        };
        self.look(move |store| {
            let mut query = store.prepare(
                "SELECT tenant, month, SUM(session_us), SUM(gpu_us), SUM(frames), SUM(egress_bytes) FROM tenant_usage \
                 WHERE (?1 IS NULL OR tenant = ?1) AND (?2 IS NULL OR month = ?2) GROUP BY tenant, month \
                 ORDER BY month DESC, tenant",
            )?;
            Ok(query.query_map(params![tenant, month], read)?.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Microseconds of sessions in a month that others than `process` have counted, by tenant.
    pub async fn others(&self, month: Month, process: &str) -> Result<HashMap<String, u64>> {
        let process = process.to_owned();
        let read = |row: &SqlRow<'_>| Ok((row.get(0)?, row.get::<_, i64>(1)?.max(0).cast_unsigned()));
        self.look(move |store| {
            let mut query = store.prepare(
                "SELECT tenant, SUM(session_us) FROM tenant_usage WHERE month = ?1 AND process <> ?2 GROUP BY tenant",
            )?;
            Ok(query.query_map(params![month.to_string(), process], read)?.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The newest entries of before `before`, in milliseconds since 1970.
    pub async fn audit(&self, tenant: Option<&str>, before: i64, most: u16) -> Result<Vec<Entry>> {
        let tenant = tenant.map(str::to_owned);
        let read = |row: &SqlRow<'_>| {
            Ok(Entry {
                time_ms: row.get(0)?,
                tenant: row.get(1)?,
                key: row.get(2)?,
                method: row.get(3)?,
                route: row.get(4)?,
                object: row.get(5)?,
                status: row.get(6)?,
            })
        };
        self.look(move |store| {
            let mut query = store.prepare(
                "SELECT time_ms, tenant, key_id, method, route, object, status FROM audit \
                 WHERE (?1 IS NULL OR tenant = ?1) AND time_ms < ?2 ORDER BY time_ms DESC, number DESC LIMIT ?3",
            )?;
            Ok(query.query_map(params![tenant, before, most], read)?.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Adds up what processes have counted in months before `month`, and forgets old entries of the audit log.
    pub async fn tidy(&self, month: Month) -> Result<()> {
        let month = month.to_string();
        self.change(move |store| {
            store.execute(
                "INSERT INTO tenant_usage (tenant, month, process, session_us, gpu_us, frames, egress_bytes) \
                 SELECT tenant, month, '', SUM(session_us), SUM(gpu_us), SUM(frames), SUM(egress_bytes) FROM tenant_usage \
                 WHERE month < ?1 GROUP BY tenant, month ON CONFLICT (tenant, month, process) DO UPDATE SET \
                 session_us = excluded.session_us, gpu_us = excluded.gpu_us, frames = excluded.frames, \
                 egress_bytes = excluded.egress_bytes",
                [&month],
            )?;
            store.execute("DELETE FROM tenant_usage WHERE month < ?1 AND process <> ''", [&month])?;
            let mut tenants = store.prepare("SELECT DISTINCT tenant FROM audit")?;
            let tenants = tenants.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
            for tenant in tenants {
                let oldest = "SELECT time_ms FROM audit WHERE tenant = ?1 ORDER BY time_ms DESC LIMIT 1 OFFSET ?2";
                let oldest = store.query_row(oldest, params![tenant, AUDITED - 1], |row| row.get::<_, i64>(0));
                if let Some(oldest) = oldest.optional()? {
                    store.execute("DELETE FROM audit WHERE tenant = ?1 AND time_ms < ?2", params![tenant, oldest])?;
                }
            }
            Ok(())
        })
        .await
    }
}

fn changed(store: &Transaction<'_>) -> Result<()> {
    store.execute("UPDATE changes SET number = number + 1 WHERE name = 'keys'", [])?;
    Ok(())
}

/// The file of a store's address.
pub fn path(url: &str) -> std::result::Result<PathBuf, &'static str> {
    let path = url.strip_prefix("sqlite://").unwrap_or_default();
    // Relative to whom, nobody could say of a service.
    if path.starts_with('/') && path.len() > 1 { Ok(path.into()) } else { Err("must be \"sqlite:///PATH\"") }
}

fn no_tenant(name: &str) -> Failure {
    let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    Failure::Unknown(format!("there is no tenant `{shown}`; make it first"))
}

/// Seconds since 1970.
fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn store(folder: &std::path::Path) -> Store {
        Store::open(&format!("sqlite://{}", folder.join("t.db").display())).await.unwrap()
    }

    fn month(text: &str) -> Month {
        Month::parse(text).unwrap()
    }

    #[test]
    fn an_address_is_that_of_a_file() {
        assert_eq!(path("sqlite:///var/x.db").unwrap(), PathBuf::from("/var/x.db"));
        for bad in ["", "x.db", "sqlite://x.db", "sqlite::memory:", "sqlite:///", "postgres://host/db"] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn what_is_written_twice_is_counted_once_and_months_are_added_up() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let at = |frames| Totals { session_us: frames * 40_000, frames, ..Totals::default() };
        let row = |month, frames| ("a".to_owned(), month, at(frames));
        let (september, november) = (month("2026-09"), month("2026-11"));
        for process in ["first", "second"] {
            for frames in [10, 25, 25] {
                store.write(process, &[row(september, frames), row(november, frames)], &[]).await.unwrap();
            }
        }
        let frames = |rows: Vec<Row>| rows.iter().map(|row| (row.month.clone(), row.frames)).collect::<Vec<_>>();
        let both = [("2026-11".to_owned(), 50), ("2026-09".to_owned(), 50)];
        for _ in 0..3 {
            assert_eq!(frames(store.usage(None, None).await.unwrap()), both);
            store.tidy(november.before()).await.unwrap();
        }
        assert_eq!(frames(store.usage(Some("a"), Some(november)).await.unwrap()), both[..1]);
        assert!(store.usage(Some("a' OR '1'='1"), None).await.unwrap().is_empty());
        assert_eq!(store.others(november, "first").await.unwrap()["a"], 25 * 40_000);
        let rows = store.usage(None, None).await.unwrap();
        assert_eq!(rows[0].session_seconds, 2.0);
        let text = crate::tenants::csv(&rows[..1]);
        assert!(text.ends_with("\r\na,2026-11,2.000000,0.000000,50,0\r\n"), "{text}");
    }

    #[tokio::test]
    async fn keys_are_hashes_on_the_disk_and_end_with_their_tenant() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let new =
            |tenant: &str| NewKey { tenant: tenant.into(), scopes: vec![scope::Scope::Watch], note: "'; --".into() };
        assert!(matches!(store.add_key(&new("a")).await, Err(Failure::Unknown(_))));
        store.put_tenant("a", &Limits { viewers: Some(3), ..Limits::default() }).await.unwrap();
        let before = store.changes().await.unwrap();
        let (text, info) = store.add_key(&new("a")).await.unwrap();
        assert!(store.changes().await.unwrap() > before);
        let kept = store.keys().await.unwrap();
        assert_eq!((&kept[0].info, Some(kept[0].hash)), (&info, key::hash(text.as_bytes())));
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            assert!(!bytes.windows(text.len()).any(|part| part == text.as_bytes()), "the key is on the disk");
        }
        store.put_tenant("a", &Limits::default()).await.unwrap();
        assert_eq!(store.tenants().await.unwrap(), [("a".to_owned(), Limits::default())]);
        store.remove_tenant("a").await.unwrap();
        assert!(store.keys().await.unwrap()[0].info.revoked.is_some());
        assert!(matches!(store.revoke(&info.id).await, Err(Failure::Unknown(_))));
        assert!(matches!(store.put_tenant("../a", &Limits::default()).await, Err(Failure::Invalid(_))));
    }

    #[tokio::test]
    async fn the_audit_log_keeps_the_newest_of_each_tenant() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let entry = |number: i64, tenant: &str| {
            let caller = crate::tenants::Caller::Operator;
            (number, Entry { time_ms: number, tenant: tenant.into(), ..Entry::new(&caller, "POST", "/x", "o", 201) })
        };
        let loud = (1..=AUDITED + 7).map(|number| entry(number, "loud"));
        let entries: Vec<_> = loud.chain([entry(AUDITED + 8, "quiet")]).collect();
        store.write("p", &[], &entries).await.unwrap();
        store.tidy(Month::now()).await.unwrap();
        let newest = store.audit(None, i64::MAX, 2).await.unwrap();
        assert_eq!(newest.iter().map(|e| e.tenant.as_str()).collect::<Vec<_>>(), ["quiet", "loud"]);
        assert_eq!(store.audit(Some("loud"), 9, 1000).await.unwrap().len(), 1);
        assert_eq!(store.audit(Some("loud"), 8, 1000).await.unwrap().len(), 0);
    }
}
