//! `/v1/trace` and `/v1/why`: looking into packets.

use std::time::Duration;

use super::{error::Refusal, query::Query};
use crate::trace::{Blind, Eyes, Filter, Lines, Why, WhyQuestion, Wish};

/// Begins to send what becomes of packets.
///
/// # Errors
/// When something in the query is wrong, or somebody watches already.
pub async fn trace(mut query: Query, eyes: &Eyes) -> Result<Lines, Refusal> {
    let filter = Filter::parse(&query.take("filter").unwrap_or_default());
    let number = "a number above 0";
    let wish = Wish {
        filter: filter.map_err(|error| Refusal::BadRequest(format!("filter: {error}")))?,
        sample: query.take_as("sample", number)?.unwrap_or(1),
        bytes: query.take_as("bytes", "true or false")?.unwrap_or(false),
        count: query.take_as("count", number)?,
        duration: query.take_as("seconds", number)?.map(Duration::from_secs),
    };
    query.finish()?;
    if wish.sample == 0 || wish.count == Some(0) || wish.duration.is_some_and(|duration| duration.is_zero()) {
        return Err(Refusal::BadRequest("sample, count and seconds must be numbers above 0".into()));
    }
    Ok(eyes.watch(wish).await?)
}

/// Says what would become of a packet, and why.
///
/// # Errors
/// When something in the query is wrong.
pub async fn why(mut query: Query, eyes: &Eyes) -> Result<Why, Refusal> {
    let end = "ADDRESS:PORT, with [] around IPv6 addresses";
    let missing = |name: &str| Refusal::BadRequest(format!("{name} is missing; it must be {end}"));
    let source = query.take_as("source", end)?.ok_or_else(|| missing("source"))?;
    let destination = query.take_as("destination", end)?.ok_or_else(|| missing("destination"))?;
    let protocol = query.take("protocol").unwrap_or_else(|| "tcp".into());
    let established = query.take_as("established", "true or false")?.unwrap_or(false);
    query.finish()?;
    let tcp = match (protocol.as_str(), established) {
        ("tcp", _) => true,
        ("udp", false) => false,
        ("udp", true) => {
            return Err(Refusal::BadRequest(
                "established is about connections, which UDP does not have".into(),
            ));
        }
        _ => return Err(Refusal::BadRequest(format!("protocol is {protocol:?}; it must be tcp or udp"))),
    };
    Ok(eyes.why(WhyQuestion { source, destination, tcp, established }).await?)
}

impl From<Blind> for Refusal {
    fn from(blind: Blind) -> Self {
        match blind {
            Blind::Wrong(message) => Self::BadRequest(message),
            Blind::Busy => Self::Busy(
                "somebody watches already (another lbctl trace): there is one ring buffer; stop that one first".into(),
            ),
            Blind::Internal(message) => Self::Internal(message),
        }
    }
}
