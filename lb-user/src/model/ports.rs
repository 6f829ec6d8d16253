//! Sets of ports, as an operator writes them: `80`, `"80,443"`, `"1024-1123"`.

use std::fmt;

/// An inclusive range of ports, `first <= last`, never port 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// Lowest port.
    pub first: u16,
    /// Highest port; equal to `first` for a single port.
    pub last: u16,
}

impl PortRange {
    /// Number of ports in the range.
    #[must_use]
    pub fn len(self) -> u32 {
        u32::from(self.last) - u32::from(self.first) + 1
    }

    /// Never true: a range holds at least one port. Present because [`Self::len`] is.
    #[must_use]
    pub fn is_empty(self) -> bool {
        false
    }

    /// Whether the two ranges share a port.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// The ports of a VIP: at least one range, in the order written, none overlapping another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports(Vec<PortRange>);

impl Ports {
    /// Checks that there is at least one range and that none overlap; gives the offending pair otherwise.
    ///
    /// # Errors
    /// The two ranges that overlap, or `None` when the list is empty.
    pub fn new(ranges: Vec<PortRange>) -> Result<Self, Option<(PortRange, PortRange)>> {
        if ranges.is_empty() {
            return Err(None);
        }
        // Sorted, only neighbours can overlap: a list may have thousands of single ports.
        let mut sorted = ranges.clone();
        sorted.sort();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0].overlaps(pair[1])) {
            return Err(Some((pair[0], pair[1])));
        }
        Ok(Self(ranges))
    }

    /// The ranges, in the order written.
    #[must_use]
    pub fn ranges(&self) -> &[PortRange] {
        &self.0
    }

    /// Whether they are all ports there are.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.0.iter().map(|range| range.len()).sum::<u32>() == u32::from(u16::MAX)
    }

    /// The ports under which the kernel's tables have it: each one, or 0 for all that no other VIP has.
    pub fn keys(&self) -> impl Iterator<Item = u16> + '_ {
        const EVERY: &[PortRange] = &[PortRange { first: 0, last: 0 }];
        let ranges = if self.is_all() { EVERY } else { &self.0 };
        ranges.iter().flat_map(|range| range.first..=range.last)
    }

    /// Every single port, in the order written.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.0.iter().flat_map(|range| range.first..=range.last)
    }

    /// The first port written: the one that is checked when nothing else says which.
    #[must_use]
    pub fn first(&self) -> u16 {
        self.0[0].first
    }

    /// The only port, if there is just one.
    #[must_use]
    pub fn single(&self) -> Option<u16> {
        match self.0[..] {
            [range] if range.first == range.last => Some(range.first),
            _ => None,
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_all() {
            return f.write_str("all");
        }
        for (index, range) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{range}")?;
        }
        Ok(())
    }
}
