//! The daemon as a whole: what is started in which order, and taken down in reverse.
//!
//! Everything that can be refused is refused before anything is changed; whatever fails later takes down
//! what was put up before it. The order of a start:
//!
//! ```text
//! configuration ─ interfaces ─ admin socket ─ program loaded ─ maps filled ─ attached ─ VIP addresses ─ the loop
//! ```
//!
//! The maps know the VIPs before the first client can: a connection that comes early is dropped until a server
//! is known to be up, and tried again by the client. Left to the host it would be refused.

mod interfaces;
mod serve;

use std::{
    collections::HashSet, net::SocketAddr, panic::AssertUnwindSafe, path::PathBuf, sync::Arc, time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use futures_util::FutureExt as _;
use l7_spec::Span;
use tokio::sync::{Mutex, Notify, watch};
use tracing::{info, warn};

pub(crate) use self::interfaces::{attach_all, confirm, find_links, lost};
use self::{
    interfaces::warn_of_veth,
    serve::{Reload, serve},
};
use crate::{
    admin,
    datapath::{
        attach::{Program, Wanted},
        events::Events,
        flows::FlowTables,
        load::{Loaded, Sizes, load_onto},
        maps::Maps,
    },
    hops::Scout,
    l7, listeners,
    lock::Lock,
    memory::{self, Notebook},
    metrics,
    model::{Config, PortRange},
    names::{self, Findings},
    netlink::{Netlink, links::Link, sysctl, watch::Watch},
    notify::Manager,
    picture::{self, About},
    plan::{proxied, snat},
    premises::Host,
    reconcile::Reconciler,
    reload::{self},
    signals::Signals,
    snapshot::Interface,
    takeover::{self, Found},
    vip_addresses::{self, VipAddresses},
    ways_back::{self, WaysBack},
};

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    /// Interfaces to attach to; at least one.
    pub interfaces: Vec<String>,
    /// The configuration file that `config` came from, if there is one.
    pub config_file: Option<PathBuf>,
    /// Where `lbctl` finds us.
    pub socket: PathBuf,
    /// How to attach.
    pub xdp_mode: Wanted,
    /// Where metrics are told over TCP.
    pub metrics: Option<SocketAddr>,
    /// Where the admin interface is served over TCP, and what protects it there.
    pub api: Option<admin::remote::Options>,
    /// Where changes are written down that lbctl asks for.
    pub audit: PathBuf,
    /// What becomes of other configurations.
    pub reload: reload::Options,
    /// The proxy for VIPs that the kernel cannot forward.
    pub l7: l7::Options,
    /// What to go on with, and what to leave.
    pub takeover: takeover::Options,
}

/// How long a start that takes over looks for the ways to the servers.
const FIND_SERVERS: Duration = Duration::from_secs(2);

/// Runs the balancer until it is told to stop.
///
/// # Errors
/// When it cannot start; nothing of it is left behind then.
pub async fn run(options: &Options, config: Config) -> Result<()> {
    // Before anything is changed, so that no signal finds us half way.
    let mut signals = Signals::listen()?;
    let (notices, link_notices) = (Watch::start()?, Watch::start()?);

    require_root()?;
    let (config, own_ports) = (Arc::new(config), sysctl::ip_local_port_range()?);
    let snat_ports = snat::ports(config.snat_ports, own_ports).map_err(|problem| anyhow!(problem))?;
    let netlink = Netlink::open()?;
    let _lock = Lock::take()?;
    // With its sockets, which then are ours and no others' on the VIPs' ports.
    // Whoever answers there, in another network namespace perhaps, has the l7-proxy whose sockets are beside it.
    admin::socket::check_free(&options.socket).await?;
    let proxy_before = l7::find(&options.l7.socket);
    let proxy_before = proxy_before.unwrap_or_else(|error| {
        warn!("the l7-proxy that was left does not answer ({error}); another one is started");
        None
    });
    if proxy_before.is_none() {
        // What cannot be spoken to, or found, must not keep the ports for ever.
        l7::kill_holders(&listeners::of_proxied(&config)?);
    }
    let of_vips = proxy_before.as_ref().map(l7::Found::sockets).unwrap_or_default();
    refuse_conflicts(&netlink, own_ports, &config, &of_vips).await?;
    let socket = admin::Socket::bind(&options.socket).await?;
    let metrics = match options.metrics {
        Some(address) => {
            let bound = metrics::serve::bind(address).await;
            Some(bound.with_context(|| format!("cannot listen on {address} for --metrics"))?)
        }
        None => None,
    };
    let api = options.api.as_ref().map(admin::remote::Api::open).transpose().map_err(|why| anyhow!(why))?;
    // A VIP must not take their packets away from them.
    refuse_conflicts(&netlink, own_ports, &config, &of_vips).await?;
    let if_refused = if proxy_before.is_some() { l7::Ending::GoesOn } else { l7::Ending::Now };
    let (proxy, proxy_thread) = l7::Keeper::start(options.l7.clone(), proxy_before)?;
    // What is wrong with one VIP keeps no other from being served: it is said, and tried again when files change.
    let objections = proxy.check(proxied::of_config(&config)).await.err().unwrap_or_default();
    if objections.iter().any(|objection| objection.vip.is_none()) {
        proxy.end(if_refused).await;
        bail!("{}", l7::lines(&objections));
    }
    let mut found = match Found::look(&options.takeover) {
        Ok(found) => found,
        Err(error) => {
            proxy.end(if_refused).await;
            return Err(error);
        }
    };
    let links = match find_links(&netlink, &options.interfaces, found.pins.as_ref()).await {
        Ok(links) => links,
        Err(error) => {
            found.give_up(&options.takeover);
            proxy.end(if_refused).await;
            return Err(error);
        }
    };
    let started = match start(&mut found, options, &config, &netlink, &links, snat_ports).await {
        Ok(started) => started,
        Err(error) => {
            found.give_up(&options.takeover);
            proxy.end(if_refused).await;
            return Err(error);
        }
    };
    let Started {
        mut program,
        reconciler,
        scout,
        flows,
        events,
        interfaces,
        addresses,
        ways,
        notebook,
        findings,
    } = started;
    let resumed = found.kept.is_some();
    let (reload_outcome, last_reload) = watch::channel(None);
    let about = About {
        now: reload::unix_time,
        started: reload::unix_time(),
        config_file: options.config_file.as_ref().map(|path| path.display().to_string()),
        interfaces,
        flow_capacity: flows.capacity(),
        tag_capacity: flows.tag_capacity(),
        reasons_before: found.reasons(),
        last_reload,
        proxy: proxy.clone(),
    };
    if let Some(pins) = &found.pins {
        pins.settle(&links.iter().map(|link| link.index).collect::<Vec<_>>());
    }
    if resumed {
        info!("took over from the lb-user before, with its connections");
    }
    report(&config, &about);
    let manager = Arc::new(Manager::of_environment());
    manager.ready(&format!("{} VIPs", config.vips.len()));
    let (addresses, ways, hangup) = (Mutex::new(addresses), Mutex::new(ways), Notify::new());
    let keep_forwarding = options.takeover.keep_forwarding;
    let outcome = {
        let reload = Reload {
            config,
            findings,
            options: &options.reload,
            audit: &options.audit,
            file: options.config_file.clone(),
            outcome: reload_outcome,
            own_ports,
            addresses: &addresses,
            ways: &ways,
            netlink: &netlink,
            links: &links,
            hangup: &hangup,
            metrics,
            api,
            manager: Arc::clone(&manager),
            proxy: proxy.clone(),
        };
        // A bug in there must not keep the addresses from being taken off.
        let serving =
            AssertUnwindSafe(serve(reconciler, scout, flows, events, socket, about, notebook, reload))
                .catch_unwind();
        tokio::select! {
            outcome = serving => outcome.unwrap_or_else(|_| bail!("a bug in lb-user ended it; see above")),
            never = vip_addresses::keep_up(&addresses, &netlink, notices) => match never {},
            never = ways_back::keep_up(&ways, &netlink, &proxy) => match never {},
            error = lost(&netlink, &links, link_notices) => Err(error),
            () = told_to_stop(&mut signals, &hangup, &manager, (!keep_forwarding).then_some(&proxy)) => Ok(()),
        }
    };
    proxy.end(if keep_forwarding { l7::Ending::GoesOn } else { l7::Ending::Soon }).await;
    let _ = proxy_thread.join();
    if keep_forwarding {
        info!("stopped; the program goes on forwarding");
        return outcome;
    }
    // Addresses first: while the program is attached, no packet to a VIP reaches the host, which would
    // reset its connection.
    addresses.into_inner().take_down(&netlink).await;
    ways.into_inner().take_down(&netlink).await;
    program.detach();
    if let Some(pins) = found.pins {
        pins.remove();
        memory::close(&options.takeover.state);
    }
    info!("stopped");
    outcome
}

/// Refuses a configuration that cannot be beside what this host has.
async fn refuse_conflicts(
    netlink: &Netlink,
    own_ports: PortRange,
    config: &Config,
    of_vips: &HashSet<u64>,
) -> Result<()> {
    let conflicts = Host::look(netlink, own_ports).await?.conflicts(config, of_vips);
    let conflicts: Vec<_> = conflicts.iter().map(ToString::to_string).collect();
    ensure!(conflicts.is_empty(), "{}", conflicts.join("; "));
    Ok(())
}

/// Waits until it is time to stop: told to, and what is in front of a proxy that ends too has had the time to go elsewhere.
/// Meanwhile everything goes on.
async fn told_to_stop(signals: &mut Signals, hangup: &Notify, manager: &Manager, proxy: Option<&l7::Handle>) {
    info!("stopping: {}", signals.stop(hangup).await);
    manager.stopping();
    let Some(proxy) = proxy else { return };
    let grace = proxy.announce().await;
    if grace > Span::ZERO {
        info!("stopping in {grace}; /health says so already");
        tokio::select! {
            () = tokio::time::sleep(grace.get()) => {}
            name = signals.stop(hangup) => info!("stopping at once: {name}"),
        }
    }
}

/// What a start has put up.
struct Started {
    program: Program,
    reconciler: Reconciler<Maps>,
    scout: Scout,
    flows: FlowTables,
    events: Events,
    interfaces: Vec<Interface>,
    addresses: VipAddresses,
    ways: WaysBack,
    notebook: Option<Notebook>,
    /// Where servers that are known by name were last.
    findings: Findings,
}

/// Loads the program, fills its maps, attaches it, puts up the VIPs' addresses. What fails half way is undone, but
/// for what is pinned.
async fn start(
    found: &mut Found,
    options: &Options,
    config: &Arc<Config>,
    netlink: &Netlink,
    links: &[Link],
    snat_ports: PortRange,
) -> Result<Started> {
    let Loaded { mut program, maps, flows, events, shape, moving } =
        load_onto(found.tables(sizes(config)), found.pins.as_ref())?;
    let (facts, rings) = found.facts()?;
    let findings = facts.ids.as_ref().map(|ids| names::remembered(config, ids)).unwrap_or_default();
    let placed = config.with_addresses(&findings);
    let servers = reload::servers(&placed);
    let mut reconciler = Reconciler::resume(maps, placed, snat_ports, shape, facts, rings)?;
    reconciler.ledger.use_text(options.reload.text.as_str().into());
    let mut scout = Scout::new(Netlink::open()?, links.iter().map(|link| link.index).collect());
    // Flows that are under way must not be led to a server whose MAC is only about to be known.
    let patience = if found.kept.is_some() { FIND_SERVERS } else { Duration::ZERO };
    reconciler.on_surroundings(scout.settle(&servers, patience).await?);
    let operations = reconciler.plan(Duration::ZERO);
    let mut notebook = found.notebook(&options.takeover, shape.seed)?;
    if let Some(notebook) = &mut notebook {
        notebook.write(reconciler.edition(), || reconciler.facts());
    }
    reconciler.carry_out(operations, Duration::ZERO)?;
    if let Some(moving) = moving {
        moving.carry_over()?;
    }
    let interfaces = attach_all(&mut program, links, options.xdp_mode, found.pins.as_ref())?;
    confirm(netlink, &interfaces).await?;
    // What works is not warned of again.
    if found.kept.is_none() {
        warn_of_veth(links, &interfaces);
    }
    if let Some(notebook) = &mut notebook {
        // The program before has counted to the end.
        notebook.count_from(picture::carried_over(&found.reasons(), &[]));
    }
    let ways = match WaysBack::put_up(netlink, &config.with_addresses(&findings)).await {
        Ok(ways) => ways,
        Err((half, error)) => {
            if found.kept.is_none() {
                half.undo(netlink).await;
            }
            return Err(error.into());
        }
    };
    match VipAddresses::put_up(netlink, config, links).await {
        Ok(addresses) => Ok(Started {
            program,
            reconciler,
            scout,
            flows,
            events,
            interfaces,
            addresses,
            ways,
            notebook,
            findings,
        }),
        Err((half, error)) => {
            if found.kept.is_none() {
                half.take_down(netlink).await;
                ways.undo(netlink).await;
            }
            Err(error)
        }
    }
}

pub(crate) fn require_root() -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    bail!("lb-user must run as root: it loads a kernel program and changes interfaces (try sudo)")
}

/// How large the flow tables are to be.
fn sizes(config: &Config) -> Sizes {
    Sizes { flows: config.flows.translated, tags: config.flows.tags }
}

/// Says once what is going to happen.
fn report(config: &Config, about: &About) {
    if about.config_file.is_none() {
        info!("there is no configuration file; starting empty");
    }
    for interface in &about.interfaces {
        let Interface { name, xdp_mode, program_id, .. } = interface;
        info!("attached to {name} with {xdp_mode} XDP (program {program_id})");
    }
    if config.vips.is_empty() {
        info!("there are no VIPs; every packet is left to this host");
    }
    ways_back::report(config);
    info!("ready");
}
