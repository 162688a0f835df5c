//! `lipstream engines check` and `engines remove`.

use std::{path::PathBuf, process::ExitCode};

use lipstream_engines::{
    import::{self, Comparison, Difference, PictureDifference},
    manifest::Package,
    runtime,
};
use serde::Serialize;

use crate::error::{Failure, Result};

pub struct Options {
    pub name: String,
    pub golden: Option<PathBuf>,
    pub tolerance: f64,
    pub runtime: runtime::Options,
    pub json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    engine: &'a str,
    /// The largest relative difference.
    worst: f64,
    outputs: &'a [Difference],
    /// Whole frames of a golden file, in 1/255.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pictures: &'a [PictureDifference],
}

/// Compares every network of an engine, and the whole frames of a golden file, with what they should be; exit status 1 where
/// one is beyond the tolerance.
pub fn check(options: &Options) -> Result<ExitCode> {
    if let Some(golden) = options.golden.as_ref().filter(|golden| !golden.is_file()) {
        return Err(Failure::input(format!("{}: there is no such file", golden.display())));
    }
    let package = Package::find(&options.name)?;
    package.manifest().files.keys().try_for_each(|part| package.check_bytes(part))?;
    let Comparison { outputs, pictures } = import::check(&package, &options.runtime, options.golden.as_deref())?;
    let worst = outputs.iter().map(|output| output.relative).fold(0.0, f64::max);
    let within = worst <= options.tolerance && pictures.iter().all(PictureDifference::is_within);
    let report = Report { engine: &package.manifest().name, worst, outputs: &outputs, pictures: &pictures };
    let text = if options.json {
        serde_json::to_string(&report).expect("plain values")
    } else {
        let line = |o: &Difference| {
            format!(
                "{}: {:.2e} of its deviation ({:.2e} rms), {:.2e} absolute\n",
                o.name, o.relative, o.rms, o.absolute
            )
        };
        let picture = |p: &PictureDifference| {
            let verdict = if p.is_within() { "within" } else { "beyond" };
            let (mean, max) = (PictureDifference::MEAN, PictureDifference::MAX);
            format!("{}: mean {:.4}, most {} of 255, {verdict} {mean} and {max}\n", p.name, p.mean, p.max)
        };
        let verdict = if worst <= options.tolerance { "within" } else { "beyond" };
        let lines: String = outputs.iter().map(line).chain(pictures.iter().map(picture)).collect();
        format!("{lines}worst {worst:.2e}, {verdict} the tolerance of {:.2e}", options.tolerance)
    };
    println!("{text}");
    Ok(if within { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Removes an engine of the user's.
pub fn remove(name: &str) -> Result<ExitCode> {
    if Package::is_built_in(name) {
        return Err(Failure::usage(format!("engine `{name}` is built in and stays")));
    }
    let plain = !name.is_empty() && !name.contains(['/', '\\']) && !name.starts_with('.');
    let folder = Package::data_folder().map(|folder| folder.join(name)).filter(|folder| plain && folder.is_dir());
    let folder = folder.ok_or_else(|| {
        Failure::usage(format!("there is no engine `{name}` of yours; `lipstream engines` lists what there is"))
    })?;
    std::fs::remove_dir_all(&folder).map_err(|e| Failure::output(format!("{}: {e}", folder.display())))?;
    println!("{name}: removed");
    Ok(ExitCode::SUCCESS)
}
