//! Puts the kernel program into the daemon, so that there is one file to deploy.
//!
//! `cargo xtask` builds the kernel program and names its object in `LB_EBPF_OBJECT`. A plain `cargo build` or
//! `cargo test` works without BPF tools: it embeds nothing, and a daemon built so says it and ends.

use std::{env, fs, path::PathBuf};

const OBJECT: &str = "LB_EBPF_OBJECT";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={OBJECT}");
    let bytes = match env::var_os(OBJECT) {
        None => Vec::new(),
        Some(path) => {
            let path = PathBuf::from(path);
            println!("cargo::rerun-if-changed={}", path.display());
            fs::read(&path).unwrap_or_else(|error| {
                panic!("{OBJECT} names {}, which cannot be read: {error}", path.display())
            })
        }
    };
    let embedded = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("lb.o");
    fs::write(&embedded, bytes)
        .unwrap_or_else(|error| panic!("cannot write {}: {error}", embedded.display()));
}
