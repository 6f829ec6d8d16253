//! One watch: from the ring buffer to lines of JSON, until the one who watches is gone or has seen enough.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hyper::body::{Body, Bytes, Frame};
use lb_common::abi::TraceRecord;
use rustix::time::{ClockId, clock_gettime};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{OwnedMutexGuard, mpsc, oneshot},
    task::yield_now,
    time::{Instant, interval, sleep_until},
};
use tracing::{debug, info};

use super::{Blind, Eyes, Filter, Insight, Question, Sighting};
use crate::datapath::events::{Bell, Events};

/// What somebody wants to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Which packets.
    pub filter: Filter,
    /// Of this many flows only one.
    pub sample: u32,
    /// Also the frames' bytes.
    pub bytes: bool,
    /// After this many packets it is enough.
    pub count: Option<u64>,
    /// After this time it is enough.
    pub duration: Option<Duration>,
}

/// A line of what is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Line {
    /// How many packets that were wanted could not be told of so far: they came faster than they were read.
    Lost {
        /// Since the watch began.
        lost: u32,
    },
    /// A packet.
    Packet(Box<Sighting>),
}

/// Lines, as they come: the body of an answer. To drop it ends the watch.
#[derive(Debug)]
pub struct Lines(mpsc::Receiver<Bytes>);

impl Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }
}

/// Records taken at a time, so that the rest of the daemon gets its turn.
const BATCH: usize = 64;

/// Chunks of lines that may wait for a slow reader. What comes then waits in the ring buffer, and is counted when that
/// is full.
const WAITING: usize = 4;

/// How often it is looked whether records were lost, and at most how often names are asked for.
const LOOK: Duration = Duration::from_secs(1);

impl Eyes {
    /// Begins to watch.
    ///
    /// # Errors
    /// When the filter names what there is not, or somebody watches already.
    pub async fn watch(&self, wish: Wish) -> Result<Lines, Blind> {
        let insight = self.insight().await?;
        let vip = match &wish.filter.vip {
            None => 0,
            Some(name) => insight.names.vip_number(name).ok_or_else(|| no_such_vip(name, &insight))?,
        };
        let internal = |error: crate::datapath::Error| Blind::Internal(error.to_string());
        let mut events = Arc::clone(&self.events).try_lock_owned().map_err(|_| Blind::Busy)?;
        events.want(&wish.filter.kernel(vip, wish.sample)).map_err(internal)?;
        let bell = events.bell().map_err(internal)?;
        let (lines, body) = mpsc::channel(WAITING);
        let end = wish.duration.map(|duration| Instant::now() + duration);
        let on = On(self.clone());
        self.switch(true).await;
        info!("lbctl trace: packets are watched");
        let watch = Watch { on, events, bell, lines, insight, wish, end, told: 0, asked: Instant::now() };
        tokio::spawn(watch.run());
        Ok(Lines(body))
    }

    /// Has the kernel program report or not, and waits until it does.
    async fn switch(&self, on: bool) {
        let (done, until) = oneshot::channel();
        if self.questions.send(Question::Watch(on, done)).is_ok() {
            // Nobody ever sends: the sender is dropped.
            let _ = until.await;
        }
    }
}

fn no_such_vip(name: &str, insight: &Insight) -> Blind {
    let known = insight.names.all_vips();
    let known = if known.is_empty() {
        "there are none".to_owned()
    } else {
        format!("there are {}", known.join(", "))
    };
    Blind::Wrong(format!("there is no VIP {name:?}; {known}"))
}

/// While it lives, the kernel program reports.
struct On(Eyes);

impl Drop for On {
    fn drop(&mut self) {
        let (done, _) = oneshot::channel();
        // Without the loop there is nobody who could mind.
        let _ = self.0.questions.send(Question::Watch(false, done));
        info!("lbctl trace: packets are no longer watched");
    }
}

struct Watch {
    // Before the events: the kernel is told to stop, then the next may watch.
    on: On,
    events: OwnedMutexGuard<Events>,
    bell: Bell,
    lines: mpsc::Sender<Bytes>,
    insight: Arc<Insight>,
    wish: Wish,
    end: Option<Instant>,
    /// How many were said to be lost.
    told: u32,
    /// When names were asked for.
    asked: Instant,
}

impl Watch {
    async fn run(mut self) {
        let mut looks = interval(LOOK);
        loop {
            let end = self.end.unwrap_or_else(|| Instant::now() + Duration::from_secs(3_600));
            tokio::select! {
                () = self.lines.closed() => return,
                () = self.bell.rings() => {}
                _ = looks.tick() => {}
                () = sleep_until(end), if self.end.is_some() => {
                    let _ = self.pass_on().await;
                    let _ = self.tell_lost().await;
                    return;
                }
            }
            if self.pass_on().await.is_none() || self.tell_lost().await.is_none() {
                return;
            }
        }
    }

    /// Sends all records that are there; `None` when that was enough, or nobody takes them.
    async fn pass_on(&mut self) -> Option<()> {
        loop {
            let mut records = self.events.take_some(BATCH);
            if records.is_empty() {
                return Some(());
            }
            if let Some(left) = &mut self.wish.count {
                records.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= records.len() as u64;
            }
            let text = self.text(&records).await;
            self.lines.send(text.into()).await.ok()?;
            if self.wish.count == Some(0) {
                return None;
            }
            yield_now().await;
        }
    }

    async fn text(&mut self, records: &[TraceRecord]) -> Vec<u8> {
        self.learn_names(records).await;
        let offset = since_1970().saturating_sub(since_boot());
        let mut text = Vec::new();
        for record in records {
            let seen = Sighting::new(record, offset + record.time, &self.insight.names, self.wish.bytes);
            write(&mut text, &Line::Packet(Box::new(seen)));
        }
        text
    }

    /// There may be VIPs and servers that were not there before.
    async fn learn_names(&mut self, records: &[TraceRecord]) {
        let names = &self.insight.names;
        if records.iter().all(|record| names.know(record.vip, record.server)) || self.asked.elapsed() < LOOK {
            return;
        }
        self.asked = Instant::now();
        if let Ok(insight) = self.on.0.insight().await {
            self.insight = insight;
        }
    }

    /// Says so if more were lost since it was said last.
    async fn tell_lost(&mut self) -> Option<()> {
        let lost = self.events.lost().unwrap_or(self.told);
        if lost == self.told {
            return Some(());
        }
        self.told = lost;
        let mut text = Vec::new();
        write(&mut text, &Line::Lost { lost });
        self.lines.send(text.into()).await.ok()
    }
}

fn write(text: &mut Vec<u8>, line: &Line) {
    match serde_json::to_writer(&mut *text, line) {
        Ok(()) => text.push(b'\n'),
        Err(error) => debug!("a packet cannot be written as JSON: {error}"),
    }
}

fn since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// By the clock of the kernel program.
fn since_boot() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_can_be_told_apart() {
        let mut text = Vec::new();
        write(&mut text, &Line::Lost { lost: 7 });
        write(&mut text, &Line::Packet(Box::default()));
        let lines: Vec<Line> =
            str::from_utf8(&text).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines, [Line::Lost { lost: 7 }, Line::Packet(Box::default())]);
    }
}
