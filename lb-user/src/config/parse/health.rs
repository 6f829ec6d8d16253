//! Health checks: inheritance key by key, defaults, and what must fit together.

use std::{path::PathBuf, time::Duration};

use crate::{
    config::{
        outside::Role,
        raw::{CheckKind, RawHealth, check_is},
        reader::{Field, Located},
        report::{Place, Report},
        values::show,
    },
    model::{Check, HealthCheck, HttpCheck, Password, RedisCheck, Trust},
};

/// What holds where `own` is written and `inherited` holds around it.
pub(super) fn inherit(own: &RawHealth, inherited: &RawHealth) -> RawHealth {
    // Of two keys that exclude each other the nearer one holds.
    let unless = |nearer: bool| if nearer { RawHealth::default() } else { inherited.clone() };
    let password = unless(!own.password_file.is_absent()).password;
    let password_file = unless(!own.password.is_absent()).password_file;
    let verify = unless(!own.ca.is_absent()).verify;
    RawHealth {
        check: *own.check.or(&inherited.check),
        interval: *own.interval.or(&inherited.interval),
        fast_interval: *own.fast_interval.or(&inherited.fast_interval),
        down_interval: *own.down_interval.or(&inherited.down_interval),
        timeout: *own.timeout.or(&inherited.timeout),
        rise: *own.rise.or(&inherited.rise),
        fall: *own.fall.or(&inherited.fall),
        port: *own.port.or(&inherited.port),
        address: *own.address.or(&inherited.address),
        path: own.path.or(&inherited.path).clone(),
        expect: own.expect.or(&inherited.expect).clone(),
        method: own.method.or(&inherited.method).clone(),
        host: own.host.or(&inherited.host).clone(),
        headers: own.headers.or(&inherited.headers).clone(),
        body: own.body.or(&inherited.body).clone(),
        verify: *own.verify.or(&verify),
        ca: own.ca.or(&inherited.ca).clone(),
        password: own.password.or(&password).clone(),
        password_file: own.password_file.or(&password_file).clone(),
        role: *own.role.or(&inherited.role),
        user: own.user.or(&inherited.user).clone(),
        script: own.script.or(&inherited.script).clone(),
        send: own.send.or(&inherited.send).clone(),
        reply: own.reply.or(&inherited.reply).clone(),
    }
}

/// Reports keys of `own` that belong to other checks than the one that holds.
pub(super) fn check_special_keys(own: &RawHealth, holds: &RawHealth, error: impl Fn(Place, String)) {
    // Where a table has both such keys and `check`, its reader has compared them.
    if !own.check.is_absent() || holds.check.is_broken() {
        return;
    }
    let kind = kind(holds);
    for (key, place, kinds) in own.special_keys().filter(|(.., kinds)| !kinds.contains(&kind)) {
        let (needs, check) = (check_is(kinds), kind.name());
        error(
            place,
            format!(
                "{key} belongs to {needs}, but the check here is {check:?}; change check, or remove {key}"
            ),
        );
    }
}

/// Reports what the check of a VIP lacks, wherever its keys come from.
pub(super) fn check_whole(holds: &RawHealth, error: impl Fn(Place, String)) {
    let kind = kind(holds);
    if let (CheckKind::Script, Some(check), true) = (kind, holds.check.get(), holds.script.is_absent()) {
        error(check.at, "check = \"script\" needs a script; add script = [{ expect = \"220 \" }]".into());
    }
    let http = matches!(kind, CheckKind::Http | CheckKind::Https);
    if let (true, Some(body), Some("HEAD")) =
        (http, holds.body.get(), holds.method.value().map(String::as_str))
    {
        error(body.key, "body: an answer to HEAD has none; use method = \"GET\"".into());
    }
}

/// Reports times of `own` that do not fit to what holds then. What does not fit further up
/// was reported there.
pub(super) fn check_times(
    report: &Report<'_>,
    own: &RawHealth,
    holds: &RawHealth,
    error: impl Fn(Place, String),
) {
    let origin = |here: Place, of: Option<&Located<Duration>>| match of.map(|of| report.line(of.at)) {
        Some(line) if line != report.line(here) => format!(" (line {line})"),
        Some(_) => String::new(),
        None => " (the default)".into(),
    };
    let longer = |key: &str,
                  own: Option<&Located<Duration>>,
                  holds: &RawHealth,
                  field: &Field<Duration>,
                  why: &str| {
        let Some(here) = own else { return };
        let Some(time) = field.get().filter(|_| !holds.interval.is_broken()) else { return };
        if time.value > interval(holds) {
            let (from, interval_from) = (origin(here.at, Some(time)), origin(here.at, holds.interval.get()));
            let (time, interval) = (show(time.value), show(interval(holds)));
            error(
                here.at,
                format!("{key} {time}{from} is longer than interval {interval}{interval_from}; {why}"),
            );
        }
    };
    let own_interval = own.interval.get();
    let timeout = own.timeout.get().or(own_interval);
    longer("timeout", timeout, holds, &holds.timeout, "a probe must end before the next one starts");
    let fast = own.fast_interval.get().or(own_interval);
    longer("fast_interval", fast, holds, &holds.fast_interval, "make it shorter, or remove it");
}

/// The check that holds, with everything filled in. What is broken was reported; then the result is not used.
pub(super) fn resolve(holds: &RawHealth) -> HealthCheck {
    let interval = interval(holds);
    let default = HealthCheck::default();
    HealthCheck {
        check: resolve_check(holds),
        interval,
        fast_interval: holds.fast_interval.value().copied(),
        down_interval: holds.down_interval.value().copied(),
        timeout: or(&holds.timeout, default.timeout.min(interval)),
        rise: or(&holds.rise, default.rise),
        fall: or(&holds.fall, default.fall),
        port: holds.port.value().copied(),
        address: holds.address.value().copied(),
    }
}

fn resolve_check(holds: &RawHealth) -> Check {
    match kind(holds) {
        CheckKind::Tcp => Check::Tcp,
        CheckKind::Tls => Check::Tls { host: holds.host.value().cloned(), trust: trust(holds) },
        CheckKind::Http => Check::Http(http(holds, None)),
        CheckKind::Https => Check::Http(http(holds, Some(trust(holds)))),
        CheckKind::Redis => {
            let text = holds.password.value().cloned().map(Password::Text);
            let file = holds.password_file.value().cloned().map(Password::File);
            Check::Redis(RedisCheck { password: text.or(file), master: or(&holds.role, true) })
        }
        CheckKind::Mysql => Check::Mysql { user: holds.user.value().cloned() },
        CheckKind::Script => Check::Script(holds.script.value().cloned().unwrap_or_default()),
        CheckKind::Udp => Check::Udp {
            send: holds.send.value().cloned().unwrap_or_default(),
            reply: holds.reply.value().cloned(),
        },
        CheckKind::Icmp => Check::Icmp,
        CheckKind::None => Check::None,
    }
}

fn http(holds: &RawHealth, tls: Option<Trust>) -> HttpCheck {
    let default = HttpCheck::default();
    HttpCheck {
        tls,
        method: holds.method.value().cloned().unwrap_or(default.method),
        path: holds.path.value().cloned().unwrap_or(default.path),
        host: holds.host.value().cloned(),
        headers: holds.headers.value().cloned().unwrap_or_default(),
        expect: holds.expect.value().cloned().unwrap_or(default.expect),
        body: holds.body.value().cloned(),
    }
}

/// The file that a check needs.
pub(super) fn file(holds: &RawHealth) -> Option<(&Located<PathBuf>, Role)> {
    match kind(holds) {
        CheckKind::Redis => Some((holds.password_file.get()?, Role::Password)),
        CheckKind::Tls | CheckKind::Https if holds.verify.value() != Some(&false) => {
            Some((holds.ca.get()?, Role::Authorities))
        }
        _ => None,
    }
}

/// A file of certificates is there to be used.
fn trust(holds: &RawHealth) -> Trust {
    match (holds.verify.value(), holds.ca.value()) {
        (Some(false), _) | (None, None) => Trust::Anyone,
        (_, Some(file)) => Trust::File(file.clone()),
        (Some(true), None) => Trust::Host,
    }
}

fn kind(holds: &RawHealth) -> CheckKind {
    or(&holds.check, CheckKind::Tcp)
}

fn interval(holds: &RawHealth) -> Duration {
    or(&holds.interval, HealthCheck::default().interval)
}

fn or<T: Copy>(field: &Field<T>, default: T) -> T {
    field.value().copied().unwrap_or(default)
}
