//! The shape of every answer that is not what was asked for:
//! `{"error":{"code":"not_found","message":"…"}}`. Codes are for programs, messages for people.

use hyper::StatusCode;
use serde::{Deserialize, Serialize};

/// Body of an answer with a status of 400 or above.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// What went wrong.
    pub error: Problem,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// One of a fixed set of words.
    pub code: String,
    /// What, where, and what would be right.
    pub message: String,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The other end of the socket may not use it.
    Forbidden {
        /// Its user id.
        uid: u32,
    },
    /// There is no such path.
    NotFound {
        /// The path asked for.
        path: String,
    },
    /// The path exists, but not for this method.
    MethodNotAllowed {
        /// The method used.
        method: String,
        /// The path asked for.
        path: String,
        /// Methods that would do, as in the header `Allow`.
        allow: &'static str,
    },
    /// The request has a body, and nothing here takes one.
    UnexpectedBody,
    /// Something in the request cannot be.
    BadRequest(String),
    /// It can be asked for by one at a time, and somebody has.
    Busy(String),
    /// What was asked for cannot be done.
    Refused(String),
    /// lb-user's own fault.
    Internal(String),
}

impl Refusal {
    /// The status to answer with.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Forbidden { .. } => StatusCode::FORBIDDEN,
            Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::UnexpectedBody => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Busy(_) => StatusCode::CONFLICT,
            Self::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
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
            Self::NotFound { path } => (
                "not_found",
                format!(
                    "there is nothing at {path}; there are /v1/status, /v1/server, /v1/reload, /v1/trace and /v1/why"
                ),
            ),
            Self::MethodNotAllowed { method, path, allow } => {
                ("method_not_allowed", format!("{method} is not possible on {path}; possible: {allow}"))
            }
            Self::UnexpectedBody => {
                ("unexpected_body", "the request has a body, which nothing here takes".to_owned())
            }
            Self::BadRequest(message) => ("bad_request", message.clone()),
            Self::Busy(message) => ("busy", message.clone()),
            Self::Refused(message) => ("refused", message.clone()),
            Self::Internal(message) => ("internal", message.clone()),
        };
        Body { error: Problem { code: code.to_owned(), message } }
    }
}
