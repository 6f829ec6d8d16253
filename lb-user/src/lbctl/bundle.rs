//! `lbctl support-bundle`: everything that who helps will ask for, in one file and without secrets (R75).
//!
//! What cannot be had is left out, and said so in the bundle: it is wanted most when something is broken.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use clap::Args;
use serde_json::Value;

use super::{
    cert::write_new,
    client::{self, At, Failure},
    output::print,
    tar::Archive,
    units,
};
use crate::{config::secrets, memory, reload::read_file, snapshot::Snapshot};

/// How long a program of this host may take.
const PATIENCE: Duration = Duration::from_secs(8);

/// How long everything may take: whoever asks for a bundle waits for it.
const ALL: Duration = Duration::from_secs(50);

/// No part is larger, in bytes; the end of what is longer is kept.
const LARGEST: usize = 32 << 20;

/// What lb-user is asked for, and the file that it goes to.
const ASKED: [(&str, &str); 5] = [
    ("/v1/status", "status.json"),
    ("/metrics", "metrics.txt"),
    ("/v1/history", "history.json"),
    ("/v1/maps", "maps.json"),
    ("/v1/connections?limit=10000", "connections.json"),
];

/// What this host's programs are asked for.
const COMMANDS: [(&str, &[&str]); 9] = [
    ("uname.txt", &["uname", "-a"]),
    ("links.txt", &["ip", "-details", "-statistics", "link"]),
    ("addresses.txt", &["ip", "address"]),
    ("routes.txt", &["ip", "route", "show", "table", "all"]),
    ("routes6.txt", &["ip", "-6", "route", "show", "table", "all"]),
    ("neighbours.txt", &["ip", "neighbour"]),
    ("sockets.txt", &["ss", "-lntup"]),
    ("programs.txt", &["bpftool", "prog", "show"]),
    (
        "journal.txt",
        &[
            "journalctl",
            "--unit=lb-user",
            "--unit=l7-proxy",
            "--since=-48h",
            "--no-pager",
            "--output=short-iso",
        ],
    ),
];

/// What the command line says.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// The file to write, which must not exist. [default: lb-support-TIME.tar]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Makes it.
///
/// # Errors
/// When the file is there already, or cannot be written.
pub fn run(at: &At, options: &Options) -> Result<(), Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let name = format!("lb-support-{}", units::utc(now).replace([':', '-'], ""));
    let file = options.out.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.tar")));
    let (parts, missing) = collect(at);
    let mut archive = Archive::default();
    for (part, content) in &parts {
        archive.add(&format!("{name}/{part}"), now, content);
    }
    let mut told = format!("lbctl {}, {}\n", env!("CARGO_PKG_VERSION"), units::utc(now));
    told += &missing.iter().map(|what| format!("missing: {what}\n")).collect::<String>();
    archive.add(&format!("{name}/about.txt"), now, told.as_bytes());
    write_new(&file, &archive.finish())?;
    for what in &missing {
        eprintln!("missing: {what}");
    }
    print(&format!(
        "{}: {} files, without passwords and keys; look through it before you pass it on\n",
        file.display(),
        parts.len() + 1
    ))
}

/// The parts of the bundle, and what could not be had.
fn collect(at: &At) -> (Vec<(&'static str, Vec<u8>)>, Vec<String>) {
    let (mut parts, mut missing) = (Vec::new(), Vec::new());
    let end = Instant::now() + ALL;
    let mut take = |part: &'static str, content: Result<Vec<u8>, String>| match content {
        Ok(content) => parts.push((part, content)),
        Err(why) => missing.push(format!("{part}: {why}")),
    };
    let status = client::get(at, "/v1/status");
    let snapshot = status.ok().and_then(|status| serde_json::from_str::<Snapshot>(&status).ok());
    let (asked, running) = (ASKED.iter(), snapshot.is_some());
    for (path, part) in asked.take(if running { ASKED.len() } else { 1 }) {
        take(part, client::get(at, path).map(String::into_bytes).map_err(|error| error.to_string()));
    }
    match snapshot.and_then(|snapshot| snapshot.config_file) {
        Some(file) => take("config.toml", config(Path::new(&file))),
        None => take("config.toml", Err("it is not known which file it is".into())),
    }
    take("state.json", state(Path::new(memory::DEFAULT)));
    for (part, command) in COMMANDS {
        take(part, output(command, end));
    }
    (parts, missing)
}

fn config(file: &Path) -> Result<Vec<u8>, String> {
    let text = read_file(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let note = format!("# {}, without its comments and secrets\n", file.display());
    Ok((note + &secrets::text_without(&text)).into_bytes())
}

/// The file of what the loop knows, without the seed of the tables' hashes, which nobody outside should know.
fn state(file: &Path) -> Result<Vec<u8>, String> {
    let text = fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let mut state: Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    if let Some(seed) = state.pointer_mut("/tables/seed") {
        *seed = secrets::HIDDEN.into();
    }
    serde_json::to_vec_pretty(&state).map_err(|error| error.to_string())
}

/// What a program says, for as long as we have patience, and not beyond `end`.
fn output(command: &[&str], end: Instant) -> Result<Vec<u8>, String> {
    let [program, arguments @ ..] = command else { return Err("no program".into()) };
    let mut child = Command::new(program);
    child.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = child.spawn().map_err(|error| format!("{program}: {error}"))?;
    let pipe = child.stdout.take();
    let reader = thread::spawn(move || {
        let mut content = Vec::new();
        // What was read before a failure is better than nothing.
        let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut content));
        content.split_off(content.len().saturating_sub(LARGEST))
    });
    let end = end.min(Instant::now() + PATIENCE);
    while !reader.is_finished() {
        if Instant::now() >= end {
            // It may have ended just now.
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("{program} takes too long"));
        }
        thread::sleep(Duration::from_millis(10));
    }
    let status = child.wait().map_err(|error| format!("{program}: {error}"))?;
    let content = reader.join().unwrap_or_default();
    if status.success() { Ok(content) } else { Err(format!("{program}: {status}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_listened_to_and_not_waited_for_for_ever() {
        let end = Instant::now() + Duration::from_secs(60);
        assert_eq!(output(&["echo", "hello"], end).unwrap(), b"hello\n");
        assert!(output(&["there-is-no-such-program"], end).unwrap_err().contains("there-is-no-such-program"));
        assert!(output(&["false"], end).is_err());
        assert_eq!(output(&["sleep", "1000"], Instant::now()).unwrap_err(), "sleep takes too long");
    }

    #[test]
    fn a_bundle_is_made_of_what_there_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bundle.tar");
        let options = Options { out: Some(file.clone()) };
        run(&At::Socket(folder.path().join("no-socket")), &options).unwrap();
        let text = String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned();
        assert!(
            text.contains("about.txt") && text.contains("missing: status.json: cannot reach lb-user"),
            "{text}"
        );
        assert!(text.contains("uname.txt"));
        assert!(run(&At::Socket("/nowhere".into()), &options).unwrap_err().to_string().contains("already"));
    }

    #[test]
    fn the_state_keeps_its_seed_to_itself() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state.json");
        fs::write(&file, r#"{"format":1,"tables":{"id":7,"seed":123456789},"facts":{}}"#).unwrap();
        let shown = String::from_utf8(state(&file).unwrap()).unwrap();
        assert!(!shown.contains("123456789") && shown.contains("\"id\": 7"), "{shown}");
    }
}
