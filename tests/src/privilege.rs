//! Can this machine run tests in network namespaces? If not, a test is skipped and says so; it never
//! passes silently.
//!
//! With `LB_DENY_SKIPS=1` (continuous integration) a skip is a failure.

use std::{env, io::Write as _, process::Command, sync::OnceLock};

use crate::{daemon, netns::Netns};

/// Programs the harness runs.
const TOOLS: [(&str, &str); 3] = [("ip", "iproute2"), ("ethtool", "ethtool"), ("tcpdump", "tcpdump")];

/// Python as Debian has it, whose packages [`can_use`] looks for.
pub const PYTHON: &str = "/usr/bin/python3";

/// Why namespace tests cannot run here; `None` when they can. Found out once per process.
pub fn obstacle() -> Option<&'static str> {
    static ANSWER: OnceLock<Option<String>> = OnceLock::new();
    ANSWER.get_or_init(find_obstacle).as_deref()
}

fn find_obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("network namespaces need root".into());
    }
    for (tool, package) in TOOLS {
        if Command::new(tool).arg("--version").output().is_err() {
            return Some(format!("the program `{tool}` is missing (package {package})"));
        }
    }
    Netns::try_new("probe").err().map(|error| format!("no network namespace can be made: {error}"))
}

/// Whether the test `name` can go on. If not, prints a line starting with `SKIPPED:`.
///
/// # Panics
/// Instead of skipping, when `LB_DENY_SKIPS=1`.
#[must_use]
pub fn can_run(name: &str, needs_balancer: bool) -> bool {
    let missing = || daemon::missing_binary().filter(|_| needs_balancer);
    let why = obstacle().map(str::to_owned).or_else(|| {
        missing().map(|path| format!("{} is missing; run `cargo xtask build` first", path.display()))
    });
    unless(name, why)
}

/// Whether the test `name` has a next release to upgrade to. If not, prints a line starting with `SKIPPED:`.
///
/// # Panics
/// Instead of skipping, when `LB_DENY_SKIPS=1`.
#[must_use]
pub fn can_upgrade(name: &str) -> bool {
    let path = daemon::binary("next/lb-user");
    let missing = || format!("{} is missing; `cargo xtask test netns` builds it", path.display());
    unless(name, (!path.exists()).then(missing))
}

/// Whether the test `name` has a package of Python. If not, prints a line starting with `SKIPPED:`.
///
/// # Panics
/// Instead of skipping, when `LB_DENY_SKIPS=1`.
#[must_use]
pub fn can_use(name: &str, module: &str) -> bool {
    let look = Command::new(PYTHON).args(["-c", &format!("import {module}")]).output();
    let missing = || format!("{PYTHON} has no module `{module}`; `cargo xtask setup` installs it");
    unless(name, (!look.is_ok_and(|look| look.status.success())).then(missing))
}

/// Whether the test `name` can load the kernel program. If not, prints a line starting with `SKIPPED:`.
///
/// # Panics
/// Instead of skipping, when `LB_DENY_SKIPS=1`.
#[must_use]
pub fn can_load(name: &str) -> bool {
    let why = obstacle().map(str::to_owned).or_else(|| {
        let empty = lb_user::datapath::OBJECT.is_empty();
        empty.then(|| "built without the kernel program; run `cargo xtask test bpf`".to_owned())
    });
    unless(name, why)
}

/// Says that `name` is skipped, if there is a reason why; gives whether there is none.
fn unless(name: &str, why: Option<String>) -> bool {
    let Some(why) = why else { return true };
    assert!(
        env::var_os("LB_DENY_SKIPS").is_none_or(|value| value != "1"),
        "{name} may not be skipped: {why}"
    );
    // Written to the stream itself, because the test runner hides what `println!` says in a passing test.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {name}: {why}");
    false
}

/// Returns from the test with a `SKIPPED:` line where namespaces cannot be made.
#[macro_export]
macro_rules! needs_namespaces {
    () => {
        if !$crate::privilege::can_run(&$crate::test_name!(), false) {
            return;
        }
    };
}

/// Returns from the test with a `SKIPPED:` line where namespaces cannot be made or `lb-user` is not built.
#[macro_export]
macro_rules! needs_balancer {
    () => {
        if !$crate::privilege::can_run(&$crate::test_name!(), true) {
            return;
        }
    };
}

/// Returns from the test with a `SKIPPED:` line where the next release is not built.
#[macro_export]
macro_rules! needs_next_release {
    () => {
        if !$crate::privilege::can_upgrade(&$crate::test_name!()) {
            return;
        }
    };
}

/// Returns from the test with a `SKIPPED:` line where Python lacks a module.
#[macro_export]
macro_rules! needs_module {
    ($module:literal) => {
        if !$crate::privilege::can_use(&$crate::test_name!(), $module) {
            return;
        }
    };
}

/// Returns from the test with a `SKIPPED:` line where the kernel program cannot be loaded.
#[macro_export]
macro_rules! needs_kernel_program {
    () => {
        if !$crate::privilege::can_load(&$crate::test_name!()) {
            return;
        }
    };
}

/// Path of the function this stands in, e.g. `netns::smoke::answers`.
#[macro_export]
macro_rules! test_name {
    () => {{
        fn here() {}
        let name = ::std::any::type_name_of_val(&here);
        name.strip_suffix("::here").unwrap_or(name).to_owned()
    }};
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_test_knows_its_own_name() {
        assert_eq!(test_name!(), "lb_tests::privilege::tests::a_test_knows_its_own_name");
    }
}
