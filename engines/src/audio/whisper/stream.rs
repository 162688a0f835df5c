use std::{collections::VecDeque, time::Duration};

use super::{
    super::{BINS, FrontEnd, HOP_SAMPLES},
    loudest::Loudest,
    mel::{Column, LogMel, NOTHING, normalise},
};
use crate::{Error, Result};

/// Columns of a row of the encoder's states.
const PER_ROW: usize = 2;
/// How much the encoder is shown, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// Columns that the encoder is given, even: 100 to 400 for 1 to 4 s, at most 3000.
    pub columns: usize,
    /// Rows that are new each time.
    pub rows: usize,
    /// Rows that follow those: their states are not used, for they know too little of what comes next.
    pub ahead: usize,
}

impl Context {
    /// Sound after a row's start that it waits for. The first of the new rows waits longest: for the others, for those ahead, and
    /// for half an analysis frame of the last column.
    pub fn overhang(&self) -> Duration {
        let columns = (self.rows + self.ahead) * PER_ROW - 1;
        Duration::from_micros(10_000 * columns as u64 + 12_500)
    }

    /// What is wrong with it, if anything.
    pub fn check(&self) -> Result<()> {
        let wanted = self.rows.saturating_add(self.ahead).saturating_mul(PER_ROW);
        if self.rows == 0 || !self.columns.is_multiple_of(PER_ROW) || !(wanted..=super::COLUMNS).contains(&self.columns)
        {
            return Err(Error::invalid(format!(
                "Whisper cannot be shown {} columns for {} new rows and {} after them: it takes an even number, {} at most, \
                 with two for each row",
                self.columns,
                self.rows,
                self.ahead,
                super::COLUMNS
            )));
        }
        Ok(())
    }
}

/// Evaluates the encoder: normalised mel `[80, columns]` and the number of columns to states `[columns / 2, row]`.
pub type Evaluate = Box<dyn FnMut(&[f32], usize) -> Result<Vec<f32>> + Send>;

/// Whisper's encoder as it streams: every so many rows it is shown the last seconds of mel, and the new rows of its states
/// are the features, each for 20 ms. What was before the first sample is silence. All columns of one evaluation are
/// normalised by the same maximum, see [`Loudest`], as they are in a recording. Which columns that are depends on their
/// number alone, so features are the same whatever the size of the pieces.
pub struct Stream {
    evaluate: Evaluate,
    key: String,
    context: Context,
    /// Numbers in a row.
    dims: usize,
    mel: LogMel,
    loudest: Loudest,
    /// The last `context.columns` columns.
    columns: VecDeque<Column>,
    /// Columns heard, samples taken and rows given since the last reset.
    heard: u64,
    samples: u64,
    rows: u64,
    silence: Vec<f32>,
}

impl Stream {
    /// `model` names the encoder by its weights; a row of its states has `dims` numbers.
    pub fn new(mut evaluate: Evaluate, model: &str, dims: usize, context: Context) -> Result<Self> {
        context.check()?;
        let columns: VecDeque<Column> = vec![[NOTHING; BINS]; context.columns].into();
        let rows = shown(&mut evaluate, &columns, Loudest::LEAST, dims)?;
        let at = new_rows(&context).start;
        Ok(Self {
            silence: rows[at * dims..][..dims].to_vec(),
            evaluate,
            key: format!("whisper-{model}-{}-{}-{}", context.columns, context.rows, context.ahead),
            context,
            dims,
            mel: LogMel::default(),
            loudest: Loudest::default(),
            columns,
            heard: 0,
            samples: 0,
            rows: 0,
        })
    }

    /// Columns that must have been heard for the rows after those given.
    fn wanted(&self) -> u64 {
        (self.rows + (self.context.rows + self.context.ahead) as u64) * PER_ROW as u64
    }

    /// Takes a column, and evaluates where it is the last that new rows wait for.
    fn hear(&mut self, column: &Column, sink: &mut dyn FnMut(&[f32])) -> Result<()> {
        self.loudest.hear(column);
        self.columns.pop_front();
        self.columns.push_back(*column);
        self.heard += 1;
        if self.heard < self.wanted() {
            return Ok(());
        }
        self.rows += self.context.rows as u64;
        let rows = shown(&mut self.evaluate, &self.columns, self.loudest.value(), self.dims)?;
        new_rows(&self.context).for_each(|row| sink(&rows[row * self.dims..][..self.dims]));
        Ok(())
    }
}

/// Which rows of an evaluation are new.
fn new_rows(context: &Context) -> std::ops::Range<usize> {
    let end = context.columns / PER_ROW - context.ahead;
    end - context.rows..end
}

/// The states that the encoder makes of `columns`.
fn shown(evaluate: &mut Evaluate, columns: &VecDeque<Column>, maximum: f32, dims: usize) -> Result<Vec<f32>> {
    let count = columns.len();
    let mut mel = vec![0.0; BINS * count];
    for (k, column) in columns.iter().enumerate() {
        column.iter().enumerate().for_each(|(b, y)| mel[b * count + k] = normalise(*y, maximum));
    }
    let states = evaluate(&mel, count)?;
    let wanted = count / PER_ROW * dims;
    if states.len() != wanted || !states.iter().all(|v| v.is_finite()) {
        let found =
            if states.len() == wanted { "numbers that are not finite".into() } else { format!("{}", states.len()) };
        return Err(Error::invalid(format!(
            "Whisper's encoder gave {found} instead of {wanted} numbers for {count} columns: import it again"
        )));
    }
    Ok(states)
}

impl FrontEnd for Stream {
    fn key(&self) -> &str {
        &self.key
    }

    fn dims(&self) -> usize {
        self.dims
    }

    fn hop(&self) -> Duration {
        Duration::from_millis(20)
    }

    fn overhang(&self) -> Duration {
        self.context.overhang()
    }

    fn silence(&self) -> &[f32] {
        &self.silence
    }

    fn push(&mut self, samples: &[f32], sink: &mut dyn FnMut(&[f32])) -> Result<()> {
        self.samples += samples.len() as u64;
        let mut columns = Vec::new();
        self.mel.push(samples, &mut |column| columns.push(*column));
        columns.iter().try_for_each(|column| self.hear(column, sink))
    }

    fn finish(&mut self, sink: &mut dyn FnMut(&[f32])) -> Result<()> {
        let hop = HOP_SAMPLES * PER_ROW;
        let mut left = self.samples.div_ceil(hop as u64).saturating_sub(self.rows);
        while left > 0 {
            self.push(&vec![0.0; hop], &mut |row| {
                if left > 0 {
                    left -= 1;
                    sink(row);
                }
            })?;
        }
        self.reset();
        Ok(())
    }

    fn reset(&mut self) {
        self.mel.reset();
        self.columns.iter_mut().for_each(|column| *column = [NOTHING; BINS]);
        self.loudest = Loudest::default();
        (self.heard, self.samples, self.rows) = (0, 0, 0);
    }

    fn hush(&mut self) {
        self.mel.hush();
        self.columns.iter_mut().for_each(|column| *column = [NOTHING; BINS]);
        self.loudest = Loudest::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: Context = Context { columns: 20, rows: 2, ahead: 1 };

    /// An encoder whose row holds bins 5 and 20 of its first column and bin 5 of its second.
    fn stream(context: Context) -> Stream {
        let evaluate = |mel: &[f32], count: usize| -> Result<Vec<f32>> {
            let row = |r: usize| [mel[5 * count + 2 * r], mel[20 * count + 2 * r], mel[5 * count + 2 * r + 1]];
            Ok((0..count / 2).flat_map(row).collect())
        };
        Stream::new(Box::new(evaluate), "test", 3, context).unwrap()
    }

    fn sound(count: usize) -> Vec<f32> {
        (0..count).map(|n| 0.4 * (n as f32 * 0.09).sin() * (n as f32 * 4e-4).sin()).collect()
    }

    fn heard(stream: &mut Stream, samples: &[f32], piece: usize) -> Vec<Vec<f32>> {
        let mut rows = Vec::new();
        samples.chunks(piece).for_each(|piece| stream.push(piece, &mut |row| rows.push(row.to_vec())).unwrap());
        stream.finish(&mut |row| rows.push(row.to_vec())).unwrap();
        rows
    }

    #[test]
    fn rows_are_the_same_in_pieces_of_any_size_and_one_for_each_hop_that_has_begun() {
        let samples = sound(8001);
        let whole = heard(&mut stream(CONTEXT), &samples, 8001);
        assert_eq!(whole.len(), 26);
        let mut again = stream(CONTEXT);
        for piece in [1, 159, 320, 1000] {
            assert_eq!(heard(&mut again, &samples, piece), whole, "{piece}");
        }
        // A row is of its own time: row r holds the columns 2 r and 2 r + 1.
        let (mut mel, mut columns) = (LogMel::default(), Vec::new());
        mel.push(&samples, &mut |column| columns.push(*column));
        for (r, row) in whole.iter().take(20).enumerate() {
            let wanted = [columns[2 * r][5], columns[2 * r][20], columns[2 * r + 1][5]]
                .map(|y| normalise(y, Loudest::START - 0.5));
            let loud = |y: &f32| *y > 0.0;
            assert!(row.iter().zip(wanted).all(|(a, b)| !loud(&b) || (a - b).abs() < 1e-6), "row {r}: {row:?}");
        }
    }

    #[test]
    fn a_row_needs_no_more_sound_than_is_declared() {
        for (context, wanted) in [(CONTEXT, 62_500), (Context { columns: 100, rows: 1, ahead: 0 }, 22_500)] {
            let mut stream = stream(context);
            assert_eq!(stream.overhang().as_micros(), wanted);
            let (needed, mut count) = (wanted as usize * 16 / 1000, 0);
            stream.push(&sound(needed - 1), &mut |_| count += 1).unwrap();
            assert_eq!(count, 0);
            stream.push(&[0.1], &mut |_| count += 1).unwrap();
            assert_eq!(count, context.rows);
            // Sound up to a hop's end and the overhang is enough for each later row.
            for hop in 1..40 {
                stream.push(&sound(320 * context.rows), &mut |_| count += 1).unwrap();
                assert_eq!(count, context.rows * (hop + 1));
            }
        }
    }

    #[test]
    fn silence_is_what_lasting_silence_says_and_hushed_sound_leaves_no_trace() {
        let mut stream = stream(CONTEXT);
        let silence = stream.silence().to_vec();
        assert_eq!(silence, [normalise(NOTHING, Loudest::LEAST); 3]);
        let lasting = heard(&mut stream, &vec![0.0; 16_000 * 20], 5000);
        assert_eq!(lasting.last(), Some(&silence));
        stream.push(&sound(4000), &mut |_| ()).unwrap();
        stream.hush();
        let after = heard(&mut stream, &vec![0.0; 1600], 1600);
        let floor = normalise(NOTHING, Loudest::START);
        assert!(after.iter().flatten().all(|v| (v - floor).abs() < 0.02), "{after:?}");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (columns, rows, ahead) in [(20, 0, 1), (21, 2, 1), (4, 2, 1), (3002, 2, 1), (20, usize::MAX, 5)] {
            assert!(Context { columns, rows, ahead }.check().is_err());
        }
        let empty = |_: &[f32], _: usize| Ok(Vec::new());
        let error = Stream::new(Box::new(empty), "test", 3, CONTEXT).err().unwrap().to_string();
        assert!(error.contains("gave 0 instead of 30 numbers for 20 columns"), "{error}");
    }
}
