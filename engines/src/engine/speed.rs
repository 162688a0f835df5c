use std::time::{Duration, Instant};

use crate::{
    Result,
    import::onnx::{Dim, Graph, Precision},
    runtime::{Input, Model, Options},
};

/// Width and number of the layers that are multiplied by.
const WIDTH: usize = 1024;
const LAYERS: usize = 16;
/// Rows of a run: few first, so that no run takes long on a slow device, and more as long as there is time.
const ROWS: [usize; 4] = [16, 256, 4096, 65_536];
/// Runs of each.
const RUNS: usize = 3;

/// GFLOP a second (a multiply-add counts two) that the device of `options` reaches in large matrix products, found in about
/// `budget`. Networks reach less: what needs more than this cannot run in real time.
pub fn speed(options: &Options, budget: Duration) -> Result<f64> {
    let model = Model::load("matrix products", &network()?[..], &options.beside())?;
    let begin = Instant::now();
    let mut best = 0.0_f64;
    for rows in ROWS {
        let (shape, data) = ([rows, 1], vec![1.0; rows]);
        let mut shortest = Duration::MAX;
        // The first run of a size compiles.
        for _ in 0..=RUNS {
            let started = Instant::now();
            model.run(&[Input { name: "x", shape: &shape, data: &data }])?;
            shortest = shortest.min(started.elapsed());
            if begin.elapsed() + shortest > budget {
                break;
            }
        }
        let flop = 2.0 * (rows * WIDTH * WIDTH * LAYERS) as f64;
        best = best.max(flop / 1e9 / shortest.as_secs_f64().max(1e-6));
        // The next takes as much longer as it has more rows.
        if begin.elapsed() + shortest * (ROWS[1] / ROWS[0]) as u32 > budget {
            break;
        }
    }
    Ok(best)
}

/// A column of numbers, made wide, multiplied by one matrix after another, and one number of each row.
fn network() -> Result<Vec<u8>> {
    let mut graph = Graph::new("matrix products", Precision::Fp32);
    let rows = Dim::Free("rows");
    let x = graph.input("x", &[rows, Dim::Fixed(1)]);
    let mut y = graph.linear(&x, [WIDTH, 1], &[1.0; WIDTH], None)?;
    // Means, so that ones stay ones.
    let mean = vec![1.0 / WIDTH as f32; WIDTH * WIDTH];
    for _ in 0..LAYERS {
        y = graph.linear(&y, [WIDTH; 2], &mean, None)?;
    }
    let y = graph.linear(&y, [1, WIDTH], &mean[..WIDTH], None)?;
    graph.output("y", &[rows, Dim::Fixed(1)], y);
    Ok(graph.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Device;

    #[test]
    fn the_products_are_computed_and_counted() {
        let options = Options { device: Device::Cpu, ..Options::default() };
        let model = Model::load("matrix products", &network().unwrap()[..], &options).unwrap();
        let y = model.run(&[Input { name: "x", shape: &[2, 1], data: &[1.0, 3.0] }]).unwrap();
        assert!((y[0].data[0] - 1.0).abs() < 1e-3 && (y[0].data[1] - 3.0).abs() < 1e-3, "{:?}", y[0].data);
        // A core of any machine that runs this is within these.
        let found = speed(&options, Duration::from_millis(50)).unwrap();
        assert!((0.1..1e6).contains(&found), "{found}");
    }
}
