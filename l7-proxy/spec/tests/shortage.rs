//! A process that may open no more files: in a process of its own, for the limit is one for all its threads.

use std::{
    os::{fd::AsFd as _, unix::net::UnixStream},
    time::Duration,
};

use l7_spec::{Ask, Channel};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[test]
fn who_may_open_no_more_files_gets_the_message_without_them_and_is_told() {
    let (one, other) = UnixStream::pair().unwrap();
    let channel = |stream| Channel::new(stream, Some(Duration::from_secs(5))).unwrap();
    let (mut one, mut other) = (channel(one), channel(other));
    let files: Vec<_> = (0..3).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
    let handed: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
    let mut receive = |most: Option<u64>| {
        one.send(&Ask::Supply, &handed).unwrap();
        let usual = getrlimit(Resource::Nofile);
        // The lowest free number is what the next file would get.
        let lowest = std::os::fd::AsRawFd::as_raw_fd(&std::fs::File::open("/dev/null").unwrap());
        let least = most.map_or(usual.current, |most| Some(u64::from(lowest.cast_unsigned()) + most));
        setrlimit(Resource::Nofile, Rlimit { current: least, ..usual }).unwrap();
        let received = other.receive::<Ask>();
        setrlimit(Resource::Nofile, usual).unwrap();
        let (ask, files) = received.unwrap().expect("a message");
        assert_eq!(ask, Ask::Supply);
        (files.len(), other.lost_files())
    };
    assert_eq!(receive(None), (3, false));
    assert_eq!(receive(Some(0)), (0, true));
    assert_eq!(receive(Some(2)), (2, true));
    assert_eq!(receive(None), (3, false), "what is said is of the last message");
}
