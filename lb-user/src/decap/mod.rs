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

use std::{collections::BTreeSet, io::Write as _};

use anyhow::{Result, ensure};
use lb_common::decap::{MAX_RULES, Outcome, Rule};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{debug, info, warn};

use crate::{
    app,
    datapath::{attach::Wanted, decap as datapath},
    netlink::{Netlink, watch::Watch},
};
use rules::{Limits, Network, rules};

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
    #[arg(long, value_name = "PORT", default_value_t = lb_common::wire::tunnel::GUE_PORT)]
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
    let (mut notices, link_notices) = (Watch::start()?, Watch::start()?);
    app::require_root()?;
    let netlink = Netlink::open()?;
    let links = app::find_links(&netlink, &options.interfaces).await?;
    let (mut program, maps) = datapath::load(options.gue_port)?;
    let limits = Limits { at: options.at.clone(), from: options.from.clone(), to: options.to.clone() };
    let attached = links.iter().map(|link| link.index).collect();
    let mut gate = Gate { limits, attached, maps, written: BTreeSet::new() };
    gate.update(&netlink).await?;
    let interfaces = app::attach_all(&mut program, &links, options.xdp_mode)?;
    app::confirm(&netlink, &interfaces).await?;
    for interface in &interfaces {
        info!("decapsulating on {} with {} XDP", interface.name, interface.xdp_mode);
    }
    if options.from.is_empty() {
        warn!("anyone may send packets through a tunnel to this host; name the balancers with --from");
    }

    let gone = app::lost(&netlink, &links, link_notices);
    tokio::pin!(gone);
    let outcome = loop {
        tokio::select! {
            request = signals.next() => match request {
                Request::Counters => print(&gate.maps),
                Request::Stop(name) => {
                    info!("stopping: {name}");
                    break Ok(());
                }
            },
            changed = notices.changed() => if changed.concerns_addresses()
                && let Err(error) = gate.update(&netlink).await
            {
                warn!("what may be decapsulated stays as it is: {error:#}");
            },
            error = &mut gone => break Err(error),
        }
    };
    program.detach();
    print(&gate.maps);
    outcome
}

/// The rules in the kernel, and what they follow from.
struct Gate {
    limits: Limits,
    attached: Vec<u32>,
    maps: datapath::Maps,
    written: BTreeSet<Rule>,
}

impl Gate {
    /// Makes the rules follow the addresses of this host.
    async fn update(&mut self, netlink: &Netlink) -> Result<()> {
        let addresses = netlink.addresses().await?;
        let wanted = rules(&self.limits, &self.attached, &addresses);
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
            self.maps.forbid(rule)?;
            self.written.remove(&rule);
        }
        for rule in new {
            self.maps.allow(rule)?;
            self.written.insert(rule);
        }
        debug!("{} rules", wanted.len());
        Ok(())
    }
}

/// Prints how many packets met which fate: a line for each, its name and a number.
fn print(maps: &datapath::Maps) {
    match maps.outcomes() {
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

/// What a signal asks for.
enum Request {
    Stop(&'static str),
    Counters,
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

    async fn next(&mut self) -> Request {
        tokio::select! {
            _ = self.terminate.recv() => Request::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Request::Stop("SIGINT"),
            _ = self.quit.recv() => Request::Stop("SIGQUIT"),
            _ = self.hangup.recv() => Request::Stop("SIGHUP"),
            _ = self.user.recv() => Request::Counters,
        }
    }
}
