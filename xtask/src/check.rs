//! What a change must satisfy besides the tests. Every step runs, also after one has failed, so that one
//! round shows all there is to mend.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{build_ebpf, shell};

/// Those who read this documentation work here and see private items; a link to one is no mistake.
const RUSTDOC_FLAGS: [&str; 2] = ["--deny=warnings", "--allow=rustdoc::private_intra_doc_links"];

/// How a step ended.
enum Outcome {
    Passed,
    Failed,
    /// It could not be done here, and that is no fault of the change.
    NotChecked(&'static str),
}

/// Runs all steps and fails if one did.
pub(crate) fn check() -> Result<()> {
    let mut clippy_kernel = build_ebpf::kernel_cargo("clippy");
    clippy_kernel.args(["--bins", "--", "--deny=warnings"]);
    let mut docs = shell::cargo(["doc", "--workspace", "--no-deps", "--document-private-items"]);
    docs.env("RUSTDOCFLAGS", RUSTDOC_FLAGS.join(" "));
    let mut docs_kernel = build_ebpf::kernel_cargo("doc");
    docs_kernel
        .args(["--bins", "--no-deps", "--document-private-items"])
        .env("CARGO_ENCODED_RUSTDOCFLAGS", RUSTDOC_FLAGS.join("\x1f"));

    let steps = [
        ("format", shell::cargo(["fmt", "--all", "--check"])),
        (
            "format of fuzz targets",
            shell::cargo(["fmt", "--manifest-path=lb-common/fuzz/Cargo.toml", "--check"]),
        ),
        (
            "format of the proxy's fuzz targets",
            shell::cargo(["fmt", "--manifest-path=l7-proxy/fuzz/Cargo.toml", "--check"]),
        ),
        ("clippy, host", shell::cargo(["clippy", "--workspace", "--all-targets", "--", "--deny=warnings"])),
        // Targets that a plain `cargo test` leaves out must be named, or `--all-targets` leaves them out too.
        (
            "clippy, tests as root",
            shell::cargo(["clippy", "--workspace", "--test=*", "--", "--deny=warnings"]),
        ),
        ("clippy, kernel", clippy_kernel),
        ("documentation, host", docs),
        ("documentation, kernel", docs_kernel),
        // The three kinds of question that need nothing but this repository and its crates.
        ("dependencies", shell::cargo(["deny", "check", "bans", "licenses", "sources"])),
    ];
    let mut outcomes = Vec::new();
    for (name, mut command) in steps {
        outcomes.push((name, step(name, &mut command)));
    }
    outcomes.push(("advisories", advisories()));

    eprintln!();
    for (name, outcome) in &outcomes {
        let word = match outcome {
            Outcome::Passed => "ok",
            Outcome::Failed => "FAILED",
            Outcome::NotChecked(why) => why,
        };
        eprintln!("{name:<24} {word}");
    }
    let failed = outcomes.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Failed)).count();
    if failed > 0 {
        bail!("{failed} of {} checks failed", outcomes.len());
    }
    Ok(())
}

fn step(name: &str, command: &mut Command) -> Outcome {
    eprintln!("\n== {name}");
    match shell::run(command) {
        Ok(()) => Outcome::Passed,
        Err(error) => {
            eprintln!("error: {error:#}");
            Outcome::Failed
        }
    }
}

/// Known weaknesses of dependencies. Their list is a git repository elsewhere, which some machines cannot
/// reach; a list that may be old proves nothing, so then nothing is checked and that is said.
fn advisories() -> Outcome {
    eprintln!("\n== advisories");
    if let Err(error) = shell::output(&mut shell::cargo(["deny", "--color=never", "fetch", "db"])) {
        eprintln!("{error:#}");
        return Outcome::NotChecked("NOT CHECKED: the advisory database cannot be fetched from here");
    }
    step("advisories", &mut shell::cargo(["deny", "check", "advisories"]))
}
