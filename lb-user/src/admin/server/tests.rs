//! The admin interface over a real socket.

use std::{path::Path, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

use super::*;
use crate::{
    admin::{
        Command, Denial, Done, How, ReloadRequest, Reloaded, Requests, ServerChange, Version, VipChange,
        Wish, error::Body,
    },
    plan::Admin,
    reload::edit::Edit,
    snapshot::Snapshot,
};

/// A served socket. The reconcile loop is played by the test.
struct Bench {
    folder: tempfile::TempDir,
    requests: Requests,
    publish: watch::Sender<Arc<Snapshot>>,
    server: JoinHandle<()>,
}

async fn bench() -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let socket = Socket::bind(&folder.path().join("s")).await.unwrap();
    let (publish, last) = watch::channel(Arc::default());
    let (handle, requests) = Handle::new(last);
    Bench { folder, requests, publish, server: tokio::spawn(serve(socket, handle)) }
}

impl Bench {
    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("s")
    }
}

fn done<T>(what: T) -> Done<T> {
    Done { what, version: Version::default() }
}

/// Sends bytes and reads until the other side closes.
async fn exchange(path: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(Duration::from_secs(60), stream.read_to_string(&mut answer)).await.expect("an answer").unwrap();
    answer
}

/// Status and body of an answer.
async fn ask(path: &Path, line: &str) -> (u16, String) {
    let answer = exchange(path, &format!("{line} HTTP/1.1\r\nHost: lb\r\nConnection: close\r\n\r\n")).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.to_ascii_lowercase().contains("content-type: application/json"), "{head}");
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn code(body: &str) -> String {
    serde_json::from_str::<Body>(body).expect("an error in JSON").error.code
}

#[tokio::test]
async fn status_is_the_snapshot_that_the_loop_hands_over() {
    let mut bench = bench().await;
    let snapshot = Arc::new(Snapshot { version: "1.2.3".into(), time: 42, ..Snapshot::default() });
    let fresh = Arc::clone(&snapshot);
    let path = bench.path();
    let reconcile = async { bench.requests.status.recv().await.unwrap().answer(fresh) };
    let ((status, body), ()) = tokio::join!(ask(&path, "GET /v1/status"), reconcile);
    assert_eq!(status, 200);
    assert_eq!(serde_json::from_str::<Snapshot>(&body).unwrap(), *snapshot);
}

#[tokio::test]
async fn status_is_the_last_snapshot_when_the_loop_is_gone() {
    let mut bench = bench().await;
    bench.requests.status.close();
    bench.publish.send_replace(Arc::new(Snapshot { time: 7, ..Snapshot::default() }));
    let (status, body) = ask(&bench.path(), "GET /v1/status").await;
    assert_eq!(status, 200);
    assert_eq!(serde_json::from_str::<Snapshot>(&body).unwrap().time, 7);
}

#[tokio::test]
async fn other_requests_are_refused_in_json() {
    let mut bench = bench().await;
    bench.requests.status.close();
    for (line, status, expected) in [
        ("GET /", 404, "not_found"),
        ("GET /v1/status/", 404, "not_found"),
        ("GET /v2/status", 404, "not_found"),
        ("POST /nothing", 404, "not_found"),
        ("POST /v1/status", 405, "method_not_allowed"),
        ("DELETE /v1/status", 405, "method_not_allowed"),
        ("BREW /v1/status", 405, "method_not_allowed"),
        ("GET /v1/status?pretty=1", 400, "bad_request"),
        ("GET /v1/vip", 400, "bad_request"),
        ("GET /v1/vip?vip=none", 404, "not_found"),
        ("GET /v1/edit", 405, "method_not_allowed"),
        ("GET /v1/reload", 405, "method_not_allowed"),
        ("POST /v1/server", 400, "bad_request"),
        ("GET /v1/connections?limit=0", 400, "bad_request"),
        ("GET /v1/connections?what=7", 400, "bad_request"),
        ("GET /v1/connections/end?all=true", 405, "method_not_allowed"),
        ("POST /v1/connections/end", 400, "bad_request"),
        ("POST /v1/connections/end?all=true&vip=web", 400, "bad_request"),
        ("POST /v1/connections/end?vip=web&limit=3", 400, "bad_request"),
    ] {
        let (got, body) = ask(&bench.path(), line).await;
        assert_eq!((got, code(&body).as_str()), (status, expected), "{line}");
    }
    let request = "POST /v1/status HTTP/1.1\r\nHost: lb\r\nConnection: close\r\n\r\n";
    let answer = exchange(&bench.path(), request).await;
    assert!(answer.to_ascii_lowercase().contains("\r\nallow: get, head\r\n"));
}

#[tokio::test]
async fn head_has_no_body_and_a_request_may_not_have_one() {
    let mut bench = bench().await;
    bench.requests.status.close();
    let (status, body) = ask(&bench.path(), "HEAD /v1/status").await;
    assert_eq!((status, body.as_str()), (200, ""));

    let request = "GET /v1/status HTTP/1.1\r\nHost: lb\r\nContent-Length: 1000000000\r\n\r\nabc";
    let answer = exchange(&bench.path(), request).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!(code(answer.split_once("\r\n\r\n").unwrap().1), "unexpected_body");
}

/// Sends a body to a path; status and body of the answer.
async fn post(path: &Path, to: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let head =
        format!("POST {to} HTTP/1.1\r\nHost: lb\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    let answer = exchange(path, &(head + body)).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn a_servers_state_is_changed_by_the_loop() {
    let mut bench = bench().await;
    let path = bench.path();
    let body = r#"{"vip":"*","server":"s1","state":"drain"}"#;
    let change = ServerChange {
        vip: "web".into(),
        server: "s1".into(),
        state: Admin::Drain,
        weight: None,
        effects: Vec::new(),
    };
    let reconcile = async {
        let Some(Command::Server(request, _, answer)) = bench.requests.commands.recv().await else {
            panic!()
        };
        assert_eq!(
            (request.vip.as_str(), request.server.as_str(), request.state),
            ("*", "s1", Some(Admin::Drain))
        );
        answer.send(Ok(done(vec![change.clone()]))).unwrap();
    };
    let ((status, body), ()) = tokio::join!(post(&path, "/v1/server", body), reconcile);
    assert_eq!((status, serde_json::from_str::<Vec<ServerChange>>(&body).unwrap()), (200, vec![change]));

    for (wrong, status) in [
        ("", 400),
        ("{", 400),
        ("{}", 422),
        (r#"{"vip":7,"server":"b","state":"halt"}"#, 422),
        (r#"{"vip":"a","server":"b","state":"off"}"#, 422),
        (r#"{"vip":"a","server":"b","state":"halt","x":1}"#, 422),
    ] {
        let (got, body) = post(&path, "/v1/server", wrong).await;
        let expected = if status == 400 { "bad_request" } else { "refused" };
        assert_eq!((got, code(&body).as_str()), (status, expected), "{wrong}");
        assert!(body.contains("line 1 column"), "where: {body}");
    }
    // The answer comes through although there is more to read.
    for size in [70_000, 300_000, 900_000] {
        let huge = format!("{{\"vip\":\"{}\"}}", "x".repeat(size));
        let (status, body) = post(&path, "/v1/server", &huge).await;
        assert_eq!((status, code(&body).as_str()), (413, "too_large"));
    }
    let form = "POST /v1/server HTTP/1.1\r\nHost: lb\r\nConnection: close\r\nContent-Length: 2\r\n\
                Content-Type: application/x-www-form-urlencoded\r\n\r\n{}";
    let answer = exchange(&path, form).await;
    assert!(answer.starts_with("HTTP/1.1 415 ") && answer.contains("must be application/json"), "{answer}");
}

#[tokio::test]
async fn what_is_wanted_of_the_configuration_file_reaches_who_reads_it() {
    let mut bench = bench().await;
    let path = bench.path();
    for (request, wish) in [
        ("/v1/reload", Wish::Apply),
        ("/v1/reload?dry_run=true", Wish::Apply),
        ("/v1/reload?dry_run=false", Wish::Apply),
        ("/v1/reload?confirm=60", Wish::Commit(Duration::from_secs(60))),
        ("/v1/confirm", Wish::Confirm),
        ("/v1/discard", Wish::Discard),
        ("/v1/rollback?number=7", Wish::GoBack(7)),
    ] {
        let reader = async {
            let ReloadRequest(wish, terms, answer) = bench.requests.reloads.recv().await.unwrap();
            answer.send(Ok(Reloaded::default())).unwrap();
            (wish, terms.dry_run)
        };
        let ((status, _), asked) = tokio::join!(post(&path, request, ""), reader);
        assert_eq!((status, asked), (200, (wish, request.ends_with("dry_run=true"))), "{request}");
    }
    for wrong in [
        "/v1/reload?confirm=0",
        "/v1/reload?confirm=soon",
        "/v1/reload?confirm=60&dry_run=true",
        "/v1/reload?force=1",
        "/v1/rollback",
        "/v1/rollback?number=last",
        "/v1/confirm?number=1",
    ] {
        let (status, body) = post(&path, wrong, "").await;
        assert_eq!((status, code(&body).as_str()), (400, "bad_request"), "{wrong}");
    }
}

#[tokio::test]
async fn a_reload_says_what_came_of_it() {
    let mut bench = bench().await;
    let path = bench.path();
    let told =
        Reloaded { file: "lb.toml".into(), vips: 3, warnings: vec!["odd".into()], ..Reloaded::default() };
    let results = [Ok(told.clone()), Err("lb.toml:1:1: error: no\nlb.toml:2:1: error: no".to_owned())];
    for result in results {
        let reader = async {
            bench.requests.reloads.recv().await.unwrap().2.send(result.clone().map_err(Denial::No)).unwrap();
        };
        let ((status, body), ()) = tokio::join!(post(&path, "/v1/reload", ""), reader);
        match result {
            Ok(told) => {
                assert_eq!((status, serde_json::from_str::<Reloaded>(&body).unwrap()), (200, told));
            }
            Err(why) => {
                let problem = serde_json::from_str::<Body>(&body).unwrap().error;
                assert_eq!((status, problem.code.as_str(), problem.message), (422, "refused", why));
            }
        }
    }
    let (status, body) = post(&path, "/v1/reload", "{}").await;
    assert_eq!((status, code(&body).as_str()), (413, "unexpected_body"));
    bench.requests.reloads.close();
    assert_eq!(post(&path, "/v1/reload", "").await.0, 422, "nobody is there to do it");
}

#[tokio::test]
async fn a_huge_head_is_refused() {
    let bench = bench().await;
    let mut stream = UnixStream::connect(bench.path()).await.unwrap();
    let request = format!("GET /v1/status HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(MAX_HEAD));
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // Closing over unread bytes may reset the connection, which is as good an end.
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test(start_paused = true)]
async fn silent_and_idle_clients_are_cut_off() {
    let mut bench = bench().await;
    bench.requests.status.close();
    assert_eq!(exchange(&bench.path(), "").await, "", "one that says nothing");
    let answer = exchange(&bench.path(), "GET /v1/status HTTP/1.1\r\nHo").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "one that stops half-way: {answer}");
    let answer = exchange(&bench.path(), "GET /v1/status HTTP/1.1\r\nHost: lb\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "one that stays after its answer: {answer}");
}

#[tokio::test]
async fn more_clients_than_allowed_at_once_take_the_place_of_those_who_ask_nothing() {
    let mut bench = bench().await;
    bench.requests.status.close();
    let path = bench.path();
    let mut idle = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        // Once it is answered it counts.
        stream.write_all(b"HEAD /v1/status HTTP/1.1\r\nHost: lb\r\n\r\n").await.unwrap();
        stream.read_u8().await.unwrap();
        idle.push(stream);
    }
    // Ten thousand would not keep anybody out either.
    for _ in 0..2 * MAX_CONNECTIONS {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(b"GET /sta").await.unwrap();
        idle.push(stream);
    }
    let late = ask(&path, "GET /v1/status");
    assert_eq!(timeout(Duration::from_secs(4), late).await.expect("long before any is too slow").0, 200);
}

#[tokio::test]
async fn strangers_are_refused_whatever_they_ask() {
    let (_publish, last) = watch::channel(Arc::default());
    let (handle, _requests) = Handle::new(last);
    let stranger = Caller {
        who: Who::User { uid: 1000, pid: None },
        from: "socket".into(),
        standing: Err(Refusal::Forbidden { uid: 1000 }),
    };
    for path in ["/v1/status", "/"] {
        let request = hyper::Request::get(path).body(http_body_util::Empty::<hyper::body::Bytes>::new());
        let response = api::respond(request.unwrap(), &stranger, &handle).await;
        assert_eq!(response.status(), 403);
    }
}

#[tokio::test]
async fn who_is_a_stranger() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let me = ours.peer_cred().unwrap().uid();
    assert_eq!(caller(&ours, me).standing, Ok(Role::Admin), "the owner");
    let expected = if me == 0 { Ok(Role::Admin) } else { Err(Refusal::Forbidden { uid: me }) };
    assert_eq!(caller(&ours, me + 1).standing, expected, "another user, unless it is root");
}

#[tokio::test]
async fn the_end_of_the_server_removes_the_socket_and_cuts_connections() {
    let bench = bench().await;
    let mut stream = UnixStream::connect(bench.path()).await.unwrap();
    bench.server.abort();
    assert!(bench.server.await.unwrap_err().is_cancelled());
    assert!(!bench.folder.path().join("s").exists());
    let end = timeout(Duration::from_secs(60), stream.read_u8()).await.expect("no more waiting");
    assert!(end.is_err());
}

#[tokio::test]
async fn a_vip_is_disabled_by_the_loop_and_the_file_is_edited_by_who_reads_it() {
    let mut bench = bench().await;
    let path = bench.path();
    let change = VipChange { vip: "web".into(), enabled: false, effects: Vec::new() };
    let reconcile = async {
        let Some(Command::Vip(request, _, answer)) = bench.requests.commands.recv().await else { panic!() };
        assert_eq!((request.vip.as_str(), request.enabled), ("*", false));
        answer.send(Ok(done(vec![change.clone()]))).unwrap();
    };
    let body = r#"{"vip":"*","enabled":false}"#;
    let ((status, body), ()) = tokio::join!(post(&path, "/v1/vip", body), reconcile);
    assert_eq!((status, serde_json::from_str::<Vec<VipChange>>(&body).unwrap()), (200, vec![change]));

    let edit = Edit::RemoveVip { name: "web".into() };
    let body = serde_json::to_string(&edit).unwrap();
    for (to, how) in [
        ("/v1/edit", How::Apply),
        ("/v1/edit?dry_run=true", How::Apply),
        ("/v1/edit?dry_run=true&stage=true", How::Stage),
        ("/v1/edit?stage=true", How::Stage),
        ("/v1/edit?confirm=60", How::Commit(Duration::from_secs(60))),
    ] {
        let reader = async {
            let ReloadRequest(wish, terms, answer) = bench.requests.reloads.recv().await.unwrap();
            answer.send(Ok(Reloaded::default())).unwrap();
            (wish, terms.dry_run)
        };
        let ((status, _), asked) = tokio::join!(post(&path, to, &body), reader);
        assert_eq!((status, asked), (200, (Wish::Edit(edit.clone(), how), to.contains("dry_run"))), "{to}");
    }
    for (to, body, status) in [
        ("/v1/edit", "{}", 422),
        ("/v1/edit", r#"{"edit":"burn"}"#, 422),
        ("/v1/edit?confirm=0", body.as_str(), 400),
        ("/v1/edit?confirm=60&stage=true", body.as_str(), 400),
        ("/v1/vip", r#"{"vip":"web"}"#, 422),
    ] {
        assert_eq!(post(&path, to, body).await.0, status, "{to}: {body}");
    }
}

#[tokio::test]
async fn what_a_writer_has_seen_reaches_who_decides_and_who_is_late_learns_what_changed() {
    let mut bench = bench().await;
    let path = bench.path();
    let request = |header: &str| {
        let body = r#"{"vip":"web","enabled":false}"#;
        let length = body.len();
        format!(
            "POST /v1/vip?dry_run=true HTTP/1.1\r\nHost: lb\r\nConnection: close\r\n{header}Content-Length: {length}\r\n\r\n{body}"
        )
    };
    let denial = Denial::Changed { now: Version::default(), since: Some(vec!["VIP a is disabled".into()]) };
    let reconcile = async {
        let Some(Command::Vip(_, terms, answer)) = bench.requests.commands.recv().await else { panic!() };
        answer.send(Err(denial)).unwrap();
        terms
    };
    let asked = request("If-Match: \"one\"\r\nIf-Match: \"two\"\r\n");
    let (answer, terms) = tokio::join!(exchange(&path, &asked), reconcile);
    assert_eq!((terms.seen, terms.dry_run), (Some(vec!["one".into(), "two".into()]), true));
    assert!(answer.starts_with("HTTP/1.1 412 "), "{answer}");
    let problem = serde_json::from_str::<Body>(answer.split_once("\r\n\r\n").unwrap().1).unwrap().error;
    assert_eq!((problem.code.as_str(), problem.since), ("changed", Some(vec!["VIP a is disabled".into()])));
    let answer = exchange(&path, &request("If-Match: one\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("in its quotes"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let bench = bench().await;
    let request = "POST /v1/vip HTTP/1.1\r\nHost: lb\r\nContent-Length: 20\r\n\r\n{\"vip\":";
    let answer = exchange(&bench.path(), request).await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("within 10 seconds"), "{answer}");
}

#[tokio::test]
async fn what_is_not_there_is_refused_with_what_is() {
    let bench = bench().await;
    let (_, body) = ask(&bench.path(), "GET /v1").await;
    for route in &crate::admin::routes::ROUTES {
        assert!(body.contains(route.path), "{body}");
    }
}
