//! Files as operators have them.

use std::{fs::Permissions, os::unix::fs::PermissionsExt as _};

use super::*;
use crate::admin::role::Role;

/// A folder with a certificate and a token of each role; the secrets, the least role first.
pub(crate) fn folder() -> (tempfile::TempDir, Files, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    write(&place("cert.pem"), &certificate(4096));
    let made: Vec<_> =
        Role::ALL.iter().map(|role| Token::make(&format!("the-{role}"), *role, None).unwrap()).collect();
    let lines: Vec<_> = made.iter().map(|(line, _)| line.as_str()).collect();
    write(&place("tokens"), &lines.join("\n"));
    let files = Files { certificate: place("cert.pem"), key: place("cert.pem"), tokens: place("tokens") };
    (folder, files, made.into_iter().map(|(_, secret)| secret).collect())
}

/// A certificate that is valid to the end of a year, with its key.
fn certificate(year: i32) -> String {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut parameters = rcgen::CertificateParams::new(names).unwrap();
    parameters.not_after = rcgen::date_time_ymd(year, 12, 31);
    let key = rcgen::KeyPair::generate().unwrap();
    parameters.self_signed(&key).unwrap().pem() + &key.serialize_pem()
}

fn write(file: &Path, text: &str) {
    fs::write(file, text).unwrap();
    fs::set_permissions(file, Permissions::from_mode(0o600)).unwrap();
}

fn shown(authorization: &str) -> HeaderMap {
    [(AUTHORIZATION, authorization.parse().unwrap())].into_iter().collect()
}

const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

#[test]
fn nothing_is_opened_that_is_not_protected() {
    let (_folder, files, _) = folder();
    Access::open(files.clone()).expect("as it should be");
    let refused = |change: &dyn Fn(&Files), why: &str| {
        let (_folder, files, _) = folder();
        change(&files);
        let error = Access::open(files).unwrap_err();
        assert!(error.contains(why), "{error}");
    };
    let chmod = |file: &Path, mode| fs::set_permissions(file, Permissions::from_mode(mode)).unwrap();
    refused(&|files| chmod(&files.tokens, 0o644), "others may read or change");
    refused(&|files| chmod(&files.tokens, 0o620), "say chmod 600");
    refused(&|files| chmod(&files.key, 0o604), "(mode 604)");
    refused(&|files| fs::remove_file(&files.tokens).unwrap(), "cannot read");
    refused(&|files| write(&files.tokens, "# nobody\n"), "there is no token in");
    refused(&|files| write(&files.tokens, "ci boss sha256:0\n"), "line 1");
    refused(&|files| write(&files.certificate, ""), "there is no certificate in");
    refused(
        &|files| {
            let pem = fs::read_to_string(&files.certificate).unwrap();
            write(&files.certificate, &pem[..pem.find("-----BEGIN PRIVATE").unwrap()]);
        },
        "there is no private key in",
    );
    let (_other, other, _) = folder();
    let error = Access::open(Files { key: other.key, ..files }).unwrap_err();
    assert!(error.contains("and its key"), "{error}");
}

#[test]
fn a_line_that_is_gone_is_a_token_that_is_revoked_and_a_bad_file_changes_nothing() {
    let (_folder, files, secrets) = folder();
    let access = Access::open(files.clone()).unwrap();
    let bearer = |secret: &str| shown(&format!("Bearer {secret}"));
    let token = access.admit(&bearer(&secrets[2]), FROM).unwrap();
    assert_eq!((token.role, access.has(&token.digest)), (Role::Admin, true));
    let text = fs::read_to_string(&files.tokens).unwrap();
    write(&files.tokens, "nonsense");
    let problems = access.read_again();
    assert!(problems.len() == 1 && problems[0].contains("the tokens stay as they were"), "{problems:?}");
    assert!(access.admit(&bearer(&secrets[2]), FROM).is_ok());
    write(&files.tokens, text.lines().next().unwrap());
    assert_eq!(access.read_again(), Vec::<String>::new());
    assert!(access.admit(&bearer(&secrets[0]), FROM).is_ok());
    assert!(matches!(access.admit(&bearer(&secrets[2]), FROM), Err(Refusal::Unauthorized { .. })));
    assert!(!access.has(&token.digest));
    write(&files.certificate, &certificate(2020));
    let odd = access.read_again();
    assert!(odd.len() == 1 && odd[0].contains("expired"), "it is used, and said: {odd:?}");
    write(&files.certificate, "");
    assert!(access.read_again()[0].contains("the certificate stays as it was"));
}

#[test]
fn who_shows_nothing_good_is_told_what_would_be_and_after_a_while_to_wait() {
    let (_folder, files, secrets) = folder();
    let access = Access::open(files).unwrap();
    let mut refused = Vec::new();
    for wrong in ["Bearer lb_00", "Basic YTpi", "Bearer", &secrets[0], "Bearer  "] {
        refused.push(access.admit(&shown(wrong), FROM).unwrap_err().body().error.message);
    }
    refused.push(access.admit(&HeaderMap::new(), FROM).unwrap_err().body().error.message);
    assert!(refused.iter().all(|why| why.to_lowercase().contains("token")), "{refused:?}");
    let mut twice = shown(&format!("Bearer {}", secrets[0]));
    twice.append(AUTHORIZATION, "Bearer x".parse().unwrap());
    assert!(access.admit(&twice, FROM).is_err());
    let all: Vec<_> = (0..10).map(|_| access.admit(&HeaderMap::new(), FROM).unwrap_err()).collect();
    assert!(matches!(all.last(), Some(Refusal::TooMany { .. })), "{all:?}");
    assert!(access.admit(&shown(&format!("bearer {}", secrets[1])), FROM).is_ok(), "a good one always");
}
