//! Signals that tell the daemon to stop, or to read its configuration again.

use anyhow::Result;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
};
use tracing::warn;

/// The signals that reach a daemon.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
    user: [Signal; 2],
}

impl Signals {
    /// Listens from now on; one that comes before [`Self::stop`] is not lost.
    ///
    /// # Errors
    /// When the runtime cannot.
    pub fn listen() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            user: [signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?],
        })
    }

    /// Waits for one that means to stop, and gives its name. A hangup has the configuration read again: `reload` is
    /// told.
    pub async fn stop(&mut self, reload: &Notify) -> &'static str {
        loop {
            let [user1, user2] = &mut self.user;
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.quit.recv() => return "SIGQUIT",
                // They mean nothing here, and would end the daemon without a chance to clean up.
                _ = user1.recv() => warn!("SIGUSR1 ignored"),
                _ = user2.recv() => warn!("SIGUSR2 ignored"),
                _ = self.hangup.recv() => reload.notify_one(),
            }
        }
    }
}
