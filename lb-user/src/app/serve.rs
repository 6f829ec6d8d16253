//! Everything that runs beside the loop, and the loop.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use tokio::{
    net::TcpListener,
    sync::{Mutex, Notify, mpsc, watch},
};

use crate::{
    admin,
    connections::Connections,
    datapath::{events::Events, flows::FlowTables, maps::Maps},
    health::Checker,
    hops::{self, Scout},
    l7,
    memory::Notebook,
    metrics,
    model::{Config, PortRange},
    names::{self, Findings},
    netlink::{Netlink, links::Link, watch::Watch},
    notify::{Manager, Worker},
    picture::About,
    reconcile::{self, Inbox, Reconciler, apart::Apart},
    reload::{self, Followers, Reloader},
    snapshot::{LastReload, Snapshot},
    sweep,
    trace::Eyes,
    vip_addresses::VipAddresses,
    ways_back::WaysBack,
};

/// Messages that may wait for the loop, of each kind.
const BACKLOG: usize = 1_024;

/// Starts everything that runs beside the loop, then the loop.
#[expect(clippy::too_many_arguments, reason = "each goes to another of those who run")]
pub(super) async fn serve(
    reconciler: Reconciler<Maps>,
    scout: Scout,
    flow_tables: FlowTables,
    events: Events,
    socket: admin::Socket,
    about: About,
    notebook: Option<Notebook>,
    reload: Reload<'_>,
) -> Result<()> {
    let (health_news, health) = mpsc::channel(BACKLOG);
    let (surroundings_news, surroundings) = mpsc::channel(1);
    let (census_news, census) = mpsc::channel(1);
    let (publish, last) = watch::channel(Arc::new(Snapshot::default()));
    let (handle, requests) = admin::Handle::new(last);
    let flow_tables = Arc::new(flow_tables);
    let (eyes, eyes_inbox) = Eyes::new(events, Arc::clone(&flow_tables));
    let handle = handle
        .with_eyes(eyes)
        .with_connections(Connections::of(Arc::clone(&flow_tables), about.proxy.clone()));
    let handle = handle.with_proxy(about.proxy.clone());

    let Reload {
        config,
        findings,
        options,
        file,
        outcome,
        own_ports,
        addresses,
        ways,
        netlink,
        links,
        hangup,
        metrics,
        api,
        manager,
        audit,
        proxy,
    } = reload;
    let reload::Options { text, written, watch, history } = options.clone();
    let handle = handle.with_history(history.clone()).with_audit(admin::Audit::new(audit));
    let handle = handle.with_access(api.as_ref().map(admin::remote::Api::access));
    let placed = config.with_addresses(&findings);
    let (names, names_wanted) = watch::channel(Arc::new(names::Wanted::of(&config)));
    let (findings_news, findings) = watch::channel(Arc::new(findings));
    let (servers_news, servers) = watch::channel(reload::servers(&placed));
    // Where relative paths in the configuration start.
    let folder = file.as_deref().and_then(Path::parent).unwrap_or(Path::new("")).to_owned();
    let checker = Checker::spawn(reconciler.known_health(), health_news, &folder);
    let followers = Followers { checker, servers: servers_news, addresses, ways, netlink, links };
    followers.follow(&placed);
    let handle_of_reloader = handle.clone();
    let reloader = Reloader {
        file,
        config,
        placed,
        names,
        findings,
        text,
        written,
        watch,
        history,
        outcome,
        own_ports,
        handle: handle_of_reloader,
        proxy,
        followers,
    };
    let orders = sweep::start(flow_tables, census_news)?;

    let admin::Requests { status, commands, reloads } = requests;
    let inbox = Inbox { health, surroundings, census, status, commands, eyes: eyes_inbox };
    let reconciling =
        reconcile::run(reconciler, about, notebook, Arc::clone(&manager), inbox, orders, publish);
    let reconciling = Apart::run("reconcile", reconciling).context("cannot start a thread")?;
    tokio::select! {
        () = reconciling.ended() => bail!("the reconcile loop ended"),
        never = manager.watch(Worker::Others) => match never {},
        () = hops::run(scout, Watch::start()?, servers, surroundings_news) =>
            bail!("the watch over the network ended"),
        () = names::run(names_wanted, findings_news) => bail!("the search for servers' addresses ended"),
        () = reloader.run(reloads, hangup) => bail!("the reader of the configuration ended"),
        () = metrics::serve::serve(metrics, handle.clone()) => bail!("the metrics' server ended"),
        () = admin::remote::serve(api, handle.clone()) => bail!("the API ended"),
        () = admin::serve(socket, handle) => bail!("the admin interface ended"),
    }
}

/// What it takes to go over to another configuration.
pub(super) struct Reload<'a> {
    pub(super) config: Arc<Config>,
    pub(super) findings: Findings,
    pub(super) options: &'a reload::Options,
    pub(super) file: Option<PathBuf>,
    pub(super) outcome: watch::Sender<Option<LastReload>>,
    pub(super) own_ports: PortRange,
    pub(super) addresses: &'a Mutex<VipAddresses>,
    pub(super) ways: &'a Mutex<WaysBack>,
    pub(super) netlink: &'a Netlink,
    pub(super) links: &'a [Link],
    pub(super) hangup: &'a Notify,
    pub(super) metrics: Option<TcpListener>,
    pub(super) api: Option<admin::remote::Api>,
    pub(super) manager: Arc<Manager>,
    pub(super) audit: &'a Path,
    pub(super) proxy: l7::Handle,
}
