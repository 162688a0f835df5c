//! Numbered pictures as a video: `frames/%05d.png` at a rate.
//!
//! A path names them by its pattern and the rate behind it, `frames/%05d.png?fps=25`, so that whatever reads a video by its path reads them too. A
//! file that has such a name itself is read as that file.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::error::{Failure, Result};

/// What stands between the pattern and the rate.
const RATE: &str = "?fps=";
/// Pictures of one sequence: an hour and more at 25 a second.
const MOST: i32 = 100_000;
/// Most digits of a number.
const DIGITS: usize = 9;
/// Frames a second where nobody says.
const DEFAULT: (i32, i32) = (25, 1);

/// Where the number stands in the name of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    folder: PathBuf,
    before: String,
    /// Fewest digits; filled up with zeros.
    digits: usize,
    after: String,
}

impl Pattern {
    /// The pattern of a path such as `frames/%05d.png`; `None` of one without `%d` or of another kind of file.
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let (before, rest) = name.split_once('%')?;
        let (digits, after) = rest.split_once('d')?;
        let digits = match digits.strip_prefix('0') {
            None if digits.is_empty() => 1,
            Some(digits) => digits.parse().ok().filter(|digits| (1..=DIGITS).contains(digits))?,
            None => return None,
        };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let pattern = Self { folder: folder.to_owned(), before: before.to_owned(), digits, after: after.to_owned() };
        (!after.contains('%') && pattern.media_type().is_some()).then_some(pattern)
    }

    /// The media type by the name's end.
    fn media_type(&self) -> Option<&'static str> {
        match self.after.rsplit_once('.')?.1.to_ascii_lowercase().as_str() {
            "png" => Some("image/png"),
            "jpg" | "jpeg" => Some("image/jpeg"),
            _ => None,
        }
    }

    pub fn is_png(&self) -> bool {
        self.media_type() == Some("image/png")
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The name of picture `number`.
    pub fn name(&self, number: i32) -> String {
        format!("{}{number:0digits$}{}", self.before, self.after, digits = self.digits)
    }

    fn number(&self, name: &str) -> Option<i32> {
        let digits = name.strip_prefix(self.before.as_str())?.strip_suffix(self.after.as_str())?;
        let plain = digits.len() >= self.digits && digits.len() <= DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse().ok().filter(|number| plain && self.name(*number) == name)
    }

    /// As `multifilesrc` and `multifilesink` take it.
    pub fn location(&self) -> String {
        let plain = |text: &str| text.replace('%', "%%");
        let folder = plain(&self.folder.to_string_lossy());
        format!("{folder}/{}%0{}d{}", plain(&self.before), self.digits, plain(&self.after))
    }
}

/// Pictures that are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    pub pattern: Pattern,
    pub first: i32,
    pub last: i32,
    /// Frames a second as a fraction.
    pub rate: (i32, i32),
}

impl Sequence {
    /// The path by which a pattern and a rate are read.
    pub fn path(pattern: &Path, rate: Option<(i32, i32)>) -> PathBuf {
        let Some((n, d)) = rate else { return pattern.to_owned() };
        let mut path = pattern.as_os_str().to_owned();
        path.push(format!("{RATE}{n}/{d}"));
        path.into()
    }

    /// The pictures that `path` names; `None` where it names a file, or no pattern. Errors: none of them is there, the rate is none.
    pub fn of(path: &Path) -> Option<Result<Self>> {
        if path.symlink_metadata().is_ok() {
            return None;
        }
        let text = path.to_str()?;
        let (name, rate) = text.rsplit_once(RATE).map_or((text, None), |(name, rate)| (name, Some(rate)));
        let pattern = Pattern::of(Path::new(name))?;
        let rate = match rate.map(parse_rate) {
            Some(Err(cause)) => return Some(Err(Failure::usage(format!("{text}: the rate {cause}")))),
            Some(Ok(rate)) => rate,
            None => DEFAULT,
        };
        Some(Self::list(pattern, rate))
    }

    fn list(pattern: Pattern, rate: (i32, i32)) -> Result<Self> {
        let failure =
            |cause: String| Failure::input(format!("{}: {cause}", pattern.folder.join(pattern.name(0)).display()));
        let entries = pattern.folder.read_dir().map_err(|e| failure(e.to_string()))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut numbers: Vec<i32> = names.filter_map(|name| pattern.number(&name)).collect();
        numbers.sort_unstable();
        let first = *numbers.first().ok_or_else(|| failure("no picture has such a name with any number".into()))?;
        let count = unbroken(&numbers, MOST).map_err(&failure)?;
        let last = first + (count - 1);
        if let Some(number) = numbers.get(count as usize) {
            tracing::warn!("{}: follows a gap in the numbers and is left out, as all after it", pattern.name(*number));
        }
        Ok(Self { pattern, first, last, rate })
    }

    /// The source of its pictures, one a buffer.
    pub fn source(&self) -> Result<gst::Element> {
        let (n, d) = self.rate;
        let kind = self.pattern.media_type().unwrap_or("image/png");
        let caps = gst::Caps::builder(kind).field("framerate", gst::Fraction::new(n, d)).build();
        let source = gst::ElementFactory::make("multifilesrc")
            .property("location", self.pattern.location())
            .property("index", self.first)
            .property("start-index", self.first)
            .property("stop-index", self.last)
            .property("caps", caps)
            .build();
        Ok(source?)
    }

    /// The files in their order.
    pub fn files(&self) -> impl Iterator<Item = PathBuf> {
        (self.first..=self.last).map(|number| self.pattern.folder.join(self.pattern.name(number)))
    }
}

/// How many of `numbers`, which rise and are not empty, follow each other from the first on; `most` is the most that is taken.
fn unbroken(numbers: &[i32], most: i32) -> Result<i32, String> {
    let count = numbers.iter().zip(numbers[0]..).take_while(|(number, expected)| *number == expected).count();
    i32::try_from(count).ok().filter(|count| *count <= most).ok_or_else(|| {
        format!("{count} pictures follow this one, {most} are taken: make a video of them, as with `ffmpeg -i`")
    })
}

/// All the bytes of a video, be it a file or pictures.
pub fn read_all(path: &Path) -> io::Result<Box<dyn Read>> {
    let Some(sequence) = Sequence::of(path) else { return Ok(Box::new(File::open(path)?)) };
    let sequence = sequence.map_err(|failure| io::Error::other(failure.message))?;
    Ok(Box::new(
        sequence.files().fold(Box::new(io::empty()) as Box<dyn Read>, |all, file| Box::new(all.chain(Lazy(Err(file))))),
    ))
}

/// A file that is opened when it is read.
struct Lazy(Result<File, PathBuf>);

impl Read for Lazy {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if let Err(path) = &self.0 {
            self.0 = Ok(File::open(path)?);
        }
        match &mut self.0 {
            Ok(file) => file.read(into),
            Err(_) => Ok(0),
        }
    }
}

/// A rate in frames a second: `25`, `29.97` or `30000/1001`.
pub fn parse_rate(text: &str) -> Result<(i32, i32), String> {
    let cause = || "must be 1 to 240 frames a second, as 25, 29.97 or 30000/1001".to_owned();
    let rate = match text.split_once('/') {
        Some((n, d)) => (n.parse().map_err(|_| cause())?, d.parse().map_err(|_| cause())?),
        None => {
            let fps: f64 = text.parse().map_err(|_| cause())?;
            let whole = fps.fract() == 0.0;
            if !(1.0..=240.0).contains(&fps) {
                return Err(cause());
            }
            // Rates of television are so many thousands in 1001 seconds.
            let drop = (fps * 1.001).round();
            match (whole, (drop / 1.001 - fps).abs() < 0.005) {
                (true, _) => (fps as i32, 1),
                (false, true) => (drop as i32 * 1000, 1001),
                (false, false) => ((fps * 1000.0).round() as i32, 1000),
            }
        }
    };
    let (n, d): (i32, i32) = rate;
    let fits = n > 0 && d > 0 && i64::from(n) >= i64::from(d) && i64::from(n) <= 240 * i64::from(d);
    if fits { Ok(rate) } else { Err(cause()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_names_pictures_in_their_order_up_to_a_gap() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a_0007.png", "a_0008.png", "a_0009.png", "a_0011.png", "a_12.png", "b_0006.png"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let pattern = folder.path().join("a_%04d.png");
        let sequence = Sequence::of(&Sequence::path(&pattern, Some((30, 1)))).unwrap().unwrap();
        assert_eq!((sequence.first, sequence.last, sequence.rate), (7, 9, (30, 1)));
        let mut all = String::new();
        read_all(&pattern).unwrap().read_to_string(&mut all).unwrap();
        assert_eq!(all, "a_0007.pnga_0008.pnga_0009.png");
        let none = Sequence::of(&folder.path().join("c%d.png")).unwrap().unwrap_err().message;
        assert!(none.contains("no picture has such a name"), "{none}");
        // A file of such a name is a file.
        std::fs::write(&pattern, "").unwrap();
        assert!(Sequence::of(&pattern).is_none());
    }

    #[test]
    fn more_pictures_than_are_taken_are_refused_and_not_cut_off() {
        assert_eq!(unbroken(&[7, 8, 9], 3), Ok(3));
        assert_eq!(unbroken(&[7, 8, 9, 11], 3), Ok(3));
        let refused = unbroken(&[7, 8, 9, 10], 3).unwrap_err();
        assert!(refused.contains("4 pictures") && refused.contains("3 are taken"), "{refused}");
    }

    #[test]
    fn other_paths_are_no_patterns() {
        for path in ["a.png", "%s.png", "%d.mp4", "%5d.png", "%0d.png", "%020d.png", "%d%d.png", "100%.png", "%d"] {
            assert!(Sequence::of(Path::new(path)).is_none(), "{path}");
        }
        assert_eq!(Pattern::of(Path::new("x/%d.png")).unwrap().name(12), "12.png");
        assert_eq!(Pattern::of(Path::new("%03d.PNG")).unwrap().location(), "./%03d.PNG");
    }

    #[test]
    fn rates_are_read_as_people_write_them() {
        for (text, rate) in
            [("25", (25, 1)), ("29.97", (30_000, 1001)), ("30000/1001", (30_000, 1001)), ("12.5", (12_500, 1000))]
        {
            assert_eq!(parse_rate(text), Ok(rate), "{text}");
        }
        for text in ["0", "-1", "1/0", "250", "nan", "inf", "25fps", "1/2", ""] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }
}
