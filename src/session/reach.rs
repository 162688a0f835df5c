//! Whether an engine can keep up with a live picture here at all, said before anything of it is loaded.
//!
//! What a frame costs is in its manifest. What the device gives is found once, by matrix products of two seconds at most: no
//! network reaches as much, so that whoever needs more is refused rightly, however long one evaluation of it would take.

use std::{collections::HashMap, time::Duration};

use lipstream_engines::{engine, manifest::Package, runtime};
use parking_lot::Mutex;

use super::{Refusal, capacity::Demand};

/// Time that the device is measured for.
const BUDGET: Duration = Duration::from_secs(2);
/// Engines that need fewer GFLOP a second are measured by running them.
const EASY: f64 = 300.0;

/// GFLOP a second by device, as they were measured.
#[derive(Default)]
pub struct Reach(Mutex<HashMap<String, f64>>);

impl Reach {
    /// Refuses what the device cannot hold, by itself: memory unless the engine is `loaded` already, and arithmetic. `device` is
    /// as configured.
    pub fn check(&self, demand: &Demand, device: &str, loaded: bool) -> Result<(), Refusal> {
        // What is wrong with its name or its files, its graph says.
        let Ok(package) = Package::find(&demand.engine) else { return Ok(()) };
        let Ok(named) = device.parse::<runtime::Device>() else { return Ok(()) };
        let options = runtime::Options { device: named, ..Default::default() };
        package.check_built(&options).map_err(|error| Refusal::Full(error.to_string()))?;
        if !loaded {
            let free = runtime::free_memory();
            engine::check_memory(&package, &options, free).map_err(|error| Refusal::Full(error.to_string()))?;
        }
        let needs = f64::from(package.manifest().frame_gflop(demand.steps)) * demand.fps();
        if needs < EASY {
            return Ok(());
        }
        let steps = demand.steps.or(package.manifest().scheduler.as_ref().map(|scheduler| scheduler.steps));
        match self.speed(device, &options) {
            Some(speed) if speed < needs => Err(too_slow(demand, steps, needs, speed)),
            _ => Ok(()),
        }
    }

    /// GFLOP a second; `None` where nothing runs.
    fn speed(&self, device: &str, options: &runtime::Options) -> Option<f64> {
        // Held while it is measured, so that nobody measures beside it.
        let mut known = self.0.lock();
        if let Some(speed) = known.get(device) {
            return Some(*speed);
        }
        // Sessions get the better of these, as `CapacityMeter` has it.
        let devices = match options.device {
            runtime::Device::Auto => vec![runtime::Device::Cpu, runtime::Device::Auto],
            named => vec![named],
        };
        let budget = BUDGET / devices.len() as u32;
        let measured = devices.into_iter().filter_map(|device| {
            let options = runtime::Options { device, ..*options };
            engine::speed(&options, budget)
                .inspect_err(|error| tracing::warn!("the speed of device {device} is not known: {error}"))
                .ok()
        });
        let speed = measured.reduce(f64::max)?;
        tracing::info!("device {device} gives {} TFLOP/s in matrix products", tera(speed));
        known.insert(device.to_owned(), speed);
        Some(speed)
    }
}

fn too_slow(demand: &Demand, steps: Option<usize>, needs: f64, speed: f64) -> Refusal {
    let steps = steps.map_or(String::new(), |steps| format!(" and {steps} steps"));
    let cure = if steps.is_empty() { "" } else { "fewer steps, " };
    Refusal::Full(format!(
        "engine `{}` needs {} TFLOP/s at {} fps{steps}, this device gave {} in {} s of measuring; take {cure}a smaller engine or \
         another device",
        demand.engine,
        tera(needs),
        (demand.fps() * 100.0).round() / 100.0,
        tera(speed),
        BUDGET.as_secs()
    ))
}

/// GFLOP as TFLOP, to two digits or more.
fn tera(gflop: f64) -> String {
    let tera = gflop / 1e3;
    let decimals = if tera >= 10.0 {
        0
    } else if tera >= 1.0 {
        1
    } else {
        2
    };
    format!("{tera:.decimals$}")
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::live::Picture;

    /// The built-in engine, said to cost so many GFLOP besides each step's.
    fn engine(folder: &Path, refine: f32, step: f32) -> String {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("engines/models/compact");
        for entry in fs::read_dir(own).unwrap().flatten().filter(|entry| entry.path().is_file()) {
            fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
        }
        let file = folder.join("engine.toml");
        let mut table: toml::Table = fs::read_to_string(&file).unwrap().parse().unwrap();
        let cost = format!("gflop = {{ refine = {refine:?}, step = {step:?} }}").parse::<toml::Table>().unwrap();
        table.insert("cost".into(), cost.into());
        fs::write(&file, toml::to_string(&table).unwrap()).unwrap();
        folder.display().to_string()
    }

    #[test]
    fn what_needs_more_than_the_device_gives_is_refused_with_both_figures() {
        let folder = tempfile::tempdir().unwrap();
        let engine = engine(folder.path(), 40.0, 300.0);
        let reach = Reach::default();
        reach.0.lock().insert("cpu".into(), 9000.0);
        let demand = |steps, fps| Demand {
            picture: Picture { width: 640, height: 360, fps },
            engine: engine.clone(),
            steps,
            mouths: 1,
            stacked: false,
            enhancer: None,
        };
        // 40 + 2 x 300 GFLOP, 25 times a second.
        let text = reach.check(&demand(None, (25, 1)), "cpu", true).unwrap_err();
        assert!(matches!(text, Refusal::Full(_)));
        assert_eq!(
            text.to_string(),
            format!(
                "engine `{engine}` needs 16 TFLOP/s at 25 fps and 2 steps, this device gave 9.0 in 2 s of measuring; take fewer \
                 steps, a smaller engine or another device"
            )
        );
        reach.check(&demand(Some(1), (25, 1)), "cpu", true).unwrap();
        assert!(reach.check(&demand(Some(1), (30, 1)), "cpu", true).is_err());
        reach.check(&demand(None, (10, 1)), "cpu", true).unwrap();
        // Whoever is as cheap as the one that is built in is not measured.
        let standard = Demand { engine: "compact".into(), ..demand(None, (25, 1)) };
        Reach::default().check(&standard, "cpu", false).unwrap();
    }
}
