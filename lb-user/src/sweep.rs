//! The thread that goes through the flow tables again and again.

use std::{
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tokio::sync::mpsc;

use crate::datapath::flows::{Census, FlowTables, tick};

/// The thread that sweeps the flow tables. Ends when dropped, after the sweep under way.
#[derive(Debug)]
pub struct Sweep {
    _stop: Sender<()>,
}

impl Sweep {
    /// Pause between sweeps; longer where a sweep takes long, so that it takes 5 % of one processor at most.
    const PAUSE: Duration = Duration::from_secs(1);

    /// Starts it; every result goes to `news`, until nobody listens.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(tables: FlowTables, news: mpsc::Sender<Census>) -> Result<Self> {
        let (stop, stopped) = channel();
        let work = move || {
            let mut pause = Self::PAUSE;
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                let began = Instant::now();
                if news.blocking_send(tables.sweep(tick())).is_err() {
                    return;
                }
                pause = Self::PAUSE.max(began.elapsed() * 19);
            }
        };
        thread::Builder::new().name("sweep".into()).spawn(work).context("cannot start a thread")?;
        Ok(Self { _stop: stop })
    }
}
