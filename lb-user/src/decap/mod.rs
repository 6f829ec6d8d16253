//! `lb-user decap`: a server takes packets out of the tunnels that a balancer puts them into (modes `ipip` and
//! `gue`), without tunnel devices.
//!
//! It runs beside nothing else of `lb-user`: its own program, no configuration file, no socket. It says what it
//! does on standard error, and counts on standard output when it gets SIGUSR1 and when it ends.
//!
//! What may come through a tunnel has passed no filter on the way that looks at addresses. Hence the defaults: a
//! tunnel ends at an address of the interface, and what comes out of it must be for this host. Where it begins is
//! not known here; that anybody may use it unless `--from` is given is said at every start.

pub mod rules;

use std::{collections::BTreeSet, convert::Infallible, io::Write as _};

use anyhow::{Result, ensure};
use lb_common::decap::{MAX_RULES, Outcome, Rule};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{debug, info, warn};

use crate::{
    app,
    datapath::{
        attach::Wanted,
        decap::{self as datapath, Loaded},
    },
    netlink::{Netlink, watch::Watch},
};
use rules::{Limits, Network};

/// Take packets out of the tunnels of modes ipip and gue, on a server.
///
/// The server holds the VIPs on its loopback interface and answers clients itself. IP in IP and GUE (variant 1,
/// and variant 0 without options) end here, of any mix of IPv4 and IPv6. Everything else, and everything that is
/// not allowed, reaches the host as it came.
///
/// Runs in the foreground until SIGTERM or Ctrl-C. SIGUSR1 prints how many packets met which fate.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Interface that tunnels come in by; may be given several times.
    #[arg(long = "iface", value_name = "NAME", required = true)]
    pub interfaces: Vec<String>,

    /// UDP port of GUE; 0 for no GUE.
    #[arg(long, value_name = "PORT", default_value_t = lb_common::wire::udp::GUE_PORT)]
    pub gue_port: u16,

    /// Where tunnels may begin: the balancers' addresses or networks [default: anywhere, which lets anyone who
    /// reaches this host send it packets with a forged source].
    #[arg(long, value_name = "NETWORK,…", value_delimiter = ',')]
    pub from: Vec<Network>,

    /// Where tunnels may end [default: at the addresses of the interfaces]; needed where the addresses are on a
    /// VLAN, bond or bridge above the interface.
    #[arg(long, value_name = "NETWORK,…", value_delimiter = ',')]
    pub at: Vec<Network>,

    /// Where packets from a tunnel may go [default: to this host's addresses]; needed where VIPs are routed or
    /// translated rather than addresses of this host.
    #[arg(long, value_name = "NETWORK,…", value_delimiter = ',')]
    pub to: Vec<Network>,

    /// How the program runs on the interfaces.
    #[arg(long, value_name = "MODE", value_enum, default_value = "auto")]
    pub xdp_mode: Wanted,

    /// What to log: error, warn, info, debug, or module=level, comma-separated [default: $LB_LOG or info].
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
}

/// Decapsulates until it is told to stop.
///
/// # Errors
/// When it cannot start; nothing of it is left behind then. Or when all its interfaces are gone.
pub async fn run(options: &Options) -> Result<()> {
    let mut signals = Signals::listen()?;
    let (notices, link_notices) = (Watch::start()?, Watch::start()?);
    app::require_root()?;
    let netlink = Netlink::open()?;
    let links = app::find_links(&netlink, &options.interfaces, None).await?;
    let Loaded { mut program, rules, counters } = datapath::load(options.gue_port)?;
    let limits = Limits { at: options.at.clone(), from: options.from.clone(), to: options.to.clone() };
    let attached = links.iter().map(|link| link.index).collect();
    let mut gate = Gate { limits, attached, rules, written: BTreeSet::new() };
    gate.update(&netlink).await?;
    if options.from.is_empty() {
        warn!("anyone may send packets through a tunnel to this host; name the balancers with --from");
    }
    let interfaces = app::attach_all(&mut program, &links, options.xdp_mode, None)?;
    app::confirm(&netlink, &interfaces).await?;
    for interface in &interfaces {
        info!("decapsulating on {} with {} XDP", interface.name, interface.xdp_mode);
    }
    let outcome = tokio::select! {
        never = gate.follow(&netlink, notices) => match never {},
        name = signals.stop(&counters) => { info!("stopping: {name}"); Ok(()) }
        error = app::lost(&netlink, &links, link_notices) => Err(error),
    };
    program.detach();
    print(&counters);
    outcome
}

/// The rules in the kernel, and what they follow from.
struct Gate {
    limits: Limits,
    attached: Vec<u32>,
    rules: datapath::Rules,
    written: BTreeSet<Rule>,
}

impl Gate {
    /// Keeps the rules in step with the addresses of this host.
    async fn follow(&mut self, netlink: &Netlink, mut notices: Watch) -> Infallible {
        loop {
            if notices.changed().await.concerns_addresses()
                && let Err(error) = self.update(netlink).await
            {
                warn!("what may be decapsulated stays as it is: {error:#}");
            }
        }
    }

    /// Makes the rules follow the addresses of this host.
    async fn update(&mut self, netlink: &Netlink) -> Result<()> {
        let addresses = netlink.addresses().await?;
        let wanted = rules::rules(&self.limits, &self.attached, &addresses);
        ensure!(
            wanted.len() <= MAX_RULES,
            "this host's addresses and the networks given make {} rules, more than {MAX_RULES}; give networks \
             instead with --at and --to",
            wanted.len()
        );
        if wanted == self.written {
            return Ok(());
        }
        if self.limits.end_nowhere(&self.attached, &addresses) {
            warn!("the interfaces have no addresses, so no tunnel ends here; name some with --at");
        }
        let (gone, new): (Vec<_>, Vec<_>) = (
            self.written.difference(&wanted).copied().collect(),
            wanted.difference(&self.written).copied().collect(),
        );
        for rule in gone {
            self.rules.forbid(rule)?;
            self.written.remove(&rule);
        }
        for rule in new {
            self.rules.allow(rule)?;
            self.written.insert(rule);
        }
        debug!("{} rules", wanted.len());
        Ok(())
    }
}

/// Prints how many packets met which fate: a line for each, its name and a number.
fn print(counters: &datapath::Counters) {
    match counters.outcomes() {
        Ok(packets) => {
            let lines = Outcome::ALL.iter().zip(packets);
            let text: String =
                lines.map(|(outcome, packets)| format!("{:<16}{packets}\n", outcome.label())).collect();
            // Nobody may be reading; that is no reason to end.
            let _ = std::io::stdout().write_all(text.as_bytes());
        }
        Err(error) => warn!("the counters cannot be read: {error}"),
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
    user: Signal,
}

impl Signals {
    fn listen() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
        })
    }

    /// Waits for a signal that means to stop, and gives its name; prints the counters when asked to.
    async fn stop(&mut self, counters: &datapath::Counters) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.quit.recv() => return "SIGQUIT",
                _ = self.hangup.recv() => return "SIGHUP",
                _ = self.user.recv() => print(counters),
            }
        }
    }
}
