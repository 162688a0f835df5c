//! What a check costs, measured before there is a stream.

use std::{sync::Arc, time::Duration};

use lipstream_engines::{
    Error, Result,
    geometry::{Point, landmarks},
    image::{Format, FrameView, Matrix, Plane, Range},
    manifest::Package,
    quality::sync::{APART, Mouth, Seen, SyncJudge},
};
use rustix::time::{ClockId, clock_gettime};

use super::judge;

/// Side of the picture that windows are cut out of, and of the face in it.
const SIDE: usize = 256;
/// Frames before the first check, which warms all up, and from there to the end of the second, at 25 a second.
const BEFORE: u32 = 101;
const FRAME: Duration = Duration::from_millis(40);

/// CPU seconds a second that a stream's check takes which runs once an `interval`, while somebody speaks and a mouth is made.
pub fn cost(interval: Duration) -> Result<f64> {
    let (expert, reader) = judge::networks()?;
    let mut sync = SyncJudge::new(expert, reader.clone(), interval);
    let face = face()?;
    let mut noise = 1_u32;
    let mut next = move || {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (noise >> 24) as u8
    };
    let picture: Vec<u8> = (0..SIDE * SIDE * 3).map(|_| next()).collect();
    let planes = vec![Plane { data: &picture, stride: SIDE * 3 }];
    let view = FrameView::new(Format::Rgb, (SIDE, SIDE), Matrix::Bt601, Range::Full, planes)?;
    let frames = (interval.as_nanos().div_ceil(FRAME.as_nanos()) as u32).clamp(1, 1 << 16);
    let (mut began, mut cut) = (Duration::ZERO, None::<Duration>);
    for i in 0..=BEFORE + frames {
        let time = FRAME * i;
        if i == BEFORE {
            if sync.check()?.is_none() {
                return Err(Error::invalid("the sync is not checked after four seconds"));
            }
            began = cpu();
        }
        let sound: Vec<f32> = (0..640).map(|_| (f32::from(next()) - 128.0) / 512.0).collect();
        sync.hear(time, &sound);
        let due = cut.is_none_or(|cut| time - cut >= APART);
        let window = due.then(|| reader.window(&view, &face)).flatten();
        cut = if due { Some(time) } else { cut };
        sync.see(Seen { time, face: Some(face.clone()), track: 1, mouth: Mouth::Made(window) });
    }
    if sync.check()?.is_none_or(|checked| checked.frames.contains(&0)) {
        return Err(Error::invalid("a made-up stream is not judged"));
    }
    Ok(cpu().saturating_sub(began).as_secs_f64() / (FRAME * frames).as_secs_f64())
}

/// Of the calling thread, on which all networks of the check run.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// A face that fills the picture, as far as the check looks at it.
fn face() -> Result<Arc<[Point]>> {
    let package = Package::find("tracker")?;
    let alignment = &package.manifest().geometry.alignment;
    let mut points = vec![Point::new(0.5, 0.55); landmarks::COUNT];
    alignment.anchors.iter().zip(&alignment.points).for_each(|(anchor, point)| points[*anchor] = *point);
    points[landmarks::LIPS].iter_mut().enumerate().for_each(|(i, lip)| lip.x += 0.2 * (i as f32 / 40.0 - 0.5));
    Ok(points.into_iter().map(|p| p * SIDE as f32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_costs_something_and_a_rare_one_less() {
        let seconds = |interval| cost(Duration::from_millis(interval)).unwrap();
        let (often, rarely) = (seconds(1000), seconds(20_000));
        assert!(often > 1e-3 && rarely > 1e-4 && rarely < often, "{often} {rarely}");
    }
}
