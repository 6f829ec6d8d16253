//! A proxy whose log and counters are read.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use l7_proxy::{
    server::Live,
    spec::{ConnectionFilter, Spec},
};

use super::{PATIENCE, Proxy, Server, eventually, spec, tls::Folder};

/// A proxy that writes lines of this form.
pub(crate) struct Logged {
    pub(crate) proxy: Proxy,
    file: PathBuf,
    _folder: Folder,
}

impl Logged {
    pub(crate) fn start(format: &str, make: impl FnOnce(SocketAddr, &str) -> Spec) -> Self {
        let folder = Folder::new();
        let file = folder.0.join("log");
        let log = format!(r#", "log": {{ "to": {{ "file": "{}" }}, "format": "{format}" }}"#, file.display());
        let proxy = Proxy::start_changed(|address| make(address, &log));
        Self { proxy, file, _folder: folder }
    }

    pub(crate) fn of(server: &Server, service: &str) -> Self {
        Self::start("json", |address, log| spec(address, service, &[server.address], "", log))
    }

    /// The lines, when there are so many.
    pub(crate) fn lines(&self, count: usize) -> Vec<String> {
        let lines = || -> Vec<String> {
            let text = fs::read_to_string(&self.file).unwrap_or_default();
            text.lines().map(ToOwned::to_owned).collect()
        };
        eventually("the lines are written", || lines().len() >= count);
        assert_eq!(lines().len(), count, "{:?}", lines());
        lines()
    }

    pub(crate) fn metrics(&self) -> String {
        let engine = self.proxy.engine();
        l7_proxy::admin::metrics(&engine.current().ready(), engine.current().phase(), &engine.log())
    }

    /// Waits until so much is counted, and nothing else, as broken.
    pub(crate) fn broke(&self, client: u32, server: u32, operator: u32) {
        let lines = [("client", client), ("server", server), ("operator", operator)]
            .map(|(by, count)| format!("l7_broken_total{{service=\"web\",by=\"{by}\"}} {count}\n"));
        let holds = || lines.iter().all(|line| self.metrics().contains(line));
        let until = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < until, "{lines:?} in {}", self.metrics());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends all connections, of which there are so many.
    pub(crate) fn kill(&self, count: u64) {
        let all = ConnectionFilter::default();
        eventually("they are in", || self.proxy.engine().clients(&all, 0).1 == count);
        assert_eq!(self.proxy.engine().end_clients(&all), count);
    }

    pub(crate) fn server(&self) -> Arc<Live> {
        let ready = self.proxy.engine().current().ready();
        Arc::clone(&ready.services[0].pools()[0].servers[0].live)
    }
}
