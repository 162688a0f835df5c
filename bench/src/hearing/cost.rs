//! What an evaluation of Whisper's encoder costs.

use std::{sync::Arc, time::Instant};

use lipstream_engines::{
    import::whisper::Size,
    runtime::{Input, Model},
};
use serde::Serialize;

use crate::networks::processor;

/// Windows that are evaluated at a time: one of each stream.
const STREAMS: [usize; 3] = [1, 4, 8];
/// Milliseconds that each is measured for, in so many turns.
const LENGTH: f64 = 1500.0;
const TURNS: usize = 3;

#[derive(Serialize)]
pub struct Cost {
    window_ms: usize,
    streams: usize,
    /// Of one evaluation of all streams; a multiply-add counts two.
    gflop: f64,
    /// Milliseconds of the processor in all threads, and of the clock: the least mean of the turns.
    processor_ms: f64,
    clock_ms: f64,
}

/// Measures all windows and numbers of streams in turns.
pub fn measure(model: &Arc<Model>, size: &Size, windows: &[usize]) -> Result<Vec<Cost>, String> {
    let cases = windows.iter().flat_map(|window| STREAMS.map(|streams| (*window, streams)));
    let mut costs: Vec<Cost> = cases
        .map(|(window_ms, streams)| Cost {
            window_ms,
            streams,
            gflop: streams as f64 * gflop(size, window_ms / super::COLUMN),
            processor_ms: f64::MAX,
            clock_ms: f64::MAX,
        })
        .collect();
    for _ in 0..TURNS {
        for cost in &mut costs {
            let (processor, clock) = turn(model, size, cost)?;
            cost.processor_ms = cost.processor_ms.min(processor);
            cost.clock_ms = cost.clock_ms.min(clock);
        }
    }
    Ok(costs)
}

fn turn(model: &Arc<Model>, size: &Size, cost: &Cost) -> Result<(f64, f64), String> {
    let shape = [cost.streams, size.mels, cost.window_ms / super::COLUMN];
    let mel: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| (i as f32 * 0.37).sin() * 0.6).collect();
    let run = || model.run(&[Input { name: "mel", shape: &shape, data: &mel }]).map(drop).map_err(|e| e.to_string());
    run()?;
    let (started, used, mut count) = (Instant::now(), processor()?, 0.0);
    while started.elapsed().as_secs_f64() * 1e3 < LENGTH {
        run()?;
        count += 1.0;
    }
    Ok(((processor()? - used) / count, started.elapsed().as_secs_f64() * 1e3 / count))
}

/// Of one window of so many columns: two convolutions, and blocks of attention and two linear layers four times as wide.
fn gflop(size: &Size, columns: usize) -> f64 {
    let (rows, width) = (columns as f64 / 2.0, size.width as f64);
    let convolutions = 3.0 * columns as f64 * size.mels as f64 * width + 3.0 * rows * width * width;
    let block = rows * 12.0 * width * width + 2.0 * rows * rows * width;
    2e-9 * (convolutions + size.blocks as f64 * block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirty_seconds_of_tiny_are_what_its_graph_says() {
        let tiny = Size { mels: 80, width: 384, blocks: 4 };
        // As docs/latentsync.md has them of 2 and 30 s.
        assert!((gflop(&tiny, 200) - 1.6).abs() < 0.05, "{}", gflop(&tiny, 200));
        assert!((gflop(&tiny, 3000) - 37.0).abs() < 0.5, "{}", gflop(&tiny, 3000));
    }
}
