//! Every node has all avatars: what one has got is listed in a bucket, and the others fetch it by HTTP from a node that has it.
//!
//! An avatar that was fetched or listed has a file `.cluster` with the digest of that moment: what is other than that has been changed
//! here, and what is no longer listed has been removed elsewhere.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_nats::jetstream::kv::{Operation, Store};
use axum::{body::Body, extract::Request, http::StatusCode};
use futures_util::StreamExt;
use lipstream_engines::digest;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use super::{Cluster, Member, forward, records::key_of};
use crate::{avatar, http::Problem};

const BUCKET: &str = "lipstream_avatars";
/// How often what is here is compared with what is listed.
const LOOK: Duration = Duration::from_secs(1);
const MARK: &str = ".cluster";
/// Files of an avatar: two a clip, and some.
const MAX_FILES: usize = 80;
/// Bytes of an avatar.
const MAX_BYTES: u64 = 8 << 30;

/// An avatar as the bucket has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Name, bytes and SHA-256 of each file.
    files: Vec<(String, u64, String)>,
    /// Who has listed it.
    node: String,
}

impl Listed {
    fn digest(&self) -> String {
        digest::sha256(&serde_json::to_vec(&self.files).unwrap_or_default())
    }

    fn check(&self) -> Result<(), String> {
        let good = self.files.len() <= MAX_FILES
            && self.files.iter().all(|(name, _, _)| is_file(name))
            && self.files.iter().map(|(_, bytes, _)| *bytes).sum::<u64>() <= MAX_BYTES;
        if good { Ok(()) } else { Err("its list of files is not one of ours".into()) }
    }
}

fn is_file(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// A file of an avatar, for another node.
pub async fn read(store: &avatar::Store, name: &str, file: &str) -> Result<Body, Problem> {
    let unknown = || Problem::not_found(format!("there is no file `{file}` of avatar `{name}`"));
    let folder = store.folder_of(name).filter(|_| is_file(file)).ok_or_else(unknown)?;
    let path = folder.join(file);
    if !path.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
        return Err(unknown());
    }
    let opened = tokio::fs::File::open(path).await.map_err(|_| unknown())?;
    let pieces = futures_util::stream::unfold(opened, |mut file| async move {
        let mut piece = bytes::BytesMut::with_capacity(1 << 18);
        match tokio::io::AsyncReadExt::read_buf(&mut file, &mut piece).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(piece.freeze()), file)),
            Err(error) => Some((Err(error), file)),
        }
    });
    Ok(Body::from_stream(pieces))
}

/// Digests of files by path, with the size and the time for which they hold.
type Digests = HashMap<std::path::PathBuf, (u64, SystemTime, String)>;

/// The avatar in `folder`.
fn list(folder: &Path, node: &str, digests: &Mutex<Digests>) -> std::io::Result<Listed> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let (Ok(name), meta) = (entry.file_name().into_string(), entry.path().symlink_metadata()?) else { continue };
        if !meta.is_file() || !is_file(&name) {
            continue;
        }
        let (path, key) = (entry.path(), (meta.len(), meta.modified()?));
        let known = digests.lock().get(&path).filter(|known| (known.0, known.1) == key).map(|known| known.2.clone());
        let digest = match known {
            Some(known) => known,
            None => {
                let digest = digest::sha256_of(std::fs::File::open(&path)?)?;
                digests.lock().insert(path, (key.0, key.1, digest.clone()));
                digest
            }
        };
        files.push((name, meta.len(), digest));
    }
    files.sort();
    Ok(Listed { files, node: node.to_owned() })
}

fn mark_of(folder: &Path) -> Option<String> {
    std::fs::read_to_string(folder.join(MARK)).ok()
}

fn mark(folder: &Path, digest: &str) {
    if let Err(error) = std::fs::write(folder.join(MARK), digest) {
        tracing::warn!("{}: {error}", folder.display());
    }
}

impl Member {
    /// Lists what is here and fetches what is not, for ever.
    pub(super) async fn follow_avatars(self: Arc<Self>) {
        let store = loop {
            match self.cluster.bucket(BUCKET, "Avatars of Lipstream").await {
                Ok(store) => break store,
                Err(error) => tracing::warn!("cluster: avatars are not shared: {error}"),
            }
            tokio::time::sleep(Duration::from_secs(10)).await;
        };
        let (mut had, mut failed): (BTreeSet<String>, HashMap<String, String>) = Default::default();
        let digests = Arc::default();
        loop {
            if self.cluster.is_connected()
                && let Err(error) = self.compare(&store, &mut had, &mut failed, &digests).await
            {
                tracing::debug!(%error, "avatars cannot be compared");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn compare(
        &self,
        store: &Store,
        had: &mut BTreeSet<String>,
        failed: &mut HashMap<String, String>,
        digests: &Arc<Mutex<Digests>>,
    ) -> Result<(), String> {
        let avatars = self.manager.avatars().clone();
        let here: BTreeSet<String> = avatars.names().into_iter().collect();
        let there = listed(&self.cluster, store).await?;
        for name in &here {
            let Some(folder) = avatars.folder_of(name) else { continue };
            // Hashing gigabytes would keep a thread of the runtime from all else.
            let (listed, node, known) = (folder.clone(), self.cluster.node().to_owned(), digests.clone());
            let own = tokio::task::spawn_blocking(move || list(&listed, &node, &known)).await;
            let own = own.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
            let (digest, synced) = (own.digest(), mark_of(&folder));
            let text = || serde_json::to_vec(&own).unwrap_or_default().into();
            match there.get(name) {
                Some(Some(known)) if known.digest() == digest => {
                    if synced.as_ref() != Some(&digest) {
                        mark(&folder, &digest);
                    }
                }
                // Another has changed it.
                Some(Some(known)) if synced.as_ref() == Some(&digest) => self.fetch(name, known, failed).await,
                Some(None) if synced.as_ref() == Some(&digest) => {
                    tracing::info!("avatar `{name}` has been removed on another node");
                    let _ = avatars.remove(name);
                }
                _ => {
                    store.put(key_of(name), text()).await.map_err(|e| e.to_string())?;
                    mark(&folder, &digest);
                }
            }
        }
        for (name, known) in &there {
            let Some(known) = known.as_ref().filter(|_| !here.contains(name)) else { continue };
            if had.remove(name) {
                store.delete(key_of(name)).await.map_err(|e| e.to_string())?;
            } else {
                self.fetch(name, known, failed).await;
            }
        }
        *had = avatars.names().into_iter().collect();
        Ok(())
    }

    /// Fetches an avatar that a session needs, where it is not here.
    pub(super) async fn fetch_avatar(&self, name: &str) {
        if name == avatar::DEMO || self.manager.avatars().folder_of(name).is_some() {
            return;
        }
        let Ok(store) = self.cluster.jetstream().get_key_value(BUCKET).await else { return };
        if let Ok(Some(Some(known))) = listed(&self.cluster, &store).await.map(|mut listed| listed.remove(name)) {
            self.fetch(name, &known, &mut HashMap::new()).await;
        }
    }

    async fn fetch(&self, name: &str, known: &Listed, failed: &mut HashMap<String, String>) {
        let mut nodes: Vec<_> = self.nodes().into_iter().filter(|node| !self.is_own(node)).collect();
        nodes.sort_by_key(|node| node.name != known.node);
        for node in nodes {
            match self.fetch_from(&node.url, name, known).await {
                Ok(()) => {
                    failed.remove(name);
                    tracing::info!("avatar `{name}` has been fetched from node `{}`", node.name);
                    return;
                }
                Err(error) if failed.get(name) != Some(&error) => {
                    tracing::warn!("avatar `{name}` cannot be fetched from node `{}`: {error}", node.name);
                    failed.insert(name.to_owned(), error);
                }
                Err(_) => {}
            }
        }
    }

    async fn fetch_from(&self, url: &str, name: &str, known: &Listed) -> Result<(), String> {
        known.check()?;
        let avatars = self.manager.avatars().clone();
        let work = avatars.unfinished().map_err(|e| e.to_string())?;
        let folder = work.path().join("avatar");
        tokio::fs::create_dir(&folder).await.map_err(|e| e.to_string())?;
        for (file, bytes, digest) in &known.files {
            let uri = format!("/cluster/avatars/{name}/{file}");
            let request = Request::builder().uri(uri).body(Body::empty()).map_err(|e| e.to_string())?;
            let answer = forward(url, self.secret(), request).await.map_err(|problem| problem.detail)?;
            if answer.status() != StatusCode::OK {
                return Err(format!("{file}: {}", answer.status()));
            }
            let mut out = tokio::fs::File::create(folder.join(file)).await.map_err(|e| e.to_string())?;
            let (mut pieces, mut hash, mut count) = (answer.into_body().into_data_stream(), Sha256::new(), 0);
            while let Some(piece) = pieces.next().await {
                let piece = piece.map_err(|e| format!("{file}: {e}"))?;
                count += piece.len() as u64;
                if count > *bytes {
                    break;
                }
                hash.update(&piece);
                out.write_all(&piece).await.map_err(|e| e.to_string())?;
            }
            out.flush().await.map_err(|e| e.to_string())?;
            if count != *bytes || digest::hexadecimal(&hash.finalize()) != *digest {
                return Err(format!("{file}: is not what was listed"));
            }
        }
        mark(&folder, &known.digest());
        let (name, manager) = (name.to_owned(), self.manager.clone());
        let installed = tokio::task::spawn_blocking(move || {
            let avatar = avatars.install(&name, work).map_err(|e| e.to_string())?;
            if let (Some(owner), Some(tenants)) = (&avatar.owner, manager.tenants()) {
                tenants.count_avatars(owner);
            }
            Ok(())
        });
        installed.await.unwrap_or_else(|e| Err(e.to_string()))
    }
}

/// All that the bucket has; `None` where it was removed.
async fn listed(cluster: &Cluster, store: &Store) -> Result<BTreeMap<String, Option<Listed>>, String> {
    let mut all = BTreeMap::new();
    // Nothing would ever come of a bucket that is empty. The store itself remembers how it was when it was opened.
    let stream = cluster.jetstream().get_stream(format!("KV_{BUCKET}")).await.map_err(|e| e.to_string())?;
    if stream.cached_info().state.messages == 0 {
        return Ok(all);
    }
    let mut entries = store.watch_with_history(">").await.map_err(|e| e.to_string())?;
    while let Some(entry) = entries.next().await {
        let entry = entry.map_err(|e| e.to_string())?;
        let name = entry.key.replace('=', ".");
        let known = match entry.operation {
            Operation::Put => serde_json::from_slice(&entry.value).ok(),
            Operation::Delete | Operation::Purge => None,
        };
        all.insert(name, known);
        if entry.delta == 0 {
            break;
        }
    }
    Ok(all)
}
