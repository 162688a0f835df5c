//! SHA-256 of an engine's files. Gigabytes of weights take longer to hash than to load, so the hash of a file that was not
//! written since is remembered: by the process, and of large files by `$XDG_CACHE_HOME/lipstream/hashes` too.

use std::{
    collections::HashMap,
    fmt, fs, io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    sync::LazyLock,
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;

use crate::{
    digest::{sha256, sha256_of},
    runtime::cache_dir,
};

/// Files from so many bytes on are remembered beyond the process.
const KEPT_FROM: u64 = 64 << 20;
/// Bytes of what is remembered of one.
const NOTE: u64 = 512;

/// Device, inode, length, and time of the last change in nanoseconds: what a write to a file changes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp(u64, u64, u64, i128);

impl Stamp {
    fn of(file: &fs::File) -> io::Result<Self> {
        let meta = file.metadata()?;
        let changed = i128::from(meta.ctime()) * 1_000_000_000 + i128::from(meta.ctime_nsec());
        Ok(Self(meta.dev(), meta.ino(), meta.len(), changed))
    }

    /// Whether a write at `now` would change it: clocks of file systems are coarse.
    fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as i128);
        now - self.3 > 2_000_000_000
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.0, self.1, self.2, self.3)
    }
}

/// Of a file as it is: all of it is read.
pub(super) fn read(path: &Path) -> io::Result<String> {
    sha256_of(fs::File::open(path)?)
}

/// Of a file; not read again where it was not written since it was.
pub(super) fn remembered(path: &Path) -> io::Result<String> {
    remembered_in(path, KEPT_FROM, || cache_dir("hashes"), SystemTime::now())
}

fn remembered_in(
    path: &Path,
    kept_from: u64,
    folder: impl FnOnce() -> Option<PathBuf>,
    now: SystemTime,
) -> io::Result<String> {
    static KNOWN: LazyLock<Mutex<HashMap<PathBuf, (Stamp, String)>>> = LazyLock::new(Default::default);
    let file = fs::File::open(path)?;
    let stamp = Stamp::of(&file)?;
    if let Some((_, hash)) = KNOWN.lock().get(path).filter(|(known, _)| *known == stamp) {
        return Ok(hash.clone());
    }
    let note = (stamp.2 >= kept_from).then(folder).flatten().map(|folder| note_of(&folder, path));
    let hash = match note.as_deref().and_then(|note| noted(note, &stamp)) {
        Some(hash) => hash,
        None => {
            let hash = sha256_of(file)?;
            // A cache that cannot be written costs the next process its time.
            if let Some(note) = note.filter(|_| stamp.is_settled(now)) {
                let _ = write(&note, &format!("{stamp} {hash}\n"));
            }
            hash
        }
    };
    if stamp.is_settled(now) {
        let mut known = KNOWN.lock();
        // What was removed since is of no use.
        known.retain(|path, _| path.exists());
        known.insert(path.to_owned(), (stamp, hash.clone()));
    }
    Ok(hash)
}

/// Where the hash of `path` is noted.
fn note_of(folder: &Path, path: &Path) -> PathBuf {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    folder.join(sha256(path.as_os_str().as_bytes()))
}

/// The hash that is noted of a file with this stamp.
fn noted(note: &Path, stamp: &Stamp) -> Option<String> {
    let text = (fs::metadata(note).ok()?.len() <= NOTE).then(|| fs::read_to_string(note).ok()).flatten()?;
    let hash = text.strip_prefix(&format!("{stamp} "))?.trim_end();
    (hash.len() == 64).then(|| hash.to_owned())
}

/// Beside it and renamed: nobody reads half of it.
fn write(note: &Path, text: &str) -> io::Result<()> {
    let partial = note.with_extension(std::process::id().to_string());
    fs::write(&partial, text)?;
    fs::rename(&partial, note)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_hash_is_noted_for_other_processes_until_the_file_changes() {
        let folder = tempfile::tempdir().unwrap();
        let (path, notes) = (folder.path().join("weights"), folder.path().join("notes"));
        fs::create_dir(&notes).unwrap();
        fs::write(&path, b"abc").unwrap();
        let wanted = sha256(b"abc");
        let (soon, later) = (SystemTime::now(), SystemTime::now() + Duration::from_secs(3));
        let of = |path: &Path, from, now| {
            let hash = remembered_in(path, from, || Some(notes.clone()), now).unwrap();
            (hash, fs::read_dir(&notes).unwrap().count())
        };
        assert_eq!(of(&path, 1, soon), (wanted.clone(), 0), "it may be written again under the same time");
        assert_eq!(of(&path, 4, later), (wanted.clone(), 0), "a small one");
        // This process knows that name by now.
        let link = folder.path().join("link");
        fs::hard_link(&path, &link).unwrap();
        let later = SystemTime::now() + Duration::from_secs(3);
        assert_eq!(of(&link, 1, later), (wanted.clone(), 1));
        // What is noted is believed of the same stamp, and of no other.
        let (other, note) = (folder.path().join("other"), note_of(&notes, &link));
        fs::write(&other, b"abc").unwrap();
        let stamp = Stamp::of(&fs::File::open(&other).unwrap()).unwrap();
        let said = "5".repeat(64);
        for (changed, wanted) in [(stamp.3 + 1, &wanted), (stamp.3, &said)] {
            let stamp = Stamp(stamp.0, stamp.1, stamp.2, changed);
            fs::write(note_of(&notes, &other), format!("{stamp} {said}\n")).unwrap();
            assert_eq!(of(&other, 1, soon).0, *wanted);
        }
        fs::write(&link, b"abd").unwrap();
        assert_eq!((of(&link, 1, soon).0, of(&path, 1, soon).0), (sha256(b"abd"), sha256(b"abd")));
        for broken in ["", "1 2 3 4", &"9".repeat(600)] {
            fs::write(&note, broken).unwrap();
            assert_eq!(of(&link, 1, soon).0, sha256(b"abd"), "{broken}");
        }
        assert_eq!(read(&link).unwrap(), sha256(b"abd"));
    }
}
