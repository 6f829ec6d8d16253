//! The connections that are served at once: so many, and when one more comes, the one goes that has been waiting for nothing
//! for longest. Whoever opens many and asks nothing keeps nobody else out.

use std::{
    collections::VecDeque,
    future::Future,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use tokio::task::{AbortHandle, JoinSet};

/// Whether a connection has a request in hand.
#[derive(Clone, Debug, Default)]
pub struct Busy(Arc<AtomicBool>);

impl Busy {
    /// It has, as long as the guard lives.
    pub fn begin(&self) -> Request<'_> {
        self.0.store(true, Relaxed);
        Request(self)
    }
}

/// A request in hand.
#[derive(Debug)]
#[must_use]
pub struct Request<'a>(&'a Busy);

impl Request<'_> {
    /// It never ends by itself: its connection stays busy.
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        self.0.0.store(false, Relaxed);
    }
}

/// One of the connections.
#[derive(Debug)]
struct Member {
    task: AbortHandle,
    busy: Busy,
    /// Where it comes from, if that is anywhere.
    from: Option<IpAddr>,
}

impl Member {
    fn is_idle(&self) -> bool {
        !self.task.is_finished() && !self.busy.0.load(Relaxed)
    }
}

/// The connections.
#[derive(Debug)]
pub struct Crowd {
    most: usize,
    tasks: JoinSet<()>,
    /// The oldest first.
    members: VecDeque<Member>,
}

impl Crowd {
    /// Room for `most`, at least one.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most, tasks: JoinSet::new(), members: VecDeque::new() }
    }

    /// Waits until there may be one more: not at all if one of those there can go.
    pub async fn admit(&mut self) {
        while self.tasks.len() >= self.most {
            // Some may be on their way out already.
            if self.members.len() >= self.tasks.len() {
                self.dismiss(|_| true);
            }
            self.gone().await;
        }
    }

    /// Has the oldest idle one of a kind go, if there is one.
    fn dismiss(&mut self, of_the_kind: impl Fn(&Member) -> bool) -> bool {
        let place = self.members.iter().position(|member| member.is_idle() && of_the_kind(member));
        let Some(member) = place.and_then(|place| self.members.remove(place)) else { return false };
        member.task.abort();
        true
    }

    /// Waits until one is gone; for ever if there is none.
    pub async fn gone(&mut self) {
        if self.tasks.join_next().await.is_none() {
            std::future::pending::<()>().await;
        }
        self.members.retain(|member| !member.task.is_finished());
    }

    /// One more.
    pub fn spawn<F: Future<Output = ()> + Send + 'static>(&mut self, connection: impl FnOnce(Busy) -> F) {
        self.add(None, connection);
    }

    /// One more from an address, which may have `share` of them: beyond that its own oldest idle one goes, and if it has
    /// none, so does the new one. Gives whether it stays.
    pub fn spawn_from<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        from: IpAddr,
        share: usize,
        connection: impl FnOnce(Busy) -> F,
    ) -> bool {
        let of_it = |member: &Member| member.from == Some(from);
        let count = self.members.iter().filter(|member| of_it(member)).count();
        if count >= share && !self.dismiss(of_it) {
            return false;
        }
        self.add(Some(from), connection);
        true
    }

    fn add<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        from: Option<IpAddr>,
        connection: impl FnOnce(Busy) -> F,
    ) {
        let busy = Busy::default();
        let task = self.tasks.spawn(connection(busy.clone()));
        self.members.push_back(Member { task, busy, from });
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_nothing_goes_the_oldest_first() {
        let mut crowd = Crowd::new(3);
        let (mut ends, mut gone) = (Vec::new(), Vec::new());
        for asks in [true, false, false] {
            crowd.admit().await;
            let (end, ended) = oneshot::channel::<()>();
            let (tell, told) = oneshot::channel::<()>();
            crowd.spawn(|busy| async move {
                let _request = asks.then(|| busy.begin());
                let _tell = tell;
                let _ = ended.await;
            });
            ends.push(end);
            gone.push(told);
        }
        tokio::task::yield_now().await;
        crowd.admit().await;
        crowd.spawn(|_| std::future::pending());
        let mut over =
            gone.iter_mut().map(|told| told.try_recv() == Err(oneshot::error::TryRecvError::Closed));
        assert_eq!([over.next(), over.next(), over.next()], [Some(false), Some(true), Some(false)]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_often_takes_the_place_of_its_own_kind() {
        let mut crowd = Crowd::new(8);
        let [many, other] = [1, 2].map(|last| IpAddr::from([192, 0, 2, last]));
        let (tell, mut told) = oneshot::channel::<()>();
        assert!(crowd.spawn_from(other, 2, |_| async move {
            let _tell = tell;
            std::future::pending().await
        }));
        for _ in 0..100 {
            crowd.admit().await;
            assert!(crowd.spawn_from(many, 2, |_| std::future::pending()));
            tokio::task::yield_now().await;
        }
        assert_eq!(told.try_recv(), Err(oneshot::error::TryRecvError::Empty), "the other is still there");
        let mut busy = Crowd::new(8);
        for expected in [true, true, false] {
            let stays = busy.spawn_from(many, 2, |busy| async move {
                let _request = busy.begin();
                std::future::pending().await
            });
            assert_eq!(stays, expected);
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_being_answered_is_waited_for() {
        let mut crowd = Crowd::new(1);
        let (end, ended) = oneshot::channel::<()>();
        crowd.spawn(|busy| async move {
            let _request = busy.begin();
            let _ = ended.await;
        });
        tokio::task::yield_now().await;
        let wait = std::time::Duration::from_secs(5);
        assert!(tokio::time::timeout(wait, crowd.admit()).await.is_err());
        end.send(()).unwrap();
        assert!(tokio::time::timeout(wait, crowd.admit()).await.is_ok());
    }
}
