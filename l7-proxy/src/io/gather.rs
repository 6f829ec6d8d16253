//! A connection that gathers what is written to it until its owner has it written out: the h2 crate writes and
//! flushes by the frame, and each write of its own would be a record of TLS and a call of the kernel.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Stream, behind::Behind};

/// Bytes that a connection reads before it is the turn of others: who sends without a pause would be read for ever.
const AT_ONCE: usize = 16 * 1024;

/// Bytes that are gathered at most: a record of TLS.
const MOST: usize = 16 * 1024;

thread_local! {
    /// What one connection has written out of is what the next one gathers in.
    static SPARE: Cell<BytesMut> = Cell::default();
}

/// A connection that is given to those who use it.
#[derive(Debug)]
pub struct Gather<S, W>(Arc<Mutex<Inner<S, W>>>);

/// Looks at what passes, and may change it.
pub trait Watch {
    /// These bytes have come. Gives how many of them are enough until it has been the turn of others: the rest comes again.
    fn came(&mut self, bytes: &mut [u8]) -> usize;
    /// Whether what comes again is too little to say anything of: it is kept until more has come. Where that cannot be (`must`),
    /// all of it is to pass next time.
    fn wants_more(&mut self, _must: bool) -> bool {
        false
    }
    /// It has been the turn of others.
    fn next_turn(&mut self);
    /// These bytes were gathered, the last `new` of them just now.
    fn goes(&mut self, bytes: &mut [u8], new: usize);
}

/// Nobody looks.
impl Watch for () {
    fn came(&mut self, bytes: &mut [u8]) -> usize {
        bytes.len()
    }
    fn next_turn(&mut self) {}
    fn goes(&mut self, _: &mut [u8], _: usize) {}
}

/// Writes out what was gathered.
#[derive(Debug)]
pub struct WriteOut<S, W>(Arc<Mutex<Inner<S, W>>>);

/// A connection, what comes before what is still to be read, and what was gathered. Both handles are used in
/// one task: nobody ever waits for the lock.
#[derive(Debug)]
struct Inner<S, W> {
    stream: S,
    watch: W,
    prefix: BytesMut,
    gathered: BytesMut,
    /// Bytes that were read since it was the turn of others.
    read: usize,
    /// Whether no more is read until it has been the turn of others.
    is_enough: bool,
    /// The place of one that is put behind others.
    behind: Option<Behind>,
    /// Whether who uses it may end what is sent.
    ends: bool,
    /// Bytes that were written out.
    written: u64,
}

fn lock<S, W>(inner: &Mutex<Inner<S, W>>) -> MutexGuard<'_, Inner<S, W>> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S, W> Gather<S, W> {
    /// A connection of which `prefix` was read already, and that `watch` looks at.
    #[must_use]
    pub fn new(stream: S, prefix: BytesMut, watch: W) -> (Self, WriteOut<S, W>) {
        let inner = Arc::new(Mutex::new(Inner {
            stream,
            watch,
            prefix,
            gathered: BytesMut::new(),
            read: 0,
            is_enough: false,
            behind: None,
            ends: true,
            written: 0,
        }));
        (Self(Arc::clone(&inner)), WriteOut(inner))
    }
}

impl<S, W> WriteOut<S, W> {
    /// Asks who looks.
    pub fn ask<T>(&self, question: impl FnOnce(&mut W) -> T) -> T {
        question(&mut lock(&self.0).watch)
    }

    /// It is put behind all others that are not, and pays for what it has done by so much time; or it is like everybody else
    /// again. Says whether that is news.
    pub fn put_behind(&self, cost: Option<Duration>) -> bool {
        let behind = &mut lock(&self.0).behind;
        let was_behind = behind.is_some();
        match cost {
            Some(cost) => behind.get_or_insert_default().add_cost(cost),
            // Who waits for a turn might not be woken for another reason.
            None if behind.as_ref().is_some_and(|behind| !behind.waits()) => *behind = None,
            None => {}
        }
        behind.is_some() && !was_behind
    }

    /// Whether all is written out.
    pub fn is_empty(&self) -> bool {
        lock(&self.0).gathered.is_empty()
    }

    /// Bytes that were written out so far.
    pub fn written(&self) -> u64 {
        lock(&self.0).written
    }

    /// It is behind nobody, for it is to be read no more.
    pub fn leave_behind(&self) {
        lock(&self.0).behind = None;
    }
}

impl<W> WriteOut<Stream, W> {
    /// Sees to it that the end of the connection is a reset.
    pub fn break_off(&self) {
        lock(&self.0).stream.break_off();
    }
}

impl<S: AsyncRead + Unpin, W> WriteOut<S, W> {
    /// Reads what still comes; `false` when the other side has ended too, or has sent as much as was `left` to it. Nobody looks at
    /// that; but what is not read when a connection is closed has it reset, and what was said last is lost by that.
    pub fn poll_rest(&self, left: &mut usize, context: &mut Context<'_>) -> Poll<bool> {
        let stream = &mut lock(&self.0).stream;
        let mut piece = [0; 1_024];
        let mut piece = ReadBuf::new(&mut piece);
        let read = ready!(Pin::new(&mut *stream).poll_read(context, &mut piece));
        *left = left.saturating_sub(piece.filled().len());
        Poll::Ready(read.is_ok() && !piece.filled().is_empty() && *left > 0)
    }
}

impl<S: AsyncWrite + Unpin, W: Watch> WriteOut<S, W> {
    /// From now on only [`Self::poll_end`] ends what is sent, not who uses it.
    pub fn keep_open(&self) {
        lock(&self.0).ends = false;
    }

    /// Ends what is sent.
    ///
    /// # Errors
    /// What the connection says.
    pub fn poll_end(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *lock(&self.0);
        ready!(inner.poll_write_out(context))?;
        Pin::new(&mut inner.stream).poll_shutdown(context)
    }

    /// Writes out what was gathered, when all has been done that could be. Who has read enough by then is woken, to read on
    /// when it has been the turn of others.
    ///
    /// # Errors
    /// What the connection says.
    pub fn poll(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        inner.end_turn(context);
        if inner.gathered.capacity() == 0 {
            return Poll::Ready(Ok(()));
        }
        ready!(inner.poll_write_out(context))?;
        ready!(Pin::new(&mut inner.stream).poll_flush(context))?;
        // A connection that is idle needs no memory for this.
        SPARE.set(std::mem::take(&mut inner.gathered));
        Poll::Ready(Ok(()))
    }
}

impl<S, W: Watch> Inner<S, W> {
    fn end_turn(&mut self, context: &mut Context<'_>) {
        if let (1.., Some(behind)) = (self.read, &mut self.behind) {
            behind.end_turn();
        }
        self.read = 0;
        self.watch.next_turn();
        if std::mem::take(&mut self.is_enough) {
            context.waker().wake_by_ref();
        }
    }

    /// These bytes are what is read next.
    fn put_back(&mut self, bytes: &[u8]) {
        let rest = std::mem::replace(&mut self.prefix, bytes.into());
        self.prefix.unsplit(rest);
    }
}

impl<S, W> Drop for Gather<S, W> {
    fn drop(&mut self) {
        // Nothing is read any more, whatever its owner still does.
        lock(&self.0).behind = None;
    }
}

impl<S: AsyncWrite + Unpin, W> Inner<S, W> {
    fn poll_write_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.gathered))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gathered.advance(written);
            self.written += written as u64;
        }
        Poll::Ready(Ok(()))
    }

    /// Makes room where there is none.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.gathered.len() >= MOST {
            ready!(self.poll_write_out(context))?;
        }
        if self.gathered.capacity() == 0 {
            self.gathered = SPARE.take();
            self.gathered.clear();
            self.gathered.reserve(MOST);
        }
        Poll::Ready(Ok(MOST - self.gathered.len()))
    }
}

impl<S: AsyncRead + Unpin, W: Watch> Inner<S, W> {
    /// What was put back, or else what has come; with more behind it where that is wanted. Gives how many bytes; none at the end.
    fn poll_bytes(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        let before = buffer.filled().len();
        let prefix = self.prefix.len().min(buffer.remaining());
        buffer.put_slice(&self.prefix.split_to(prefix));
        if prefix == 0 || self.watch.wants_more(buffer.remaining() == 0) {
            let read = Pin::new(&mut self.stream).poll_read(context, buffer);
            if !matches!(read, Poll::Ready(Ok(()))) && prefix > 0 {
                self.put_back(&buffer.filled()[before..]);
                buffer.set_filled(before);
            }
            ready!(read)?;
            if prefix > 0 && buffer.filled().len() == before + prefix {
                // Nothing comes behind it.
                self.watch.wants_more(true);
            }
        }
        Poll::Ready(Ok(buffer.filled().len() - before))
    }
}

impl<S: AsyncRead + Unpin, W: Watch> AsyncRead for Gather<S, W> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let inner = &mut *lock(&self.0);
        inner.is_enough |= inner.read >= AT_ONCE;
        if inner.is_enough {
            return Poll::Pending;
        }
        if let Some(behind) = &mut inner.behind {
            ready!(behind.poll(context));
        }
        let before = buffer.filled().len();
        loop {
            if ready!(inner.poll_bytes(context, buffer))? == 0 {
                return Poll::Ready(Ok(()));
            }
            let came = &mut buffer.filled_mut()[before..];
            let passed = inner.watch.came(came);
            inner.read += passed;
            if passed < came.len() {
                inner.is_enough = !inner.watch.wants_more(false);
                inner.put_back(&buffer.filled()[before + passed..]);
                buffer.set_filled(before + passed);
            }
            if inner.prefix.is_empty() {
                // A connection that is idle needs no memory for this.
                inner.prefix = BytesMut::new();
            }
            if passed > 0 {
                return Poll::Ready(Ok(()));
            }
            if inner.is_enough {
                return Poll::Pending;
            }
        }
    }
}

impl<S: AsyncWrite + Unpin, W: Watch> AsyncWrite for Gather<S, W> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let inner = &mut *lock(&self.0);
        let room = ready!(inner.poll_room(context))?;
        let taken = bytes.len().min(room);
        inner.gathered.extend_from_slice(&bytes[..taken]);
        inner.watch.goes(&mut inner.gathered, taken);
        Poll::Ready(Ok(taken))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let inner = &mut *lock(&self.0);
        let mut room = ready!(inner.poll_room(context))?;
        let mut taken = 0;
        for slice in slices {
            let part = slice.len().min(room);
            inner.gathered.extend_from_slice(&slice[..part]);
            room -= part;
            taken += part;
        }
        inner.watch.goes(&mut inner.gathered, taken);
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // That is for `WriteOut` to do.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *lock(&self.0);
        ready!(inner.poll_write_out(context))?;
        let stream = Pin::new(&mut inner.stream);
        if inner.ends { stream.poll_shutdown(context) } else { stream.poll_flush(context) }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// Who sends the same byte without an end.
    struct Endless;

    impl AsyncRead for Endless {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let byte = [1; 10_000];
            buffer.put_slice(&byte[..buffer.remaining().min(byte.len())]);
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Endless {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// To whom so many bytes are enough.
    struct Enough(usize, usize);

    impl Watch for Enough {
        fn came(&mut self, bytes: &mut [u8]) -> usize {
            let taken = bytes.len().min(self.1);
            self.1 -= taken;
            taken
        }
        fn next_turn(&mut self) {
            self.1 = self.0;
        }
        fn goes(&mut self, _: &mut [u8], _: usize) {}
    }

    /// Bytes that are read in each of three turns, and what one may be given at a time.
    async fn turns(watch: impl Watch) -> Vec<usize> {
        let (mut endless, out) = Gather::new(Endless, BytesMut::new(), watch);
        let mut turns = Vec::new();
        std::future::poll_fn(|context| {
            let mut came = 0;
            // Whoever uses it asks more than once in a turn.
            for _ in 0..3 {
                loop {
                    let mut piece = [0; 4_096];
                    let mut piece = ReadBuf::new(&mut piece);
                    let read = Pin::new(&mut endless).poll_read(context, &mut piece);
                    assert!(piece.filled().iter().all(|&byte| byte == 1));
                    came += piece.filled().len();
                    if read.is_pending() {
                        break;
                    }
                    assert!(!piece.filled().is_empty(), "that would be the end");
                    assert!(came <= AT_ONCE, "{came} bytes");
                }
            }
            turns.push(came);
            assert!(out.poll(context).is_ready());
            if turns.len() == 3 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        turns
    }

    #[tokio::test]
    async fn who_sends_without_a_pause_is_read_by_the_part() {
        assert_eq!(turns(()).await, [AT_ONCE; 3], "it wakes itself");
        for enough in [1, 4_095, 4_096, 10_001] {
            assert_eq!(turns(Enough(enough, enough)).await, [enough; 3]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_put_behind_shares_turns_with_others_there() {
        let begin = tokio::time::Instant::now();
        let mut all = tokio::task::JoinSet::new();
        for number in 0..5 {
            all.spawn(async move {
                let (mut endless, out) = Gather::new(Endless, BytesMut::new(), ());
                let is_behind = number < 4;
                assert_eq!(out.put_behind(is_behind.then_some(Duration::ZERO)), is_behind);
                assert!(!out.put_behind(is_behind.then_some(Duration::ZERO)), "that is no news");
                let mut turns = 0;
                std::future::poll_fn(|context| {
                    let mut piece = [0; AT_ONCE];
                    let read = Pin::new(&mut endless).poll_read(context, &mut ReadBuf::new(&mut piece));
                    turns += usize::from(read.is_ready());
                    assert!(out.poll(context).is_ready());
                    if read.is_ready() {
                        context.waker().wake_by_ref();
                    }
                    if turns == 100 { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
                // Who waits for a turn when it is forgiven has that one, and then no other.
                std::future::poll_fn(|context| {
                    let read = |context: &mut Context<'_>, endless: &mut Gather<_, _>| {
                        let mut piece = [0; 10];
                        Pin::new(endless).poll_read(context, &mut ReadBuf::new(&mut piece)).is_ready()
                    };
                    let is_ready = read(context, &mut endless);
                    assert!(!out.put_behind(None));
                    if is_ready {
                        assert!(out.poll(context).is_ready() && !out.put_behind(None));
                        assert!(read(context, &mut endless), "like everybody else");
                    }
                    if is_ready { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
                (begin.elapsed().as_millis(), is_behind)
            });
        }
        let ended = all.join_all().await;
        assert!(
            ended.iter().all(|&(millis, is_behind)| if is_behind {
                (390..=410).contains(&millis)
            } else {
                millis == 0
            }),
            "{ended:?}"
        );
    }

    #[tokio::test]
    async fn all_comes_through_in_order_and_nothing_before_its_time() {
        let (near, mut far) = duplex(100);
        let (mut near, out) = Gather::new(near, BytesMut::from(&b"before"[..]), ());
        far.write_all(b" and after").await.unwrap();
        let mut read = [0; 16];
        near.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"before and after");
        near.write_all(b"a").await.unwrap();
        near.write_all(b"b").await.unwrap();
        let mut one = [0; 1];
        let early = tokio::time::timeout(std::time::Duration::from_millis(5), far.read(&mut one)).await;
        assert!(early.is_err(), "it is gathered");
        near.flush().await.unwrap();
        let early = tokio::time::timeout(std::time::Duration::from_millis(5), far.read(&mut one)).await;
        assert!(early.is_err(), "also when it is flushed by who uses it");
        std::future::poll_fn(|context| out.poll(context)).await.unwrap();
        let sent: Vec<u8> = (0..100_000_u32).map(|number| (number % 251) as u8).collect();
        let expected = [b"ab".as_slice(), &sent].concat();
        let reading = tokio::spawn(async move {
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.unwrap();
            all
        });
        near.write_all(&sent).await.unwrap();
        near.shutdown().await.unwrap();
        drop((near, out));
        assert!(reading.await.unwrap() == expected);
    }
}
