//! Puts the kernel programs into the daemon, so that there is one file to deploy.
//!
//! `cargo xtask` builds them and names the balancer's object in `LB_EBPF_OBJECT`; the others lie beside it. A plain
//! `cargo build` or `cargo test` works without BPF tools: it embeds nothing, and a daemon built so says it and ends.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

const OBJECT: &str = "LB_EBPF_OBJECT";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={OBJECT}");
    let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let named = env::var_os(OBJECT).map(PathBuf::from);
    let beside = named.as_ref().map(|path| path.with_file_name("decap.o"));
    for (name, object) in [("lb.o", named), ("decap.o", beside)] {
        let bytes = object.map(|path| read(&path)).unwrap_or_default();
        let embedded = folder.join(name);
        fs::write(&embedded, bytes)
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", embedded.display()));
    }
}

fn read(object: &Path) -> Vec<u8> {
    println!("cargo::rerun-if-changed={}", object.display());
    fs::read(object).unwrap_or_else(|error| {
        panic!("{OBJECT} asks for {}, which cannot be read: {error}", object.display())
    })
}
