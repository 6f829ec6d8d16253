//! Which server gets a request.

use std::sync::atomic::Ordering::Relaxed;

use super::{Live, Pool, Server, Slot};
use crate::spec::{Algorithm, ServerState};

/// The most servers that a cookie is believed to name.
const MOST_NAMES: usize = 16;

/// What a request brings to the choice.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish<'a> {
    /// The value of its persistence cookie: what names a server, for each pool that the client has been sent to, with dots
    /// between.
    pub cookie: Option<&'a [u8]>,
    /// The server that its client is known to be with.
    pub server: Option<usize>,
    /// A hash of what `source` and `maglev` go by, see [`hash`].
    pub hash: u64,
    /// Servers that were tried for it without success, as bits; those beyond 63 are not remembered.
    pub tried: u64,
}

/// Who gets it.
#[derive(Debug)]
pub enum Choice {
    /// This server of the pool, and the place it takes there.
    Server(usize, Slot),
    /// All that could have it have reached their maximum.
    Full,
    /// None can.
    None,
}

/// Hashes what requests have in common. The same on every balancer and in every version: clients would lose
/// their servers otherwise.
#[must_use]
pub fn hash(bytes: &[u8]) -> u64 {
    mix(bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
}

/// Makes each bit of the result depend on each bit of `value`.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

impl Pool {
    /// Chooses a server and takes a place there.
    pub fn choose(&self, wish: &Wish<'_>, now: u64) -> Choice {
        if let Some(kept) = self.persisting(wish) {
            return self.take(kept).map_or(Choice::Full, |slot| Choice::Server(kept, slot));
        }
        // What was among them when they were looked for may be gone.
        for _ in 0..4 {
            let Some(tier) = self.tier(wish, now) else { break };
            match self.pick(wish, |index| tier.has(index, &self.servers[index], now), now) {
                Choice::None => {}
                choice => return choice,
            }
        }
        Choice::None
    }

    /// The best servers that there are for who does not have to be served by a certain one: those that were tried already, and paused
    /// ones, are better than none at all.
    fn tier(&self, wish: &Wish<'_>, now: u64) -> Option<Tier> {
        let all = [(Some(wish.tried), false), (Some(wish.tried), true), (None, false), (None, true)];
        let mut tiers = all.into_iter().map(|(leaves_out, backup)| Tier { backup, leaves_out });
        tiers
            .find(|&tier| self.servers.iter().enumerate().any(|(index, server)| tier.has(index, server, now)))
    }

    /// Whether a server is there that could get something.
    #[must_use]
    pub fn has_server(&self) -> bool {
        self.servers.iter().any(|server| server.weight > 0 && server.live.state() == ServerState::Up)
    }

    /// The server that the value of a cookie names.
    #[must_use]
    pub fn named_by(&self, cookie: &[u8]) -> Option<usize> {
        // Whatever a client makes up, it is soon looked through.
        let mut names = cookie.split(|&byte| byte == b'.').take(MOST_NAMES);
        names.find_map(|name| self.servers.iter().position(|server| server.cookie.as_bytes() == name))
    }

    /// The server that a client's cookie, or what we remember of it, names, if it may still be used.
    fn persisting(&self, wish: &Wish<'_>) -> Option<usize> {
        let named = wish.cookie.and_then(|cookie| self.named_by(cookie));
        named.or(wish.server).filter(|&index| {
            let state = self.servers.get(index).map(|server| server.live.state());
            matches!(state, Some(ServerState::Up | ServerState::Drain)) && !was_tried(wish.tried, index)
        })
    }

    /// Where who waits stands: the one server that it waits for, if there is one, or else which ones will do.
    pub(super) fn line(&self, wish: &Wish<'_>, now: u64) -> (Option<usize>, Tier) {
        (self.persisting(wish), self.tier(wish, now).unwrap_or_default())
    }

    fn pick(&self, wish: &Wish<'_>, usable: impl Fn(usize) -> bool, now: u64) -> Choice {
        match self.algorithm {
            Algorithm::RoundRobin => self.in_turn(usable, now),
            Algorithm::First => self.take_first((0..self.servers.len()).filter(|&index| usable(index))),
            Algorithm::LeastConn => {
                self.take_least(usable, |live, weight| (u64::from(live.active()) + 1) * 65_536 / weight)
            }
            Algorithm::PowerOfTwo => self.of_two(usable, wish),
            Algorithm::Source | Algorithm::Maglev => self.by_hash(usable, wish.hash),
        }
    }

    fn in_turn(&self, usable: impl Fn(usize) -> bool, now: u64) -> Choice {
        let mut full = false;
        let start = self.turn.fetch_add(1, Relaxed);
        for step in 0..self.turns.len() {
            // A server that comes up slowly lets some of its turns pass; a second round takes them.
            let index = usize::from(self.turns[(start + step) % self.turns.len()]);
            if !usable(index) || self.lets_pass(index, start + step, now) {
                continue;
            }
            match self.take_first(std::iter::once(index)) {
                Choice::Full => full = true,
                choice => return choice,
            }
        }
        let any = self.take_first((0..self.servers.len()).filter(|&index| usable(index)));
        if matches!(any, Choice::None) && full { Choice::Full } else { any }
    }

    fn lets_pass(&self, index: usize, turn: usize, now: u64) -> bool {
        self.slow_start
            .is_some_and(|slow| mix(turn as u64) % 256 >= self.servers[index].live.warmth(slow, now))
    }

    /// The first of some that has a place left.
    fn take_first(&self, candidates: impl Iterator<Item = usize>) -> Choice {
        let mut full = false;
        for index in candidates {
            if let Some(slot) = self.take(index) {
                return Choice::Server(index, slot);
            }
            full = true;
        }
        if full { Choice::Full } else { Choice::None }
    }

    /// The one with a place left whose cost is least; of equal ones, in turn.
    fn take_least(&self, usable: impl Fn(usize) -> bool, cost: impl Fn(&Live, u64) -> u64) -> Choice {
        let count = self.servers.len();
        let start = self.turn.fetch_add(1, Relaxed);
        let candidates = (0..count).map(|step| (start + step) % count).filter(|&index| usable(index));
        let has_place = |index: &usize| {
            let server = &self.servers[*index];
            server.live.active() < server.live.most()
        };
        let mut any = false;
        let best = candidates.inspect(|_| any = true).filter(has_place).min_by_key(|&index| {
            let server = &self.servers[index];
            cost(&server.live, u64::from(server.weight))
        });
        match best {
            Some(index) => self.take_first(std::iter::once(index)),
            None if any => Choice::Full,
            None => Choice::None,
        }
    }

    /// Of two that are taken at random the one that is likely to answer sooner.
    fn of_two(&self, usable: impl Fn(usize) -> bool, wish: &Wish<'_>) -> Choice {
        let candidates: Vec<usize> = (0..self.servers.len()).filter(|&index| usable(index)).collect();
        let Some(count) = std::num::NonZeroUsize::new(candidates.len()) else { return Choice::None };
        let random = mix((self.turn.fetch_add(1, Relaxed) as u64) ^ wish.hash) as usize;
        let one = candidates[random % count];
        let other =
            candidates[(random % count + 1 + (random >> 32) % count.get().saturating_sub(1).max(1)) % count];
        let cost = |index: usize| {
            let server = &self.servers[index];
            (server.live.latency() + 1) * (u64::from(server.live.active()) + 1) * 1_024
                / u64::from(server.weight)
        };
        let (first, second) = if cost(one) <= cost(other) { (one, other) } else { (other, one) };
        self.take_first([first, second].into_iter().chain(candidates))
    }

    /// Each server's claim on the hash follows from the two alone, and the strongest with a place left gets it:
    /// one that comes or goes moves only what is its own.
    fn by_hash(&self, usable: impl Fn(usize) -> bool, hash: u64) -> Choice {
        let claim = |index: usize| {
            let server = &self.servers[index];
            let random = (mix(hash ^ server.seed) >> 11) as f64 / (1_u64 << 53) as f64;
            -(random.max(f64::MIN_POSITIVE)).ln() / f64::from(server.weight)
        };
        let mut candidates: Vec<(f64, usize)> = (0..self.servers.len())
            .filter(|&index| usable(index))
            .map(|index| (claim(index), index))
            .collect();
        candidates.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        self.take_first(candidates.into_iter().map(|(_, index)| index))
    }
}

/// Servers among which one is chosen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tier {
    pub(super) backup: bool,
    /// Servers that were tried (bits) are not among them where these are left out, and neither are paused ones.
    pub(super) leaves_out: Option<u64>,
}

impl Tier {
    /// Whether a server is among them, and can be used.
    pub(super) fn has(self, index: usize, server: &Server, now: u64) -> bool {
        server.backup == self.backup
            && server.weight > 0
            && server.live.state() == ServerState::Up
            && self.leaves_out.is_none_or(|tried| !was_tried(tried, index) && !server.live.is_paused(now))
    }
}

fn was_tried(tried: u64, index: usize) -> bool {
    index < 64 && tried >> index & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::pool::testing::pool;

    fn chosen(pool: &Pool, wish: &Wish<'_>) -> Option<usize> {
        match pool.choose(wish, 1) {
            Choice::Server(index, _) => Some(index),
            Choice::Full | Choice::None => None,
        }
    }

    fn shares(pool: &Pool, requests: u64) -> Vec<u64> {
        let mut shares = vec![0; pool.servers.len()];
        for number in 0..requests {
            let wish = Wish { hash: hash(&number.to_be_bytes()), ..Wish::default() };
            shares[chosen(pool, &wish).unwrap()] += 1;
        }
        shares
    }

    #[test]
    fn weights_are_shares() {
        assert_eq!(shares(&pool(Algorithm::RoundRobin, &[100, 200, 0]), 300), [100, 200, 0]);
        let by_hash = shares(&pool(Algorithm::Maglev, &[100, 200, 0]), 3_000);
        assert!((900..1_100).contains(&by_hash[0]) && by_hash[2] == 0, "{by_hash:?}");
        assert_eq!(shares(&pool(Algorithm::First, &[1, 100]), 9), [9, 0]);
    }

    #[test]
    fn least_conn_looks_at_what_is_under_way_and_at_weights() {
        let pool = pool(Algorithm::LeastConn, &[100, 200]);
        let held: Vec<Choice> = (0..9).map(|_| pool.choose(&Wish::default(), 1)).collect();
        assert_eq!((pool.servers[0].live.active(), pool.servers[1].live.active()), (3, 6));
        drop(held);
        assert_eq!(pool.servers[1].live.active(), 0);
    }

    #[test]
    fn a_server_that_goes_moves_only_what_was_its_own() {
        let pool = pool(Algorithm::Maglev, &[100; 5]);
        let wishes = (0..500_u32).map(|n| Wish { hash: hash(&n.to_be_bytes()), ..Wish::default() });
        let before: Vec<_> = wishes.clone().map(|wish| chosen(&pool, &wish)).collect();
        pool.servers[2].live.set_state(ServerState::Down, 1);
        for (wish, before) in wishes.zip(before) {
            let after = chosen(&pool, &wish);
            assert!(after == before || before == Some(2));
            assert_ne!(after, Some(2));
        }
    }

    #[test]
    fn backups_come_last_and_tried_ones_after_them() {
        let mut pool = pool(Algorithm::RoundRobin, &[100, 100]);
        pool.change(|servers| servers[1].backup = true);
        assert_eq!(shares(&pool, 5), [5, 0]);
        let tried = |bits| Wish { tried: bits, ..Wish::default() };
        assert_eq!(chosen(&pool, &tried(1)), Some(1));
        assert_eq!(chosen(&pool, &tried(3)), Some(0), "all were tried: better again than not at all");
        pool.servers[0].live.set_state(ServerState::Down, 1);
        assert_eq!(chosen(&pool, &Wish::default()), Some(1));
        pool.servers[1].live.set_state(ServerState::Halt, 1);
        assert_eq!(chosen(&pool, &Wish::default()), None);
    }

    #[test]
    fn a_draining_server_keeps_those_who_persist_on_it() {
        let pool = pool(Algorithm::RoundRobin, &[100, 100]);
        pool.servers[0].live.set_state(ServerState::Drain, 1);
        let with = Wish { cookie: Some(b"c0"), ..Wish::default() };
        assert_eq!(chosen(&pool, &with), Some(0));
        assert_eq!(chosen(&pool, &Wish { server: Some(0), ..Wish::default() }), Some(0));
        assert_eq!(shares(&pool, 4), [0, 4]);
        pool.servers[0].live.set_state(ServerState::Down, 1);
        assert_eq!(chosen(&pool, &with), Some(1));
        assert_eq!(chosen(&pool, &Wish { cookie: Some(b"forged"), ..Wish::default() }), Some(1));
    }

    #[test]
    fn a_full_pool_is_told_from_an_empty_one() {
        for algorithm in [
            Algorithm::RoundRobin,
            Algorithm::First,
            Algorithm::LeastConn,
            Algorithm::PowerOfTwo,
            Algorithm::Source,
        ] {
            let mut pool = pool(algorithm, &[100, 100]);
            pool.change(|servers| servers.iter_mut().for_each(|server| server.most = Some(1)));
            let (one, two) = (pool.choose(&Wish::default(), 1), pool.choose(&Wish::default(), 1));
            assert!(
                matches!((&one, &two), (Choice::Server(a, _), Choice::Server(b, _)) if a != b),
                "{algorithm:?}"
            );
            assert!(matches!(pool.choose(&Wish::default(), 1), Choice::Full), "{algorithm:?}");
            drop(one);
            assert!(chosen(&pool, &Wish::default()).is_some());
            for server in pool.servers.iter() {
                server.live.set_state(ServerState::Down, 1);
            }
            assert!(matches!(pool.choose(&Wish::default(), 1), Choice::None), "{algorithm:?}");
        }
    }
}
