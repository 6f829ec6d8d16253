//! `lb-user`: the load balancer daemon. Arguments, logging and exit codes; the rest is the library.

use std::{
    collections::HashSet,
    io::{self, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{CommandFactory as _, Parser, Subcommand};
use lb_user::{
    admin::{self, access::Files, audit},
    app,
    config::{self, Checked, Diagnostic, Severity},
    datapath::attach::Wanted,
    decap, l7,
    lbctl::documents,
    memory,
    netlink::{Netlink, sysctl},
    plan::proxied,
    premises,
    reload::{
        self,
        history::{self, History},
    },
    takeover, telemetry,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Runtime;

/// Where the configuration is unless `--config` says otherwise.
const DEFAULT_CONFIG: &str = "/etc/lb/lb.toml";

/// Load balancer: forwards TCP and UDP in the kernel (XDP) to servers whose health it checks.
///
/// Runs in the foreground until SIGTERM or Ctrl-C, then takes away everything it put up, unless told to keep
/// forwarding.
#[derive(Debug, Parser)]
#[command(version, about, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Arguments {
    #[command(subcommand)]
    instead: Option<Instead>,

    /// Interface to balance on; may be given several times.
    #[arg(long = "iface", value_name = "NAME", required_unless_present_any = ["check", "cleanup"])]
    interfaces: Vec<String>,

    /// Configuration file [default: /etc/lb/lb.toml, if it exists].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// How the program runs on the interfaces.
    #[arg(long, value_name = "MODE", value_enum, default_value = "auto")]
    xdp_mode: Wanted,

    /// Socket for lbctl.
    #[arg(long, value_name = "PATH", default_value = admin::DEFAULT_SOCKET)]
    socket: PathBuf,

    /// Tell metrics (OpenMetrics) over HTTP here as well: whoever can reach it can read them.
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics: Option<SocketAddr>,

    /// Serve what lbctl asks for over TCP as well, with TLS and tokens: takes --api-cert and --api-tokens.
    #[arg(long, value_name = "ADDRESS:PORT")]
    api: Option<SocketAddr>,

    /// PEM file with the certificate for --api, its chain, and its key unless --api-key says otherwise.
    #[arg(long, value_name = "FILE", requires = "api")]
    api_cert: Option<PathBuf>,

    /// PEM file with the key of that certificate.
    #[arg(long, value_name = "FILE", requires = "api")]
    api_key: Option<PathBuf>,

    /// File with the tokens for --api, which `lbctl token new` writes.
    #[arg(long, value_name = "FILE", requires = "api")]
    api_tokens: Option<PathBuf>,

    /// Folder in a BPF file system where links and maps are pinned, so that they outlive this process.
    #[arg(long, value_name = "DIR", default_value = takeover::DEFAULT_PINS)]
    pins: PathBuf,

    /// File with what the pinned maps mean.
    #[arg(long, value_name = "FILE", default_value = memory::DEFAULT)]
    state: PathBuf,

    /// Folder where configurations that were in use are kept, for `lbctl rollback`.
    #[arg(long, value_name = "DIR", default_value = history::DEFAULT)]
    history: PathBuf,

    /// File where every change that lbctl is used for is written down, with who made it.
    #[arg(long, value_name = "FILE", default_value = audit::DEFAULT)]
    audit: PathBuf,

    /// The proxy that serves VIPs of modes http and tcp [default: l7-proxy beside lb-user, or where programs are].
    #[arg(long, value_name = "FILE")]
    l7_proxy: Option<PathBuf>,

    /// User that the proxy runs as, by name or number [default: l7-proxy, or else nobody].
    #[arg(long, value_name = "USER", default_value = "", hide_default_value = true)]
    l7_user: String,

    /// Read the configuration file again whenever it changes.
    #[arg(long)]
    watch_config: bool,

    /// Go on forwarding after SIGTERM or Ctrl-C, until the next start takes over.
    #[arg(long)]
    keep_forwarding: bool,

    /// Take away everything that an earlier lb-user has left, and end.
    #[arg(long, conflicts_with_all = ["interfaces", "check", "keep_forwarding"])]
    cleanup: bool,

    /// Only say what is wrong with the configuration: exit code 0 for nothing, 1 for errors. Looks at the files it
    /// names, at what this host listens on and has routes to, and asks l7-proxy about VIPs of modes http and tcp.
    #[arg(long)]
    check: bool,

    /// With --check: the configuration is for another host; look at nothing but the file.
    #[arg(long, requires = "check")]
    elsewhere: bool,

    /// What to log: error, warn, info, debug, or module=level, comma-separated [default: $LB_LOG or info].
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,

    /// How: lines of text, JSON, or lines for the journal [default: journal if it reads them, else text].
    #[arg(long, value_name = "FORMAT", value_enum)]
    log_format: Option<telemetry::Format>,
}

/// What `lb-user` can do instead of balancing.
#[derive(Debug, Subcommand)]
enum Instead {
    Decap(decap::Options),
    /// Write lb-user's manual pages.
    Man(documents::Man),
    /// Print a script that has a shell complete lb-user's options.
    Completions(documents::Completions),
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            say(&format!("lb-user: error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Writes a line to standard error. One that cannot be written is no reason for a panic, as `eprintln!` has it.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    if let Some(Instead::Decap(options)) = &arguments.instead {
        telemetry::init(options.log.as_deref(), None)?;
        runtime()?.block_on(decap::run(options))?;
        return Ok(ExitCode::SUCCESS);
    }
    let written = match &arguments.instead {
        Some(Instead::Man(wanted)) => Some(documents::man(Arguments::command(), wanted)),
        Some(Instead::Completions(wanted)) => Some(documents::completions(Arguments::command(), *wanted)),
        _ => None,
    };
    if let Some(written) = written {
        return written.map(|()| ExitCode::SUCCESS).map_err(|error| anyhow!("{error}"));
    }
    telemetry::init(arguments.log.as_deref(), arguments.log_format)?;
    let takeover = takeover::Options {
        pins: arguments.pins.clone(),
        state: arguments.state.clone(),
        keep_forwarding: arguments.keep_forwarding,
    };
    if arguments.cleanup {
        runtime()?.block_on(takeover::cleanup(
            &takeover,
            &arguments.socket,
            &l7_options(arguments).socket,
        ))?;
        return Ok(ExitCode::SUCCESS);
    }
    let history = History::at(&arguments.history);
    let Some(Read { file, text, checked }) = read(arguments, &history)? else {
        return Ok(ExitCode::FAILURE);
    };
    let runtime = runtime()?;
    let sound = arguments.elsewhere
        || file.as_deref().is_none_or(|file| runtime.block_on(look_around(arguments, file, &checked)));
    if arguments.check {
        return Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let (config, written) = (checked.config, checked.written);
    let options = app::Options {
        interfaces: arguments.interfaces.clone(),
        config_file: file,
        socket: arguments.socket.clone(),
        xdp_mode: arguments.xdp_mode,
        metrics: arguments.metrics,
        api: api(arguments)?,
        audit: arguments.audit.clone(),
        l7: l7_options(arguments),
        reload: reload::Options { text, written: Arc::new(written), watch: arguments.watch_config, history },
        takeover,
    };
    // A VIP that l7-proxy serves takes sockets for each of its ports. Who may not have more goes on with what there is.
    let files = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files });
    let outcome = runtime.block_on(app::run(&options, config));
    // A look-up of a name may hang for long; nobody waits for it.
    runtime.shutdown_background();
    outcome?;
    Ok(ExitCode::SUCCESS)
}

/// The API over TCP, which is never without protection.
fn api(arguments: &Arguments) -> Result<Option<admin::remote::Options>> {
    let Some(address) = arguments.api else { return Ok(None) };
    let (Some(certificate), Some(tokens)) = (&arguments.api_cert, &arguments.api_tokens) else {
        bail!(
            "--api needs --api-cert and --api-tokens: without TLS and tokens anyone who reaches {address} could change \
             this balancer (lbctl cert selfsign and lbctl token new make them)"
        );
    };
    let key = arguments.api_key.as_ref().unwrap_or(certificate).clone();
    let files = Files { certificate: certificate.clone(), key, tokens: tokens.clone() };
    Ok(Some(admin::remote::Options { address, files }))
}

/// Where l7-proxy is found, and how it is started.
fn l7_options(arguments: &Arguments) -> l7::Options {
    let config = arguments.config.as_deref().unwrap_or(Path::new(DEFAULT_CONFIG));
    l7::Options {
        socket: l7::Options::socket_beside(&arguments.socket),
        program: arguments.l7_proxy.clone().or_else(l7::Options::usual_program),
        user: arguments.l7_user.clone(),
        folder: config.parent().unwrap_or(Path::new("")).to_owned(),
    }
}

fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// What was read.
struct Read {
    file: Option<PathBuf>,
    text: String,
    checked: Checked,
}

/// Reads and checks the configuration file; prints everything that is wrong with it. `None` if that is more
/// than warnings.
fn read(arguments: &Arguments, history: &History) -> Result<Option<Read>> {
    let path = arguments.config.clone().unwrap_or_else(|| DEFAULT_CONFIG.into());
    if arguments.config.is_none() && !arguments.check && !path.exists() {
        let checked = config::check("", "").map_err(|_| anyhow!("nothing can be wrong with nothing"))?;
        return Ok(Some(Read { file: None, text: String::new(), checked }));
    }
    if !arguments.check
        && let Some(number) = history.settle(&path).map_err(anyhow::Error::msg)?
    {
        let path = path.display();
        say(&format!("lb-user: {path} had not been confirmed; it is number {number} of the history again"));
    }
    // A pipe may be checked, but not be read again.
    let read = if arguments.check { reload::read_text } else { reload::read_file };
    let text = read(&path).with_context(|| format!("cannot read the configuration {}", path.display()))?;
    let name = path.display().to_string();
    match config::check(&name, &text) {
        Ok(checked) => {
            for warning in &checked.warnings {
                say(&warning.to_string());
            }
            Ok(Some(Read { file: Some(path), text, checked }))
        }
        Err(diagnostics) => {
            say(&diagnostics.to_string());
            Ok(None)
        }
    }
}

/// Looks at what a configuration relies on outside of it, and prints what is wrong; tells whether that is no more than
/// warnings. A start goes on whatever comes of the files: most of a configuration is better than nothing.
async fn look_around(arguments: &Arguments, file: &Path, checked: &Checked) -> bool {
    let mut findings = premises::files(checked, file, reload::unix_time());
    // A start looks at the rest itself, and refuses.
    if arguments.check {
        match host_findings(arguments, checked).await {
            Ok(more) => findings.extend(more),
            Err(error) => say(&format!("lb-user: warning: this host was not looked at: {error:#}")),
        }
        // It would repeat what is known of the files.
        if findings.iter().all(|finding| finding.severity == Severity::Warning) {
            let objections = l7::check(&l7_options(arguments), &proxied::of_config(&checked.config)).err();
            findings.extend(objections.iter().flatten().map(|objection| objection.about(checked)));
        }
    }
    findings.iter().for_each(|finding| say(&finding.to_string()));
    findings.iter().all(|finding| finding.severity == Severity::Warning)
}

async fn host_findings(arguments: &Arguments, checked: &Checked) -> Result<Vec<Diagnostic>> {
    let netlink = Netlink::open()?;
    let own_ports = sysctl::ip_local_port_range()?;
    // A running balancer's proxy is where this configuration's would be.
    let of_vips = l7::sockets_at(&l7_options(arguments).socket);
    let host = premises::Host::look(&netlink, own_ports).await?;
    let mut findings = premises::conflicts(checked, &host, &of_vips, None);
    findings.extend(premises::unreachable(checked, &netlink, &HashSet::new()).await);
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_api_is_never_without_protection() {
        let at = "lb-user --iface eth0 --api [::]:9443";
        for more in ["", " --api-cert c.pem", " --api-tokens t", " --api-key k --api-tokens t"] {
            let refused = api(&parse(&format!("{at}{more}")).unwrap()).unwrap_err().to_string();
            assert!(refused.starts_with("--api needs --api-cert and --api-tokens"), "{refused}");
        }
        let whole = parse(&format!("{at} --api-cert c.pem --api-tokens t")).unwrap();
        assert_eq!(api(&whole).unwrap().unwrap().files.key, PathBuf::from("c.pem"));
        assert!(api(&parse("lb-user --iface eth0").unwrap()).unwrap().is_none());
        assert!(parse("lb-user --iface eth0 --api-tokens t").is_err());
    }

    #[test]
    fn the_balancer_needs_no_subcommand_and_decap_takes_its_place() {
        let balancer = parse("lb-user --iface eth0 --iface eth1").unwrap();
        assert!(balancer.instead.is_none() && balancer.interfaces == ["eth0", "eth1"]);
        assert!(parse("lb-user --check").is_ok());
        let decap = parse("lb-user decap --iface eth0 --from 10.0.0.1,fd00::/8 --gue-port 0").unwrap();
        let Some(Instead::Decap(options)) = decap.instead else { panic!("{decap:?}") };
        assert_eq!((options.interfaces, options.from.len(), options.gue_port), (vec!["eth0".into()], 2, 0));
        let man = parse("lb-user man --dir man").unwrap();
        assert!(matches!(man.instead, Some(Instead::Man(_))));
        Arguments::command().debug_assert();
        for wrong in ["lb-user", "lb-user decap", "lb-user --iface eth0 decap --iface eth0"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
