//! A user who has no business at the admin socket.

use std::{
    fs,
    io::{ErrorKind, Write},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
};

use crate::common::{lbctl, program, served, snapshot, text};

/// A user id that nobody has.
const STRANGER: u32 = 424_242;

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
