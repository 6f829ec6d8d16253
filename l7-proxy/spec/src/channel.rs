//! Messages over a Unix socket, with open files that come along.
//!
//! A message is its length (four bytes, the most significant first) and so many bytes of JSON. Files belong to the
//! message whose length they came with (`SCM_RIGHTS`, unix(7)).

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};
use serde::{Serialize, de::DeserializeOwned};

/// Files that may come with one message; the kernel takes 253.
pub const MOST_FILES: usize = 64;

/// Longest message that is taken, in bytes: far more than a specification of thousands of services.
const LONGEST: u32 = 256 << 20;

/// One end of a conversation.
#[derive(Debug)]
pub struct Channel {
    stream: UnixStream,
    lost_files: bool,
}

impl Channel {
    /// Over this socket; whoever waits for the other side gives up after `patience`.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(stream: UnixStream, patience: Option<Duration>) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(patience)?;
        stream.set_write_timeout(patience)?;
        Ok(Self { stream, lost_files: false })
    }

    /// Waits so long for what comes next; for ever with `None`.
    ///
    /// # Errors
    /// What the system says.
    pub fn wait_for(&self, patience: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(patience)
    }

    /// Sends a message with copies of `files`, [`MOST_FILES`] at most.
    ///
    /// # Errors
    /// What the system says; the conversation is over then.
    pub fn send<T: Serialize>(&mut self, message: &T, files: &[BorrowedFd<'_>]) -> io::Result<()> {
        let body = serde_json::to_vec(message)?;
        let length = u32::try_from(body.len()).ok().filter(|length| *length <= LONGEST);
        let length = length.ok_or_else(|| io::Error::other("the message is too long"))?.to_be_bytes();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FILES))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(files)) {
            return Err(io::Error::other("too many files for one message"));
        }
        let sent = loop {
            match sendmsg(&self.stream, &[IoSlice::new(&length)], &mut ancillary, SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                sent => break sent?,
            }
        };
        self.stream.write_all(&length[sent..])?;
        self.stream.write_all(&body)
    }

    /// Waits for a message and the files that come with it; `None` when the other side has ended.
    ///
    /// # Errors
    /// What the system says, or that it is no message; the conversation is over then.
    pub fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut length = [0; 4];
        let mut files = Vec::new();
        let mut got = 0;
        self.lost_files = false;
        while got < length.len() {
            let more = self.receive_with_files(&mut length[got..], &mut files)?;
            if more == 0 && got == 0 {
                return Ok(None);
            }
            if more == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            got += more;
        }
        let length = u32::from_be_bytes(length);
        if length > LONGEST {
            return Err(io::Error::other("the message is too long"));
        }
        let body = self.receive_bytes(length.into())?;
        Ok(Some((serde_json::from_slice(&body)?, files)))
    }

    /// Whether files are missing that came with the last message: this process may have no more of them open (`MSG_CTRUNC`,
    /// recvmsg(2)).
    #[must_use]
    pub const fn lost_files(&self) -> bool {
        self.lost_files
    }

    fn receive_with_files(&mut self, into: &mut [u8], files: &mut Vec<OwnedFd>) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FILES))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let into = &mut [IoSliceMut::new(into)];
            match recvmsg(self.stream.as_fd(), into, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                received => break received?,
            }
        };
        self.lost_files |= received.flags.contains(ReturnFlags::CTRUNC);
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(more) = message {
                files.extend(more);
            }
        }
        Ok(received.bytes)
    }

    /// Sends bytes as they are, behind a message that said how many.
    ///
    /// # Errors
    /// What the system says; the conversation is over then.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Waits for so many bytes.
    ///
    /// # Errors
    /// What the system says; the conversation is over then.
    pub fn receive_bytes(&mut self, length: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // Memory grows with what has come, not with what was announced.
        let got = (&self.stream).take(length).read_to_end(&mut bytes)?;
        if got as u64 == length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, net::TcpListener};

    use super::*;
    use crate::{Ask, Problem, Reply};

    fn pair() -> (Channel, Channel) {
        let (one, other) = UnixStream::pair().unwrap();
        let channel = |stream| Channel::new(stream, Some(Duration::from_secs(5))).unwrap();
        (channel(one), channel(other))
    }

    #[test]
    fn messages_arrive_with_their_files() {
        let (mut one, mut other) = pair();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let file = File::open("/dev/null").unwrap();
        one.send(&Ask::Listeners(vec![address]), &[listener.as_fd(), file.as_fd()]).unwrap();
        one.send(&Ask::File { path: "a".into(), contents: Ok(3) }, &[]).unwrap();
        one.send_bytes(b"abc").unwrap();
        let (ask, mut files) = other.receive::<Ask>().unwrap().unwrap();
        assert_eq!(ask, Ask::Listeners(vec![address]));
        assert_eq!(TcpListener::from(files.remove(0)).local_addr().unwrap(), address);
        assert_eq!(files.len(), 1);
        let (ask, files) = other.receive::<Ask>().unwrap().unwrap();
        assert!(matches!(ask, Ask::File { contents: Ok(3), .. }) && files.is_empty());
        assert_eq!(other.receive_bytes(3).unwrap(), b"abc");
        let wrong = Reply::Wrong(vec![Problem::new("service a", "is wrong")]);
        other.send(&wrong, &[]).unwrap();
        assert_eq!(one.receive::<Reply>().unwrap().unwrap().0, wrong);
        drop(one);
        assert!(other.receive::<Ask>().unwrap().is_none());
    }

    #[test]
    fn what_is_no_message_ends_the_conversation() {
        let (mut one, mut other) = pair();
        one.send_bytes(&[0, 0, 0, 2, b'{', b'}']).unwrap();
        assert!(other.receive::<Ask>().is_err());
        one.send_bytes(&[0xff; 4]).unwrap();
        assert!(other.receive::<Ask>().unwrap_err().to_string().contains("too long"));
        one.send_bytes(&[0, 0]).unwrap();
        drop(one);
        assert_eq!(other.receive::<Ask>().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
