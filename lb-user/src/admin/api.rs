//! Requests and their answers.

use http_body_util::{Either, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Bytes},
    header::{self, HeaderValue},
};
use serde::Serialize;

use super::{Handle, error::Refusal, eyes};
use crate::trace::{Eyes, Lines};

/// The body of an answer: there at once, or line by line.
pub type Answer = Either<Full<Bytes>, Lines>;

/// Answers one request. `stranger` is the user id of a client that has no right to be here.
pub async fn respond<B: Body>(
    request: Request<B>,
    stranger: Option<u32>,
    handle: &Handle,
) -> Response<Answer> {
    match answer(&request, stranger, handle).await {
        Ok(body) => response(StatusCode::OK, body),
        Err(refusal) => refuse(&refusal),
    }
}

async fn answer<B: Body>(
    request: &Request<B>,
    stranger: Option<u32>,
    handle: &Handle,
) -> Result<Answer, Refusal> {
    if let Some(uid) = stranger {
        return Err(Refusal::Forbidden { uid });
    }
    let (path, query) = (request.uri().path(), request.uri().query());
    if !matches!(path, "/v1/status" | "/v1/trace" | "/v1/why") {
        return Err(Refusal::NotFound { path: path.to_owned() });
    }
    let watches = path == "/v1/trace" && request.method() == Method::HEAD;
    if !matches!(*request.method(), Method::GET | Method::HEAD) || watches {
        let (method, path) = (request.method().to_string(), path.to_owned());
        let allow = if watches { "GET" } else { "GET, HEAD" };
        return Err(Refusal::MethodNotAllowed { method, path, allow });
    }
    if !request.body().is_end_stream() {
        return Err(Refusal::UnexpectedBody);
    }
    match path {
        "/v1/trace" => Ok(Either::Right(eyes::trace(query, eyes_of(handle)?).await?)),
        "/v1/why" => encode(&eyes::why(query, eyes_of(handle)?).await?),
        _ => encode(&*handle.status().await),
    }
}

fn eyes_of(handle: &Handle) -> Result<&Eyes, Refusal> {
    handle.eyes.as_ref().ok_or_else(|| Refusal::Internal("there is no kernel program to look into".into()))
}

fn encode(value: &impl Serialize) -> Result<Answer, Refusal> {
    let mut body = serde_json::to_vec_pretty(value)
        .map_err(|error| Refusal::Internal(format!("the answer cannot be written as JSON: {error}")))?;
    body.push(b'\n');
    Ok(Either::Left(Full::from(body)))
}

fn refuse(refusal: &Refusal) -> Response<Answer> {
    let body = encode(&refusal.body()).unwrap_or_else(|_| Either::Left(Full::default()));
    let mut response = response(refusal.status(), body);
    if let Refusal::MethodNotAllowed { allow, .. } = refusal {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    response
}

fn response(status: StatusCode, body: Answer) -> Response<Answer> {
    let lines = matches!(body, Either::Right(_));
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let kind = if lines { "application/jsonl" } else { "application/json" };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
