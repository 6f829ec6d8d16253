//! What the proxy has against a configuration while nothing is served: for `lb-user --check`.

use std::time::{Duration, Instant};

use l7_spec::{Ask, Reply, Span, Spec};

use super::{Objection, Options, files::Files, objections, process, proxy::Proxy};

/// Starts a proxy that only says what is wrong with `spec` and with the files that it names, and ends it.
///
/// # Errors
/// That, or why it could not be asked.
pub fn check(options: &Options, spec: &Spec) -> Result<(), Vec<Objection>> {
    if spec.services.is_empty() {
        return Ok(());
    }
    ask(options, spec).unwrap_or_else(|problem| Err(vec![Objection::of_all(problem)]))
}

/// The answer; or why there is none.
fn ask(options: &Options, spec: &Spec) -> Result<Result<(), Vec<Objection>>, String> {
    // Beside one that serves, and its socket.
    let folder = tempfile::tempdir().map_err(|error| format!("cannot make a folder: {error}"))?;
    let options = Options { socket: folder.path().join("l7.sock"), ..options.clone() };
    let mute = |error| format!("l7-proxy was started and does not answer: {error}");
    let mut proxy = Proxy::reach(&options.socket, process::start(&options, Some(1))?).map_err(mute)?;
    let mut told = || {
        for (path, contents) in Files::of(&options.folder).news(&spec.files()) {
            proxy.give_file(&path, &contents)?;
        }
        proxy.ask(&Ask::Check(Box::new(spec.clone())))
    };
    let reply = told();
    if proxy.ask(&Ask::End { within: Span::ZERO, gently: false }).is_err()
        || !proxy.wait(Instant::now() + Duration::from_secs(2))
    {
        proxy.kill();
    }
    match reply.map_err(mute)? {
        Reply::Done => Ok(Ok(())),
        Reply::Wrong(problems) => Ok(Err(objections(&problems))),
        other => Err(format!("l7-proxy answered {other:?}")),
    }
}
