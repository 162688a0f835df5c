use safetensors::{Dtype as Stored, SafeTensors};

use super::{
    Dtype,
    weights::{Contents, Entry, LONGEST_NAME, MOST_DIMENSIONS, MOST_TENSORS},
};

/// The header of a safetensors file; the crate has checked that every tensor lies in the file and fits its shape.
pub(super) fn read(bytes: &[u8]) -> Result<Contents, String> {
    let broken = |e: safetensors::SafeTensorError| format!("is not a safetensors file: {e}");
    let (header, metadata) = SafeTensors::read_metadata(bytes).map_err(broken)?;
    let data = header.checked_add(8).filter(|data| *data <= bytes.len()).ok_or("its header is longer than the file")?;
    let stored = metadata.tensors();
    if stored.len() > MOST_TENSORS {
        return Err(format!("{} tensors are more than {MOST_TENSORS}", stored.len()));
    }
    let mut contents = Contents::default();
    for (name, info) in stored {
        let dtype = match info.dtype {
            Stored::F64 => Dtype::F64,
            Stored::F32 => Dtype::F32,
            Stored::F16 => Dtype::F16,
            Stored::BF16 => Dtype::Bf16,
            Stored::I64 => Dtype::I64,
            Stored::I32 => Dtype::I32,
            Stored::I16 => Dtype::I16,
            Stored::I8 => Dtype::I8,
            Stored::U8 => Dtype::U8,
            Stored::BOOL => Dtype::Bool,
            other => return Err(format!("tensor `{name}` is of the type {other:?}, which no engine has")),
        };
        if name.len() > LONGEST_NAME || info.shape.len() > MOST_DIMENSIONS {
            return Err(format!("a tensor has a name of {} bytes and {} dimensions", name.len(), info.shape.len()));
        }
        let (from, to) = info.data_offsets;
        let length = info.shape.iter().try_fold(dtype.size(), |n, d| n.checked_mul(*d));
        let end = data.checked_add(to).filter(|end| *end <= bytes.len());
        if end.is_none() || from > to || length != Some(to - from) {
            return Err(format!("tensor `{name}` does not lie in the file: is it cut off?"));
        }
        contents.tensors.insert(name, Entry { dtype, shape: info.shape.clone(), strides: None, offset: data + from });
    }
    Ok(contents)
}
