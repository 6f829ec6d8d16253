//! What the program says and how it ends, as a service manager sees it.

use std::process::{Command, Output};

fn l7_proxy(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_l7-proxy")).args(arguments).output().expect("l7-proxy starts")
}

#[test]
fn without_arguments_it_says_that_it_serves_nothing_and_fails() {
    let output = l7_proxy(&[]);
    assert_eq!(output.status.code(), Some(69));
    assert!(output.stdout.is_empty());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("serves nothing yet"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn it_tells_its_version() {
    let output = l7_proxy(&["--version"]);
    assert!(output.status.success());
    let expected = format!("l7-proxy {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
}

#[test]
fn its_help_hides_nothing() {
    let output = l7_proxy(&["--help"]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("serves nothing yet"));
}

#[test]
fn an_argument_it_does_not_know_is_named() {
    let output = l7_proxy(&["--listen"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--listen"));
}
