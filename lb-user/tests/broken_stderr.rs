//! A log that cannot be written, on a full disk or because its reader has gone, changes nothing else.

use std::{fs::File, process::Command};

#[test]
fn errors_that_cannot_be_written_are_still_exit_code_1() {
    for arguments in [
        &["--check", "--config", "does-not-exist.toml"][..],
        &["--iface", "does-not-exist", "--config", "/dev/null"],
        &["--check", "--config", "/dev/full"],
    ] {
        let full = File::options().write(true).open("/dev/full").expect("a disk that is always full");
        let mut command = Command::new(env!("CARGO_BIN_EXE_lb-user"));
        let status = command.args(arguments).env("LB_LOG", "trace").stderr(full).status().expect("lb-user");
        assert_eq!(status.code(), Some(1), "{arguments:?}");
    }
}
