//! What is done where this process may have no more files open: connections to servers that wait for a next request make
//! room for what is asked for now.

use std::{
    cell::{Cell, RefCell},
    io,
    time::{Duration, Instant},
};

/// Where there was nothing to be had, nobody looks again so soon.
const PAUSE: Duration = Duration::from_millis(50);

/// Makes room, and says whether it could.
type Way = Box<dyn Fn() -> bool>;

thread_local! {
    static WAY: RefCell<Option<Way>> = const { RefCell::new(None) };
    static IN_VAIN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// This thread makes room in this way from now on: `way` says whether it could.
pub fn relieve_by(way: impl Fn() -> bool + 'static) {
    WAY.set(Some(Box::new(way)));
}

/// Whether an error says that there may be no more open files, of this process or on this host.
#[must_use]
pub fn is_told_by(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Makes room; whether there is any now.
#[must_use]
pub fn relieve() -> bool {
    if IN_VAIN.get().is_some_and(|last| last.elapsed() < PAUSE) {
        return false;
    }
    let relieved = WAY.with_borrow(|way| way.as_ref().is_some_and(|way| way()));
    IN_VAIN.set((!relieved).then(Instant::now));
    relieved
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn room_is_made_as_long_as_there_is_any() {
        assert!(!relieve(), "nobody has said how");
        IN_VAIN.set(None);
        let (left, asked) = (Rc::new(Cell::new(2)), Rc::new(Cell::new(0)));
        let (there, count) = (Rc::clone(&left), Rc::clone(&asked));
        relieve_by(move || {
            count.set(count.get() + 1);
            let some = there.get() > 0;
            there.set(there.get() - i32::from(some));
            some
        });
        assert!(relieve() && relieve() && !relieve() && !relieve());
        assert_eq!(asked.get(), 3, "who has looked in vain does not look again at once");
    }

    #[test]
    fn only_a_lack_of_files_is_one() {
        let told = |code| is_told_by(&io::Error::from_raw_os_error(code));
        assert!(told(libc::EMFILE) && told(libc::ENFILE));
        assert!(!told(libc::ECONNREFUSED) && !is_told_by(&io::ErrorKind::TimedOut.into()));
    }
}
