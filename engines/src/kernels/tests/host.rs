//! The processor as a device, in both orders of threads.

use std::sync::Arc;

use crate::cuda::{Host, Memory};

pub fn orders() -> [Arc<dyn Memory>; 2] {
    [Host::new().unwrap(), Host::new().unwrap().reversed()].map(|host| Arc::new(host) as Arc<dyn Memory>)
}

#[test]
fn structures_are_as_large_here_as_there() {
    use crate::cuda::arguments::{self as a, Arguments, KERNELS};
    fn pair<A: Arguments>() -> (&'static str, usize) {
        (A::KERNEL, size_of::<A>())
    }
    let own = [
        pair::<a::Take>(),
        pair::<a::Show>(),
        pair::<a::Inset>(),
        pair::<a::Put>(),
        pair::<a::Cover>(),
        pair::<a::Convert>(),
        pair::<a::Compare>(),
        pair::<a::Fit>(),
        pair::<a::Blend>(),
        pair::<a::Begin>(),
        pair::<a::Advance>(),
        pair::<a::Draw>(),
        pair::<a::Condition>(),
        pair::<a::Decoded>(),
        pair::<a::Finite>(),
        pair::<a::Nodes>(),
        pair::<a::Folds>(),
        pair::<a::Warp>(),
        pair::<a::Window>(),
        pair::<a::Shapes>(),
        pair::<a::Correct>(),
        pair::<a::Finish>(),
    ];
    assert_eq!(own.map(|(kernel, _)| kernel), KERNELS);
    for (kernel, size) in own {
        assert_eq!(size, Host::size_of_arguments(kernel).unwrap(), "{kernel}");
    }
}
