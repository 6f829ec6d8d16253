//! Logging: one line per event on standard error, with UTC time. Colours only on a terminal. As JSON for programs; and where
//! systemd's journal reads the lines, it is told how grave each is (sd-daemon(3)) and keeps the time itself.
//!
//! What is logged is chosen by a filter, from `--log` or else the environment variable `LB_LOG` or else
//! `info`: a level (`error`, `warn`, `info`, `debug`, `trace`), or a list of `module=level`, e.g.
//! `info,lb_user::health=debug`.

use std::{env, fmt, io, io::IsTerminal as _};

use clap::ValueEnum;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    EnvFilter,
    fmt::{
        FmtContext,
        format::{FormatEvent, FormatFields, Writer},
    },
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

/// The environment variable that holds the filter.
pub const VARIABLE: &str = "LB_LOG";

const DEFAULT: &str = "info";

/// What a line looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Time, level and message.
    Text,
    /// An object with `timestamp`, `level` and `fields.message`.
    Json,
    /// The level in the way of sd-daemon(3), and the message.
    Journal,
}

/// Why logging cannot begin.
#[derive(Debug)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Starts logging for the whole process; to be called once. `option` is the value of `--log`, if given; without a `format`
/// it follows from who reads standard error. Records of libraries that use the `log` crate are included.
///
/// # Errors
/// When the filter cannot be understood, or logging has begun already.
pub fn init(option: Option<&str>, format: Option<Format>) -> Result<(), Error> {
    let variable = env::var(VARIABLE).ok();
    let terminal = io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let format = format.unwrap_or_else(|| if journal_reads() { Format::Journal } else { Format::Text });
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter(option, variable.as_deref())?)
        .with_writer(io::stderr)
        .with_ansi(terminal && format == Format::Text)
        .with_target(false)
        // A log that cannot be written is no reason to end: by default it is complained about on the same
        // broken stream, which panics.
        .log_internal_errors(false);
    let begun = match format {
        Format::Text => lines.finish().try_init(),
        Format::Json => lines.json().finish().try_init(),
        Format::Journal => lines.event_format(ForJournal).finish().try_init(),
    };
    begun.map_err(|error| Error(format!("cannot start logging: {error}")))
}

/// Whether standard error leads to the journal, which names the file that it reads in the environment (systemd.exec(5)).
fn journal_reads() -> bool {
    let Ok(metadata) = rustix::fs::fstat(io::stderr()) else { return false };
    env::var("JOURNAL_STREAM").is_ok_and(|named| named == format!("{}:{}", metadata.st_dev, metadata.st_ino))
}

/// Lines that begin with the level in angle brackets.
struct ForJournal;

impl<S, N> FormatEvent<S, N> for ForJournal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut line: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        // The numbers of syslog (RFC 5424 §6.2.1).
        let severity = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        write!(line, "<{severity}>")?;
        context.format_fields(line.by_ref(), event)?;
        writeln!(line)
    }
}

/// What the loader of the kernel program says where only a level is given.
const LOADER: &str = "aya=info,aya_obj=info";

/// The filter of the option, the variable or the default, in this order. An empty one counts as absent.
fn filter(option: Option<&str>, variable: Option<&str>) -> Result<EnvFilter, Error> {
    let given = [("--log", option), (VARIABLE, variable)];
    let mut given = given.into_iter().filter_map(|(source, text)| Some((source, text?.trim())));
    let (source, text) = given.find(|(_, text)| !text.is_empty()).unwrap_or(("the default", DEFAULT));
    // Who wants to know more of us does not want to read every instruction that is loaded.
    let quiet = ["debug", "trace"].contains(&text.to_lowercase().as_str());
    let whole = if quiet { format!("{text},{LOADER}") } else { text.to_owned() };
    EnvFilter::try_new(whole).map_err(|error| {
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
            (None, Some("debug"), "aya_obj=info,aya=info,debug"),
            (Some("warn"), Some("debug"), "warn"),
            (Some(""), Some("TRACE"), "aya_obj=info,aya=info,trace"),
            (Some("debug,aya=debug"), None, "aya=debug,debug"),
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
