//! The companion proxy for services that need more than the kernel can give: HTTP, and TLS that ends at the
//! balancer.
//!
//! | room | what it is |
//! |---|---|
//! | [`spec`] | what the proxy is told: plain data |

pub mod spec;
