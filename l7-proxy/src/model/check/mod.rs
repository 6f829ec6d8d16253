//! From a specification to what is served.

mod pool;
mod service;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    thread,
};

use self::service::Context;
use super::Ready;
use crate::spec::{Mode, Problem, ServerProtocol, Spec};

/// Prepares everything that `spec` says. Servers that are in `before` too keep what is known of them.
///
/// # Errors
/// Everything that is wrong with it, in the order of the specification.
pub fn check(spec: &Spec, before: Option<&Ready>) -> Result<Ready, Vec<Problem>> {
    let mut problems = Vec::new();
    let workers = spec
        .workers
        .or(before.map(|before| before.workers))
        .unwrap_or_else(|| thread::available_parallelism().map_or(1, |processors| processors.get()));
    if workers == 0 || workers > 1_024 {
        problems.push(Problem::new("workers", "must be 1 to 1024"));
    }
    pools(spec, &mut problems);
    let mut names = BTreeSet::new();
    let mut listens: BTreeMap<SocketAddr, &str> = BTreeMap::new();
    let mut services = Vec::new();
    for service in &spec.services {
        let place = format!("service {}", service.name);
        let mut found = Vec::new();
        if service.name.is_empty() || !names.insert(&service.name) {
            found.push(Problem::new("name", "must be given and be unique"));
        }
        for address in &service.listen {
            if let Some(other) = listens.insert(*address, &service.name) {
                found.push(Problem::new(
                    "listen",
                    format!("{address} is listened to by service {other} already"),
                ));
            }
        }
        let context = Context { spec, service, before, workers };
        services.push(Arc::new(context.service(&mut found)));
        problems.extend(found.into_iter().map(|problem| problem.within(&place)));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Ready {
        services,
        workers,
        log: spec.log.clone(),
        limits: spec.limits.clone(),
        admin: spec.admin,
        drain: spec.drain,
    })
}

/// What is wrong with pools, whoever leads to them.
fn pools(spec: &Spec, problems: &mut Vec<Problem>) {
    let mut names = BTreeSet::new();
    for pool in &spec.pools {
        let place = format!("pool {}", pool.name);
        let mut wrong = |message: &str| problems.push(Problem::new(&place, message));
        if pool.name.is_empty() || !names.insert(&pool.name) {
            wrong("its name must be given and be unique");
        }
        if pool.protocol == ServerProtocol::Http2 && pool.mode == Some(Mode::Tcp) {
            wrong("protocol \"http2\" is for mode http");
        }
        let mut servers = BTreeSet::new();
        for server in &pool.servers {
            if server.name.is_empty() || !servers.insert(&server.name) {
                wrong("the names of its servers must be given and be unique");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(json: &str) -> String {
        let problems = check(&Spec::from_json(json).unwrap(), None).err().unwrap_or_default();
        problems.iter().map(|problem| format!("{problem}\n")).collect()
    }

    #[test]
    fn everything_that_is_wrong_is_told_with_its_place() {
        let told = problems(
            r#"{ "services": [
                { "name": "a", "listen": ["127.0.0.1:80"], "mode": "http", "pool": "x", "error_pages": { "503": "/nowhere" } },
                { "name": "a", "listen": ["127.0.0.1:80"], "mode": "http", "routes": [{ "paths": ["/"] }],
                  "headers": { "set_request": [{ "name": "Host", "value": "x" }, { "name": "A B", "value": "" }] } }],
              "pools": [{ "name": "p", "mode": "tcp", "protocol": "http2", "servers": [] }] }"#,
        );
        for part in [
            "pool p: protocol \"http2\"",
            "service a: pool: there is no pool \"x\"",
            "service a: error_pages.503: cannot read /nowhere",
            "service a: name: must be given and be unique",
            "service a: listen: 127.0.0.1:80 is listened to by service a already",
            "service a: routes[0]: needs exactly one of",
            "\"Host\" says how messages are framed",
            "\"A B\" is no name",
        ] {
            assert!(told.contains(part), "{part} is not in\n{told}");
        }
    }

    #[test]
    fn servers_that_stay_keep_what_is_known_of_them() {
        let text = |weight: u16, port: u16| {
            format!(
                r#"{{ "services": [{{ "name": "a", "listen": ["127.0.0.1:80"], "mode": "http", "pool": "p" }}],
                  "pools": [{{ "name": "p", "servers": [{{ "name": "s", "address": "127.0.0.1", "port": {port}, "weight": {weight} }}] }}] }}"#
            )
        };
        let ready = |weight, port, before: Option<&Ready>| {
            check(&Spec::from_json(&text(weight, port)).unwrap(), before).unwrap()
        };
        let live = |ready: &Ready| Arc::clone(&ready.services[0].pools()[0].servers[0].live);
        let first = ready(1, 8_000, None);
        let second = ready(2, 8_000, Some(&first));
        let third = ready(2, 8_001, Some(&second));
        assert!(Arc::ptr_eq(&live(&first), &live(&second)));
        assert!(!Arc::ptr_eq(&live(&second), &live(&third)), "another port is another server");
    }

    #[test]
    fn the_value_of_a_cookie_is_stable_and_says_nothing() {
        let spec = Spec::from_json(
            r#"{ "services": [{ "name": "a", "listen": ["127.0.0.1:80"], "mode": "http", "pool": "p" }], "cookie_key": "k",
                 "pools": [{ "name": "p", "servers": [{ "name": "web1", "address": "10.1.2.3" }] }] }"#,
        )
        .unwrap();
        let value = |spec: &Spec| check(spec, None).unwrap().services[0].pools()[0].servers[0].cookie.clone();
        let with_key = value(&spec);
        assert_eq!(with_key, value(&spec));
        assert!(!with_key.contains("web1") && with_key.len() == 20);
        assert_ne!(with_key, value(&Spec { cookie_key: Some("other".into()), ..spec }));
    }
}
