//! The one place that tells aya which types are plain data.

use aya::Pod;

use super::{
    Counters, Flood, Fragment, FragmentKey, Interface, Mac, QuicLb, QuicLbKey, QuicServerKey, Server,
    Settings, TraceFilter, Vip, VipKey, VipLimit,
};
use crate::bench::{Chunk, Course};

// SAFETY (all lines): the type is `repr(C)` or `repr(transparent)`, made of integers only, and its size is asserted
// beside it or in `abi` to be the sum of its fields, so it has no padding bytes and every bit pattern is a valid value.
macro_rules! plain_data {
    ($($kind:ty),+ $(,)?) => {
        $(
            // SAFETY: see above the macro.
            unsafe impl Pod for $kind {}
        )+
    };
}

plain_data!(
    VipKey<u32>,
    VipKey<[u32; 4]>,
    Vip,
    VipLimit,
    Mac,
    Server,
    Interface,
    FragmentKey<u32>,
    FragmentKey<[u32; 4]>,
    Fragment,
    Settings,
    Counters,
    Flood,
    QuicLbKey,
    QuicLb,
    QuicServerKey,
    TraceFilter,
    Course,
    Chunk,
);
