//! Empty: the crate is the binary `lb`, built for the kernel by `cargo xtask build-ebpf`.

#![no_std]
