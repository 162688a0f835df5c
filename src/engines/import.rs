//! `lipstream import`: published checkpoints become engines.

use std::{path::PathBuf, process::ExitCode};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lipstream_engines::{
    Error,
    import::{self, Request, onnx::Precision},
    manifest::{Family, Features, Package},
};
use serde::Serialize;

use crate::{
    error::{Failure, Result},
    termination,
};

/// What the command line asks for.
pub struct Options {
    pub family: Option<Family>,
    pub files: Vec<PathBuf>,
    pub name: Option<String>,
    pub precision: Precision,
    pub features: Option<Features>,
    pub licence: Option<String>,
    pub replace: bool,
    pub json: bool,
    pub quiet: bool,
}

#[derive(Serialize)]
struct Summary<'a> {
    name: &'a str,
    family: String,
    folder: String,
}

pub fn import(options: &Options) -> Result<ExitCode> {
    for path in &options.files {
        if !path.exists() {
            return Err(Failure::input(format!("{}: there is no such file", path.display())));
        }
    }
    let folder = Package::data_folder()
        .ok_or_else(|| Failure::output("there is no home folder to keep engines in; set XDG_DATA_HOME"))?;
    let bar = match options.quiet {
        true => ProgressBar::hidden(),
        false => ProgressBar::with_draw_target(Some(1000), ProgressDrawTarget::stderr()),
    };
    bar.set_style(ProgressStyle::with_template("import {bar:30} {msg}").expect("the template is ours"));
    let request = Request {
        family: options.family,
        files: &options.files,
        name: options.name.as_deref(),
        precision: options.precision,
        features: options.features,
        licence: options.licence.as_deref(),
        replace: options.replace,
    };
    let imported = import::import(&request, &folder, &mut |what, part| {
        bar.set_message(what.to_owned());
        bar.set_position((part * 1000.0) as u64);
        if termination::requested() { Err(Error::invalid("interrupted")) } else { Ok(()) }
    });
    bar.finish_and_clear();
    let imported = imported.map_err(|error| match termination::requested() {
        true => Failure::interrupted(),
        false => Failure::from(error),
    })?;
    if let Some(advice) = imported.advice {
        eprintln!("lipstream: note: {advice}; state your licence by --licence");
    }
    let summary = Summary {
        name: &imported.name,
        family: imported.family.to_string(),
        folder: imported.folder.display().to_string(),
    };
    match options.json {
        true => println!("{}", serde_json::to_string(&summary).expect("plain values")),
        false => println!("{}: {}, {}", summary.name, summary.family, summary.folder),
    }
    Ok(ExitCode::SUCCESS)
}
