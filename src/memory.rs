//! Memory that was freed goes back to the system.
//!
//! Sessions, viewers and uploads come and go on many threads, and glibc keeps what each has freed in an arena of that
//! thread's: a server's size would follow the busiest moment of each of them.

/// Arenas: enough that threads seldom wait for each other, few enough that what one frees is used by the next.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 4;

/// To be called before there are other threads.
pub fn share_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no pointer is passed; glibc allows it at any time.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
}

/// Gives free pages back; takes a few milliseconds.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no pointer is passed; glibc takes its own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}
