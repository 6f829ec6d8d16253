//! Scenarios on the wire, each a file that Varnish's `varnishtest` plays: clients, servers, and the proxy between
//! them. What needs sockets of its own (resets, half-closed connections, TLS) is tested in the other files.
//!
//! `# service:` and `# pool:` lines of a file are further keys of the proxy's specification, as JSON.

mod common;

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use common::Proxy;

/// Each file that the program plays at most so long, in seconds.
const MOST_SECONDS: &str = "30";

#[test]
fn scenarios_end_as_they_should() {
    let Some(program) = find("varnishtest") else { return skip("there is no varnishtest in PATH") };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "vtc"));
    assert!(files.len() > 5, "{files:?}");
    // All at once: they wait most of the time.
    let played: Vec<_> = files
        .into_iter()
        .enumerate()
        .map(|(number, file)| {
            let program = program.clone();
            std::thread::spawn(move || play(&program, &file, number))
        })
        .collect();
    let failed: Vec<String> = played.into_iter().filter_map(|played| played.join().unwrap().err()).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

/// Plays one file; what the program says where it does not end well.
fn play(program: &Path, file: &Path, number: usize) -> Result<(), String> {
    let text = fs::read_to_string(file).unwrap();
    let keys = |of: &str| -> String {
        let lines = text.lines().filter_map(|line| line.strip_prefix("# ")?.strip_prefix(of));
        lines.map(|keys| format!(", {keys}")).collect()
    };
    // An address of this file's own: nobody else takes the port before the scenario's server does.
    let ip = Ipv4Addr::new(127, 0, 77, u8::try_from(number + 1).unwrap());
    let server: SocketAddr = TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap();
    let proxy = Proxy::start_with(&[server], &keys("service: "), &keys("pool: "), "");
    let output = Command::new(program)
        .args(["-t", MOST_SECONDS])
        .arg(format!("-Dserver={server}"))
        .arg(format!("-Dproxy={}", proxy.address))
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn find(program: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Says so in a way that `cargo xtask test` counts, and fails where it may not be.
fn skip(why: &str) {
    assert!(env::var_os("LB_DENY_SKIPS").is_none_or(|value| value != "1"), "may not be skipped: {why}");
    // Not `eprintln!`, which the test runner keeps to itself.
    let _ = std::io::Write::write_fmt(
        &mut std::io::stderr(),
        format_args!("SKIPPED: scenarios_end_as_they_should: {why}\n"),
    );
}
