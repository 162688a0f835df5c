//! Python's pickle, as far as PyTorch's state dicts need it: an allow-list of opcodes and of the names that they may call
//! on. Calls are known by name and become values here; nothing is executed.
//!
//! Source: Python's `Lib/pickletools.py` for the opcodes, PyTorch's `torch/_utils.py` and `torch/serialization.py` for the
//! names.

use std::{cell::RefCell, collections::HashMap, rc::Rc};

use super::Dtype;

/// Bounds: opcodes of one pickle, values on the stack, the longest string, and tuples, lists and dicts in each other: a state
/// dict has a handful, and a value is let go by as many calls as it is deep.
const MOST_OPCODES: usize = 8_000_000;
const MOST_STACKED: usize = 2_000_000;
const LONGEST: usize = 1 << 20;
const DEEPEST: u32 = 64;

/// Items of a dict, in order.
type Pairs = Rc<RefCell<Vec<(Value, Value)>>>;

/// A value that a pickle builds.
#[derive(Clone, Debug)]
pub(super) enum Value {
    None,
    Int(i64),
    /// An integer of more than eight bytes, little-endian.
    Big(Rc<[u8]>),
    Float(f64),
    Text(Rc<str>),
    Tuple(Rc<[Value]>),
    List(Rc<RefCell<Vec<Value>>>),
    Dict(Pairs),
    Name(Name),
    Storage(Rc<Storage>),
    Tensor(Rc<Strided>),
    /// Something that is of no use here: a truth, a device.
    Other,
}

/// What may be called on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Name {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Size,
    Storage(Dtype),
    /// A class or a value that is passed over.
    Opaque,
}

/// The bytes of one or more tensors.
#[derive(Debug, PartialEq)]
pub(super) struct Storage {
    pub dtype: Dtype,
    pub key: String,
    /// Elements.
    pub length: usize,
    /// Elements from the beginning of the storage that `key` names: the legacy container has parts of storages.
    pub start: usize,
}

/// A tensor as a view of a storage, in elements.
#[derive(Debug)]
pub(super) struct Strided {
    pub storage: Rc<Storage>,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

fn known(module: &str, name: &str) -> Option<Name> {
    Some(match (module, name) {
        ("collections", "OrderedDict") => Name::OrderedDict,
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Name::RebuildTensor,
        ("torch._utils", "_rebuild_parameter") => Name::RebuildParameter,
        ("torch", "Size") => Name::Size,
        ("torch", "device") => Name::Opaque,
        ("torch" | "torch.cuda", storage) => Name::Storage(match storage.strip_suffix("Storage")? {
            "Double" => Dtype::F64,
            "Float" => Dtype::F32,
            "Half" => Dtype::F16,
            "BFloat16" => Dtype::Bf16,
            "Long" => Dtype::I64,
            "Int" => Dtype::I32,
            "Short" => Dtype::I16,
            "Char" => Dtype::I8,
            "Byte" => Dtype::U8,
            "Bool" => Dtype::Bool,
            _ => return None,
        }),
        _ => return None,
    })
}

/// What a pickle says.
pub(super) struct Pickle {
    pub value: Value,
    /// Bytes that it took.
    pub length: usize,
    _kept: Memo,
}

/// Reads one pickle from the beginning of `bytes`.
pub(super) fn read(bytes: &[u8]) -> Result<Pickle, String> {
    let mut machine = Machine { bytes, at: 0, stack: Vec::new(), marks: Vec::new(), memo: Memo::default() };
    let value = machine.run()?;
    Ok(Pickle { value, length: machine.at, _kept: machine.memo })
}

/// Values by their number. A list that holds itself does so by way of the memo: when that goes, its lists and dicts are
/// emptied, or such a ring would keep its memory for good.
#[derive(Default)]
struct Memo(HashMap<u32, Held>);

impl Drop for Memo {
    fn drop(&mut self) {
        for held in self.0.values() {
            match &held.value {
                Value::List(list) => drop(list.take()),
                Value::Dict(dict) => drop(dict.take()),
                _ => (),
            }
        }
    }
}

/// A value and how many tuples, lists and dicts are in each other there. What a list or dict of the memo was given since is
/// not counted: those are emptied one by one when the memo goes.
#[derive(Clone)]
struct Held {
    value: Value,
    depth: u32,
}

impl From<Value> for Held {
    fn from(value: Value) -> Self {
        Self { value, depth: 0 }
    }
}

fn deepest(items: &[Held]) -> u32 {
    items.iter().map(|held| held.depth).max().unwrap_or(0)
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Held>,
    marks: Vec<usize>,
    memo: Memo,
}

impl Machine<'_> {
    fn run(&mut self) -> Result<Value, String> {
        for _ in 0..MOST_OPCODES {
            let opcode = self.byte()?;
            if let Some(value) = self.step(opcode)? {
                return Ok(value);
            }
            if self.stack.len() > MOST_STACKED || self.marks.len() > MOST_STACKED {
                return Err("its pickle stacks more values than a checkpoint does".into());
            }
        }
        Err(format!("its pickle has more than {MOST_OPCODES} opcodes"))
    }

    /// Carries out one opcode; the value of the pickle at its end.
    fn step(&mut self, opcode: u8) -> Result<Option<Value>, String> {
        match opcode {
            // PROTO and FRAME say nothing that is needed.
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'.' => return self.pop().map(|held| Some(held.value)),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'N' => self.push(Value::None),
            0x88 | 0x89 => self.push(Value::Other),
            b'K' => {
                let value = self.byte()?;
                self.push(Value::Int(value.into()));
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()));
            }
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()));
            }
            0x8a => {
                let length = usize::from(self.byte()?);
                let value = integer(self.take(length)?);
                self.push(value);
            }
            b'G' => {
                let value = f64::from_be_bytes(self.array()?);
                self.push(Value::Float(value));
            }
            b'X' => self.text(4)?,
            0x8c => self.text(1)?,
            0x8d => self.text(8)?,
            // Byte strings of Python 2 and bytes: names may be such.
            b'T' | b'B' => self.text(4)?,
            b'U' | b'C' => self.text(1)?,
            b')' => self.push(Value::Tuple(Rc::new([]))),
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let from = self.stack.len().checked_sub(count).ok_or_else(short)?;
                let items = self.stack.split_off(from);
                self.tuple(items)?;
            }
            b't' => {
                let items = self.marked()?;
                self.tuple(items)?;
            }
            b']' => self.push(Value::List(Rc::default())),
            b'}' => self.push(Value::Dict(Rc::default())),
            b'a' => {
                let item = self.pop()?;
                self.list(item.depth)?.borrow_mut().push(item.value);
            }
            b'e' => {
                let items = self.marked()?;
                self.list(deepest(&items))?.borrow_mut().extend(items.into_iter().map(|held| held.value));
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.dict(key.depth.max(value.depth))?.borrow_mut().push((key.value, value.value));
            }
            b'u' => {
                let items = self.marked()?;
                let dict = self.dict(deepest(&items))?;
                let mut items = items.into_iter().map(|held| held.value);
                while let (Some(key), Some(value)) = (items.next(), items.next()) {
                    dict.borrow_mut().push((key, value));
                }
            }
            b'q' => {
                let place = self.byte()?;
                self.remember(place.into())?;
            }
            b'r' => {
                let place = u32::from_le_bytes(self.array()?);
                self.remember(place)?;
            }
            0x94 => self.remember(self.memo.0.len() as u32)?,
            b'h' => {
                let place = self.byte()?;
                self.recall(place.into())?;
            }
            b'j' => {
                let place = u32::from_le_bytes(self.array()?);
                self.recall(place)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.name(&module, &name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) = (module.value, name.value) else {
                    return Err("its pickle names something by no text".into());
                };
                self.name(&module, &name)?;
            }
            b'Q' => {
                let id = self.pop()?;
                self.push(Value::Storage(storage(&id.value)?));
            }
            b'R' => {
                let (arguments, what) = (self.pop()?, self.pop()?);
                let value = call(&what.value, &arguments.value)?;
                self.stack.push(Held { value, depth: arguments.depth });
            }
            // A state for what was just made: attributes of an ordered dict, which are of no use here.
            b'b' => drop(self.pop()?),
            other => return Err(format!("its pickle has the opcode {other:#04x}, which no state dict has")),
        }
        Ok(None)
    }

    fn take(&mut self, count: usize) -> Result<&[u8], String> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len()).ok_or_else(short)?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.take(1).map(|b| b[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.take(N)?.try_into().map_err(|_| short())
    }

    /// A string with its length before it, in so many bytes.
    fn text(&mut self, width: usize) -> Result<(), String> {
        let length = self.take(width)?.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
        let length =
            usize::try_from(length).ok().filter(|n| *n <= LONGEST).ok_or("its pickle has a string too long")?;
        let text: Rc<str> = String::from_utf8_lossy(self.take(length)?).into();
        self.push(Value::Text(text));
        Ok(())
    }

    /// Up to the end of the line.
    fn line(&mut self) -> Result<String, String> {
        let rest = &self.bytes[self.at..self.bytes.len().min(self.at + 1024)];
        let length = rest.iter().position(|b| *b == b'\n').ok_or_else(short)?;
        let text = String::from_utf8_lossy(&rest[..length]).into_owned();
        self.at += length + 1;
        Ok(text)
    }

    fn push(&mut self, value: Value) {
        self.stack.push(value.into());
    }

    fn pop(&mut self) -> Result<Held, String> {
        self.stack.pop().ok_or_else(short)
    }

    /// What has been stacked since the last mark.
    fn marked(&mut self) -> Result<Vec<Held>, String> {
        let from = self.marks.pop().filter(|from| *from <= self.stack.len()).ok_or_else(short)?;
        Ok(self.stack.split_off(from))
    }

    fn tuple(&mut self, items: Vec<Held>) -> Result<(), String> {
        let depth = around(deepest(&items))?;
        let value = Value::Tuple(items.into_iter().map(|held| held.value).collect());
        self.stack.push(Held { value, depth });
        Ok(())
    }

    /// The list on top of the stack, which is given something of `depth`.
    fn list(&mut self, depth: u32) -> Result<Rc<RefCell<Vec<Value>>>, String> {
        match self.stack.last_mut() {
            Some(Held { value: Value::List(list), depth: own }) => {
                *own = around(depth)?.max(*own);
                Ok(list.clone())
            }
            _ => Err("its pickle adds to what is no list".into()),
        }
    }

    /// The dict on top of the stack, which is given something of `depth`.
    fn dict(&mut self, depth: u32) -> Result<Pairs, String> {
        match self.stack.last_mut() {
            Some(Held { value: Value::Dict(dict), depth: own }) => {
                *own = around(depth)?.max(*own);
                Ok(dict.clone())
            }
            _ => Err("its pickle sets items of what is no dict".into()),
        }
    }

    fn remember(&mut self, place: u32) -> Result<(), String> {
        let value = self.stack.last().cloned().ok_or_else(short)?;
        // What is kept under the number already may be in a ring, and must stay until the memo goes.
        if self.memo.0.get(&place).is_some_and(|held| matches!(held.value, Value::List(_) | Value::Dict(_))) {
            return Err("its pickle keeps two things under one number".into());
        }
        self.memo.0.insert(place, value);
        Ok(())
    }

    fn recall(&mut self, place: u32) -> Result<(), String> {
        let value = self.memo.0.get(&place).cloned().ok_or("its pickle recalls what it never kept")?;
        self.stack.push(value);
        Ok(())
    }

    fn name(&mut self, module: &str, name: &str) -> Result<(), String> {
        let known = known(module, name).ok_or_else(|| {
            let printable = |text: &str| text.chars().take(80).filter(|c| !c.is_control()).collect::<String>();
            format!(
                "its pickle asks for `{}.{}`, which no state dict needs: it may be malicious, and was not run",
                printable(module),
                printable(name)
            )
        })?;
        self.push(Value::Name(known));
        Ok(())
    }
}

fn short() -> String {
    "its pickle ends too early: is the file cut off?".into()
}

/// Depth of what holds something of `depth`.
fn around(depth: u32) -> Result<u32, String> {
    let depth = depth + 1;
    if depth > DEEPEST {
        return Err(format!("its pickle nests more than {DEEPEST} values in each other"));
    }
    Ok(depth)
}

fn integer(bytes: &[u8]) -> Value {
    if bytes.len() > 8 {
        return Value::Big(bytes.into());
    }
    let fill = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
    let mut all = [fill; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(all))
}

impl Value {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn size(&self) -> Option<usize> {
        match self {
            Self::Int(n) => usize::try_from(*n).ok(),
            _ => None,
        }
    }

    fn sizes(&self) -> Option<Vec<usize>> {
        match self {
            Self::Tuple(items) => items.iter().map(Self::size).collect(),
            Self::List(items) => items.borrow().iter().map(Self::size).collect(),
            _ => None,
        }
    }
}

/// `("storage", class, key, location, length[, (view key, offset, length)])`.
fn storage(id: &Value) -> Result<Rc<Storage>, String> {
    let broken = || "its pickle describes a storage in a way that PyTorch does not".to_owned();
    let Value::Tuple(parts) = id else { return Err(broken()) };
    let [tag, Value::Name(Name::Storage(dtype)), key, _, length, view @ ..] = &parts[..] else { return Err(broken()) };
    if tag.text() != Some("storage") {
        return Err(broken());
    }
    let (key, mut length, mut start) =
        (key.text().ok_or_else(broken)?.to_owned(), length.size().ok_or_else(broken)?, 0);
    if let [Value::Tuple(view)] = view {
        let [_, offset, size] = &view[..] else { return Err(broken()) };
        (start, length) = (offset.size().ok_or_else(broken)?, size.size().ok_or_else(broken)?);
    }
    Ok(Rc::new(Storage { dtype: *dtype, key, length, start }))
}

fn call(what: &Value, arguments: &Value) -> Result<Value, String> {
    let broken = || "its pickle calls something in a way that PyTorch does not".to_owned();
    let (Value::Name(name), Value::Tuple(arguments)) = (what, arguments) else { return Err(broken()) };
    match name {
        Name::OrderedDict => {
            let dict = Pairs::default();
            // Python 2 gave the items as a list of pairs.
            if let Some(Value::List(items)) = arguments.first() {
                for item in items.borrow().iter() {
                    let pair = match item {
                        Value::List(pair) => pair.borrow().clone(),
                        Value::Tuple(pair) => pair.to_vec(),
                        _ => return Err(broken()),
                    };
                    let [key, value] = &pair[..] else { return Err(broken()) };
                    dict.borrow_mut().push((key.clone(), value.clone()));
                }
            }
            Ok(Value::Dict(dict))
        }
        Name::RebuildTensor => {
            let [Value::Storage(storage), offset, shape, strides, ..] = &arguments[..] else { return Err(broken()) };
            let (Some(offset), Some(shape), Some(strides)) = (offset.size(), shape.sizes(), strides.sizes()) else {
                return Err(broken());
            };
            if shape.len() != strides.len() {
                return Err(broken());
            }
            Ok(Value::Tensor(Rc::new(Strided { storage: storage.clone(), offset, shape, strides })))
        }
        Name::RebuildParameter => match arguments.first() {
            Some(tensor @ Value::Tensor(_)) => Ok(tensor.clone()),
            _ => Err(broken()),
        },
        Name::Size => match arguments.first() {
            Some(sizes @ (Value::Tuple(_) | Value::List(_))) => Ok(sizes.clone()),
            _ => Err(broken()),
        },
        Name::Opaque => Ok(Value::Other),
        Name::Storage(_) => Err(broken()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_holds_itself_is_let_go() {
        // A list, kept as 0, to which it is added itself.
        let pickle = read(b"\x80\x02]q\x00h\x00a.").unwrap();
        let Value::List(list) = &pickle.value else { panic!("a list") };
        let watched = Rc::downgrade(list);
        assert!(watched.strong_count() > 1);
        drop(pickle);
        assert_eq!(watched.strong_count(), 0);
    }

    #[test]
    fn values_in_each_other_without_end_are_refused_and_let_go() {
        // Tuples around an empty one, lists in lists, dicts in dicts and tuples by way of the memo.
        let nested = |begin: &[u8], step: &[u8]| [begin, &step.repeat(500_000), b"."].concat();
        let lists = [&b"]".repeat(500_000)[..], &b"a".repeat(499_999), b"."].concat();
        let dicts = [&b"}N".repeat(500_000)[..], b"N", &b"s".repeat(499_999), b"."].concat();
        for bytes in [nested(b")", b"\x85"), nested(b")", b"\x85\x94"), lists, dicts] {
            let Err(cause) = read(&bytes) else { panic!("refused") };
            assert!(cause.contains("nests more than 64"), "{cause}");
        }
        assert!(read(&[&b")"[..], &b"\x85".repeat(64), b"."].concat()).is_ok());
    }
}
