//! Health checks: inheritance key by key, defaults, and what must fit together.

use std::time::Duration;

use crate::{
    config::{
        raw::{CheckKind, RawHealth},
        reader::{Field, Located},
        report::{Place, Report},
        values::show,
    },
    model::{Check, HealthCheck, StatusRanges},
};

const INTERVAL: Duration = Duration::from_secs(2);
const LONGEST_DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);
const RISE: u32 = 2;
const FALL: u32 = 3;
const PATH: &str = "/";
const EXPECT: (u16, u16) = (200, 399);

/// What holds where `own` is written and `inherited` holds around it.
pub(super) fn inherit(own: &RawHealth, inherited: &RawHealth) -> RawHealth {
    RawHealth {
        check: *own.check.or(&inherited.check),
        interval: *own.interval.or(&inherited.interval),
        timeout: *own.timeout.or(&inherited.timeout),
        rise: *own.rise.or(&inherited.rise),
        fall: *own.fall.or(&inherited.fall),
        port: *own.port.or(&inherited.port),
        path: own.path.or(&inherited.path).clone(),
        expect: own.expect.or(&inherited.expect).clone(),
    }
}

/// Reports `path` and `expect` of `own` where the check that holds is not over HTTP.
pub(super) fn check_http_keys(own: &RawHealth, holds: &RawHealth, error: impl Fn(Place, String)) {
    // Where a table has both these keys and `check`, its reader has compared them.
    if !own.check.is_absent() || holds.check.is_broken() || kind(holds) == CheckKind::Http {
        return;
    }
    let check = kind(holds).name();
    for (key, place) in own.http_keys() {
        let remedy = format!("add check = \"http\" or remove {key}");
        error(place, format!("{key} belongs to check = \"http\", but the check here is {check:?}; {remedy}"));
    }
}

/// Reports a timeout or interval of `own` that does not fit to what holds then. What does not fit further up
/// was reported there.
pub(super) fn check_times(
    report: &Report<'_>,
    own: &RawHealth,
    holds: &RawHealth,
    error: impl Fn(Place, String),
) {
    let Some(here) = own.timeout.get().or(own.interval.get()) else { return };
    let Some(timeout) = holds.timeout.get().filter(|_| !holds.interval.is_broken()) else { return };
    if timeout.value <= interval(holds) {
        return;
    }
    let origin = |of: Option<&Located<Duration>>| match of.map(|of| report.line(of.at)) {
        Some(line) if line != report.line(here.at) => format!(" (line {line})"),
        Some(_) => String::new(),
        None => " (the default)".into(),
    };
    let (timeout_from, interval_from) = (origin(Some(timeout)), origin(holds.interval.get()));
    let (timeout, interval) = (show(timeout.value), show(interval(holds)));
    error(
        here.at,
        format!(
            "timeout {timeout}{timeout_from} is longer than interval {interval}{interval_from}; a probe must end \
             before the next one starts"
        ),
    );
}

/// The check that holds, with everything filled in. What is broken was reported; then the result is not used.
pub(super) fn resolve(holds: &RawHealth) -> HealthCheck {
    let interval = interval(holds);
    let check = match kind(holds) {
        CheckKind::Tcp => Check::Tcp,
        CheckKind::None => Check::None,
        CheckKind::Http => Check::Http {
            path: holds.path.value().cloned().unwrap_or_else(|| PATH.into()),
            expect: holds.expect.value().cloned().unwrap_or_else(|| StatusRanges(vec![EXPECT])),
        },
    };
    HealthCheck {
        check,
        interval,
        timeout: or(&holds.timeout, LONGEST_DEFAULT_TIMEOUT.min(interval)),
        rise: or(&holds.rise, RISE),
        fall: or(&holds.fall, FALL),
        port: holds.port.value().copied(),
    }
}

fn kind(holds: &RawHealth) -> CheckKind {
    or(&holds.check, CheckKind::Tcp)
}

fn interval(holds: &RawHealth) -> Duration {
    or(&holds.interval, INTERVAL)
}

fn or<T: Copy>(field: &Field<T>, default: T) -> T {
    field.value().copied().unwrap_or(default)
}
