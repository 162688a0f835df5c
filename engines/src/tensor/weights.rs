use std::{borrow::Cow, collections::BTreeMap, fs::File, path::Path};

use memmap2::Mmap;

use super::{Dtype, safetensors, torch};
use crate::{Error, Result};

/// Most tensors of one file, and most dimensions of a tensor.
pub(super) const MOST_TENSORS: usize = 200_000;
pub(super) const MOST_DIMENSIONS: usize = 8;
/// Longest name of a tensor, in bytes.
pub(super) const LONGEST_NAME: usize = 512;

/// Names under which a checkpoint keeps its state dict beside other things, in the order in which they are looked for.
const WRAPPERS: [&str; 6] = ["state_dict", "model_state_dict", "params_ema", "params", "model", "generator"];
/// What data-parallel training puts before every name.
const PARALLEL: &str = "module.";

/// Where a tensor lies in its file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// In elements; `None` where it is contiguous.
    pub strides: Option<Vec<usize>>,
    /// In bytes from the beginning of the file.
    pub offset: usize,
}

/// What a container holds, as its reader found it: names with the path in front that the container gives them.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub tensors: BTreeMap<String, Entry>,
    pub numbers: BTreeMap<String, f64>,
}

enum Bytes {
    Mapped(Mmap),
    Held(Vec<u8>),
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Held(bytes) => bytes,
        }
    }
}

/// The tensors of a file by name. Of a checkpoint that holds a state dict among other things, those of the state dict; the
/// prefix `module.` is left out where all names have it.
pub struct Weights {
    origin: String,
    bytes: Bytes,
    tensors: BTreeMap<String, Entry>,
    numbers: BTreeMap<String, f64>,
}

/// A tensor: its elements in order, little-endian.
#[derive(Clone, Debug, PartialEq)]
pub struct View<'a> {
    pub dtype: Dtype,
    pub shape: &'a [usize],
    pub bytes: Cow<'a, [u8]>,
}

impl View<'_> {
    /// Its elements; what f32 cannot hold is rounded.
    pub fn to_f32(&self) -> Vec<f32> {
        self.dtype.to_f32(&self.bytes)
    }
}

impl Weights {
    /// Opens a safetensors file or a PyTorch checkpoint, as its first bytes tell. Nothing is read but the header.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        if !file.metadata().map_err(|e| Error::io(path, e))?.is_file() {
            return Err(Error::invalid(format!("{}: is not a file", path.display())));
        }
        // SAFETY: the map is read only. A file that somebody else shortens while it is mapped ends this process, as it does
        // every reader of maps; its contents are checked as they are read and never trusted.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
        Self::new(path.display().to_string(), Bytes::Mapped(map))
    }

    /// As [`open`](Self::open), of bytes in memory; `origin` is what errors call them.
    pub fn from_bytes(origin: &str, bytes: Vec<u8>) -> Result<Self> {
        Self::new(origin.into(), Bytes::Held(bytes))
    }

    fn new(origin: String, bytes: Bytes) -> Result<Self> {
        let read = match bytes.first_chunk::<4>() {
            Some(b"PK\x03\x04") => torch::read_zip(&bytes),
            Some([0x80, version, ..]) if *version >= 2 => torch::read_legacy(&bytes),
            _ if bytes.get(8) == Some(&b'{') => safetensors::read(&bytes),
            _ if bytes.starts_with(b"version https://git-lfs") => {
                Err("is a pointer of Git LFS and not the file itself: fetch it by `git lfs pull`".into())
            }
            Some(b"<!DO" | b"<!do" | b"<htm" | b"<HTM") => {
                Err("is a web page and not a checkpoint: the download wants a confirmation or a login".into())
            }
            _ => Err("is neither a safetensors file nor a PyTorch checkpoint".into()),
        };
        let Contents { mut tensors, mut numbers } =
            read.map_err(|cause| Error::Runtime { model: origin.clone(), cause })?;
        let wrapper = WRAPPERS.iter().map(|w| format!("{w}.")).find(|w| tensors.keys().any(|name| name.starts_with(w)));
        if let Some(wrapper) = wrapper {
            let inside = |name: String| name.strip_prefix(&wrapper).map(str::to_owned);
            tensors = tensors.into_iter().filter_map(|(name, entry)| Some((inside(name)?, entry))).collect();
        }
        if !tensors.is_empty() && tensors.keys().all(|name| name.starts_with(PARALLEL)) {
            tensors = tensors.into_iter().map(|(name, entry)| (name[PARALLEL.len()..].to_owned(), entry)).collect();
        }
        numbers.retain(|name, _| name.len() <= LONGEST_NAME);
        Ok(Self { origin, bytes, tensors, numbers })
    }

    /// What errors call the file.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A number that stands beside the tensors, such as `dims.n_mels` of a Whisper checkpoint.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.numbers.get(name).copied()
    }

    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|entry| entry.shape.as_slice())
    }

    pub fn get(&self, name: &str) -> Option<View<'_>> {
        let entry = self.tensors.get(name)?;
        let bytes = match &entry.strides {
            None => {
                let length = entry.shape.iter().product::<usize>() * entry.dtype.size();
                Cow::Borrowed(self.bytes.get(entry.offset..entry.offset + length)?)
            }
            Some(strides) => Cow::Owned(gather(&self.bytes[entry.offset..], entry, strides)?),
        };
        Some(View { dtype: entry.dtype, shape: &entry.shape, bytes })
    }

    /// The tensor `name` as f32; an error that names it and both shapes unless it has `shape`.
    pub fn f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let refuse = |found: String| Error::Mismatch {
            model: self.origin.clone(),
            what: format!("tensor `{name}`"),
            expected: format!("{shape:?}"),
            found,
        };
        let view = self.get(name).ok_or_else(|| refuse("nothing".into()))?;
        if view.shape != shape {
            return Err(refuse(format!("{:?}", view.shape)));
        }
        Ok(view.to_f32())
    }
}

/// The elements of a tensor that is not contiguous, in order.
fn gather(bytes: &[u8], entry: &Entry, strides: &[usize]) -> Option<Vec<u8>> {
    let size = entry.dtype.size();
    let count = entry.shape.iter().product::<usize>();
    let mut out = Vec::with_capacity(count * size);
    let mut place = vec![0; entry.shape.len()];
    for _ in 0..count {
        let at = place.iter().zip(strides).map(|(p, s)| p * s).sum::<usize>() * size;
        out.extend_from_slice(bytes.get(at..at + size)?);
        for (p, limit) in place.iter_mut().zip(&entry.shape).rev() {
            *p += 1;
            if *p < *limit {
                break;
            }
            *p = 0;
        }
    }
    Some(out)
}
