//! The kernels compiled for the processor by g++.

use std::{
    alloc::Layout,
    ffi::c_void,
    path::Path,
    process::Command,
    sync::{Arc, OnceLock},
};

use libloading::Library;

use crate::{
    Error, Result,
    cuda::{Memory, arguments::KERNELS},
};

/// The processor as a device: kernels run before they return. Threads and blocks run from the first to the last, or the other
/// way.
struct Host {
    reversed: bool,
}

/// Bytes before and behind each piece of memory, which nobody may change.
const GUARD: usize = 64;
const MARK: u8 = 0xa5;

/// The processor, in both orders.
pub fn orders() -> [Arc<dyn Memory>; 2] {
    [false, true].map(|reversed| Arc::new(Host { reversed }) as Arc<dyn Memory>)
}

type Kernel = unsafe extern "C" fn(*const c_void, *const u32, *const u32) -> i32;
type Size = unsafe extern "C" fn() -> usize;
type Reverse = unsafe extern "C" fn(i32);

fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
        let to = tempfile::tempdir().unwrap();
        let file = to.path().join("kernels.so");
        let mut compiler = Command::new("g++");
        compiler.args(["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-DLIPSTREAM_HOST"]);
        compiler.args(["-shared", "-fPIC", "-x", "c++"]).arg(folder.join("kernels.cu")).arg("-o").arg(&file);
        let said = compiler.output().expect("g++ is not here: run `make setup`");
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        // SAFETY: a library without anything that runs when it is loaded.
        unsafe { Library::new(&file) }.unwrap()
    })
}

/// Bytes of the structure that a kernel takes.
fn size_of_arguments(kernel: &str) -> usize {
    // SAFETY: each kernel has such a function.
    unsafe { library().get::<Size>(format!("{kernel}_size")).unwrap()() }
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes + 2 * GUARD, 64).unwrap()
}

impl Memory for Host {
    fn allocate(&self, bytes: usize) -> Result<u64> {
        // SAFETY: the layout has a size; all of it is filled.
        unsafe {
            let all = std::alloc::alloc(layout(bytes));
            std::slice::from_raw_parts_mut(all, bytes + 2 * GUARD).fill(MARK);
            all.add(GUARD).write_bytes(0, bytes);
            Ok(all as u64 + GUARD as u64)
        }
    }

    unsafe fn free(&self, address: u64, bytes: usize) {
        let all = (address - GUARD as u64) as *mut u8;
        // SAFETY: it was allocated so.
        let written = unsafe {
            let whole = std::slice::from_raw_parts(all, bytes + 2 * GUARD);
            let written = whole[..GUARD].iter().chain(&whole[GUARD + bytes..]).any(|byte| *byte != MARK);
            std::alloc::dealloc(all, layout(bytes));
            written
        };
        assert!(!written || std::thread::panicking(), "a kernel wrote beyond {bytes} bytes");
    }

    unsafe fn upload(&self, to: u64, bytes: &[u8]) -> Result<()> {
        // SAFETY: the caller's.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len()) };
        Ok(())
    }

    unsafe fn download(&self, from: u64, bytes: &mut [u8]) -> Result<()> {
        // SAFETY: the caller's.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    unsafe fn launch(
        &self,
        name: &'static str,
        arguments: *const c_void,
        grid: [u32; 3],
        block: [u32; 3],
    ) -> Result<()> {
        // SAFETY: the kernel takes the structure, and its sizes are three numbers each.
        let ended = unsafe {
            library().get::<Reverse>("lipstream_reverse").unwrap()(self.reversed.into());
            library().get::<Kernel>(name).unwrap()(arguments, grid.as_ptr(), block.as_ptr())
        };
        if ended == 0 {
            Ok(())
        } else {
            Err(Error::invalid(format!("`{name}`: a barrier was not reached by all threads")))
        }
    }
}

#[test]
fn structures_are_as_large_here_as_there() {
    use crate::cuda::arguments::{self as a, Arguments};
    fn pair<A: Arguments>() -> (&'static str, usize) {
        (A::KERNEL, size_of::<A>())
    }
    let own = [
        pair::<a::Take>(),
        pair::<a::Show>(),
        pair::<a::Inset>(),
        pair::<a::Put>(),
        pair::<a::Convert>(),
        pair::<a::Compare>(),
        pair::<a::Fit>(),
        pair::<a::Blend>(),
        pair::<a::Begin>(),
        pair::<a::Advance>(),
        pair::<a::Draw>(),
        pair::<a::Condition>(),
        pair::<a::Decoded>(),
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
        assert_eq!(size, size_of_arguments(kernel), "{kernel}");
    }
}
