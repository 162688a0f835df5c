use std::fmt::Write as _;

use crate::Report;

/// The report for people.
pub fn of(report: &Report) -> String {
    let mut out = String::new();
    write(&mut out, report).expect("writing to a String does not fail");
    out
}

fn write(out: &mut String, report: &Report) -> std::fmt::Result {
    let m = &report.machine;
    writeln!(out, "\n{}, {} cores, {}", m.cpu, m.cores, m.features.join(" "))?;
    writeln!(
        out,
        "{}: {:.3} GFLOP a frame, tracker {:.3}",
        report.engine, report.gflop_per_frame.engine, report.gflop_per_frame.tracker
    )?;
    let b = &report.baseline;
    writeln!(
        out,
        "without lip-sync: decode {:.1} x real time, decode and encode {:.1} x",
        b.decode_rtf, b.transcode_rtf
    )?;
    for d in &report.devices {
        writeln!(
            out,
            "\n{}: {:.2} x real time ({:.2} to {:.2}), {:.2} x after the first frame at {:.2} s, {} MB",
            d.device,
            d.rtf.median,
            d.rtf.min,
            d.rtf.max,
            d.rtf_steady.median,
            d.first_frame_seconds.median,
            d.peak_memory_bytes / 1_000_000
        )?;
        writeln!(out, "    {:28}{:>9}{:>9}{:>9}{:>10}", "stage", "p50 us", "p95 us", "p99 us", "a second")?;
        for (stage, times) in &d.stages {
            let at = |p: &str| times[p].as_u64().unwrap_or(0);
            let rate = if at("p50") == 0 { 0.0 } else { 1e6 / at("p50") as f64 };
            writeln!(out, "    {stage:28}{:>9}{:>9}{:>9}{rate:>10.0}", at("p50"), at("p95"), at("p99"))?;
        }
    }
    Ok(())
}
