//! The thread that goes through the flow tables again and again.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tokio::sync::mpsc;
use tracing::warn;

use crate::{
    datapath::{
        flows::{FlowTables, Round, tick},
        heap,
    },
    plan::{
        Census, Orders,
        orders::{Fate, Sheet},
    },
    poke::Poker,
};

/// Pause between sweeps; longer where a sweep takes long, so that it takes 5 % of one processor at most.
const PAUSE: Duration = Duration::from_secs(1);

/// Free memory is given back this long after something was planned: changes seldom come alone, and the next one would have to
/// take it again.
const TIDY_AFTER: Duration = Duration::from_secs(10);

/// Starts the thread. It goes by the orders that it is sent, and ends when nobody can send it any; every result goes to
/// `news`, until nobody listens.
///
/// # Errors
/// When there is no thread to be had.
pub fn start(tables: Arc<FlowTables>, news: mpsc::Sender<Census>) -> Result<Sender<Orders>> {
    let (orders, inbox) = channel();
    let work = move || run(&tables, &inbox, &news);
    thread::Builder::new().name("sweep".into()).spawn(work).context("cannot start a thread")?;
    Ok(orders)
}

fn run(tables: &FlowTables, inbox: &Receiver<Orders>, news: &mpsc::Sender<Census>) {
    let mut poker = Poker::default();
    let mut orders = Orders::default();
    let mut halted = HashMap::new();
    let mut due = Instant::now() + PAUSE;
    let (mut complained, mut tidy_at) = (false, None);
    loop {
        match inbox.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok(newer) => {
                orders = newer;
                let _ = tidy_at.get_or_insert_with(|| Instant::now() + TIDY_AFTER);
                // Their clients are to learn of it at once.
                if note_halted(&mut halted, &orders.servers, tick()) {
                    due = Instant::now();
                }
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let (began, now) = (Instant::now(), tick());
        let halted_for = |server| halted.get(&server).map_or(0, |since| now.wrapping_sub(*since));
        let round = Round { orders: &orders, now, halted_for: &halted_for };
        match tables.sweep(&round, &mut |connection| poker.poke(&connection)) {
            Ok(census) => {
                if news.blocking_send(census).is_err() {
                    return;
                }
                complained = false;
            }
            Err(error) => {
                if !complained {
                    warn!("flows are not looked after: {error}; trying again");
                }
                complained = true;
            }
        }
        // What a reload or a start has taken for a moment are tens of megabytes with a thousand VIPs.
        if tidy_at.is_some_and(|at| at <= began) {
            heap::give_back();
            tidy_at = None;
        }
        due = Instant::now() + PAUSE.max(began.elapsed() * 19);
    }
}

/// Keeps account of since when servers are halted. Gives whether one is new.
fn note_halted(halted: &mut HashMap<u16, u32>, servers: &[Sheet], now: u32) -> bool {
    let is_halted = |server: u16| servers[usize::from(server)].fate == Fate::Halted;
    halted.retain(|&server, _| usize::from(server) < servers.len() && is_halted(server));
    let before = halted.len();
    for server in (0..servers.len()).filter_map(|server| u16::try_from(server).ok()) {
        if is_halted(server) {
            halted.entry(server).or_insert(now);
        }
    }
    halted.len() > before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_counts_as_halted_from_when_it_was_until_it_is_not() {
        let sheets = |fates: &[Fate]| -> Vec<_> {
            fates.iter().map(|&fate| Sheet { fate, ..Sheet::default() }).collect()
        };
        let mut halted = HashMap::new();
        assert!(!note_halted(&mut halted, &sheets(&[Fate::Nobody, Fate::Kept]), 5));
        assert!(note_halted(&mut halted, &sheets(&[Fate::Nobody, Fate::Halted]), 6));
        assert!(!note_halted(&mut halted, &sheets(&[Fate::Nobody, Fate::Halted]), 7));
        assert_eq!(halted, [(1, 6)].into());
        assert!(note_halted(&mut halted, &sheets(&[Fate::Nobody, Fate::Kept, Fate::Halted]), 8));
        assert_eq!(halted, [(2, 8)].into());
        assert!(!note_halted(&mut halted, &[], 9) && halted.is_empty());
    }
}
