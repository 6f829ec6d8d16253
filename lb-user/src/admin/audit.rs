//! The audit log: every change that was asked for over the admin interface, one line of JSON for each, with who asked,
//! from where, for what, and what came of it. Passwords are left out.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::{error, info};

use crate::config::secrets;

/// Where it is unless `--audit` says otherwise.
pub const DEFAULT: &str = "/var/lib/lb/audit.jsonl";

/// A file that has grown beyond this many bytes is put aside, in the place of the one before.
const LARGEST: u64 = 16 << 20;

/// Of the body of a request so many characters are told; what belongs to a change is far shorter.
const MOST_TOLD: usize = 2_000;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// User id at the other end of the socket.
    pub uid: u32,
    /// Its process, if it is known.
    pub pid: Option<i32>,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Seconds since 1970.
    pub time: u64,
    /// Who asked; from where is `socket`, as there is nothing else.
    pub who: Who,
    /// From where.
    pub from: String,
    /// For what: the path with its query.
    pub what: String,
    /// The body of the request, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// The HTTP status that was answered.
    pub status: u16,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

impl Record {
    /// What is to be told of a request; `None` if it could change nothing.
    #[must_use]
    pub fn of(time: u64, who: Who, method: &Method, what: &str, body: &[u8]) -> Option<Self> {
        if matches!(*method, Method::GET | Method::HEAD) {
            return None;
        }
        let body = (!body.is_empty()).then(|| told(body));
        Some(Self { time, who, from: "socket".into(), what: what.into(), body, status: 0, refused: None })
    }

    /// The same, with what came of it.
    #[must_use]
    pub fn answered(self, status: StatusCode, refused: Option<String>) -> Self {
        Self { status: status.as_u16(), refused, ..self }
    }
}

/// A body as it may be told.
fn told(body: &[u8]) -> Value {
    let text = || Value::String(String::from_utf8_lossy(body).chars().take(MOST_TOLD).collect());
    if body.len() > MOST_TOLD {
        return Value::String(format!("{} bytes", body.len()));
    }
    serde_json::from_slice(body).map_or_else(
        |_| text(),
        |mut value| {
            without_secrets(&mut value);
            value
        },
    )
}

/// Hides what the configuration's secrets are, as the value of a name or in a text.
fn without_secrets(value: &mut Value) {
    match value {
        Value::Object(values) => {
            for (name, value) in values {
                if secrets::is_secret(name) {
                    *value = Value::String(secrets::HIDDEN.into());
                } else {
                    without_secrets(value);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(without_secrets),
        Value::String(text) if text.contains("password") => *text = secrets::HIDDEN.into(),
        _ => {}
    }
}

/// The file.
#[derive(Clone, Debug)]
pub struct Audit(Arc<Mutex<PathBuf>>);

impl Audit {
    /// A log in this file. It is made, and its folder, with the first record.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self(Arc::new(Mutex::new(path.to_owned())))
    }

    /// Writes a record. What cannot be written is an error in the log of the daemon, which says it all; the change has been
    /// made by then.
    pub fn write(&self, record: &Record) {
        let Record { who, what, status, .. } = record;
        let refused = record.refused.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
        info!("user {} asked for {what}: {status}{}", who.uid, refused.lines().next().unwrap_or_default());
        let path = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = append(&path, record) {
            error!("cannot write the audit log {}: {error}; not told there: {record:?}", path.display());
        }
    }
}

fn append(path: &Path, record: &Record) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut line = serde_json::to_vec(record)?;
    line.push(b'\n');
    let mut file = open(path)?;
    if file.metadata()?.len() + line.len() as u64 > LARGEST {
        fs::rename(path, path.with_extension("jsonl.1"))?;
        file = open(path)?;
    }
    // In one piece, so that another's line cannot come into it.
    file.write_all(&line)
}

/// Opened anew for each record, so that who puts the file aside (logrotate) need not tell.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use serde_json::json;

    use super::*;

    const WHO: Who = Who { uid: 0, pid: Some(7) };

    fn record(what: &str, body: &[u8]) -> Record {
        Record::of(9, WHO, &Method::POST, what, body).expect("a change").answered(StatusCode::OK, None)
    }

    #[test]
    fn changes_are_told_and_questions_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lb/audit.jsonl");
        let audit = Audit::new(&path);
        let first = record("/v1/server", br#"{"vip":"web","server":"s1","state":"drain"}"#);
        let refused = record("/v1/reload?dry_run=true", b"");
        let refused = refused.answered(StatusCode::UNPROCESSABLE_ENTITY, Some("lb.toml:1:1: no".into()));
        audit.write(&first);
        audit.write(&refused);
        let text = fs::read_to_string(&path).unwrap();
        let read: Vec<Record> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, [first, refused]);
        assert_eq!(read[0].body, Some(json!({ "vip": "web", "server": "s1", "state": "drain" })));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(Record::of(9, WHO, &Method::GET, "/v1/status", b""), None);
    }

    #[test]
    fn no_password_is_told() {
        let body =
            br#"{"set":[{"health":{"password":"geheim"}},"x = { password = \"geheim\" }"],"name":"r"}"#;
        let line = serde_json::to_string(&record("/v1/edit", body)).unwrap();
        assert!(!line.contains("geheim") && line.contains("\"name\":\"r\""), "{line}");
        let long = serde_json::to_string(&record("/v1/edit", &[b'x'; 5_000])).unwrap();
        assert!(long.contains("5000 bytes"), "{long}");
    }

    #[test]
    fn a_large_file_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        fs::write(&path, vec![b'\n'; LARGEST as usize]).unwrap();
        Audit::new(&path).write(&record("/v1/reload", b""));
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
        assert_eq!(fs::metadata(path.with_extension("jsonl.1")).unwrap().len(), LARGEST);
    }
}
