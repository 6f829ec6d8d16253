//! The companion proxy for services that need more than the kernel can give: HTTP, and TLS that ends at the
//! balancer.
//!
//! | room | what it is |
//! |---|---|
//! | [`spec`] | what the proxy is told: plain data |
//! | [`model`] | what is served: the specification checked, its files read, everything prepared |
//! | [`process`] | threads, listeners, and the one place where what is served changes |
//! | [`admin`] | health, metrics and status over HTTP; it only looks |
//! | [`front`] | the side that faces clients: connections and the HTTP they speak |
//! | [`http`] | one request: what it asks for, what becomes of it, how it and its answer are passed on |
//! | [`tcp`] | bytes between two connections, whatever they mean |
//! | [`tls`] | TLS towards clients and servers, certificates |
//! | [`proxy_protocol`] | by which proxies tell each other who the client is; pure |
//! | [`server`] | the side that faces servers: what is known of each, which one is chosen, connections |
//! | [`state`] | what is known of a service while the process runs |
//! | [`log`] | a line for each request and connection |
//! | [`wire`] | HTTP/1.1 as bytes: heads, framing, chunks; pure |
//! | [`files`] | what files contain that specifications name |
//! | [`io`] | sockets, buffers, timers; no HTTP |

#![deny(unsafe_code)]

pub mod admin;
pub mod files;
pub mod front;
pub mod http;
pub mod io;
pub mod log;
pub mod model;
pub mod process;
pub mod proxy_protocol;
pub mod server;
pub use l7_spec as spec;
pub mod state;
pub mod tcp;
pub mod tls;
pub mod wire;
