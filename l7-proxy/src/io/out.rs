//! What is to be written to a socket.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

/// Pieces shorter than this are copied behind what waits; longer ones are written from where they lie.
const COPIED: usize = 2 * 1024;

/// Memory that is kept while nothing waits.
const KEPT: usize = 4 * 1024;

/// Bytes that wait to be written: some text, a long piece that is not copied, and text behind it.
#[derive(Debug, Default)]
pub struct Out {
    head: Vec<u8>,
    written: usize,
    data: Bytes,
    tail: Vec<u8>,
    total: u64,
}

impl Out {
    /// Where text is to be appended.
    pub fn text(&mut self) -> &mut Vec<u8> {
        if self.data.is_empty() && self.tail.is_empty() { &mut self.head } else { &mut self.tail }
    }

    /// Appends a piece.
    pub fn put(&mut self, data: Bytes) {
        if data.len() < COPIED || !self.data.is_empty() {
            self.text().extend_from_slice(&data);
        } else {
            self.data = data;
        }
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting() == 0
    }

    /// Bytes that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.head.len() - self.written + self.data.len() + self.tail.len()
    }

    /// Bytes that were written so far.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Forgets what waits.
    pub fn clear(&mut self) {
        self.head.clear();
        self.head.shrink_to(KEPT);
        self.tail.clear();
        self.tail.shrink_to(KEPT);
        self.written = 0;
        self.data = Bytes::new();
    }

    /// Writes until nothing waits and the socket's own layers hold nothing back. How many bytes went out in
    /// this call is added to [`Self::total`], also where it does not finish.
    ///
    /// # Errors
    /// What the socket says.
    pub fn poll_flush<S: AsyncWrite + Unpin>(
        &mut self,
        socket: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !self.is_empty() {
            let slices = [
                IoSlice::new(&self.head[self.written..]),
                IoSlice::new(&self.data),
                IoSlice::new(&self.tail),
            ];
            let pieces = slices.iter().filter(|slice| !slice.is_empty()).count();
            let written = match (pieces, slices.iter().find(|slice| !slice.is_empty())) {
                (1, Some(only)) => ready!(Pin::new(&mut *socket).poll_write(context, only))?,
                _ => ready!(Pin::new(&mut *socket).poll_write_vectored(context, &slices))?,
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        self.clear();
        Pin::new(socket).poll_flush(context)
    }

    fn advance(&mut self, mut written: usize) {
        self.total += written as u64;
        let of_head = written.min(self.head.len() - self.written);
        self.written += of_head;
        written -= of_head;
        let of_data = written.min(self.data.len());
        self.data.advance(of_data);
        written -= of_data;
        // What is left is of the tail, which is the head of what comes next.
        if self.data.is_empty() && self.written == self.head.len() {
            self.data = Bytes::new();
            self.head.clear();
            std::mem::swap(&mut self.head, &mut self.tail);
            self.written = written;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket that takes a few bytes at a time.
    struct Narrow(Vec<u8>, usize);

    impl AsyncWrite for Narrow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let taken = bytes.len().min(self.1);
            self.0.extend_from_slice(&bytes[..taken]);
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            let taken = all.len().min(self.1);
            self.0.extend_from_slice(&all[..taken]);
            Poll::Ready(Ok(taken))
        }
    }

    #[tokio::test]
    async fn all_is_written_in_order_however_little_the_socket_takes() {
        let long = Bytes::from(vec![b'd'; COPIED]);
        let mut expected = b"head".to_vec();
        expected.extend_from_slice(&long);
        expected.extend_from_slice(b"tail+");
        expected.extend_from_slice(&long);
        expected.extend_from_slice(b".");
        for step in [1, 2, 3, 5, COPIED, COPIED + 5, 9_000] {
            let mut out = Out::default();
            out.text().extend_from_slice(b"head");
            out.put(long.clone());
            out.put(Bytes::from_static(b"tail"));
            out.text().extend_from_slice(b"+");
            out.put(long.clone());
            out.text().extend_from_slice(b".");
            assert_eq!(out.waiting(), expected.len());
            let mut socket = Narrow(Vec::new(), step);
            std::future::poll_fn(|context| out.poll_flush(&mut socket, context)).await.unwrap();
            assert!(socket.0 == expected, "step {step}");
            assert!(out.is_empty() && out.total() == expected.len() as u64);
        }
    }
}
