//! The scripted probe: says and hears what the operator has written, step by step.

use super::{Outcome, Peer, connect, talk::Talk, tcp};
use crate::model::Step;

/// Plays all steps, in order.
pub(super) async fn probe(peer: impl Into<Peer>, steps: &[Step]) -> Result<String, Outcome> {
    let mut talk = Talk::new(connect(peer).await?);
    for (number, step) in (1..).zip(steps) {
        let done = match step {
            Step::Send(words) => talk.say(words).await,
            Step::Expect(words) => talk.expect(words).await,
            Step::Begins(words) => talk.begins(words).await,
        };
        done.map_err(|outcome| match outcome {
            Outcome::Failure(why) => Outcome::Failure(format!("step {number}: {why}")),
            other => other,
        })?;
    }
    tcp::close(talk.into_stream()).await;
    Ok(format!("the conversation went as it should, {} steps", steps.len()))
}
