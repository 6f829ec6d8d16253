//! Routing QUIC by connection ID: a client that changes its address keeps its server.
//!
//! QUIC (RFC 9000) lets a connection move to another address and port, and lets the server choose the ID
//! by which the client then names the connection. A server that follows QUIC-LB
//! (draft-ietf-quic-load-balancers-21) writes its own number, its *server ID*, into every ID it hands out,
//! in the clear or encrypted with a key that it shares with the balancer. So the balancer finds the server in
//! the packet and keeps no state:
//!
//! ```text
//! UDP payload ─ cid::locate ─ first octet: which configuration ─ lb::decode ─ server ID
//!                invariants     QuicLbKey, one map look-up         aes
//! ```
//!
//! Where any of these steps says no, the packet is *unroutable* (§4.1) and goes where its addresses and ports
//! lead. That is no error: the first packets of every connection carry an ID that the client made up.
//!
//! Only what all versions of QUIC have in common (RFC 8999) is read, as the draft demands.

pub mod aes;
pub mod cid;
#[cfg(any(test, feature = "host"))]
pub mod encode;
pub mod lb;
