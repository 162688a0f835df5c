//! PyTorch's checkpoints: the zip file that `torch.save` writes, and the container that it wrote before 1.6.

use std::{
    collections::{BTreeMap, HashMap},
    io::Cursor,
};

use zip::{CompressionMethod, ZipArchive};

use super::{
    Dtype,
    pickle::{self, Pickle, Storage, Strided, Value},
    weights::{Contents, Entry, LONGEST_NAME, MOST_DIMENSIONS, MOST_TENSORS},
};

/// Deepest nesting of dicts that is looked into.
const DEEPEST: usize = 8;
/// Largest pickle of a zip file.
const LARGEST_PICKLE: usize = 64 << 20;
/// Most files of a zip file.
const MOST_FILES: usize = 400_000;
/// First integer of the legacy container, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Where the bytes of storages lie in the file: offset and length.
type Places = HashMap<String, (usize, usize)>;

/// `NAME/data.pkl` and one file `NAME/data/KEY` a storage, none of them compressed; checksums are compared.
pub(super) fn read_zip(bytes: &[u8]) -> Result<Contents, String> {
    let broken = |e: zip::result::ZipError| format!("is not a zip file that can be read: {e}; is it cut off?");
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(broken)?;
    if archive.len() > MOST_FILES {
        return Err(format!("{} files in it are more than a checkpoint has", archive.len()));
    }
    let mut places = Places::new();
    let mut program = None;
    let mut left = bytes.len();
    for i in 0..archive.len() {
        let file = archive.by_index_raw(i).map_err(broken)?;
        let name = file.name().map_err(broken)?.into_owned();
        let Some((_, inner)) = name.split_once('/') else { continue };
        let key = inner.strip_prefix("data/");
        if key.is_none() && inner != "data.pkl" {
            if inner == "byteorder" || inner.starts_with(".") || inner == "version" {
                continue;
            }
            if inner.starts_with("code/") || inner == "constants.pkl" {
                return Err(
                    "is a TorchScript program; its state dict is wanted (`torch.save(model.state_dict(), …)`)".into()
                );
            }
            continue;
        }
        if file.compression() != CompressionMethod::Stored {
            return Err(format!("`{inner}` in it is compressed, which PyTorch does not do"));
        }
        let start = file.data_start().and_then(|start| usize::try_from(start).ok()).ok_or("it has no data")?;
        let length = usize::try_from(file.size()).map_err(|_| "it is too large")?;
        if start.checked_add(length).is_none_or(|end| end > bytes.len()) {
            return Err(format!("`{inner}` in it does not lie in the file: is it cut off?"));
        }
        // Files that overlap would be read again and again.
        left =
            left.checked_sub(length).ok_or("has files in it that lie over each other, which PyTorch does not write")?;
        // A file in which a bit has changed would be another network.
        if key.is_some() && file.crc32() != 0 && crc32fast::hash(&bytes[start..start + length]) != file.crc32() {
            return Err(format!(
                "`{inner}` in it has another checksum than was written: it is damaged; fetch it again"
            ));
        }
        match key {
            Some(key) => drop(places.insert(key.to_owned(), (start, length))),
            None if length > LARGEST_PICKLE => return Err(format!("its pickle of {length} bytes is too large")),
            None => program = Some(&bytes[start..start + length]),
        }
    }
    let program = program.ok_or("is a zip file without `data.pkl`, so no PyTorch checkpoint")?;
    contents(&pickle::read(program)?.value, &places)
}

/// Pickles of a magic number, a protocol version, the machine, the object and the keys of the storages, then each storage
/// after its number of elements.
pub(super) fn read_legacy(bytes: &[u8]) -> Result<Contents, String> {
    let mut rest = bytes;
    let mut next = || -> Result<Pickle, String> {
        let pickle = pickle::read(rest)?;
        rest = &rest[pickle.length..];
        Ok(pickle)
    };
    if !matches!(&next()?.value, Value::Big(bytes) if **bytes == MAGIC) {
        return Err("is a pickle, and not one that `torch.save` wrote".into());
    }
    let (_version, _machine, object, keys) = (next()?, next()?, next()?, next()?);
    let Value::List(keys) = &keys.value else { return Err("has no list of storages".into()) };
    let mut sizes = HashMap::new();
    walk_storages(&object.value, &mut |storage| {
        sizes.insert(storage.key.clone(), storage.dtype.size());
    })?;
    let mut places = Places::new();
    for key in keys.borrow().iter() {
        let key = key.text().ok_or("has a storage without a name")?;
        let (count, data) = rest.split_first_chunk::<8>().ok_or("ends before its storages do: is it cut off?")?;
        // One that no tensor uses is passed over as bytes of f32, the commonest.
        let size = sizes.get(key).copied().unwrap_or(4);
        let length = usize::try_from(i64::from_le_bytes(*count)).ok().and_then(|count| count.checked_mul(size));
        let length = length.filter(|n| *n <= data.len()).ok_or("ends before its storages do: is it cut off?")?;
        places.insert(key.to_owned(), (bytes.len() - data.len(), length));
        rest = &data[length..];
    }
    contents(&object.value, &places)
}

fn walk_storages(value: &Value, found: &mut impl FnMut(&Storage)) -> Result<(), String> {
    walk(value, "", &mut |_, leaf| {
        if let Value::Tensor(tensor) = leaf {
            found(&tensor.storage);
        }
        Ok(())
    })
}

/// Calls `found` with the dotted name of everything in nested dicts that is no dict.
fn walk(value: &Value, name: &str, found: &mut impl FnMut(&str, &Value) -> Result<(), String>) -> Result<(), String> {
    // A dict that is in many dicts is visited as often, so visits are counted and not what they find.
    let mut left = MOST_TENSORS;
    walk_from(value, name, 0, &mut left, found)
}

fn walk_from(
    value: &Value,
    name: &str,
    depth: usize,
    left: &mut usize,
    found: &mut impl FnMut(&str, &Value) -> Result<(), String>,
) -> Result<(), String> {
    let Value::Dict(dict) = value else { return found(name, value) };
    if depth >= DEEPEST {
        return Ok(());
    }
    for (key, value) in dict.borrow().iter() {
        *left = left.checked_sub(1).ok_or_else(|| format!("holds more than {MOST_TENSORS} values"))?;
        let key = match key {
            Value::Text(text) => text.to_string(),
            Value::Int(n) => n.to_string(),
            _ => continue,
        };
        if name.len() + key.len() >= LONGEST_NAME {
            return Err(format!("has a name of more than {LONGEST_NAME} bytes"));
        }
        let name = if name.is_empty() { key } else { format!("{name}.{key}") };
        walk_from(value, &name, depth + 1, left, found)?;
    }
    Ok(())
}

fn contents(value: &Value, places: &Places) -> Result<Contents, String> {
    if !matches!(value, Value::Dict(_)) {
        return Err("holds no dict of tensors; a state dict is wanted".into());
    }
    let (mut tensors, mut numbers) = (BTreeMap::new(), BTreeMap::new());
    walk(value, "", &mut |name, leaf| {
        match leaf {
            Value::Tensor(tensor) => drop(tensors.insert(name.to_owned(), entry(name, tensor, places)?)),
            Value::Int(n) => drop(numbers.insert(name.to_owned(), *n as f64)),
            Value::Float(v) => drop(numbers.insert(name.to_owned(), *v)),
            _ => (),
        }
        Ok(())
    })?;
    Ok(Contents { tensors, numbers })
}

/// Where a tensor lies, once it has been found to lie in the file.
fn entry(name: &str, tensor: &Strided, places: &Places) -> Result<Entry, String> {
    let Strided { storage, offset, shape, strides } = tensor;
    let dtype: Dtype = storage.dtype;
    if shape.len() > MOST_DIMENSIONS {
        return Err(format!("tensor `{name}` has {} dimensions", shape.len()));
    }
    let outside = || format!("tensor `{name}` of {shape:?} does not lie in its storage: is the file cut off?");
    let (start, length) = *places.get(&storage.key).ok_or_else(outside)?;
    let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).ok_or_else(outside)?;
    let last = match count {
        0 => Some(0),
        _ => shape.iter().zip(strides).try_fold(0usize, |at, (d, s)| at.checked_add((d - 1).checked_mul(*s)?)),
    };
    // Elements that overlap would make a small file fill the memory.
    if count > storage.length || storage.start.checked_add(storage.length).is_none_or(|n| n > length / dtype.size()) {
        return Err(outside());
    }
    let inside =
        last.and_then(|last| last.checked_add(*offset)).is_some_and(|last| count == 0 || last < storage.length);
    if !inside || *offset > storage.length {
        return Err(outside());
    }
    let mut expected = 1;
    let contiguous = shape.iter().zip(strides).rev().all(|(d, s)| {
        let fits = *d == 1 || *s == expected;
        expected *= d.max(&1);
        fits
    });
    Ok(Entry {
        dtype,
        shape: shape.clone(),
        strides: (!contiguous && count > 0).then(|| strides.clone()),
        offset: start + (storage.start + offset) * dtype.size(),
    })
}
