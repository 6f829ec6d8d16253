//! On which terms something is changed: only to see what would be different, or only if nobody was first.

use clap::Args;

use super::client::{self, At, Failure};

/// What the command line says.
#[derive(Clone, Debug, Default, Args)]
pub struct Terms {
    /// Only say what would be different.
    #[arg(long)]
    pub dry_run: bool,

    /// Change nothing unless this is still in use: `etag` of `lbctl status -o json`, or of an answer before.
    #[arg(long, value_name = "ETAG", value_parser = tag)]
    pub if_match: Option<String>,
}

fn tag(text: &str) -> Result<String, String> {
    let text = text.trim_matches('"');
    let fits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
    if fits { Ok(text.to_owned()) } else { Err("it must be an ETag as lb-user tells it".into()) }
}

impl Terms {
    /// Posts a body to a path on these terms.
    ///
    /// # Errors
    /// As [`client::post_if`].
    pub fn post(&self, at: &At, path: &str, body: String) -> Result<String, Failure> {
        let mark = if path.contains('?') { '&' } else { '?' };
        let path = if self.dry_run { format!("{path}{mark}dry_run=true") } else { path.to_owned() };
        client::post_if(at, &path, body, self.if_match.as_deref())
    }
}
