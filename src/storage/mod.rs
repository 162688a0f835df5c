//! Where what renders take and give is kept: a folder that nodes share, or a bucket of S3, by the crate `object_store`.
//!
//! ```text
//! PREFIX/renders/job-7/video audio bank     what was handed in, removed when the job is over
//!                      result-1f0c.mp4      until the job is forgotten
//! ```
//!
//! Names are made by this program alone; nothing of a request is in them.

mod credentials;
mod range;

use std::{fmt, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use object_store::{
    BackoffConfig, ClientOptions, GetOptions, ObjectStore, ObjectStoreExt, RetryConfig, aws::AmazonS3Builder,
    buffered::BufWriter, local::LocalFileSystem, path::Path as Name, prefix::PrefixStore,
};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Handle,
};
use url::Url;

pub use self::range::{Asked, Span};

/// Bytes of a file that are read at a time.
const PIECE: usize = 1 << 20;
/// Time of a connection's beginning, and of one request.
const CONNECT: Duration = Duration::from_secs(5);
const REQUEST: Duration = Duration::from_secs(120);
/// Time within which a request is tried again.
const RETRY: Duration = Duration::from_secs(20);
const RETRIES: usize = 4;

/// What S3 is told; what is not said comes from the environment variables that AWS's own programs read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `file:///folder` or `s3://bucket/prefix`.
    pub url: String,
    /// Of a server that is not Amazon's.
    pub endpoint: Option<Url>,
    pub region: Option<String>,
    /// File with the keys, as AWS's programs write it.
    pub credentials: Option<std::path::PathBuf>,
}

/// Why something is not stored or not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// There is no such object.
    #[error("{0}")]
    Missing(String),
    /// The settings are wrong, or the keys are.
    #[error("{0}")]
    Refused(String),
    /// Another try may find it working.
    #[error("{0}")]
    Failed(String),
}

pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// See the module. Clones are of the same place.
#[derive(Clone)]
pub struct Storage {
    store: Arc<dyn ObjectStore>,
    /// As errors call it: without keys.
    shown: Arc<str>,
    /// For threads outside of it.
    runtime: Handle,
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// Whether `url` can be one of a storage; the error says what it must be.
pub fn check_url(text: &str) -> Result<(), &'static str> {
    let must = "must be \"s3://BUCKET/PREFIX\" or \"file:///FOLDER\", with nothing behind it";
    let url = Url::parse(text).map_err(|_| must)?;
    let plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    let good = match url.scheme() {
        "s3" => url.host_str().is_some_and(|bucket| !bucket.is_empty()) && url.port().is_none(),
        "file" => url.to_file_path().is_ok(),
        _ => false,
    };
    if plain && good { Ok(()) } else { Err(must) }
}

/// Reads a text as the file of S3's keys.
#[doc(hidden)]
pub fn read_keys(text: &str) -> bool {
    credentials::parse(text).is_ok()
}

impl Storage {
    /// A folder of this machine, which is made where there is none. Call it within a runtime, as [`open`](Self::open).
    pub fn folder(folder: &Path) -> Result<Self> {
        let shown = folder.display().to_string();
        let wrong = |e: &dyn fmt::Display| Failure::Refused(format!("{shown}: the folder cannot be used: {e}"));
        std::fs::create_dir_all(folder).map_err(|e| wrong(&e))?;
        let store = LocalFileSystem::new_with_prefix(folder).map_err(|e| wrong(&e))?.with_automatic_cleanup(true);
        Ok(Self { store: Arc::new(store), shown: shown.into(), runtime: Handle::current() })
    }

    /// Opens the place and looks whether it answers and lets us in.
    pub async fn open(settings: &Settings) -> Result<Self> {
        let refused = |cause: String| Failure::Refused(format!("storage.url = \"{}\": {cause}", settings.url));
        check_url(&settings.url).map_err(|must| refused(must.into()))?;
        let url = Url::parse(&settings.url).map_err(|e| refused(e.to_string()))?;
        let storage = match url.to_file_path() {
            Ok(folder) if url.scheme() == "file" => Self::folder(&folder).map_err(|e| refused(e.to_string()))?,
            _ => Self::bucket(&url, settings)?,
        };
        storage.list("renders").await?;
        Ok(storage)
    }

    fn bucket(url: &Url, settings: &Settings) -> Result<Self> {
        let refused = |cause: String| Failure::Refused(format!("storage.url = \"{url}\": {cause}"));
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(url.host_str().unwrap_or_default())
            .with_client_options(ClientOptions::new().with_connect_timeout(CONNECT).with_timeout(REQUEST))
            .with_retry(RetryConfig { backoff: BackoffConfig::default(), max_retries: RETRIES, retry_timeout: RETRY });
        if let Some(endpoint) = &settings.endpoint {
            let plain = endpoint.scheme() == "http";
            builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/')).with_allow_http(plain);
        }
        if let Some(region) = &settings.region {
            builder = builder.with_region(region);
        }
        if let Some(file) = &settings.credentials {
            let keys = credentials::read(file).map_err(Failure::Refused)?;
            builder = builder.with_access_key_id(keys.id).with_secret_access_key(keys.secret);
            if let Some(token) = keys.token {
                builder = builder.with_token(token);
            }
        }
        let store = builder.build().map_err(|e| refused(e.to_string()))?;
        let prefix = Name::from_url_path(url.path()).map_err(|e| refused(e.to_string()))?;
        let store: Arc<dyn ObjectStore> = match prefix.as_ref().is_empty() {
            true => Arc::new(store),
            false => Arc::new(PrefixStore::new(store, prefix)),
        };
        Ok(Self { store, shown: url.as_str().into(), runtime: Handle::current() })
    }

    /// Stores a file; one of that name is replaced. Nobody sees a part of it. Returns its bytes.
    pub async fn put(&self, name: &str, file: &Path) -> Result<u64> {
        let broken = |e: std::io::Error| Failure::Failed(format!("{}: cannot be read: {e}", file.display()));
        let mut from = File::open(file).await.map_err(broken)?;
        let mut to = BufWriter::new(self.store.clone(), Name::from(name));
        let mut piece = vec![0; PIECE];
        let mut bytes = 0;
        let copied = loop {
            let count = match from.read(&mut piece).await {
                Ok(0) => break Ok(()),
                Ok(count) => count,
                Err(e) => break Err(broken(e)),
            };
            if let Err(e) = to.put(Bytes::copy_from_slice(&piece[..count])).await {
                break Err(self.failure(name, &e));
            }
            bytes += count as u64;
        };
        if copied.is_err() {
            // Parts that were sent already; where even that fails, the first cause is the one to report.
            let _ = to.abort().await;
            return copied.map(|()| bytes);
        }
        to.shutdown().await.map_err(|e| match e.downcast::<object_store::Error>() {
            Ok(e) => self.failure(name, &e),
            Err(e) => self.failed(name, &e),
        })?;
        Ok(bytes)
    }

    /// Fetches an object into a new file.
    pub async fn fetch(&self, name: &str, file: &Path) -> Result<()> {
        let broken = |e: std::io::Error| Failure::Failed(format!("{}: cannot be written: {e}", file.display()));
        let mut to = File::create(file).await.map_err(broken)?;
        let (_, mut pieces) = self.read(name, None).await?;
        while let Some(piece) = pieces.try_next().await? {
            to.write_all(&piece).await.map_err(broken)?;
        }
        to.flush().await.map_err(broken)
    }

    /// Bytes of an object.
    pub async fn size(&self, name: &str) -> Result<u64> {
        Ok(self.store.head(&Name::from(name)).await.map_err(|e| self.failure(name, &e))?.size)
    }

    /// An object, or a part of it, as it comes: its whole size and its pieces.
    pub async fn read(
        &self,
        name: &str,
        part: Option<Span>,
    ) -> Result<(u64, impl Stream<Item = Result<Bytes>> + Send + Unpin + use<>)> {
        let options =
            GetOptions { range: part.map(|part| (part.first..part.last + 1).into()), ..GetOptions::default() };
        let found = self.store.get_opts(&Name::from(name), options).await.map_err(|e| self.failure(name, &e))?;
        let (size, own, name) = (found.meta.size, self.clone(), name.to_owned());
        Ok((size, found.into_stream().map_err(move |e| own.failure(&name, &e))))
    }

    /// Names below a folder.
    pub async fn list(&self, folder: &str) -> Result<Vec<String>> {
        let found = self.store.list(Some(&Name::from(folder)));
        let names: Vec<String> =
            found.map_ok(|meta| meta.location.to_string()).try_collect().await.map_err(|e| self.failure(folder, &e))?;
        Ok(names)
    }

    /// Removes an object; that there is none is no failure.
    pub async fn remove(&self, name: &str) -> Result<()> {
        match self.store.delete(&Name::from(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(self.failure(name, &e)),
        }
    }

    /// Removes what is below a folder and is not to be kept.
    pub async fn remove_below(&self, folder: &str, keep: impl Fn(&str) -> bool) -> Result<()> {
        for name in self.list(folder).await? {
            let last = name.rsplit('/').next().unwrap_or_default();
            if !keep(last) {
                self.remove(&name).await?;
            }
        }
        Ok(())
    }

    /// Waits for one of the above on a thread that is none of the runtime's.
    pub fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Does work in the runtime that nobody waits for.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(work);
    }

    fn failed(&self, name: &str, error: &dyn fmt::Display) -> Failure {
        Failure::Failed(format!("storage {}: {name}: {}", self.shown, one_line(&error.to_string())))
    }

    fn failure(&self, name: &str, error: &object_store::Error) -> Failure {
        use object_store::Error;
        let place = &self.shown;
        match error {
            Error::NotFound { source, .. } if source.to_string().contains("NoSuchBucket") => no_bucket(place),
            Error::NotFound { .. } => Failure::Missing(format!("storage {place}: there is no {name}")),
            Error::Unauthenticated { .. } | Error::PermissionDenied { .. } => denied_by(place, name),
            // Lists are refused without a word of their own.
            other => {
                let text = other.to_string();
                let denied = ["401 Unauthorized", "403 Forbidden"].iter().any(|status| text.contains(status));
                match () {
                    () if denied => denied_by(place, name),
                    () if text.contains("NoSuchBucket") => no_bucket(place),
                    () => self.failed(name, other),
                }
            }
        }
    }
}

fn no_bucket(place: &str) -> Failure {
    Failure::Refused(format!("storage {place}: there is no such bucket: make it, or correct storage.url"))
}

fn denied_by(place: &str, name: &str) -> Failure {
    Failure::Refused(format!(
        "storage {place}: {name}: the keys do not allow it: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or \
         storage.credentials_file; they must allow to list, read, write and delete"
    ))
}

/// Errors of the library quote answers of servers, which may be long.
fn one_line(text: &str) -> String {
    const MOST: usize = 400;
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() > MOST {
        line.truncate(line.floor_char_boundary(MOST));
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_folder_or_a_bucket_and_nothing_else() {
        for good in ["file:///var/lib/renders", "s3://bucket", "s3://bucket/a/b"] {
            assert_eq!(check_url(good), Ok(()), "{good}");
        }
        for bad in ["", "bucket", "s3://", "s3:///a", "http://a/b", "file://host/a", "s3://id:key@bucket", "s3://b?x=1"]
        {
            assert!(check_url(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_folder_keeps_files_gives_parts_of_them_and_forgets_them() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::folder(&folder.path().join("kept")).unwrap();
        let file = folder.path().join("file");
        let content: Vec<u8> = (0..3_000_000u32).map(|n| ((n * 7) >> 3) as u8).collect();
        std::fs::write(&file, &content).unwrap();
        assert_eq!(storage.put("renders/job-1/result", &file).await, Ok(3_000_000));
        storage.put("renders/job-1/video", &file).await.unwrap();
        let back = folder.path().join("back");
        storage.fetch("renders/job-1/result", &back).await.unwrap();
        assert!(std::fs::read(&back).unwrap() == content);
        let (size, pieces) =
            storage.read("renders/job-1/result", Some(Span { first: 1_000_000, last: 1_000_009 })).await.unwrap();
        let part = pieces.try_collect::<Vec<_>>().await.unwrap().concat();
        assert_eq!((size, part.as_slice()), (3_000_000, &content[1_000_000..1_000_010]));
        storage.remove_below("renders/job-1", |name| name == "result").await.unwrap();
        assert_eq!(storage.list("renders/job-1").await.unwrap(), ["renders/job-1/result"]);
        storage.remove("renders/job-1/result").await.unwrap();
        storage.remove("renders/job-1/result").await.unwrap();
        assert!(matches!(storage.size("renders/job-1/result").await, Err(Failure::Missing(_))));
        assert!(matches!(storage.fetch("renders/job-1/result", &back).await, Err(Failure::Missing(_))));
    }
}
