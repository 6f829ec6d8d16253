//! Who may use the tunnel: the questions that a packet raises, and how the operator's rules are written in the map
//! that answers them.

use core::net::IpAddr;

use super::Tunnelled;
use crate::family::{Family as _, V4, V6, words4, words6};

/// Size of the map `RULES`.
pub const MAX_RULES: usize = 16_384;

/// What is asked of the operator's lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Role {
    /// May a tunnel end at this address?
    At,
    /// May a tunnel begin at this address?
    From,
    /// May an inner packet go to this address?
    To,
}

/// An address and what is asked about it.
///
/// Aligned because it may come to lie on the kernel program's stack, where the verifier insists on it: LLVM copies
/// eight bytes at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C, align(8))]
pub struct Question {
    role: Role,
    version: u32,
    address: [u32; 4],
}

impl Question {
    /// Bits of a key.
    pub const BITS: u32 = 160;

    /// About an address of family `F`.
    #[inline(always)]
    #[must_use]
    pub fn new<F: Tunnelled>(role: Role, address: F::Addr) -> Self {
        Self { role, version: F::VERSION as u32, address: F::last_words(address) }
    }

    /// Its form in the map `RULES`: role and IP version in one word, then the address as it lies in packets. That
    /// of IPv4 is in the last word, behind zeros: the other way round, LLVM writes the zeros where the verifier
    /// does not want them.
    #[inline(always)]
    #[must_use]
    pub const fn key(self) -> [u32; 5] {
        let [a, b, c, d] = self.address;
        [(self.role as u32) << 8 | self.version, a, b, c, d]
    }
}

/// A rule: it says yes to all questions whose keys begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rule {
    /// How many bits of the key count.
    pub bits: u32,
    /// See [`Question::key`].
    pub key: [u32; 5],
}

impl Rule {
    /// For all addresses that agree with this one in their first `prefix` bits, of which there are 32 or 128.
    #[must_use]
    pub fn new(role: Role, address: IpAddr, prefix: u8) -> Self {
        let (question, width) = match address {
            IpAddr::V4(address) => {
                (Question::new::<V4>(role, V4::from_words(words4(address.octets()))), V4::BITS)
            }
            IpAddr::V6(address) => (Question::new::<V6>(role, words6(address.octets())), V6::BITS),
        };
        Self { bits: Question::BITS - width + prefix as u32, key: question.key() }
    }
}

/// What the operator allows.
pub trait Gate {
    /// UDP port of GUE; 0 where GUE is not wanted.
    fn gue_port(&self) -> u16;

    /// Whether a rule says yes.
    fn allows(&self, question: Question) -> bool;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_of_different_roles_or_families_have_different_heads() {
        let mut heads = std::collections::HashSet::new();
        for role in [Role::At, Role::From, Role::To] {
            heads.insert(Question::new::<V4>(role, 0).key()[0]);
            heads.insert(Question::new::<V6>(role, [0; 4]).key()[0]);
        }
        assert_eq!(heads.len(), 6);
    }
}
