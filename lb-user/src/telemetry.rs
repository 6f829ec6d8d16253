//! Logging: one line per event on standard error, with UTC time. Colours only on a terminal.
//!
//! What is logged is chosen by a filter, from `--log` or else the environment variable `LB_LOG` or else
//! `info`: a level (`error`, `warn`, `info`, `debug`, `trace`), or a list of `module=level`, e.g.
//! `info,lb_user::health=debug`.

use std::{env, fmt, io, io::IsTerminal as _};

use tracing_subscriber::{EnvFilter, util::SubscriberInitExt as _};

/// The environment variable that holds the filter.
pub const VARIABLE: &str = "LB_LOG";

const DEFAULT: &str = "info";

/// Why logging cannot begin.
#[derive(Debug)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Starts logging for the whole process; to be called once. `option` is the value of `--log`, if given.
/// Records of libraries that use the `log` crate are included.
///
/// # Errors
/// When the filter cannot be understood, or logging has begun already.
pub fn init(option: Option<&str>) -> Result<(), Error> {
    let variable = env::var(VARIABLE).ok();
    let terminal = io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter(option, variable.as_deref())?)
        .with_writer(io::stderr)
        .with_ansi(terminal)
        .with_target(false)
        // A log that cannot be written is no reason to end: by default it is complained about on the same
        // broken stream, which panics.
        .log_internal_errors(false)
        .finish()
        .try_init()
        .map_err(|error| Error(format!("cannot start logging: {error}")))
}

/// The filter of the option, the variable or the default, in this order. An empty one counts as absent.
fn filter(option: Option<&str>, variable: Option<&str>) -> Result<EnvFilter, Error> {
    let given = [("--log", option), (VARIABLE, variable)];
    let mut given = given.into_iter().filter_map(|(source, text)| Some((source, text?.trim())));
    let (source, text) = given.find(|(_, text)| !text.is_empty()).unwrap_or(("the default", DEFAULT));
    EnvFilter::try_new(text).map_err(|error| {
        Error(format!("{source} {text:?} is not a log filter ({error}); try \"info\" or \"debug\""))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_wins_over_the_variable_and_that_over_the_default() {
        for (option, variable, chosen) in [
            (None, None, "info"),
            (None, Some("debug"), "debug"),
            (Some("warn"), Some("debug"), "warn"),
            (Some(""), Some("debug"), "debug"),
            (Some(" "), None, "info"),
            (Some("lb_user::health=trace,info"), None, "lb_user::health=trace,info"),
        ] {
            assert_eq!(filter(option, variable).unwrap().to_string(), chosen);
        }
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let error = filter(Some("health=loud"), None).unwrap_err().to_string();
        assert!(error.starts_with("--log \"health=loud\" is not a log filter ("), "{error}");
        let error = filter(None, Some("a=b=c")).unwrap_err().to_string();
        assert!(error.starts_with("LB_LOG \"a=b=c\" is not a log filter ("), "{error}");
    }
}
