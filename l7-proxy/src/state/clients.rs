//! How many connections clients have and how many requests they send. Only services with such a limit pay for
//! it.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use super::{Refusal, State};
use crate::spec::{Limits, first_bits};

/// Clients that are remembered for their rate at most. When there are more, those that have their full
/// allowance again are forgotten; where none has, new ones are let pass: the memory is bounded, and an
/// attacker with so many addresses is not stopped by this limit anyway.
const MOST: usize = 200_000;

/// Who is connected and how much they ask for.
#[derive(Debug, Default)]
pub struct Clients {
    connections: AtomicU32,
    each: Mutex<HashMap<IpAddr, u32>>,
    rates: Mutex<HashMap<IpAddr, Bucket>>,
}

/// What a client may still send: `left` thousandths of requests at `at` milliseconds.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: u64,
    at: u64,
}

/// A connection that counts until this is dropped.
#[derive(Debug)]
pub struct Connected {
    state: Arc<State>,
    client: Option<IpAddr>,
}

/// What counts as one client.
fn network(client: IpAddr, limits: &Limits) -> IpAddr {
    let client = client.to_canonical();
    first_bits(client, if client.is_ipv4() { limits.client_bits_v4 } else { limits.client_bits_v6 })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connected {
    pub(super) fn take(state: &Arc<State>, client: IpAddr, limits: &Limits) -> Result<Self, Refusal> {
        let clients = &state.clients;
        let before = clients.connections.fetch_add(1, Relaxed);
        let mut connected = Self { state: Arc::clone(state), client: None };
        if limits.connections.is_some_and(|most| before >= most) {
            return Err(Refusal::Connections);
        }
        if let Some(most) = limits.connections_per_client {
            let client = network(client, limits);
            let mut each = lock(&clients.each);
            let count = each.entry(client).or_insert(0);
            if *count >= most {
                return Err(Refusal::ClientConnections);
            }
            *count += 1;
            connected.client = Some(client);
        }
        Ok(connected)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let clients = &self.state.clients;
        clients.connections.fetch_sub(1, Relaxed);
        if let Some(client) = self.client {
            let mut each = lock(&clients.each);
            if let Some(count) = each.get_mut(&client) {
                *count -= 1;
                if *count == 0 {
                    each.remove(&client);
                }
            }
        }
    }
}

impl Clients {
    /// Connections at the moment.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.connections.load(Relaxed)
    }

    /// Whether a client may send a request at `now` milliseconds; counted if so.
    #[must_use]
    pub fn may_ask(&self, client: IpAddr, limits: &Limits, now: u64) -> bool {
        let Some(rate) = limits.requests_per_second.map(u64::from) else { return true };
        let most = rate * 1_000;
        let now_has = |bucket: &Bucket| (bucket.left + now.saturating_sub(bucket.at) * rate).min(most);
        let mut rates = lock(&self.rates);
        let client = network(client, limits);
        if rates.len() >= MOST && !rates.contains_key(&client) {
            rates.retain(|_, bucket| now_has(bucket) < most);
            if rates.len() >= MOST {
                return true;
            }
        }
        let bucket = rates.entry(client).or_insert(Bucket { left: most, at: now });
        bucket.left = now_has(bucket);
        bucket.at = now;
        let may = bucket.left >= 1_000;
        if may {
            bucket.left -= 1_000;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_by_client_and_given_back() {
        let state = Arc::new(State::new(1));
        let limits = Limits {
            connections: Some(3),
            connections_per_client: Some(2),
            client_bits_v4: 24,
            ..Limits::default()
        };
        let connect = |address: [u8; 4]| state.connect(IpAddr::from(address), &limits);
        let first = connect([10, 0, 0, 1]).unwrap();
        let second = connect([10, 0, 0, 2]).unwrap();
        assert_eq!(connect([10, 0, 0, 3]).unwrap_err(), Refusal::ClientConnections);
        let third = connect([10, 0, 1, 3]).unwrap();
        assert_eq!(connect([10, 0, 2, 3]).unwrap_err(), Refusal::Connections);
        assert_eq!(state.clients.connections(), 3, "what is refused does not count");
        drop((first, second, third));
        assert_eq!(state.clients.connections(), 0);
        assert!(lock(&state.clients.each).is_empty());
        assert!(connect([10, 0, 0, 3]).is_ok());
    }

    #[test]
    fn a_client_may_send_so_many_at_once_and_then_as_time_goes_by() {
        let clients = Clients::default();
        let limits = Limits { requests_per_second: Some(2), ..Limits::default() };
        let ask = |now| clients.may_ask(IpAddr::from([10, 0, 0, 1]), &limits, now);
        assert!(ask(0) && ask(0) && !ask(0) && !ask(499));
        assert!(ask(500) && !ask(500));
        assert!(clients.may_ask(IpAddr::from([10, 0, 0, 2]), &limits, 500), "each client its own");
    }
}
