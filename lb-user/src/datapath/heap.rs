//! Memory that is free gives way to other processes. (Here because this is the one room that may talk to C.)

/// Gives free memory back to the system, wherever in the heap it is: by itself the C library does so only at the end of
/// the heap, where mostly something small is left. Takes some milliseconds, in which other threads may have to wait.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `malloc_trim` may be called at any time, from any thread; it frees nothing that is in use.
    let _ = unsafe { libc::malloc_trim(0) };
}
