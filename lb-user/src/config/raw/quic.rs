//! `quic` of a VIP: how its servers make connection IDs.

use std::collections::BTreeMap;

use lb_common::quic::lb::{Encoding, MAX_BLOCK};

use crate::config::{
    reader::{Field, Located, Table},
    report::Place,
    values::{config_id, nonce_length, quic_key, server_id_length},
};

const EXAMPLE: &str = "{ server_id_length = 3, nonce_length = 4 }";

/// One `[vip.NAME.quic]`.
struct RawQuic {
    config_id: Field<u8>,
    /// None where a length or the key is wrong; that was reported.
    encoding: Option<Encoding>,
    at: Place,
}

/// Reads one table, or a list of tables with a `config_id` each.
pub(super) fn read(vip: &mut Table<'_, '_>) -> Field<BTreeMap<u8, Encoding>> {
    let tables = vip.table_or_tables("quic", "quic", EXAMPLE, RawQuic::read);
    let Field::Set(Located { value, key, at }) = tables else {
        return if tables.is_absent() { Field::Absent } else { Field::Broken };
    };
    if value.is_empty() {
        vip.report().error(at, format!("quic in {}: the list is empty; add {EXAMPLE}", vip.label()));
        return Field::Broken;
    }
    let mut known: BTreeMap<u8, (Place, Option<Encoding>)> = BTreeMap::new();
    for quic in &value {
        let id = match &quic.config_id {
            Field::Absent => 0,
            Field::Broken => return Field::Broken,
            Field::Set(id) => id.value,
        };
        let place = quic.config_id.get().map_or(quic.at, |id| id.at);
        if let Some((other, _)) = known.get(&id) {
            let (label, line) = (vip.label(), vip.report().line(*other));
            let problem = format!(
                "quic in {label}: config_id is {id} as in line {line}; give each table one of its own (0 to 6)"
            );
            vip.report().error(place, problem);
            return Field::Broken;
        }
        known.insert(id, (place, quic.encoding));
    }
    let usable: Option<BTreeMap<_, _>> =
        known.into_iter().map(|(id, (_, encoding))| Some((id, encoding?))).collect();
    usable.map_or(Field::Broken, |value| Field::Set(Located { value, key, at }))
}

impl RawQuic {
    fn read(table: &mut Table<'_, '_>) -> Self {
        let config_id = table.get("config_id", config_id);
        let server_id = table.need("server_id_length", "server_id_length = 3", server_id_length);
        let nonce = table.need("nonce_length", "nonce_length = 4", nonce_length);
        let key = table.get("key", quic_key);
        let encoding = match (server_id.get(), nonce.get(), key.known()) {
            (Some(server_id), Some(nonce), Ok(key)) => {
                let encoding = Encoding::new(server_id.value, nonce.value, key.map(|key| key.value));
                if encoding.is_none() {
                    let problem = format!(
                        "nonce_length in {}: server_id_length {} and nonce_length {} are {} octets together; \
                         at most {MAX_BLOCK} fit into a connection ID",
                        table.label(),
                        server_id.value,
                        nonce.value,
                        server_id.value + nonce.value
                    );
                    table.report().error(nonce.at, problem);
                }
                encoding
            }
            _ => None,
        };
        Self { config_id, encoding, at: table.at() }
    }
}
