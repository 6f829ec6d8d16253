//! An admin socket that is served, and `lbctl` beside it.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use lb_user::{
    admin::{self, Handle, Socket},
    snapshot::Snapshot,
};
use tokio::sync::watch;

/// `lbctl` with a socket.
pub(crate) fn lbctl(program: &Path, socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.arg("--socket").arg(socket).args(arguments);
    command
}

/// What a program wrote.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Serves a snapshot in a folder of its own while `test` runs beside it.
pub(crate) fn served(snapshot: Snapshot, test: impl FnOnce(PathBuf) + Send + 'static) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lb/admin.sock");
        let socket = Socket::bind(&path).await.unwrap();
        let (_publish, last) = watch::channel(Arc::new(snapshot));
        let (handle, mut requests) = Handle::new(last.clone());
        let reconcile = async {
            while let Some(request) = requests.status.recv().await {
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

/// A snapshot that one knows again.
pub(crate) fn snapshot() -> Snapshot {
    Snapshot { version: "9.8.7".into(), time: 100, started: 40, ..Snapshot::default() }
}

/// The built `lbctl`.
pub(crate) fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_lbctl").into()
}
