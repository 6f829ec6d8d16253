//! The shape of every answer that is not what was asked for:
//! `{"error":{"code":"not_found","message":"…"}}`. Codes are for programs, messages for people.

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{role::Role, routes, version::Denial};

/// Body of an answer with a status of 400 or above.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Error")]
pub struct Body {
    /// What went wrong.
    pub error: Problem,
}

/// What went wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// One of a fixed set of words.
    pub code: String,
    /// What, where, and what would be right.
    pub message: String,
    /// With `changed`: what is in use now; the value of `ETag` without its quotes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// With `changed`: what has changed since the version that was named, the oldest first; none if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Vec<String>>,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The other end of the socket may not use it.
    Forbidden {
        /// Its user id.
        uid: u32,
    },
    /// Who asks may do other things, but not this.
    Role {
        /// What is needed.
        needed: Role,
        /// What is there.
        is: Role,
    },
    /// Nobody knows who asks.
    Unauthorized {
        /// Why not.
        why: String,
    },
    /// Nobody knows who asks, over and over.
    TooMany {
        /// Seconds after which it is worth another try.
        wait: u64,
    },
    /// There is no such path.
    NotFound {
        /// The path asked for.
        path: String,
    },
    /// There is no VIP, pool or server of this name.
    Nothing(String),
    /// The path exists, but not for this method.
    MethodNotAllowed {
        /// The method used.
        method: String,
        /// The path asked for.
        path: String,
        /// Methods that would do, as in the header `Allow`.
        allow: String,
    },
    /// The request has a body, and nothing here takes one.
    UnexpectedBody,
    /// The body is larger than any that makes sense.
    TooLarge {
        /// What would do, in bytes.
        most: usize,
    },
    /// The body did not come.
    Slow {
        /// How long it may take, in seconds.
        within: u64,
    },
    /// The body is something else than JSON.
    Kind {
        /// What it says that it is.
        is: String,
    },
    /// Something in the request cannot be.
    BadRequest(String),
    /// It can be asked for by one at a time, and somebody has.
    Busy(String),
    /// What was asked for cannot be done.
    Refused(String),
    /// Something else is in use than who asks has seen.
    Changed(Denial),
    /// lb-user's own fault.
    Internal(String),
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        match denial {
            Denial::No(why) => Self::Refused(why),
            changed @ Denial::Changed { .. } => Self::Changed(changed),
        }
    }
}

impl Refusal {
    /// The status to answer with.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Forbidden { .. } | Self::Role { .. } => StatusCode::FORBIDDEN,
            Self::Unauthorized { .. } => StatusCode::UNAUTHORIZED,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::NotFound { .. } | Self::Nothing(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::UnexpectedBody | Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::Kind { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Busy(_) => StatusCode::CONFLICT,
            Self::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Changed(_) => StatusCode::PRECONDITION_FAILED,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The body to answer with.
    #[must_use]
    pub fn body(&self) -> Body {
        let (code, message) = match self {
            Self::Forbidden { uid } => {
                ("forbidden", format!("user {uid} may not use lb-user's admin socket; root may"))
            }
            Self::Role { needed, is } => {
                ("forbidden", format!("this takes a token of the role {needed}; this one is of {is}"))
            }
            Self::Unauthorized { why } => ("unauthorized", why.clone()),
            Self::TooMany { wait } => (
                "too_many",
                format!("too many wrong tokens came from this address; try again in {wait} seconds"),
            ),
            Self::NotFound { path } => {
                ("not_found", format!("there is nothing at {path}; there are {}", routes::paths().join(", ")))
            }
            Self::Nothing(what) => ("not_found", what.clone()),
            Self::MethodNotAllowed { method, path, allow } => {
                ("method_not_allowed", format!("{method} is not possible on {path}; possible: {allow}"))
            }
            Self::UnexpectedBody => {
                ("unexpected_body", "the request has a body, which nothing here takes".to_owned())
            }
            Self::TooLarge { most } => {
                ("too_large", format!("the body is larger than the {most} bytes that are taken"))
            }
            Self::Slow { within } => ("too_slow", format!("the body did not come within {within} seconds")),
            Self::Kind { is } => (
                "unsupported_type",
                format!("the body's Content-Type is {is:?}; it must be application/json"),
            ),
            Self::BadRequest(message) => ("bad_request", message.clone()),
            Self::Busy(message) => ("busy", message.clone()),
            Self::Refused(message) => ("refused", message.clone()),
            Self::Changed(denial) => ("changed", denial.to_string()),
            Self::Internal(message) => ("internal", message.clone()),
        };
        let (etag, since) = match self {
            Self::Changed(Denial::Changed { now, since }) => (Some(now.to_string()), since.clone()),
            _ => (None, None),
        };
        Body { error: Problem { code: code.to_owned(), message, etag, since } }
    }
}
