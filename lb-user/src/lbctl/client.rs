//! One request over the admin socket.

use std::{fmt, io::ErrorKind, path::Path, time::Duration};

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::timeout};

use crate::admin::error::Body;

/// lb-user answers within about a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// Largest answer taken, in bytes; the status of 10,000 servers is a tenth of it.
const MAX_ANSWER: usize = 64 << 20;

/// Why there is no answer to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// lb-user cannot be reached.
    Reach(String),
    /// It answered, but with a refusal or something that is not understood.
    Answer(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reach(why) => write!(f, "cannot reach lb-user: {why}"),
            Self::Answer(why) => f.write_str(why),
        }
    }
}

/// Gets a path; the body of the answer comes back as text.
///
/// # Errors
/// When lb-user cannot be reached or the answer is not a success.
pub fn get(socket: &Path, path: &str) -> Result<String, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Reach(format!("cannot start: {error}")))?;
    let answer = runtime.block_on(async { timeout(PATIENCE, request(socket, path)).await });
    let (status, body) = answer.unwrap_or_else(|_| {
        let socket = socket.display();
        Err(Failure::Reach(format!("no answer on {socket} within {PATIENCE:?}; it may be hanging")))
    })?;
    if status == StatusCode::OK {
        return Ok(body);
    }
    let why = match serde_json::from_str::<Body>(&body) {
        Ok(body) => format!("lb-user refused: {}", body.error.message),
        Err(_) => format!("lb-user answered with HTTP status {status}"),
    };
    Err(if status == StatusCode::FORBIDDEN { Failure::Reach(why) } else { Failure::Answer(why) })
}

async fn request(socket: &Path, path: &str) -> Result<(StatusCode, String), Failure> {
    let stream = UnixStream::connect(socket).await.map_err(|error| {
        let socket = socket.display();
        Failure::Reach(match error.kind() {
            ErrorKind::NotFound => {
                format!("there is no socket {socket}; either it is not running or it has another --socket")
            }
            ErrorKind::ConnectionRefused => format!("it is not running: nobody answers on {socket}"),
            ErrorKind::PermissionDenied => {
                format!("this user may not open {socket}; run lbctl as root")
            }
            _ => format!("{socket}: {error}"),
        })
    })?;
    exchange(stream, path)
        .await
        .map_err(|error| Failure::Answer(format!("{} was not understood: {error}", socket.display())))
}

async fn exchange(
    stream: UnixStream,
    path: &str,
) -> Result<(StatusCode, String), Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its end or failure shows in the answer.
    tokio::spawn(connection);
    let request = Request::get(path)
        .header(header::HOST, "lb-user")
        .header(header::USER_AGENT, concat!("lbctl/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await?.to_bytes();
    Ok((status, String::from_utf8(body.into())?))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        os::unix::net::UnixListener,
        thread,
    };

    use super::*;

    /// What `get` makes of an answer.
    fn get_from(answer: &'static str) -> Result<String, Failure> {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let result = get(&socket, "/v1/status");
        assert!(server.join().unwrap().starts_with("GET /v1/status HTTP/1.1\r\n"));
        result
    }

    #[test]
    fn answers() {
        assert_eq!(get_from("HTTP/1.1 200 OK\r\n\r\n{}\n"), Ok("{}\n".to_owned()));
        for (answer, failure) in [
            (
                "HTTP/1.1 404 No\r\n\r\n{\"error\":{\"code\":\"not_found\",\"message\":\"there is nothing\"}}",
                Failure::Answer("lb-user refused: there is nothing".into()),
            ),
            (
                "HTTP/1.1 403 No\r\n\r\n{\"error\":{\"code\":\"forbidden\",\"message\":\"you may not\"}}",
                Failure::Reach("lb-user refused: you may not".into()),
            ),
            (
                "HTTP/1.1 500 No\r\n\r\noops",
                Failure::Answer("lb-user answered with HTTP status 500 Internal Server Error".into()),
            ),
        ] {
            assert_eq!(get_from(answer), Err(failure), "{answer}");
        }
        for garbage in ["", "hello\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"] {
            let failure = get_from(garbage).unwrap_err();
            assert!(matches!(&failure, Failure::Answer(why) if why.contains("not understood")), "{failure}");
        }
    }

    #[test]
    fn a_missing_or_dead_socket_means_not_running() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let failure = get(&socket, "/v1/status").unwrap_err().to_string();
        let expected = format!(
            "cannot reach lb-user: there is no socket {}; either it is not running or it has another --socket",
            socket.display()
        );
        assert_eq!(failure, expected);

        drop(UnixListener::bind(&socket).unwrap());
        let failure = get(&socket, "/v1/status").unwrap_err().to_string();
        let expected =
            format!("cannot reach lb-user: it is not running: nobody answers on {}", socket.display());
        assert_eq!(failure, expected);
    }
}
