//! The companion proxy for services that need more than the kernel can give: HTTP, and TLS that ends at the
//! balancer.
//!
//! | room | what it is |
//! |---|---|
//! | [`spec`] | what the proxy is told: plain data |
//! | [`io`] | sockets, buffers, timers; no HTTP |
//! | [`server`] | the side that faces servers: what is known of each, which one is chosen, connections |
//! | [`wire`] | HTTP/1.1 as bytes: heads, framing, chunks; pure |

pub mod io;
pub mod server;
pub mod spec;
pub mod wire;
