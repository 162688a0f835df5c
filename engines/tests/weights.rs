//! Weight files of every container, sound and broken ones.

mod common;

use std::io::Write as _;

use lipstream_engines::tensor::{Dtype, Weights};

/// A pickle of PyTorch's, by hand: protocol 2, the opcodes in between, the end.
fn pickle(body: &[u8]) -> Vec<u8> {
    [&[0x80, 2][..], body, b"."].concat()
}

fn text(text: &str) -> Vec<u8> {
    [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

/// `torch._utils._rebuild_tensor_v2(storage, offset, shape, strides, False, OrderedDict())`.
fn tensor(class: &str, key: &str, length: u8, offset: u8, shape: &[u8], strides: &[u8]) -> Vec<u8> {
    let sizes = |sizes: &[u8]| [&b"("[..], &sizes.iter().flat_map(|n| [b'K', *n]).collect::<Vec<_>>(), b"t"].concat();
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
        text("storage"),
        format!("ctorch\n{class}\n").into_bytes(),
        text(key),
        text("cuda:0"),
        vec![b'K', length, b't', b'Q', b'K', offset],
        sizes(shape),
        sizes(strides),
        vec![0x89],
        b"ccollections\nOrderedDict\n)RtR".to_vec(),
    ]
    .concat()
}

fn dict(items: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let items: Vec<u8> = items.iter().flat_map(|(key, value)| [text(key), value.clone()].concat()).collect();
    [&b"}("[..], &items, b"u"].concat()
}

fn zipped(program: &[u8], storages: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("archive/data.pkl", options).unwrap();
    zip.write_all(program).unwrap();
    for (key, bytes) in storages {
        zip.start_file(format!("archive/data/{key}"), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A checkpoint as a trainer writes it: a state dict of a model on several GPUs beside a step count.
fn checkpoint() -> Vec<u8> {
    let weight = tensor("FloatStorage", "0", 6, 0, &[2, 3], &[3, 1]);
    let turned = tensor("FloatStorage", "0", 6, 0, &[3, 2], &[1, 3]);
    let part = tensor("FloatStorage", "0", 6, 4, &[2], &[1]);
    let half = tensor("HalfStorage", "1", 2, 0, &[2], &[1]);
    let state =
        dict(&[("module.weight", weight), ("module.turned", turned), ("module.part", part), ("module.half", half)]);
    let program = pickle(&dict(&[("state_dict", state), ("global_step", vec![b'K', 7])]));
    let half: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect();
    zipped(&program, &[("0", &floats(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])), ("1", &half)])
}

fn refusal(bytes: Vec<u8>) -> String {
    let error = Weights::from_bytes("x.pth", bytes).map(|w| w.names().count()).unwrap_err().to_string();
    assert!(error.starts_with("x.pth: ") && !error.contains('\n') && error.len() < 400, "{error}");
    error
}

#[test]
fn tensors_of_a_checkpoint_are_found_by_their_own_names() {
    let weights = Weights::from_bytes("x.pth", checkpoint()).unwrap();
    assert_eq!(weights.names().collect::<Vec<_>>(), ["half", "part", "turned", "weight"]);
    assert_eq!(weights.f32("weight", &[2, 3]).unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(weights.f32("turned", &[3, 2]).unwrap(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    assert_eq!(weights.f32("part", &[2]).unwrap(), [4.0, 5.0]);
    assert_eq!(weights.f32("half", &[2]).unwrap(), [1.5, -2.0]);
    assert_eq!((weights.get("half").unwrap().dtype, weights.number("global_step")), (Dtype::F16, Some(7.0)));
    let error = weights.f32("weight", &[6]).unwrap_err().to_string();
    assert!(error.contains("x.pth: tensor `weight`: expected [6], found [2, 3]"), "{error}");
    assert!(weights.f32("bias", &[1]).unwrap_err().to_string().contains("`bias`: expected [1], found nothing"));
}

#[test]
fn what_a_pickle_would_run_is_refused_by_name() {
    for (call, name) in [
        (&b"cos\nsystem\n("[..], "os.system"),
        (b"cposix\nsystem\n(", "posix.system"),
        (b"cbuiltins\neval\n(", "builtins.eval"),
        (b"c__builtin__\nexec\n(", "__builtin__.exec"),
        (b"ctorch\nload\n(", "torch.load"),
        (b"ctorch.serialization\nload\n(", "torch.serialization.load"),
    ] {
        let attack = [call, &text("touch /tmp/owned"), b"tR"].concat();
        let error = refusal(zipped(&pickle(&attack), &[]));
        assert!(error.contains(&format!("`{name}`")) && error.contains("was not run"), "{error}");
        // As the object of a legacy file, and by protocol 4.
        let error = refusal([pickle(&attack), Vec::new()].concat());
        assert!(error.contains(name), "{error}");
        let (module, function) = name.rsplit_once('.').unwrap();
        let short = |t: &str| [&[0x8c, t.len() as u8][..], t.as_bytes()].concat();
        let stacked = [short(module), short(function), vec![0x93], b"(".to_vec(), text("x"), b"tR".to_vec()].concat();
        assert!(refusal(zipped(&pickle(&stacked), &[])).contains(name));
    }
    // INST, OBJ, NEWOBJ, REDUCE of a storage class, EXT.
    for opcode in [b'i', b'o', 0x81, 0x82] {
        assert!(refusal(zipped(&pickle(&[b'(', opcode]), &[])).contains("opcode"));
    }
}

#[test]
fn tensors_that_lie_outside_their_file_are_refused() {
    let data = floats(&[0.0; 6]);
    let of = |tensor: Vec<u8>| refusal(zipped(&pickle(&dict(&[("a", tensor)])), &[("0", &data)]));
    for misplaced in [
        tensor("FloatStorage", "0", 7, 0, &[7], &[1]),
        tensor("FloatStorage", "0", 6, 1, &[6], &[1]),
        tensor("FloatStorage", "0", 6, 0, &[2, 2], &[200, 1]),
        tensor("FloatStorage", "1", 6, 0, &[6], &[1]),
        tensor("DoubleStorage", "0", 6, 0, &[6], &[1]),
        // Many elements of few bytes.
        tensor("FloatStorage", "0", 6, 0, &[255, 255, 255, 255], &[0, 0, 0, 0]),
    ] {
        let error = of(misplaced);
        assert!(error.contains("tensor `a`") && error.contains("does not lie in its storage"), "{error}");
    }
    assert!(of(tensor("FloatStorage", "0", 6, 0, &[1; 9], &[1; 9])).contains("9 dimensions"));
}

#[test]
fn files_of_a_zip_that_lie_over_each_other_are_refused() {
    let names: Vec<String> = (0..40).map(|i| i.to_string()).collect();
    let large = vec![1; 10_000];
    let storages: Vec<(&str, &[u8])> =
        names.iter().enumerate().map(|(i, name)| (name.as_str(), if i == 0 { &large[..] } else { &[7] })).collect();
    let mut bytes = zipped(&pickle(&dict(&[])), &storages);
    assert!(Weights::from_bytes("x.pth", bytes.clone()).is_ok());
    // Every small file is said to be the large one: checksum, sizes and place of its entry in the directory (APPNOTE 4.3.12).
    let entries: Vec<usize> = (0..bytes.len() - 4).filter(|i| bytes[*i..].starts_with(b"PK\x01\x02")).collect();
    let first = entries[1];
    let (sums, place) = (bytes[first + 16..first + 28].to_vec(), bytes[first + 42..first + 46].to_vec());
    for at in &entries[2..] {
        bytes[at + 16..at + 28].copy_from_slice(&sums);
        bytes[at + 42..at + 46].copy_from_slice(&place);
    }
    assert!(refusal(bytes).contains("lie over each other"));
}

#[test]
fn files_that_are_cut_off_or_damaged_are_refused_or_read_and_never_worse() {
    let whole = checkpoint();
    for length in 0..whole.len() {
        refusal(whole[..length].to_vec());
    }
    for at in 0..whole.len() {
        for flip in [1, 0x80] {
            let mut damaged = whole.clone();
            damaged[at] ^= flip;
            if let Ok(weights) = Weights::from_bytes("x.pth", damaged) {
                weights.names().for_each(|name| drop(weights.get(name)));
            }
        }
    }
    for (bytes, cause) in [
        (b"hello, world".to_vec(), "neither a safetensors file nor a PyTorch checkpoint"),
        ([&u64::MAX.to_le_bytes()[..], b"{}"].concat(), "not a safetensors file"),
        ([&(1u64 << 40).to_le_bytes()[..], b"{}"].concat(), "not a safetensors file"),
        (pickle(b"]"), "not one that `torch.save` wrote"),
        (zipped(b"", &[]), "ends too early"),
        (zipped(&pickle(b"]"), &[]), "no dict of tensors"),
        (Vec::new(), "neither"),
        (b"version https://git-lfs.github.com/spec/v1".to_vec(), "git lfs pull"),
        (b"<!DOCTYPE html><title>Sign in</title>".to_vec(), "web page"),
    ] {
        let error = refusal(bytes);
        assert!(error.contains(cause), "{error}");
    }
    // A weight in which a bit has changed.
    let mut damaged = whole.clone();
    let at = whole.windows(4).position(|w| w == 3.0f32.to_le_bytes()).unwrap();
    damaged[at] ^= 4;
    assert!(refusal(damaged).contains("`data/0` in it has another checksum"));
    // A dict of dicts of dicts, each a hundred times the next.
    let mut nest = b"}".to_vec();
    for level in 0..8u8 {
        let items: Vec<u8> = (0..100u8).flat_map(|i| [text(&i.to_string()), vec![b'h', level]].concat()).collect();
        nest = [&nest[..], b"q", &[level], b"}(", &items, b"u"].concat();
    }
    assert!(refusal(zipped(&pickle(&nest), &[])).contains("more than"));
    assert!(refusal(zipped(&pickle(b"]q\x00]q\x00"), &[])).contains("two things under one number"));
}

#[test]
fn published_checkpoints_are_read() {
    for (path, name, shape) in [
        ("wav2lip/wav2lip.pth", "face_encoder_blocks.0.0.conv_block.0.weight", vec![2, 6, 7, 7]),
        ("wav2lip/wav2lip_zip.pth", "face_encoder_blocks.0.0.conv_block.0.weight", vec![1, 6, 7, 7]),
        ("latentsync15/tiny.pt", "encoder.positional_embedding", vec![1500, 32]),
    ] {
        let Some(path) = common::shared(&format!("golden/{path}")) else { return };
        let weights = Weights::open(&path).unwrap();
        assert_eq!(
            weights.shape(name),
            Some(&shape[..]),
            "{}: {:?}",
            path.display(),
            weights.names().collect::<Vec<_>>()
        );
        let numbers = weights.f32(name, &shape).unwrap();
        assert!(numbers.iter().all(|v| v.is_finite()) && numbers.iter().any(|v| *v != 0.0));
    }
    let Some(golden) = common::shared("golden") else { return };
    let mut files = vec![golden];
    let mut read = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path()));
        } else if path.extension().is_some_and(|e| ["pt", "pth", "bin", "safetensors"].iter().any(|known| e == *known))
        {
            let weights = Weights::open(&path).unwrap_or_else(|e| panic!("{e}"));
            weights.names().for_each(|name| assert!(weights.get(name).is_some(), "{}: {name}", path.display()));
            assert!(weights.names().count() > 5, "{}", path.display());
            read += 1;
        }
    }
    assert!(read >= 20, "{read} files");
}
