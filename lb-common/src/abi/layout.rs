//! Where the fields of flow records lie, so that a next program can read them although it lays out its own differently.
//!
//! A field keeps its meaning as long as it keeps its name; what comes to mean something else gets another name. One that is
//! new must be able to begin as zero. What is told here is written down by the daemon beside the tables it is about.

use core::mem::offset_of;

use super::{Flow, Settings};

/// A field of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Bytes before it.
    pub offset: usize,
    /// Its bytes.
    pub size: usize,
}

/// Bytes of the field that `pick` picks.
const fn size_of_field<R, T>(pick: fn(&R) -> &T) -> usize {
    let _ = pick;
    size_of::<T>()
}

macro_rules! fields {
    ($record:ty: $($name:ident),+ $(,)?) => {
        &[$(Field {
            name: stringify!($name),
            offset: offset_of!($record, $name),
            size: size_of_field::<$record, _>(|record| &record.$name),
        }),+]
    };
}

macro_rules! flow {
    ($address:ty) => {
        fields!(
            Flow<$address>: client, vip, source, server, client_port, vip_port, source_port, server_port, protocol, vip_id,
            server_ref, seen, state, client_ifindex, client_mac, handshake,
        )
    };
}

/// A record of `FLOWS4`.
pub const FLOW4: &[Field] = flow!(u32);

/// A record of `FLOWS6`.
pub const FLOW6: &[Field] = flow!([u32; 4]);

/// What a next program writes into the settings of the one before.
pub const SETTINGS: &[Field] = fields!(Settings: hold_until);

#[cfg(test)]
mod tests {
    use super::*;

    /// Else a next program would lose what is in the one that is left out.
    #[test]
    fn every_field_of_a_flow_is_told() {
        for (fields, size) in [(FLOW4, size_of::<Flow<u32>>()), (FLOW6, size_of::<Flow<[u32; 4]>>())] {
            let end = |field: &Field| field.offset + field.size;
            let mut fields = fields.to_vec();
            fields.sort_by_key(|field| field.offset);
            assert_eq!(fields[0].offset, 0);
            assert!(fields.windows(2).all(|pair| end(&pair[0]) == pair[1].offset), "{fields:?}");
            assert_eq!(fields.last().map(end), Some(size));
        }
    }
}
