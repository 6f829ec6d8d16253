//! The API over real sockets and TLS, asked by what lbctl asks with. The loop is played by the test.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, time::Instant};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::watch,
    task::{JoinHandle, spawn_blocking},
};

use super::*;
use crate::{
    admin::{
        Audit, Command, Done, ReloadRequest, Reloaded, Requests, Version, VipChange, access::tests::folder,
        role::Role,
    },
    lbctl::{
        api,
        client::{self, At, Failure},
    },
};

const PATIENCE: Duration = Duration::from_secs(30);

struct Bench {
    folder: tempfile::TempDir,
    address: SocketAddr,
    handle: Handle,
    server: JoinHandle<()>,
    player: JoinHandle<()>,
}

async fn bench() -> Bench {
    let (folder, files, secrets) = folder();
    for (role, secret) in Role::ALL.iter().zip(&secrets).map(|(role, secret)| (role.name(), secret)) {
        write(&folder.path().join(role), secret);
    }
    write(&folder.path().join("nobody"), "lb_0000");
    let api = Api::open(&Options { address: "127.0.0.1:0".parse().unwrap(), files }).unwrap();
    let (_, last) = watch::channel(Arc::default());
    let (handle, requests) = Handle::new(last);
    let audit = Audit::new(&folder.path().join("audit.jsonl"));
    let handle = handle.with_access(Some(api.access())).with_audit(audit);
    let address = api.address().unwrap();
    let server = tokio::spawn(serve(Some(api), handle.clone()));
    Bench { folder, address, handle, server, player: tokio::spawn(play(requests)) }
}

fn write(file: &std::path::Path, text: &str) {
    fs::write(file, text).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Grants every wish.
async fn play(mut requests: Requests) {
    let done = |what| Ok(Done { what, version: Version::default() });
    loop {
        tokio::select! {
            Some(request) = requests.status.recv() => request.answer(Arc::default()),
            Some(command) = requests.commands.recv() => match command {
                Command::Vip(request, _, answer) => {
                    let change = VipChange { vip: request.vip, enabled: request.enabled, effects: Vec::new() };
                    answer.send(done(vec![change])).unwrap();
                }
                other => panic!("{other:?}"),
            },
            Some(ReloadRequest(_, _, answer)) = requests.reloads.recv() => answer.send(Ok(Reloaded::default())).unwrap(),
            else => return,
        }
    }
}

impl Bench {
    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What lbctl gets with the token in a file; without a body it looks, with one it changes.
    async fn ask(
        &self,
        token: &str,
        path: &'static str,
        body: Option<&'static str>,
    ) -> Result<String, Failure> {
        let url = format!("https://localhost:{}", self.address.port());
        let (token, ca) = (self.file(token), self.file("cert.pem"));
        let work = move || {
            let at = At::Api(api::Api::new(&url, &token, Some(&ca))?);
            match body {
                None => client::get(&at, path),
                Some(body) => client::post(&at, path, body.into()),
            }
        };
        timeout(PATIENCE, spawn_blocking(work)).await.expect("an answer").unwrap()
    }
}

const STEER: (&str, Option<&str>) = ("/v1/vip", Some(r#"{"vip":"web","enabled":false}"#));
const RELOAD: (&str, Option<&str>) = ("/v1/reload", Some(""));

#[tokio::test]
async fn a_role_may_what_it_may_and_everything_else_is_written_down() {
    let bench = bench().await;
    for (token, (path, body), fits) in [
        ("viewer", ("/v1/status", None), Ok(())),
        ("viewer", STEER, Err("this takes a token of the role operator; this one is of viewer")),
        ("viewer", ("/v1/trace", None), Err("of the role operator")),
        ("operator", STEER, Ok(())),
        ("operator", RELOAD, Err("this takes a token of the role admin")),
        ("admin", RELOAD, Ok(())),
        ("nobody", ("/v1/status", None), Err("this token is not known")),
    ] {
        match (bench.ask(token, path, body).await, fits) {
            (Ok(_), Ok(())) => {}
            (Err(Failure::NotAllowed(why)), Err(expected)) => assert!(why.contains(expected), "{why}"),
            (other, _) => panic!("{token} {path}: {other:?}"),
        }
    }
    let text = fs::read_to_string(bench.file("audit.jsonl")).unwrap();
    let told: Vec<_> = text
        .lines()
        .map(|line| {
            let record: Value = serde_json::from_str(line).unwrap();
            assert!(record["from"].as_str().unwrap().starts_with("127.0.0.1:"), "{record}");
            let who = record["who"]["token"].as_str().unwrap_or("-").to_owned();
            (who, record["what"].as_str().unwrap().to_owned(), record["status"].as_u64().unwrap())
        })
        .collect();
    let expected = [
        ("the-viewer", "/v1/vip", 403),
        ("the-viewer", "GET /v1/trace", 403),
        ("the-operator", "/v1/vip", 200),
        ("the-operator", "/v1/reload", 403),
        ("the-admin", "/v1/reload", 200),
        ("-", "GET /v1/status", 401),
    ];
    assert_eq!(told, expected.map(|(who, what, status)| (who.to_owned(), what.to_owned(), status)));
    let counts = bench.handle.counts();
    assert_eq!((counts.answers(Way::Tcp), counts.logins_refused()), ([3, 4, 0], 1));
}

#[tokio::test]
async fn a_token_is_revoked_while_everything_runs() {
    let bench = bench().await;
    assert!(bench.ask("admin", "/v1/status", None).await.is_ok());
    let text = fs::read_to_string(bench.file("tokens")).unwrap();
    write(&bench.file("tokens"), text.lines().next().unwrap());
    assert!(bench.handle.read_access_again().is_empty());
    assert!(matches!(bench.ask("admin", "/v1/status", None).await, Err(Failure::NotAllowed(_))));
    assert!(bench.ask("viewer", "/v1/status", None).await.is_ok());
}

#[tokio::test]
async fn without_tls_there_is_nothing_to_hear_and_without_trust_nothing_is_said() {
    let bench = bench().await;
    let mut stream = TcpStream::connect(bench.address).await.unwrap();
    stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: lb\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end");
    assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
    let other = folder();
    fs::copy(&other.1.certificate, bench.file("cert.pem")).unwrap();
    let failure = bench.ask("viewer", "/v1/status", None).await.unwrap_err();
    assert!(matches!(&failure, Failure::Reach(why) if why.contains("certificate")), "{failure}");
    let end = Instant::now() + PATIENCE;
    while bench.handle.counts().handshakes_failed() < 2 {
        assert!(Instant::now() < end, "both handshakes are counted");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn many_who_say_nothing_keep_nobody_out() {
    let bench = bench().await;
    let mut idle = Vec::new();
    for _ in 0..500 {
        idle.push(TcpStream::connect(bench.address).await.unwrap());
    }
    assert!(bench.ask("viewer", "/v1/status", None).await.is_ok());
    drop(idle);
}

#[tokio::test]
async fn the_end_leaves_no_listener() {
    let bench = bench().await;
    assert!(bench.ask("viewer", "/v1/status", None).await.is_ok());
    bench.server.abort();
    assert!(bench.server.await.unwrap_err().is_cancelled());
    bench.player.abort();
    let end = Instant::now() + PATIENCE;
    while TcpStream::connect(bench.address).await.is_ok() {
        assert!(Instant::now() < end, "somebody still listens");
    }
}
