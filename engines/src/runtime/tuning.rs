//! How the CUDA provider is asked to work.

use std::{fmt, str::FromStr};

use crate::{Error, Result};

/// How cuDNN's algorithm of a convolution is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Search {
    /// By its first heuristic.
    #[default]
    Heuristic,
    /// By its slower one: what ONNX Runtime does where nobody says.
    Exhaustive,
    /// Whatever runs everywhere.
    Fallback,
}

/// Which of ONNX Runtime's optimisations of a graph are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Fusions {
    None,
    Basic,
    Extended,
    #[default]
    All,
}

/// Most memory of a card that one network's values may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Limit {
    /// What is free as the network is loaded, but a sixteenth of it.
    #[default]
    Free,
    Megabytes(u32),
    None,
}

impl Limit {
    /// In bytes, where so many are free.
    pub(super) fn bytes(self, free: Option<u64>) -> Option<u64> {
        match self {
            Self::Free => free.map(|free| free - free / 16),
            Self::Megabytes(n) => Some(u64::from(n) * 1_000_000),
            Self::None => None,
        }
    }
}

/// What can be chosen of the CUDA provider besides its precision. Written as `name=value` with commas between them, as it reads back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuning {
    /// Networks of fp16 use the card's units for products of matrices in convolutions too. ONNX Runtime's `use_tf32`, which they
    /// need for that, is otherwise for networks of f32.
    pub tensor_cores: bool,
    pub search: Search,
    /// Convolutions keep the channels of a pixel together.
    pub channels_last: bool,
    /// Convolutions add their bias themselves.
    pub fuse_bias: bool,
    /// Memory grows by what is asked for and not to the next power of two. `None`: where less than 32 times a network's weights
    /// are free.
    pub tight_arena: Option<bool>,
    /// A convolution may take all the memory that its fastest way asks for; else 32 MB, which cuDNN 9 does not heed.
    pub max_workspace: bool,
    pub memory: Limit,
    /// A program for each shape of a network's inputs. With one for all the CUDA provider plans each convolution anew whenever the
    /// shape changes. `None`: there, of networks with convolutions.
    pub apart: Option<bool>,
    /// Runs of networks whose inputs and outputs stay where they are are replayed as CUDA graphs; only with `apart`.
    pub graphs: bool,
    pub fusions: Fusions,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            tensor_cores: true,
            search: Search::default(),
            channels_last: false,
            fuse_bias: false,
            tight_arena: None,
            max_workspace: true,
            memory: Limit::default(),
            apart: None,
            graphs: false,
            fusions: Fusions::default(),
        }
    }
}

/// So many times a network's weights must be free for memory to grow by doubling: the last step takes as much as all before.
pub(super) const ROOMY: u64 = 32;

const SEARCHES: [(&str, Search); 3] =
    [("heuristic", Search::Heuristic), ("exhaustive", Search::Exhaustive), ("fallback", Search::Fallback)];
const APART: [(&str, Option<bool>); 3] = [("auto", None), ("0", Some(false)), ("1", Some(true))];
const FUSIONS: [(&str, Fusions); 4] =
    [("none", Fusions::None), ("basic", Fusions::Basic), ("extended", Fusions::Extended), ("all", Fusions::All)];
/// What is on or off, and where it stands.
type Switch = (&'static str, fn(&mut Tuning) -> &mut bool);

static SWITCHES: [Switch; 5] = [
    ("tensor-cores", |t| &mut t.tensor_cores),
    ("channels-last", |t| &mut t.channels_last),
    ("fuse-bias", |t| &mut t.fuse_bias),
    ("max-workspace", |t| &mut t.max_workspace),
    ("graphs", |t| &mut t.graphs),
];

impl fmt::Display for Tuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn word<T: PartialEq>(known: &[(&'static str, T)], value: &T) -> &'static str {
            known.iter().find(|(_, one)| one == value).map_or("", |(name, _)| *name)
        }
        let mut own = *self;
        for (name, switch) in SWITCHES {
            write!(f, "{name}={},", u8::from(*switch(&mut own)))?;
        }
        let (search, fusions) = (word(&SEARCHES, &self.search), word(&FUSIONS, &self.fusions));
        let (apart, tight) = (word(&APART, &self.apart), word(&APART, &self.tight_arena));
        let memory = match self.memory {
            Limit::Free => "free".to_owned(),
            Limit::Megabytes(n) => n.to_string(),
            Limit::None => "none".to_owned(),
        };
        write!(f, "apart={apart},tight-arena={tight},memory={memory},search={search},fusions={fusions}")
    }
}

impl FromStr for Tuning {
    type Err = Error;

    /// What is not named is as by default.
    fn from_str(text: &str) -> Result<Self> {
        fn chosen<T: Copy>(name: &str, word: &str, known: &[(&'static str, T)]) -> Result<T> {
            let names = || known.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            let found = known.iter().find(|(name, _)| *name == word);
            found
                .map(|(_, value)| *value)
                .ok_or_else(|| Error::invalid(format!("tuning `{name}={word}` is not one of {}", names())))
        }
        let mut tuning = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, word) = part.split_once('=').unwrap_or((part, ""));
            match name {
                "apart" => tuning.apart = chosen(name, word, &APART)?,
                "tight-arena" => tuning.tight_arena = chosen(name, word, &APART)?,
                "memory" => tuning.memory = limit(word)?,
                "search" => tuning.search = chosen(name, word, &SEARCHES)?,
                "fusions" => tuning.fusions = chosen(name, word, &FUSIONS)?,
                _ => {
                    let Some((_, switch)) = SWITCHES.iter().find(|(known, _)| *known == name) else {
                        let names = SWITCHES.map(|(name, _)| name).join(", ");
                        return Err(Error::invalid(format!(
                            "tuning `{name}` is not one of {names}, apart, tight-arena, memory, search, fusions"
                        )));
                    };
                    *switch(&mut tuning) = chosen(name, word, &[("0", false), ("1", true)])?;
                }
            }
        }
        if tuning.graphs && tuning.apart == Some(false) {
            return Err(Error::invalid("tuning `graphs=1` with `apart=0`: a CUDA graph is of one shape"));
        }
        Ok(tuning)
    }
}

fn limit(word: &str) -> Result<Limit> {
    match (word, word.parse()) {
        ("free", _) => Ok(Limit::Free),
        ("none", _) => Ok(Limit::None),
        (_, Ok(megabytes)) if megabytes > 0 => Ok(Limit::Megabytes(megabytes)),
        _ => Err(Error::invalid(format!("tuning `memory={word}` is not one of free, none, or megabytes"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_and_what_is_unknown_is_named_with_the_choices() {
        let text = "tensor-cores=0,channels-last=1,fuse-bias=1,max-workspace=0,graphs=1,apart=1,tight-arena=1,memory=8000,search=exhaustive,fusions=basic";
        assert_eq!(text.parse::<Tuning>().unwrap().to_string(), text);
        assert_eq!("".parse::<Tuning>().unwrap(), Tuning::default());
        assert_eq!(Tuning::default().to_string().parse::<Tuning>().unwrap(), Tuning::default());
        for (text, cause) in [
            ("speed=1", "tuning `speed` is not one of tensor-cores, "),
            ("apart", "tuning `apart=` is not one of auto, 0, 1"),
            ("memory=0", "is not one of free, none, or megabytes"),
            ("tight-arena=2", "is not one of auto, 0, 1"),
            ("graphs=2", "tuning `graphs=2` is not one of 0, 1"),
            ("search=best", "is not one of heuristic, exhaustive, fallback"),
            ("graphs=1,apart=0", "a CUDA graph is of one shape"),
        ] {
            let error = text.parse::<Tuning>().unwrap_err().to_string();
            assert!(error.contains(cause) && error.lines().count() == 1, "{error}");
        }
    }
}
