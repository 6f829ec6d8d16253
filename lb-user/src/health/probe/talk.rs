//! A conversation over a byte stream: say something, wait for something. No more than [`MOST`] bytes are kept of what
//! the server says between two things that are waited for.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{MOST, Outcome, failure, quote, trouble};

/// What is read at once, in bytes.
const CHUNK: usize = 4_096;

/// A stream, and what was read from it that nobody has asked for yet.
pub(super) struct Talk<S> {
    stream: S,
    heard: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Talk<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, heard: Vec::new() }
    }

    pub(super) async fn say(&mut self, words: &[u8]) -> Result<(), Outcome> {
        self.stream.write_all(words).await.map_err(|error| trouble(&error))
    }

    /// Waits until `words` come, and forgets everything up to their end.
    pub(super) async fn expect(&mut self, words: &[u8]) -> Result<(), Outcome> {
        let mut searched = 0;
        loop {
            if let Some(at) = find(&self.heard[searched..], words) {
                self.heard.drain(..searched + at + words.len());
                return Ok(());
            }
            // The words may have begun at the end of what was heard.
            searched = (self.heard.len() + 1).saturating_sub(words.len());
            self.listen(words).await?;
        }
    }

    /// What comes next must be `words`, and is forgotten.
    pub(super) async fn begins(&mut self, words: &[u8]) -> Result<(), Outcome> {
        loop {
            let common = words.len().min(self.heard.len());
            if self.heard[..common] != words[..common] {
                return Err(failure(format!(
                    "expected {} first, it said {}",
                    quote(words),
                    quote(&self.heard)
                )));
            }
            if common == words.len() {
                self.heard.drain(..common);
                return Ok(());
            }
            self.listen(words).await?;
        }
    }

    /// A line, without its end; `what` names it.
    pub(super) async fn line(&mut self, what: &str) -> Result<Vec<u8>, Outcome> {
        let mut searched = 0;
        loop {
            if let Some(at) = find(&self.heard[searched..], b"\n") {
                let mut line: Vec<_> = self.heard.drain(..=searched + at).collect();
                line.truncate(line.trim_ascii_end().len());
                return Ok(line);
            }
            searched = self.heard.len();
            self.listen_for(what).await?;
        }
    }

    /// So many bytes, at most [`MOST`]; `what` names them.
    pub(super) async fn exactly(&mut self, length: usize, what: &str) -> Result<Vec<u8>, Outcome> {
        if length > MOST {
            return Err(failure(format!("{what} is {length} bytes long, which is more than {MOST}")));
        }
        while self.heard.len() < length {
            self.listen_for(what).await?;
        }
        Ok(self.heard.drain(..length).collect())
    }

    /// The stream, to be closed.
    pub(super) fn into_stream(self) -> S {
        self.stream
    }

    async fn listen(&mut self, words: &[u8]) -> Result<(), Outcome> {
        self.listen_for(&quote(words)).await
    }

    /// Reads on.
    async fn listen_for(&mut self, what: &str) -> Result<(), Outcome> {
        if self.heard.len() >= MOST {
            return Err(failure(format!("{what} is not in the first {MOST} bytes of the answer")));
        }
        self.heard.reserve(CHUNK);
        let room = CHUNK.min(MOST - self.heard.len()) as u64;
        match (&mut self.stream).take(room).read_buf(&mut self.heard).await {
            Ok(0) if self.heard.is_empty() => {
                Err(failure(format!("the server closed the connection, expected {what}")))
            }
            Ok(0) => {
                let heard = quote(&self.heard);
                Err(failure(format!("the server closed the connection, expected {what}, it said {heard}")))
            }
            Ok(_) => Ok(()),
            Err(error) => Err(trouble(&error)),
        }
    }
}

/// Where `words` begin in `text`.
pub(super) fn find(text: &[u8], words: &[u8]) -> Option<usize> {
    if words.is_empty() {
        return Some(0);
    }
    text.windows(words.len()).position(|window| window == words)
}
