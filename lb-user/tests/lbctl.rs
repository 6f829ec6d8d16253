//! The program `lbctl` against a served admin socket: output and exit codes.

mod common;

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Output, Stdio},
};

use common::{lbctl, program, served, snapshot, text};
use lb_user::snapshot::Snapshot;

#[test]
fn status_as_table_and_as_json() {
    served(snapshot(), |socket| {
        let Output { status, stdout, stderr } = lbctl(&program(), &socket, &["status"]).output().unwrap();
        assert_eq!(status.code(), Some(0), "{}", text(&stderr));
        assert!(text(&stdout).starts_with("lb-user 9.8.7, up 1m 0s, no configuration file"));
        assert!(!stdout.contains(&0x1b), "no colours into a pipe");

        let output = lbctl(&program(), &socket, &["status", "-o", "json"]).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(serde_json::from_slice::<Snapshot>(&output.stdout).unwrap(), snapshot());
    });
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    // More than a pipe holds.
    let config_file = Some("x".repeat(1 << 20));
    served(Snapshot { config_file, ..snapshot() }, |socket| {
        let mut command = lbctl(&program(), &socket, &["status"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    });
}

#[test]
fn an_lb_user_that_does_not_run_is_exit_code_3() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let output = lbctl(&program(), &socket, &["status"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).starts_with("lbctl: cannot reach lb-user: there is no socket "));
    assert_eq!(text(&output.stderr).lines().count(), 1);
    assert!(output.stdout.is_empty());
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for arguments in [&["statsu"][..], &["status", "-o", "xml"], &[]] {
        let output = lbctl(&program(), Path::new("/nowhere"), arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn lists_come_in_every_form_and_what_is_not_there_is_exit_code_1() {
    served(snapshot(), |socket| {
        let run = |arguments: &[&str]| {
            let Output { status, stdout, stderr } = lbctl(&program(), &socket, arguments).output().unwrap();
            (status.code(), text(&stdout), text(&stderr))
        };
        for (arguments, expected) in [
            (&["vip", "list"][..], "No VIPs are configured.\n"),
            (&["vip", "list", "-o", "json"], "[]\n"),
            (&["vip", "list", "-o", "yaml"], "[]\n"),
            (&["pool", "list", "-o", "wide"], "No pools are configured.\n"),
        ] {
            assert_eq!(run(arguments), (Some(0), expected.into(), String::new()), "{arguments:?}");
        }
        let yaml = run(&["status", "-o", "yaml"]).1;
        assert!(yaml.starts_with("version: \"9.8.7\"\netag: \"\"\ntime: 100\nstarted: 40\n"), "{yaml}");
        let (code, _, why) = run(&["vip", "show", "web"]);
        assert_eq!(
            (code, why.as_str()),
            (Some(1), "lbctl: there is no VIP \"web\"; lbctl vip list lists them\n")
        );
    });
}

#[test]
fn watching_goes_on_until_nobody_reads() {
    served(snapshot(), |socket| {
        let mut command = lbctl(&program(), &socket, &["vip", "list", "--watch", "1"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for _ in 0..2 {
            assert_eq!(lines.next().unwrap().unwrap(), "No VIPs are configured.");
        }
        drop(lines);
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    });
}

#[test]
fn some_commands_need_no_lb_user() {
    let nowhere = Path::new("/nowhere");
    for (arguments, words) in [
        (&["explain", "vip.mode"][..], "example  mode = \"snat\""),
        (&["completions", "bash"], "complete -F _lbctl"),
        (&["man"], ".TH lbctl 1"),
        (&["cert", "selfsign", "--fqdn", "lb.example", "--out", "-"], "-----BEGIN CERTIFICATE-----"),
    ] {
        let output = lbctl(&program(), nowhere, arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
        assert!(text(&output.stdout).contains(words), "{arguments:?}: {}", text(&output.stdout));
    }
}
