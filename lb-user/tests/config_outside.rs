//! What is said about the files that a configuration names, and about the host it is checked on: all of it, word by word.

use std::{collections::HashMap, fs, net::TcpListener, path::Path, process::Command};

use lb_user::config::{check, outside::judge};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};

/// Midnight of 2026-01-01, in seconds since 1970.
const NOW: i64 = 1_767_225_600;

/// A certificate that is valid from one day to another, and its key.
fn certificate(from: (i32, u8, u8), until: (i32, u8, u8)) -> (String, String) {
    let mut parameters = CertificateParams::new(["lb.example".to_owned()]).unwrap();
    parameters.not_before = date_time_ymd(from.0, from.1, from.2);
    parameters.not_after = date_time_ymd(until.0, until.1, until.2);
    let key = KeyPair::generate().unwrap();
    (parameters.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// What is said about `text` where these files are.
fn said(text: &str, files: &HashMap<&str, Vec<u8>>) -> String {
    let checked = check("lb.toml", text).unwrap_or_else(|wrong| panic!("{wrong}"));
    let content = |path: &Path| {
        let name = path.to_str().unwrap();
        files.get(name).cloned().ok_or_else(|| "No such file or directory (os error 2)".to_owned())
    };
    judge(&checked, content, NOW).iter().map(|finding| format!("{finding}\n")).collect()
}

const PROXIED: &str = r#"
[pool.web]
servers = [{ name = "a", address = "10.0.0.11" }]
[vip_defaults]
address = "10.0.0.1"
mode = "http"
pool = "web"
"#;

/// A VIP for each file, on line 8 and every third one from there.
fn with_certificates(names: &[&str]) -> String {
    let vip = |(index, name): (usize, &&str)| {
        format!("[vip.v{index}]\nport = {}\ntls = {{ certificates = [\"{name}\"] }}\n", 80 + index)
    };
    PROXIED.to_owned() + &names.iter().enumerate().map(vip).collect::<String>()
}

#[test]
fn certificates_that_cannot_be_served() {
    let (good, key) = certificate((2025, 1, 1), (2027, 1, 1));
    let (_, other) = certificate((2025, 1, 1), (2027, 1, 1));
    let names = ["good", "gone", "text", "bare", "two", "stranger", "locked", "cut", "odd"];
    let files = HashMap::from([
        ("good", format!("{key}{good}").into_bytes()),
        ("text", b"hello".to_vec()),
        ("bare", good.clone().into_bytes()),
        ("two", format!("{good}{key}{other}").into_bytes()),
        ("stranger", format!("{good}{other}").into_bytes()),
        ("locked", b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n".to_vec()),
        ("cut", good.as_bytes()[..good.len() / 2].to_vec()),
        ("odd", format!("{good}-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").into_bytes()),
    ]);
    assert_eq!(
        said(&with_certificates(&names), &files),
        "\
lb.toml:13:25: error: VIP \"v1\": the certificate gone cannot be read: No such file or directory (os error 2); it is looked for from the folder of this configuration file on
lb.toml:16:25: error: VIP \"v2\": the certificate text: there is no certificate in it; it must have the certificate, its chain and its key
lb.toml:19:25: error: VIP \"v3\": the certificate bare: there is no key in it; append the key of the certificate
lb.toml:22:25: error: VIP \"v4\": the certificate two: there are 2 keys in it; leave the one of the certificate
lb.toml:25:25: error: VIP \"v5\": the certificate stranger: its key belongs to none of its certificates; put in the key that the certificate was made for
lb.toml:28:25: error: VIP \"v6\": the certificate locked: its key is encrypted, and nobody is there to give the passphrase; store it without
lb.toml:31:25: error: VIP \"v7\": the certificate cut: it is no PEM: a section of it has no proper end or text
lb.toml:34:25: error: VIP \"v8\": the certificate odd: its key is of no kind that TLS here can use; take RSA, ECDSA or Ed25519
"
    );
}

#[test]
fn certificates_that_are_too_old_or_too_young() {
    let file = |from, until| {
        let (certificate, key) = certificate(from, until);
        (certificate + &key).into_bytes()
    };
    let names = ["soon", "enough", "over", "hours", "young"];
    let files = HashMap::from([
        ("soon", file((2025, 1, 1), (2026, 1, 30))),
        ("enough", file((2025, 1, 1), (2026, 1, 31))),
        ("over", file((2025, 1, 1), (2025, 12, 30))),
        ("hours", file((2025, 1, 1), (2026, 1, 2))),
        ("young", file((2026, 1, 4), (2027, 1, 1))),
    ]);
    assert_eq!(
        said(&with_certificates(&names), &files),
        "\
lb.toml:10:25: warning: VIP \"v0\": the certificate soon expires in 29 days; renew it
lb.toml:16:25: warning: VIP \"v2\": the certificate over expired 2 days ago and is refused by those who look; renew it
lb.toml:19:25: warning: VIP \"v3\": the certificate hours expires in 1 day; renew it
lb.toml:22:25: warning: VIP \"v4\": the certificate young is only valid in 3 days; is this host's clock right?
"
    );
}

#[test]
fn files_of_checks_and_pages() {
    let (authority, _) = certificate((2025, 1, 1), (2026, 1, 11));
    let text = r#"
[pool.web]
servers = [{ name = "a", address = "10.0.0.11" }]
[pool.redis]
servers = [{ name = "a", address = "10.0.0.11" }]
health = { check = "redis", password_file = "/etc/secret" }
[vip_defaults]
address = "10.0.0.1"
mode = "http"
pool = "web"
health = { ca = "old.pem" }
error_pages = { 502 = "502.http", 503 = "503.http" }
[vip.plain]
port = 80
[vip.https]
port = 81
health = { check = "https" }
[vip.tls]
port = 82
health = { check = "tls", ca = "gone.pem" }
[vip.blind]
port = 83
health = { check = "tls", verify = false }
[vip.redis]
port = 84
pool = "redis"
[vip.pages]
port = 85
error_pages = { 503 = "own.http" }
[vip.again]
port = 86
"#;
    let files = HashMap::from([
        ("old.pem", authority.into_bytes()),
        ("/etc/secret", b"\nsecret\n".to_vec()),
        ("502.http", b"HTTP/1.1 502 Bad\r\n\r\n".to_vec()),
        ("own.http", Vec::new()),
    ]);
    assert_eq!(
        said(text, &files),
        "\
lb.toml:6:45: error: VIP \"redis\": the password file /etc/secret has no text in its first line, which is the password
lb.toml:11:17: warning: VIP \"https\": ca: the file old.pem expires in 10 days; renew it
lb.toml:12:41: error: VIPs \"plain\", \"https\", \"tls\" and 3 more: the error page 503.http cannot be read: No such file or directory (os error 2); it is looked for from the folder of this configuration file on
lb.toml:20:32: error: VIP \"tls\": ca: the file gone.pem cannot be read: No such file or directory (os error 2); it is looked for from the folder of this configuration file on
lb.toml:29:23: error: VIP \"pages\": the error page own.http is empty
"
    );
}

/// A host that is looked at: exit code and what is printed.
fn checked_here(text: &str, more: &[&str]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lb.toml");
    fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lb-user"));
    let output = command.args(["--check", "--config"]).arg(&file).args(more).output().unwrap();
    let printed = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), printed.replace(folder.path().to_str().unwrap(), ""))
}

#[test]
fn a_listener_on_a_vips_port_is_an_error_on_this_host_and_none_elsewhere() {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let (port, pid) = (listener.local_addr().unwrap().port(), std::process::id());
    let name = fs::read_to_string("/proc/self/comm").unwrap();
    let text = format!(
        "[pool.p]\nservers = [{{ name = \"s\", address = \"192.0.2.9\" }}]\n[vip.ssh]\naddress = \"192.0.2.1\"\nport = {port}\nmode = \"snat\"\npool = \"p\"\n"
    );
    let (code, printed) = checked_here(&text, &[]);
    assert_eq!(code, Some(1), "{printed}");
    let line = format!(
        "/lb.toml:5:8: error: VIP \"ssh\": tcp port {port} is in use: {} (pid {pid}) on this host listens on 0.0.0.0; \
         bind it to another address, stop it, or give the VIP another port\n",
        name.trim()
    );
    assert!(printed.starts_with(&line), "{printed}");
    assert_eq!(checked_here(&text, &["--elsewhere"]), (Some(0), String::new()));
}

#[test]
fn a_file_that_is_missing_is_an_error_on_this_host_and_none_elsewhere() {
    let text = with_certificates(&["gone.pem"]);
    let (code, printed) = checked_here(&text, &[]);
    assert_eq!(code, Some(1), "{printed}");
    assert!(
        printed.starts_with("/lb.toml:10:25: error: VIP \"v0\": the certificate gone.pem cannot be read: "),
        "{printed}"
    );
    assert_eq!(checked_here(&text, &["--elsewhere"]), (Some(0), String::new()));
}
