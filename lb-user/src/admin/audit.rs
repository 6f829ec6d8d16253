//! The audit log: every change that was asked for over the admin interface, and everyone who was not let in, one line of
//! JSON for each, with who asked, from where, for what, and what came of it. Passwords are left out, and so is what was only
//! tried (`dry_run`).

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use hyper::{Method, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::{error, info, warn};

use super::{api::Caller, role::Role};
use crate::config::secrets;

/// Where it is unless `--audit` says otherwise.
pub const DEFAULT: &str = "/var/lib/lb/audit.jsonl";

/// A file that has grown beyond this many bytes is put aside, in the place of the one before.
const LARGEST: u64 = 16 << 20;

/// Of the body of a request so many characters are told; what belongs to a change is far shorter.
const MOST_TOLD: usize = 2_000;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Who {
    /// Somebody on this host.
    User {
        /// User id at the other end of the socket.
        uid: u32,
        /// Its process, if it is known.
        pid: Option<i32>,
    },
    /// Who has a token.
    Token {
        /// Its name.
        token: String,
        /// What it may do.
        role: Role,
    },
    /// Who cannot show one.
    Nobody {},
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User { uid, .. } => write!(f, "user {uid}"),
            Self::Token { token, role } => write!(f, "{token} ({role})"),
            Self::Nobody {} => f.write_str("nobody known"),
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Seconds since 1970.
    pub time: u64,
    /// Who asked.
    pub who: Who,
    /// From where: `socket`, or address and port.
    pub from: String,
    /// For what: the path with its query; of what was only to be looked at, `GET` before it.
    pub what: String,
    /// Whether it may have changed something.
    #[serde(skip)]
    pub changes: bool,
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
    /// What is to be told of a request.
    #[must_use]
    pub fn of(time: u64, caller: &Caller, method: &Method, uri: &Uri, body: &[u8]) -> Self {
        let changes = !matches!(*method, Method::GET | Method::HEAD);
        let path = uri.path_and_query().map_or("", |what| what.as_str());
        let path: String = path.chars().take(MOST_TOLD).collect();
        let what = if changes { path } else { format!("{method} {path}") };
        let body = (!body.is_empty()).then(|| told(body));
        let Caller { who, from, .. } = caller.clone();
        Self { time, who, from, what, changes, body, status: 0, refused: None }
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
        let Record { who, from, what, status, .. } = record;
        let refused = record.refused.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
        let line = format!(
            "{who} asked for {what} from {from}: {status}{}",
            refused.lines().next().unwrap_or_default()
        );
        // Who was not let in is more than the affair of who asked.
        if matches!(*status, 401 | 403) {
            warn!("{line}")
        } else {
            info!("{line}")
        }
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

    fn caller(who: Who) -> Caller {
        Caller { who, from: "socket".into(), standing: Ok(Role::Admin) }
    }

    fn record(what: &str, body: &[u8]) -> Record {
        let caller = caller(Who::User { uid: 0, pid: Some(7) });
        Record::of(9, &caller, &Method::POST, &what.parse().unwrap(), body).answered(StatusCode::OK, None)
    }

    #[test]
    fn who_is_told_by_what_is_known_of_them() {
        let token = Who::Token { token: "ci".into(), role: Role::Operator };
        for (who, text) in [
            (Who::User { uid: 7, pid: None }, r#"{"uid":7,"pid":null}"#),
            (token, r#"{"token":"ci","role":"operator"}"#),
            (Who::Nobody {}, "{}"),
        ] {
            assert_eq!(serde_json::to_string(&who).unwrap(), text);
            assert_eq!(serde_json::from_str::<Who>(text).unwrap(), who);
            let asked = Record::of(9, &caller(who), &Method::GET, &"/v1/status?a=1".parse().unwrap(), b"");
            assert_eq!((asked.what.as_str(), asked.changes), ("GET /v1/status?a=1", false));
        }
    }

    #[test]
    fn each_is_a_line_in_a_file_of_root_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lb/audit.jsonl");
        let audit = Audit::new(&path);
        let first = record("/v1/server", br#"{"vip":"web","server":"s1","state":"drain"}"#);
        let refused = record("/v1/reload", b"");
        let refused = refused.answered(StatusCode::UNPROCESSABLE_ENTITY, Some("lb.toml:1:1: no".into()));
        audit.write(&first);
        audit.write(&refused);
        let text = fs::read_to_string(&path).unwrap();
        let read: Vec<Record> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let as_read = |record: Record| Record { changes: false, ..record };
        assert_eq!(read, [as_read(first), as_read(refused)]);
        assert_eq!(read[0].body, Some(json!({ "vip": "web", "server": "s1", "state": "drain" })));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
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
