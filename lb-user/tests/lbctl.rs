//! The program `lbctl` against a served admin socket: output and exit codes.

use std::{
    fs,
    io::{ErrorKind, Write},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
};

use lb_user::{
    admin::{self, Handle, Socket},
    snapshot::Snapshot,
};
use tokio::sync::watch;

/// A user id that nobody has.
const STRANGER: u32 = 424_242;

fn lbctl(program: &Path, socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.arg("--socket").arg(socket).args(arguments);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Serves a snapshot in a folder of its own while `test` runs beside it.
fn served(snapshot: Snapshot, test: impl FnOnce(PathBuf) + Send + 'static) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lb/admin.sock");
        let socket = Socket::bind(&path).await.unwrap();
        let (_publish, last) = watch::channel(Arc::new(snapshot));
        let (handle, mut requests) = Handle::new(last.clone());
        let reconcile = async {
            while let Some(request) = requests.recv().await {
                request.answer(Arc::clone(&last.borrow()));
            }
        };
        tokio::select! {
            () = admin::serve(socket, handle) => unreachable!("it serves until it is dropped"),
            () = reconcile => unreachable!("the handle is alive"),
            result = tokio::task::spawn_blocking(move || test(path)) => result.unwrap(),
        }
    });
}

fn snapshot() -> Snapshot {
    Snapshot { version: "9.8.7".into(), time: 100, started: 40, ..Snapshot::default() }
}

fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_lbctl").into()
}

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

/// With the file's own protection out of the way the peer's user id still decides.
#[test]
fn another_user_is_refused_even_if_the_file_lets_it_in() {
    served(snapshot(), |socket| {
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("lbctl");
        fs::copy(program(), &copy).unwrap();
        let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
        for path in [folder.path(), &copy, socket.parent().unwrap().parent().unwrap()] {
            open(path);
        }
        let run = || lbctl(&copy, &socket, &["status"]).uid(STRANGER).output();
        let output = match run() {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                // Not eprintln!, which the test harness hides.
                let _ = writeln!(std::io::stderr(), "SKIPPED: running lbctl as another user needs root");
                return;
            }
            result => result.unwrap(),
        };
        assert_eq!(output.status.code(), Some(3), "by the mode of the file");
        assert!(text(&output.stderr).contains("this user may not open"), "{}", text(&output.stderr));

        open(&socket);
        let output = run().unwrap();
        assert_eq!(output.status.code(), Some(3), "by the server");
        let expected = "user 424242 may not use lb-user's admin socket";
        assert!(text(&output.stderr).contains(expected), "{}", text(&output.stderr));
    });
}
