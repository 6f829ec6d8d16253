//! The release after this one, as far as it matters to the daemon that will hand over to it: the same sources, but for
//! flow records that are laid out differently. Tests upgrade to it and back.
//!
//! It is made of a copy of the sources, changed by [`CHANGES`], so that no line of the product exists for the test's sake.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};

use crate::{
    build_ebpf::{self, OBJECT_VARIABLE},
    shell,
};

/// What is changed: file, text that must be in it once, and what stands there instead.
const CHANGES: [(&str, &str, &str); 6] = [
    // With a version of its own cargo tells its packages from ours, and both can be built in one target folder.
    (
        "Cargo.toml",
        concat!("[workspace.package]\nversion = \"", env!("CARGO_PKG_VERSION"), "\"\n"),
        concat!("[workspace.package]\nversion = \"", env!("CARGO_PKG_VERSION"), "-next\"\n"),
    ),
    // And a binary of its own, so that ours is not written over there.
    (
        "lb-user/Cargo.toml",
        "\n[lints]\n",
        "\n[[bin]]\nname = \"lb-user-next\"\npath = \"src/main.rs\"\n\n[lints]\n",
    ),
    (
        "lb-common/src/abi/flow.rs",
        "pub struct Flow<A> {\n",
        "pub struct Flow<A> {\n    /// Nothing yet.\n    pub reserved: u32,\n",
    ),
    (
        "lb-common/src/abi/mod.rs",
        "assert!(size_of::<Flow<u32>>() == 52 && 52 <= 8 * RECORD4)",
        "assert!(size_of::<Flow<u32>>() == 56 && 56 <= 8 * RECORD4)",
    ),
    (
        "lb-common/src/abi/mod.rs",
        "assert!(size_of::<Flow<[u32; 4]>>() == 100 && 100 <= 8 * RECORD6)",
        "assert!(size_of::<Flow<[u32; 4]>>() == 104 && 104 <= 8 * RECORD6)",
    ),
    ("lb-common/src/abi/mod.rs", "pub const ABI_VERSION: u32 = ", "pub const ABI_VERSION: u32 = 1_000 + "),
];

/// What of the workspace is copied: what `lb-user` is built from, and every manifest that cargo wants to see.
const SOURCES: [&str; 9] = [
    "Cargo.toml",
    "Cargo.lock",
    "rust-toolchain.toml",
    "lb-common",
    "lb-ebpf",
    "lb-user",
    "l7-proxy",
    "tests",
    "xtask",
];

/// Its own code is not optimised: nobody waits for that, but everybody for the compiler.
const UNOPTIMISED: &str = "profile.release.package.lb-user.opt-level=0";

/// Builds it: `target/release/next/lb-user`. Of the same packages with the same features as
/// [`build_ebpf::binaries_and_tests`], so that what both are made of is compiled once.
pub(crate) fn build() -> Result<()> {
    let folder = shell::target().join("next");
    for source in SOURCES {
        copy(&shell::workspace().join(source), &folder.join(source))?;
    }
    let object = build_ebpf::object_in(&folder, &folder.join("target"))?;
    let mut cargo =
        shell::cargo(["build", "--release", "--bin=lb-user-next", "--config", UNOPTIMISED, "--target-dir"]);
    cargo
        .arg(shell::target())
        .args(build_ebpf::DEPLOYED_AND_TESTS.map(|package| format!("--package={package}")));
    shell::run(cargo.current_dir(&folder).env(OBJECT_VARIABLE, &object))?;
    let next = shell::release().join("next");
    fs::create_dir_all(&next)?;
    copy(&shell::release().join("lb-user-next"), &next.join("lb-user"))
}

/// Folders of what is built, and of what fuzzing found.
const LEFT_OUT: [&str; 2] = ["target", "fuzz"];

/// Copies files and folders with the changes; leaves alone what is so already, or cargo would build it again, and takes away
/// what is there no more.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if from.is_dir() {
        if LEFT_OUT.iter().any(|name| from.ends_with(name)) {
            return Ok(());
        }
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(to)? {
            let entry = entry?;
            let name = entry.file_name();
            let (is_folder, now) = (entry.file_type()?.is_dir(), from.join(&name));
            if LEFT_OUT.iter().any(|left_out| name == *left_out)
                || (now.exists() && now.is_dir() == is_folder)
            {
                continue;
            }
            let gone = entry.path();
            if is_folder { fs::remove_dir_all(gone) } else { fs::remove_file(gone) }?;
        }
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            copy(&from.join(&name), &to.join(&name))?;
        }
        return Ok(());
    }
    let mut bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    for (file, old, new) in CHANGES.iter().filter(|(file, ..)| from == shell::workspace().join(file)) {
        let text = String::from_utf8(bytes)?;
        ensure!(
            text.matches(old).count() == 1,
            "{file} has no {old:?} any more: change CHANGES in xtask/src/next.rs with it"
        );
        bytes = text.replace(old, new).into_bytes();
    }
    if fs::read(to).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let cannot = || format!("cannot write {}", to.display());
    fs::create_dir_all(to.parent().unwrap_or(to)).with_context(cannot)?;
    fs::write(to, bytes).with_context(cannot)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions()).with_context(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_gone_in_the_copy_and_what_was_built_stays() {
        let folder = std::env::temp_dir().join(format!("xtask-next-{}", std::process::id()));
        let (from, to) = (folder.join("from"), folder.join("to"));
        let put = |file: &Path| {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "text").unwrap();
        };
        put(&from.join("src/app.rs"));
        put(&from.join("src/other/mod.rs"));
        copy(&from, &to).unwrap();
        put(&to.join("target/built"));
        fs::remove_file(from.join("src/app.rs")).unwrap();
        fs::remove_dir_all(from.join("src/other")).unwrap();
        put(&from.join("src/app/mod.rs"));
        put(&from.join("src/other"));
        copy(&from, &to).unwrap();
        assert!(to.join("src/app/mod.rs").is_file() && to.join("src/other").is_file());
        assert!(!to.join("src/app.rs").exists() && to.join("target/built").exists());
        fs::remove_dir_all(folder).unwrap();
    }
}
