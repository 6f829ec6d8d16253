//! Empty: the crate is the binaries `lb` and `decap`, built for the kernel by `cargo xtask build-ebpf`.

#![no_std]
