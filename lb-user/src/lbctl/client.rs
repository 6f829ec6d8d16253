//! One request over the admin socket, or to the API of another host ([`super::api`]).

use std::{
    fmt,
    io::ErrorKind,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use super::api::Api;
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
    /// It does not let this user or token in, or not that far.
    NotAllowed(String),
    /// It was not asked: the command makes no sense.
    Usage(String),
    /// It answered, but with a refusal or something that is not understood.
    Answer(String),
    /// What was waited for has not come.
    TimeUp(String),
    /// What was looked at is not as it should be.
    Unwell(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reach(why) => write!(f, "cannot reach lb-user: {why}"),
            Self::NotAllowed(why)
            | Self::Usage(why)
            | Self::Answer(why)
            | Self::TimeUp(why)
            | Self::Unwell(why) => f.write_str(why),
        }
    }
}

/// Where lb-user is asked.
#[derive(Debug)]
pub enum At {
    /// On this host.
    Socket(PathBuf),
    /// From anywhere.
    Api(Api),
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(f),
            Self::Api(api) => api.fmt(f),
        }
    }
}

/// A request.
struct Asked<'a> {
    method: Method,
    path: &'a str,
    body: String,
    /// What must be in use, if anything in particular.
    if_match: Option<&'a str>,
}

/// Gets a path; the body of the answer comes back as text.
///
/// # Errors
/// When lb-user cannot be reached or the answer is not a success.
pub fn get(at: &At, path: &str) -> Result<String, Failure> {
    exchange(at, Asked { method: Method::GET, path, body: String::new(), if_match: None })
}

/// Posts a body to a path; the body of the answer comes back as text.
///
/// # Errors
/// As [`get`].
pub fn post(at: &At, path: &str, body: String) -> Result<String, Failure> {
    post_if(at, path, body, None)
}

/// The same, if what is in use is still what has been seen: its ETag.
///
/// # Errors
/// As [`get`]; and when something else is in use.
pub fn post_if(at: &At, path: &str, body: String, seen: Option<&str>) -> Result<String, Failure> {
    exchange(at, Asked { method: Method::POST, path, body, if_match: seen })
}

fn exchange(at: &At, asked: Asked<'_>) -> Result<String, Failure> {
    let request = async {
        let not_understood = |error: Error| fault(at, error);
        let response = send(connect(at).await?, at, asked).await.map_err(not_understood)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(not_understood)?;
        let body = String::from_utf8(body.to_bytes().into()).map_err(|error| not_understood(error.into()))?;
        Ok((status, body))
    };
    let answer = runtime()?.block_on(async { timeout(PATIENCE, request).await });
    let (status, body) = answer.map_err(|_| no_answer(at))??;
    if status == StatusCode::OK { Ok(body) } else { Err(refusal(status, &body)) }
}

/// Gets a path whose answer comes line by line; `each` is given every line, and says whether to go on. Ends without
/// failure when the answer does, and on Ctrl-C.
///
/// # Errors
/// When lb-user cannot be reached, the answer is not a success or is cut off, or `each` fails.
pub fn lines(
    at: &At,
    path: &str,
    mut each: impl FnMut(&str) -> Result<ControlFlow<()>, Failure>,
) -> Result<(), Failure> {
    runtime()?.block_on(async {
        // One for all rounds of the loop: a signal that comes between two of them waits here.
        let interrupt = signal(SignalKind::interrupt());
        let mut interrupt = interrupt.map_err(|error| Failure::Reach(format!("cannot start: {error}")))?;
        let stream = connect(at).await?;
        let not_understood = |error: Error| fault(at, error);
        let asked = Asked { method: Method::GET, path, body: String::new(), if_match: None };
        let response = timeout(PATIENCE, send(stream, at, asked)).await;
        let response = response.map_err(|_| no_answer(at))?.map_err(not_understood)?;
        let status = response.status();
        let mut body = response.into_body();
        if status != StatusCode::OK {
            let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(not_understood)?.to_bytes();
            return Err(refusal(status, &String::from_utf8_lossy(&body)));
        }
        let mut text = Vec::new();
        loop {
            let frame = tokio::select! {
                frame = body.frame() => frame,
                _ = interrupt.recv() => return Ok(()),
            };
            let Some(frame) = frame else { return Ok(()) };
            let frame = frame.map_err(|_| Failure::Reach("it ended in the middle of its answer".into()))?;
            text.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..]));
            while let Some(end) = text.iter().position(|&byte| byte == b'\n') {
                let rest = text.split_off(end + 1);
                let line = std::mem::replace(&mut text, rest);
                if each(String::from_utf8_lossy(&line).trim_end())?.is_break() {
                    return Ok(());
                }
            }
            if text.len() > MAX_ANSWER {
                return Err(Failure::Answer("a line of lb-user does not end".into()));
            }
        }
    })
}

type Error = Box<dyn std::error::Error + Send + Sync>;

pub(super) fn runtime() -> Result<Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::Reach(format!("cannot start: {error}")))
}

/// What it means that no whole answer came: that nobody is there any more to give it, or that it makes no sense.
fn fault(at: &At, error: Error) -> Failure {
    match error.downcast_ref::<hyper::Error>() {
        Some(error) if !error.is_parse() => {
            Failure::Reach(format!("on {at}, it ended before it had answered ({error})"))
        }
        _ => Failure::Answer(format!("{at} was not understood: {error}")),
    }
}

fn no_answer(at: &At) -> Failure {
    Failure::Reach(format!("no answer on {at} within {PATIENCE:?}; it may be hanging"))
}

/// What an answer means that is not a success.
fn refusal(status: StatusCode, body: &str) -> Failure {
    let why = match serde_json::from_str::<Body>(body) {
        // Several findings stand in lines of their own.
        Ok(body) if body.error.message.contains('\n') => {
            format!("lb-user refused:\n{}", body.error.message)
        }
        Ok(body) => format!("lb-user refused: {}", body.error.message),
        Err(_) => format!("lb-user answered with HTTP status {status}"),
    };
    match status {
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS => {
            Failure::NotAllowed(why)
        }
        _ => Failure::Answer(why),
    }
}

async fn connect(at: &At) -> Result<Box<dyn Stream>, Failure> {
    match at {
        At::Socket(socket) => Ok(Box::new(connect_here(socket).await?)),
        At::Api(api) => Ok(Box::new(api.connect().await?)),
    }
}

async fn connect_here(socket: &Path) -> Result<UnixStream, Failure> {
    UnixStream::connect(socket).await.map_err(|error| {
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
    })
}

/// Bytes to lb-user and back.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

async fn send(stream: Box<dyn Stream>, at: &At, asked: Asked<'_>) -> Result<Response<Incoming>, Error> {
    let Asked { method, path, body, if_match } = asked;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its end or failure shows in the answer.
    tokio::spawn(connection);
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::USER_AGENT, concat!("lbctl/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close");
    request = match at {
        At::Socket(_) => request.header(header::HOST, "lb-user"),
        At::Api(api) => {
            request.header(header::HOST, api.host()).header(header::AUTHORIZATION, api.authorization())
        }
    };
    if !body.is_empty() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    if let Some(seen) = if_match {
        request = request.header(header::IF_MATCH, format!("\"{seen}\""));
    }
    Ok(sender.send_request(request.body(Full::<Bytes>::from(body))?).await?)
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
        let result = get(&At::Socket(socket), "/v1/status");
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
                Failure::NotAllowed("lb-user refused: you may not".into()),
            ),
            (
                "HTTP/1.1 500 No\r\n\r\noops",
                Failure::Answer("lb-user answered with HTTP status 500 Internal Server Error".into()),
            ),
        ] {
            assert_eq!(get_from(answer), Err(failure), "{answer}");
        }
        let garbage = get_from("hello\r\n").unwrap_err();
        assert!(matches!(&garbage, Failure::Answer(why) if why.contains("not understood")), "{garbage}");
        // Who waits for something over a restart goes on after it.
        for cut_off in ["", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"] {
            let failure = get_from(cut_off).unwrap_err();
            assert!(matches!(&failure, Failure::Reach(why) if why.contains("it ended")), "{failure}");
        }
    }

    #[test]
    fn ctrl_c_ends_endless_lines_whenever_it_comes() {
        for after in 1..40 {
            let folder = tempfile::tempdir().unwrap();
            let socket = folder.path().join("s");
            let listener = UnixListener::bind(&socket).unwrap();
            let server = thread::spawn(move || {
                let mut stream = listener.accept().unwrap().0;
                assert!(stream.read(&mut [0; 4096]).unwrap() > 0, "a request");
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                // As much at a time as makes "now a line, now the signal" come out either way.
                (0..100_000).take_while(|_| stream.write_all(b"2\r\nx\n\r\n").is_ok()).count()
            });
            let mut seen = 0;
            let result = lines(&At::Socket(socket), "/v1/trace", |_| {
                seen += 1;
                if seen == after {
                    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::INT)
                        .unwrap();
                }
                Ok(ControlFlow::Continue(()))
            });
            assert_eq!(result, Ok(()));
            let sent = server.join().unwrap();
            assert!(sent < 100_000, "all lines came, though Ctrl-C was pressed after {after}");
        }
    }

    #[test]
    fn a_missing_or_dead_socket_means_not_running() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let failure = get(&At::Socket(socket.clone()), "/v1/status").unwrap_err().to_string();
        let expected = format!(
            "cannot reach lb-user: there is no socket {}; either it is not running or it has another --socket",
            socket.display()
        );
        assert_eq!(failure, expected);

        drop(UnixListener::bind(&socket).unwrap());
        let failure = get(&At::Socket(socket.clone()), "/v1/status").unwrap_err().to_string();
        let expected =
            format!("cannot reach lb-user: it is not running: nobody answers on {}", socket.display());
        assert_eq!(failure, expected);
    }
}
