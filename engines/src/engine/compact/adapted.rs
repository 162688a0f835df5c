//! What an adapted engine brings of its person: pictures, and the range of the motion that goes with the voice.

use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::{
    Error, Result,
    bank::{BankConfig, ReferenceBank},
    engine::Spec,
    manifest::Package,
};

/// Factors on the motion that a person can have.
const RANGES: std::ops::RangeInclusive<f32> = 0.25..=4.0;
/// Of the file, which holds one number.
const MAX_BYTES: usize = 4096;

/// The files `bank` and, where the person was heard, `person` of an engine.
pub(super) struct Own {
    pub(super) bank: ReferenceBank,
    /// Factor on the motion.
    pub(super) range: f32,
}

impl Own {
    /// `None` of an engine that was adapted to nobody.
    pub(super) fn load(engine: &Package, spec: &Spec) -> Result<Option<Self>> {
        if !engine.is_adapted() {
            return Ok(None);
        }
        let bank = ReferenceBank::read(engine.file_name("bank").as_ref(), &engine.file("bank")?)?;
        bank.check(&BankConfig { capacity: 1, side: spec.crop, alignment: spec.alignment.clone() })?;
        let range = match engine.manifest().files.contains_key("person") {
            true => read(&engine.file_name("person"), &engine.file("person")?)?,
            false => 1.0,
        };
        Ok(Some(Self { bank, range }))
    }
}

/// The bytes of the file `person`: the tensor `range`, f32 `[1]`.
pub fn person(range: f32) -> Result<Vec<u8>> {
    let failed = |e: safetensors::SafeTensorError| Error::invalid(e.to_string());
    let bytes = range.to_le_bytes();
    let view = TensorView::new(Dtype::F32, vec![1], &bytes).map_err(failed)?;
    safetensors::serialize([("range", view)], None).map_err(failed)
}

fn read(name: &str, bytes: &[u8]) -> Result<f32> {
    let runtime = |cause: String| Error::Runtime { model: name.into(), cause };
    if bytes.len() > MAX_BYTES {
        return Err(runtime(format!("is larger than {MAX_BYTES} bytes")));
    }
    let file = SafeTensors::deserialize(bytes).map_err(|e| runtime(format!("is not a safetensors file: {e}")))?;
    let refuse = |found: String| Error::Mismatch {
        model: name.into(),
        what: "tensor `range`".into(),
        expected: format!("f32 [1] in {}..{}", RANGES.start(), RANGES.end()),
        found,
    };
    let view = file.tensor("range").map_err(|_| refuse("nothing".into()))?;
    match (view.dtype(), view.shape(), view.data()) {
        (Dtype::F32, [1], &[a, b, c, d]) => {
            let range = f32::from_le_bytes([a, b, c, d]);
            if RANGES.contains(&range) { Ok(range) } else { Err(refuse(range.to_string())) }
        }
        (dtype, shape, _) => Err(refuse(format!("{dtype:?} {shape:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_was_written() {
        assert_eq!(read("p", &person(0.7).unwrap()).unwrap(), 0.7);
    }

    #[test]
    fn files_that_do_not_fit_are_refused_with_a_reason() {
        let refused = |bytes: &[u8]| read("p", bytes).unwrap_err().to_string();
        for wild in [0.0, -1.0, 1e9, f32::NAN, f32::INFINITY] {
            let error = refused(&person(wild).unwrap());
            assert!(error.contains("`range`: expected f32 [1] in 0.25..4, found"), "{error}");
        }
        let two = [0; 8];
        let two = safetensors::serialize([("range", TensorView::new(Dtype::F32, vec![2], &two).unwrap())], None);
        assert!(refused(&two.unwrap()).contains("found F32 [2]"));
        assert!(refused(&[1; 20]).contains("not a safetensors file"));
        assert!(refused(&[0; MAX_BYTES + 1]).contains("larger"));
    }
}
