//! The CUDA kernels: whether they compile, and on a card how far they are from the CPU's twins and how long they take beside the
//! least that their bytes allow. `bench/gpu/run.sh` runs it.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode, sync::Arc};

use clap::Parser;
use lipstream_engines::{
    Result,
    cuda::{Buffer, Card, Memory, Timed, nvrtc},
    engine::Noise,
    geometry::{Point, Rect, Similarity, ThinPlate},
    image::{Crop, Format, FrameMut, FrameView, Lattice, Matrix, Patch, Plane, PlaneMut, Range, paste},
    kernels::{self, Clip, DeviceCrop, DeviceLattice, DevicePatch, Masked, Order, Painted, Planes, Sampled},
    schedule::Step,
};
use serde::Serialize;

#[derive(Parser)]
#[command(about = "The CUDA kernels: compiled, compared with the CPU, timed")]
struct Args {
    /// Number of the card
    #[arg(long, default_value_t = 0)]
    card: usize,
    /// What the card copies, in TB/s: the floor of a kernel is its bytes over this
    #[arg(long, default_value_t = 3.0)]
    terabytes: f64,
    /// Where the report goes
    #[arg(long)]
    json: PathBuf,
}

#[derive(Serialize, Default)]
struct Report {
    /// Of each virtual architecture what the compiler said, `ok` where it was silent.
    compiled: BTreeMap<String, String>,
    /// Why nothing ran on a card.
    refused: Option<String>,
    parity: Vec<Parity>,
    kernels: Vec<Timing>,
}

#[derive(Serialize)]
struct Parity {
    what: &'static str,
    /// Largest difference: codes of 255, or of numbers.
    most: f64,
    limit: f64,
}

#[derive(Serialize)]
struct Timing {
    kernel: &'static str,
    microseconds: f64,
    bytes: usize,
    floor_microseconds: f64,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    let mut report = Report::default();
    for architecture in [75, 80, 86, 89, 90, 100].map(|number| format!("compute_{number}")) {
        let said = match nvrtc::kernels(&architecture) {
            Ok(made) if made.log.is_empty() => "ok".into(),
            Ok(made) => made.log,
            Err(error) => error.to_string(),
        };
        println!("{architecture}: {said}");
        report.compiled.insert(architecture, said);
    }
    match Card::open(args.card) {
        Err(error) => {
            println!("no kernel ran: {error}");
            report.refused = Some(error.to_string());
        }
        Ok(card) => on_card(card, args, &mut report).map_err(|e| e.to_string())?,
    }
    let text = serde_json::to_vec_pretty(&report).map_err(|e| e.to_string())?;
    std::fs::write(&args.json, text).map_err(|e| format!("{}: {e}", args.json.display()))?;
    let wrong = report.parity.iter().filter(|p| p.most > p.limit || p.most.is_nan()).map(|p| p.what);
    let wrong: Vec<_> = wrong.collect();
    if wrong.is_empty() { Ok(()) } else { Err(format!("not as on the CPU: {}", wrong.join(", "))) }
}

fn on_card(card: Card, args: &Args, report: &mut Report) -> Result<()> {
    let card: Arc<dyn Memory> = Arc::new(card);
    all(&card, Some(&mut report.parity))?;
    for p in &report.parity {
        println!("{}: {:.2e} at most, of {:.0e}", p.what, p.most, p.limit);
    }
    let timed = Arc::new(Timed::new(Card::open(args.card)?));
    let memory: Arc<dyn Memory> = timed.clone();
    all(&memory, None)?;
    for (kernel, seconds) in timed.take() {
        let bytes = kernels::bytes(kernel, &kernels::PUBLISHED).unwrap_or(0);
        let floor_microseconds = bytes as f64 / args.terabytes / 1e6;
        let timing = Timing { kernel, microseconds: seconds * 1e6, bytes, floor_microseconds };
        println!("{kernel}: {:.2} us, floor {floor_microseconds:.2} us of {bytes} bytes", timing.microseconds);
        report.kernels.push(timing);
    }
    Ok(())
}

/// A frame of 1920 x 1080 and a face as large in it as its crop.
const SIZE: (usize, usize) = (1920, 1080);
const CROP: usize = kernels::PUBLISHED.crop;
const SIDE: usize = kernels::PUBLISHED.side;
const CLIP: Clip = kernels::PUBLISHED.clip;

fn wave(count: usize, seed: f32) -> Vec<f32> {
    (0..count).map(|i| (i as f32 * 0.731 + seed).sin()).collect()
}

fn apart(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max)
}

fn codes(a: &[u8], b: &[u8]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).fold(0.0, f64::max)
}

/// All kernels that have a twin in the library; the differences where somebody asks for them.
fn all(memory: &Arc<dyn Memory>, parity: Option<&mut Vec<Parity>>) -> Result<()> {
    let mut found = Vec::new();
    let mut say = |what, most, limit| found.push(Parity { what, most, limit });
    let value = |i: usize, width: usize| {
        120.0 + 60.0 * ((i % width) as f32 * 0.05).sin() + 40.0 * ((i / width) as f32 * 0.03).cos()
    };
    let luma: Vec<u8> = (0..SIZE.0 * SIZE.1).map(|i| value(i, SIZE.0) as u8).collect();
    let chroma: Vec<u8> = (0..SIZE.0 * SIZE.1 / 2).map(|i| (value(i, SIZE.0) * 0.5 + 60.0) as u8).collect();
    let planes = || vec![Plane { data: &luma, stride: SIZE.0 }, Plane { data: &chroma, stride: SIZE.0 }];
    let frame = FrameView::new(Format::Nv12, SIZE, Matrix::Bt709, Range::Limited, planes())?;
    let scale = 1.0 / CROP as f32;
    let to_crop = Similarity { a: scale, b: 0.02 * scale, tx: -900.3 * scale, ty: -400.7 * scale };
    let invalid = || lipstream_engines::Error::invalid("the bench's face has no crop");
    let wanted = Crop::take_sharp(&frame, CROP, &to_crop).ok_or_else(invalid)?;
    let crop = DeviceCrop::take(memory, &frame, CROP, &to_crop, true)?.ok_or_else(invalid)?;
    say("take", codes(&crop.read()?.data, &wanted.data), 1.0);

    let (count, inner) = (3 * SIDE * SIDE, Rect { x: 0.17, y: 0.06, width: 0.66, height: 0.88 });
    let (mask, batch) = (Buffer::of(memory, &vec![1.0; SIDE * SIDE])?, Buffer::zeroed(memory, 2 * count)?);
    let masked = Some(Masked { out: (&batch, 0), mask: &mask, hidden: 0.0 });
    let order = Order::Rgb;
    let planes = Planes { side: SIDE, order, scale: 2.0, offset: -1.0, out: (&batch, count), masked };
    crop.show(memory, Some(&inner), &planes)?;
    let whole = Buffer::zeroed(memory, CROP * CROP * 3)?;
    crop.show(memory, None, &Planes { side: CROP, order, scale: 1.0, offset: 0.0, out: (&whole, 0), masked: None })?;
    say("planar", apart(&whole.read()?, &wanted.to_rgb_planar()), 1e-5);

    let (mut own, mut twin) = (Noise::new(7, 0.0, 1.0), Noise::new(7, 0.0, 1.0));
    let one = CLIP.channels * CLIP.plane;
    let noise = Buffer::room(memory, one)?;
    kernels::draw(memory, &mut own, (&noise, 0), one, None)?;
    say("draw", apart(&noise.read()?, &twin.latent(one)), 0.0);

    let clip = CLIP.channels * CLIP.frames * CLIP.plane;
    let zeros = || Buffer::<f32>::zeroed(memory, clip);
    let (latent, trail, estimate, slots) = (zeros()?, zeros()?, zeros()?, Buffer::zeroed(memory, 2 * clip)?);
    let begun = Painted { clip: CLIP, latent: (&latent, 0), known: None, copies: &[(&trail, 0), (&slots, 0)] };
    kernels::begin(memory, &begun, &noise)?;
    let step = Step {
        timestep: 999.0,
        keep: 0.9,
        predict: -0.3,
        prior: 0.2,
        noise: 0.0,
        clean: Some([1.1, -0.4]),
        guidance: 1.5,
    };
    let said = Buffer::of(memory, &wave(2 * clip, 1.0))?;
    let copies = [(&trail, 0), (&slots, 0), (&slots, clip)];
    let painted = Painted { copies: &copies, ..begun };
    let mut expected = latent.read()?;
    kernels::advance(memory, &painted, &step, ((&said, 0), Some((&said, clip))), (&estimate, 0), &mut own)?;
    let both = wave(2 * clip, 1.0);
    let guided: Vec<f32> = both[..clip].iter().zip(&both[clip..]).map(|(p, n)| n + 1.5 * (p - n)).collect();
    step.apply(&mut expected, &guided, &mut vec![0.0; clip], || 0.0);
    say("advance", apart(&latent.read()?, &expected), 1e-5);

    let encoded = Buffer::of(memory, &wave(2 * clip, 2.0))?;
    let sampled = Sampled {
        mean: (&encoded, 0),
        log_variance: (&encoded, 0),
        epsilon: (&encoded, 0),
        mask: &noise,
        known: None,
        scale: 0.18215,
    };
    let conditions = Buffer::zeroed(memory, 2 * 9 * clip / 4)?;
    sampled.condition(memory, &CLIP, &[(&conditions, 0), (&conditions, 9 * clip / 4)])?;
    kernels::plain(memory, &CLIP, (&latent, 0), 1.0 / 0.18215, (&trail, 0))?;

    let mut patch_pixels = DeviceCrop::of(memory, &wanted)?;
    kernels::put(memory, (&batch, count), SIDE, ((0.5, 0.5), order), &mut patch_pixels, &inner)?;
    let pixels = patch_pixels.read()?;
    let converted = kernels::convert(memory, &patch_pixels, lipstream_engines::image::ColorSpace::Rgb)?;
    say(
        "convert",
        codes(&converted.read()?.data, &pixels.convert(lipstream_engines::image::ColorSpace::Rgb).data),
        1.0,
    );
    let share: Vec<f32> = (0..CROP).map(|i| (i as f32 / CROP as f32 * 3.1).sin()).collect();
    let covered: Vec<u8> = share.iter().flat_map(|r| share.iter().map(move |c| (r * c * 255.0 + 0.5) as u8)).collect();
    say("cover", codes(&kernels::cover(memory, &share, &share)?.read()?, &covered), 0.0);
    let coverage: Vec<u8> = (0..CROP * CROP)
        .map(|i| {
            let middle = CROP as f32 / 2.0;
            let far = ((i % CROP) as f32 - middle).hypot((i / CROP) as f32 - middle) / middle;
            ((0.95 - far) * 4.0 * 255.0).clamp(0.0, 255.0) as u8
        })
        .collect();
    let there = Buffer::of(memory, &coverage)?;
    let to_frame = to_crop.inverse().ok_or_else(invalid)?;
    let mut pasted = [(luma.clone(), chroma.clone()), (luma.clone(), chroma.clone())];
    let [on_card, on_cpu] = pasted.each_mut().map(|(luma, chroma)| {
        let planes = vec![PlaneMut { data: luma, stride: SIZE.0 }, PlaneMut { data: chroma, stride: SIZE.0 }];
        FrameMut::new(Format::Nv12, SIZE, Matrix::Bt709, Range::Limited, planes)
    });
    let patch = DevicePatch { pixels: &patch_pixels, mask: (&coverage, &there), to_frame, opacity: 1.0 };
    kernels::paste(memory, &mut on_card?, &patch)?;
    let patch = Patch { pixels: pixels.into(), mask: coverage.clone().into(), to_frame, opacity: 1.0, hard: false };
    paste(&mut on_cpu?, &patch)?;
    say("paste", codes(&pasted[0].0, &pasted[1].0).max(codes(&pasted[0].1, &pasted[1].1)), 1.0);

    let points: Vec<Point> =
        (1..=101).map(|i| Point::new((i as f32 * 0.7549) % 1.0, (i as f32 * 0.5698) % 1.0)).collect();
    let moved: Vec<Point> =
        points.iter().map(|p| *p + Point::new((p.y * 9.0).sin() * 0.02, (p.x * 7.0).cos() * 0.02)).collect();
    let plate = ThinPlate::fit(&points, &moved, 1e-3).ok_or_else(invalid)?;
    let small = Crop::take_sharp(&frame, SIDE, &to_crop).ok_or_else(invalid)?;
    let area = Rect { x: 0.0, y: 0.0, width: 1.0, height: 1.0 };
    let device = DeviceCrop::of(memory, &small)?;
    let warped = DeviceLattice::over(memory, &plate, 32, &area)?.warp(memory, &device)?;
    say("warp", codes(&warped.read()?.data, &Lattice::over(&plate, 32, &area).warp(&small).data), 1.0);
    if let Some(parity) = parity {
        *parity = found;
    }
    Ok(())
}
