//! What the process tells about itself: health for the tier above, metrics, status, and lines of the log.

mod common;

use common::{Client, Proxy, Server, eventually, header, spec, tls::Folder};
use l7_proxy::{process::Listeners, spec::ServerState};

const GET: &str = "GET /path?q HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
const ADMIN: &str = r#", "admin": "127.0.0.1:0""#;

/// Status and body of a page.
fn page(proxy: &Proxy, path: &str) -> (u16, String) {
    let mut client = Client::connect(proxy.engine().admin().expect("it has an admin address"));
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    let answer = client.rest();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn health_follows_servers_and_the_end() {
    // E6.
    let server = Server::echo("a");
    let proxy = Proxy::start_with(&[server.address], "", "", ADMIN);
    assert_eq!(page(&proxy, "/health"), (200, "ok\n".into()));
    assert_eq!(page(&proxy, "/health/web").0, 200);
    assert_eq!(page(&proxy, "/health/other").0, 404);
    let mut told = spec(proxy.address, "", &[server.address], "", ADMIN);
    told.pools[0].servers[0].state = ServerState::Down;
    proxy.engine().apply(&told, Listeners::none()).unwrap();
    assert_eq!(page(&proxy, "/health").0, 503);
    told.pools[0].servers[0].state = ServerState::Up;
    proxy.engine().apply(&told, Listeners::none()).unwrap();
    assert_eq!(page(&proxy, "/health").0, 200);
    proxy.engine().announce();
    assert_eq!(page(&proxy, "/health").0, 503, "it goes away first");
    assert!(proxy.ask(GET).starts_with("HTTP/1.1 200 "), "while everything is still served");
    assert_eq!(page(&proxy, "/nothing").0, 404);
}

#[test]
fn who_lets_nobody_in_is_not_healthy() {
    let server = Server::echo("a");
    let proxy = Proxy::start_with(&[server.address], "", "", ADMIN);
    assert_eq!((page(&proxy, "/health").0, page(&proxy, "/health/web").0), (200, 200));
    let mut told = spec(proxy.address, "", &[server.address], "", ADMIN);
    told.services[0].closed = true;
    proxy.engine().apply(&told, Listeners::none()).unwrap();
    assert_eq!((page(&proxy, "/health").0, page(&proxy, "/health/web").0), (503, 503));
}

#[test]
fn metrics_count_what_happened_over_changes() {
    let server = Server::echo("a");
    let proxy = Proxy::start_with(&[server.address], "", "", ADMIN);
    for _ in 0..3 {
        proxy.ask(GET);
    }
    proxy.ask("GET / HTTP/1.1\r\n\r\n");
    proxy.engine().apply(&spec(proxy.address, "", &[server.address], "", ADMIN), Listeners::none()).unwrap();
    proxy.ask(GET);
    let counted =
        |line: &str| eventually(line, || page(&proxy, "/metrics").1.contains(&format!("\n{line}\n")));
    counted(r#"l7_requests_total{service="web"} 5"#);
    counted(r#"l7_answers_total{service="web",status="2xx"} 4"#);
    counted(r#"l7_own_answers_total{service="web"} 1"#);
    counted(r#"l7_refused_total{service="web",limit="malformed"} 1"#);
    counted(r#"l7_server_answers_total{service="web",pool="web",server="s0",status="2xx"} 4"#);
    counted(r#"l7_request_seconds_count{service="web"} 4"#);
    counted(r#"l7_request_seconds_bucket{service="web",le="+Inf"} 4"#);
    counted(r#"l7_server_up{service="web",pool="web",server="s0"} 1"#);
    let (_, text) = page(&proxy, "/metrics");
    assert!(text.ends_with("# EOF\n"));
    // Each family is told once, with all its lines together.
    let mut families: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let count = families.len();
    families.sort_unstable();
    families.dedup();
    assert_eq!(families.len(), count);
    let (status, text) = page(&proxy, "/status");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &json["services"][0]["pools"][0]["servers"][0]["total"]), (200, &4.into()));
}

#[test]
fn requests_are_told_line_by_line() {
    let (folder, server) = (Folder::new(), Server::echo("a"));
    for format in ["json", "haproxy"] {
        let file = folder.0.join(format);
        let log = format!(r#", "log": {{ "to": {{ "file": "{}" }}, "format": "{format}" }}"#, file.display());
        let proxy = Proxy::start_with(&[server.address], "", "", &log);
        let answer = proxy.ask(GET);
        proxy.ask("GET /\"x\" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let text = || std::fs::read_to_string(&file).unwrap_or_default();
        // What was no request has a line of the same form.
        proxy.ask("GET\r\n\r\n");
        eventually("three lines", || text().lines().count() == 3 && text().ends_with('\n'));
        let text = text();
        let line = text.lines().next().unwrap();
        if format == "json" {
            let json: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(json["host"], "a.example", "{line}");
            assert_eq!(json["path"], "/path?q");
            assert_eq!((&json["pool"], &json["server"]), (&"web".into(), &"s0".into()));
            assert_eq!(json["status"], 200);
            assert_eq!(json["sent"], answer.len());
            assert_eq!(json["ended"], "--");
            assert!(json["total_ms"].is_u64() && json["connect_ms"].is_u64() && json["answer_ms"].is_u64());
        } else {
            assert!(line.contains("] web web/s0 0/0/"), "{line}");
            assert!(line.ends_with(" - - ---- 0/0/0/0/0 0/0 \"GET /path?q HTTP/1.1\""), "{line}");
            assert!(text.lines().nth(1).unwrap().contains("\"GET /#22x#22 HTTP/1.1\""), "{text}");
            let none = text.lines().nth(2).unwrap();
            assert!(none.contains("] web web/<NOSRV> -1/-1/-1/-1/") && none.contains(" 400 "), "{none}");
            assert!(none.ends_with(" - - PR-- 0/0/0/0/0 0/0 \"<BADREQ>\""), "{none}");
        }
    }
}

#[test]
fn a_log_that_cannot_be_written_stops_nobody() {
    let server = Server::echo("a");
    let log = r#", "log": { "to": { "file": "/nowhere/at/all" }, "queue": 2 }"#;
    let proxy = Proxy::start_with(&[server.address], "", "", log);
    for _ in 0..20 {
        let answer = proxy.ask(GET);
        assert_eq!(header(&answer, "server"), Some("a"));
    }
}
