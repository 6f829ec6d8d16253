//! `/v1/connections`: who is connected to what, and ending that.

use std::{net::IpAddr, sync::Arc};

use super::{Done, Handle, Terms, error::Refusal, query::Query};
use crate::{
    config::network_of,
    connections::{Connections, Ended, Filter, LARGEST_LIMIT, Listed, USUAL_LIMIT},
    trace::Insight,
};

/// Lists connections.
///
/// # Errors
/// When something in the query is wrong.
pub async fn list(mut query: Query, handle: &Handle) -> Result<Listed, Refusal> {
    let filter = filter(&mut query)?;
    let right = format!("a number from 1 to {LARGEST_LIMIT}");
    let limit = query.take_as("limit", &right)?.unwrap_or(USUAL_LIMIT);
    query.finish()?;
    if !(1..=LARGEST_LIMIT).contains(&limit) {
        return Err(Refusal::BadRequest(format!("limit must be {right}")));
    }
    let (connections, insight) = ready(handle).await?;
    connections.list(insight, filter, limit).await.map_err(Refusal::Refused)
}

/// Ends connections; with `dry_run` only says how many it would be.
///
/// # Errors
/// When something in the query is wrong, or it does not say which.
pub async fn end(mut query: Query, terms: Terms, handle: &Handle) -> Result<Done<Ended>, Refusal> {
    let filter = filter(&mut query)?;
    let all = query.take_as("all", "true or false")?.unwrap_or(false);
    query.finish()?;
    if all != (filter == Filter::default()) {
        let message = "say which connections are to end: vip, server, client; or all=true and nothing else";
        return Err(Refusal::BadRequest(message.into()));
    }
    let (connections, insight) = ready(handle).await?;
    // What is open is no part of what is in use: that it is as it was seen is all that can be asked for.
    let version = handle.in_use(terms.clone()).await?.version;
    let ended = if terms.dry_run {
        connections.list(insight, filter, 1).await.map(|listed| Ended { ended: listed.matching })
    } else {
        connections.end(insight, filter).await
    };
    Ok(Done { what: ended.map_err(Refusal::Refused)?, version })
}

fn filter(query: &mut Query) -> Result<Filter, Refusal> {
    let client = query.take("client").map(|text| network(&text)).transpose();
    let client = client.map_err(|problem| Refusal::BadRequest(format!("client: {problem}")))?;
    Ok(Filter { vip: query.take("vip"), server: query.take("server"), client })
}

/// A network, or a single address.
fn network(text: &str) -> Result<(IpAddr, u8), String> {
    match text.parse::<IpAddr>() {
        Ok(address @ IpAddr::V4(_)) => Ok((address, 32)),
        Ok(address @ IpAddr::V6(_)) => Ok((address, 128)),
        Err(_) => network_of(text),
    }
}

async fn ready(handle: &Handle) -> Result<(Connections, Arc<Insight>), Refusal> {
    let blind = || Refusal::Internal("there is no kernel program to look into".into());
    let (connections, eyes) = handle.connections.clone().zip(handle.eyes.as_ref()).ok_or_else(blind)?;
    Ok((connections, eyes.insight().await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_an_address_or_a_network() {
        let read = |text: &str| filter(&mut Query::parse(Some(text)).unwrap());
        assert_eq!(read("client=10.0.0.9").unwrap().client, Some((IpAddr::from([10, 0, 0, 9]), 32)));
        assert_eq!(read("client=10.0.0.0%2F8").unwrap().client, Some((IpAddr::from([10, 0, 0, 0]), 8)));
        assert_eq!(read("client=::1").unwrap().client.unwrap().1, 128);
        for wrong in ["client=10.0.0.9%2F8", "client=host", "client="] {
            let message = read(wrong).unwrap_err().body().error.message;
            assert!(message.starts_with("client: "), "{message}");
        }
    }
}
