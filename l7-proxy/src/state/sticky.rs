//! Which client is with which server, by its address, and which server all are with. Servers are remembered by
//! name: lists change with reloads.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::spec::StickyTable;

/// Who is with which server.
#[derive(Debug, Default)]
pub struct Sticky {
    pools: Mutex<HashMap<String, Table>>,
}

#[derive(Debug, Default)]
struct Table {
    last: Option<String>,
    clients: HashMap<IpAddr, Kept>,
    /// Clients by when they were seen last, and a number that tells those of one millisecond apart.
    by_age: BTreeMap<(u64, u64), IpAddr>,
    count: u64,
}

#[derive(Debug)]
struct Kept {
    server: Arc<str>,
    age: (u64, u64),
}

impl Sticky {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Table>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server that `client` is with, unless it was not seen for `timeout`.
    pub(super) fn find(&self, pool: &str, client: IpAddr, timeout: Duration, now: u64) -> Option<String> {
        let pools = self.lock();
        let kept = pools.get(pool)?.clients.get(&client)?;
        (now.saturating_sub(kept.age.0) < milliseconds(timeout)).then(|| kept.server.to_string())
    }

    /// `client` is with `server` from `now` on; of more than `most` the one not seen for longest is forgotten.
    pub(super) fn put(
        &self,
        pool: &str,
        client: IpAddr,
        server: &str,
        timeout: Duration,
        most: u32,
        now: u64,
    ) {
        let mut pools = self.lock();
        if !pools.contains_key(pool) {
            pools.insert(pool.to_owned(), Table::default());
        }
        let Some(table) = pools.get_mut(pool) else { return };
        table.count += 1;
        let age = (now, table.count);
        let kept = table.clients.entry(client).or_insert_with(|| Kept { server: server.into(), age });
        table.by_age.remove(&kept.age);
        kept.age = age;
        if &*kept.server != server {
            kept.server = server.into();
        }
        table.by_age.insert(age, client);
        let too_many = |table: &Table| table.clients.len() > most.max(1) as usize;
        // A few of those that are over go with each that comes, so that nobody waits for many.
        for _ in 0..4 {
            let Some((&(seen, number), &oldest)) = table.by_age.first_key_value() else { break };
            if !too_many(table) && now.saturating_sub(seen) < milliseconds(timeout) {
                break;
            }
            table.by_age.remove(&(seen, number));
            table.clients.remove(&oldest);
        }
    }

    /// The server that all are with.
    pub(super) fn last(&self, pool: &str) -> Option<String> {
        self.lock().get(pool)?.last.clone()
    }

    /// All are with this server from now on.
    pub(super) fn set_last(&self, pool: &str, server: &str) {
        let mut pools = self.lock();
        match pools.get_mut(pool) {
            Some(table) if table.last.as_deref() == Some(server) => {}
            Some(table) => table.last = Some(server.to_owned()),
            None => {
                let table = Table { last: Some(server.to_owned()), ..Table::default() };
                pools.insert(pool.to_owned(), table);
            }
        }
    }

    /// Everything that is remembered, for a process that comes after this one. The names of services are left to the
    /// caller.
    #[must_use]
    pub fn tables(&self, now: u64) -> Vec<StickyTable> {
        let pools = self.lock();
        let tables = pools.iter().map(|(pool, table)| {
            let client = |(age, client): (&(u64, u64), &IpAddr)| {
                let server = table.clients.get(client)?.server.to_string();
                Some((*client, server, now.saturating_sub(age.0)))
            };
            StickyTable {
                service: String::new(),
                pool: pool.clone(),
                last: table.last.clone(),
                clients: table.by_age.iter().filter_map(client).collect(),
            }
        });
        tables.collect()
    }

    /// Remembers what a process before this one did, beside what is known already. A client's `timeout` and the number of
    /// clients that are kept are minded when they are looked for.
    pub fn remember(&self, table: &StickyTable, now: u64) {
        if let Some(last) = &table.last
            && self.last(&table.pool).is_none()
        {
            self.set_last(&table.pool, last);
        }
        for (client, server, ago) in &table.clients {
            let known = self.lock().get(&table.pool).is_some_and(|table| table.clients.contains_key(client));
            if !known {
                let seen = now.saturating_sub(*ago);
                self.put(&table.pool, *client, server, Duration::MAX, u32::MAX, seen);
            }
        }
    }

    /// Clients that are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().values().map(|table| table.clients.len()).sum()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_forgotten_when_time_or_place_is_over() {
        let sticky = Sticky::default();
        let client = |last: u8| IpAddr::from([10, 0, 0, last]);
        let timeout = Duration::from_secs(1);
        let find = |last, now| sticky.find("p", client(last), timeout, now);
        sticky.put("p", client(1), "a", timeout, 2, 0);
        sticky.put("p", client(2), "b", timeout, 2, 1);
        assert_eq!(find(1, 999).as_deref(), Some("a"));
        assert_eq!(find(1, 1_000), None, "not seen for a second");
        sticky.put("p", client(1), "a", timeout, 2, 2);
        sticky.put("p", client(3), "c", timeout, 2, 3);
        assert_eq!((find(1, 3).as_deref(), find(2, 3), find(3, 3).as_deref()), (Some("a"), None, Some("c")));
        sticky.put("p", client(1), "b", timeout, 2, 4);
        assert_eq!(find(1, 4).as_deref(), Some("b"));
        assert_eq!(sticky.find("other", client(1), timeout, 4), None);
        sticky.put("p", client(4), "c", timeout, 9, 5_000);
        assert_eq!(sticky.len(), 1, "those that are over make place");
    }

    #[test]
    fn what_is_remembered_can_be_handed_over() {
        let (before, after) = (Sticky::default(), Sticky::default());
        let client = |last: u8| IpAddr::from([10, 0, 0, last]);
        let timeout = Duration::from_secs(1);
        before.put("p", client(1), "a", timeout, 9, 500);
        before.put("p", client(2), "b", timeout, 9, 900);
        before.set_last("q", "c");
        after.put("p", client(2), "newer", timeout, 9, 10_000);
        for table in before.tables(1_000) {
            after.remember(&table, 10_000);
        }
        let find = |last, now| after.find("p", client(last), timeout, now);
        assert_eq!(find(1, 10_499).as_deref(), Some("a"));
        assert_eq!(find(1, 10_500), None, "it goes on ageing");
        assert_eq!(find(2, 10_000).as_deref(), Some("newer"));
        assert_eq!(after.last("q").as_deref(), Some("c"));
    }

    #[test]
    fn the_last_server_is_kept_until_another_one_serves() {
        let sticky = Sticky::default();
        assert_eq!(sticky.last("p"), None);
        sticky.set_last("p", "a");
        sticky.set_last("p", "b");
        assert_eq!(sticky.last("p").as_deref(), Some("b"));
    }
}
