use super::*;
use crate::{
    geometry::{Point, Rect, ThinPlate},
    image::Lattice,
    kernels::{DeviceCrop, DeviceLattice},
};

fn scatter(count: usize) -> Vec<Point> {
    let part = |v: f32| v - v.floor();
    (1..=count).map(|i| Point::new(part(i as f32 * 0.754_877_7), part(i as f32 * 0.569_840_3))).collect()
}

fn plate(count: usize, by: f32) -> ThinPlate {
    let from = scatter(count);
    let to: Vec<_> = from.iter().map(|p| *p + Point::new((p.y * 9.0).sin() * by, (p.x * 7.0).cos() * by)).collect();
    ThinPlate::fit(&from, &to, 1e-3).unwrap()
}

#[test]
fn warps_are_those_of_the_cpu_in_any_area_mixed_or_not() {
    let whole = Rect { x: 0.0, y: 0.0, width: 1.0, height: 1.0 };
    let part = Rect { x: 0.3, y: 0.4, width: 0.35, height: 0.7 };
    let (mut worst, mut some) = (0, 0.0f32);
    for memory in host::orders() {
        for (side, cells, points, by) in
            [(256, 32, 101, 0.02), (100, 13, 40, 0.05), (37, 32, 20, 0.03), (5, 32, 12, 0.2), (1, 1, 5, 0.1)]
        {
            let plate = plate(points, by);
            for (area, space) in [(&whole, YUV), (&part, ColorSpace::Rgb)] {
                let (one, two) = (crop(side, space, 2), crop(side, space, 9));
                let (first, mut second) =
                    (DeviceCrop::of(&memory, &one).unwrap(), DeviceCrop::of(&memory, &two).unwrap());
                let wanted = Lattice::over(&plate, cells, area);
                let found = DeviceLattice::over(&memory, &plate, cells, area).unwrap();
                let warped = found.warp(&memory, &first).unwrap().read().unwrap();
                let (most, part) = differ(&warped.data, &wanted.warp(&one).data);
                assert!(most <= 1, "{side} {cells} {area:?}: {most}");
                (worst, some) = (worst.max(most), some.max(part));
                let mut mixed = two;
                wanted.warp_mixed_into(&one, &mut mixed, 0.4);
                found.warp_mixed_into(&memory, &first, &mut second, 0.4).unwrap();
                let (most, _) = differ(&second.read().unwrap().data, &mixed.data);
                assert!(most <= 1, "{side} {cells} {area:?}, mixed: {most}");
            }
        }
    }
    println!("warps: {worst} of 255 at most, in {:.3} % of the values at most", some * 100.0);
}

#[test]
fn a_spline_that_folds_is_relaxed_as_on_the_cpu() {
    let (mut from, mut to) = (scatter(40), scatter(40));
    from.extend([Point::new(0.45, 0.5), Point::new(0.55, 0.5)]);
    to.extend([Point::new(0.62, 0.5), Point::new(0.38, 0.5)]);
    let plate = ThinPlate::fit(&from, &to, 0.0).unwrap();
    let crop = crop(64, ColorSpace::Rgb, 0);
    for memory in host::orders() {
        let area = Rect { x: 0.2, y: 0.2, width: 0.6, height: 0.6 };
        let device = DeviceCrop::of(&memory, &crop).unwrap();
        let found = DeviceLattice::over(&memory, &plate, 16, &area).unwrap().warp(&memory, &device).unwrap();
        let (most, _) = differ(&found.read().unwrap().data, &Lattice::over(&plate, 16, &area).warp(&crop).data);
        assert!(most <= 1, "{most}");
    }
}
