//! Requests and their answers.

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Bytes},
    header::{self, HeaderValue},
};
use serde::Serialize;

use super::{Handle, error::Refusal};

/// Answers one request. `stranger` is the user id of a client that has no right to be here.
pub async fn respond<B: Body>(
    request: Request<B>,
    stranger: Option<u32>,
    handle: &Handle,
) -> Response<Full<Bytes>> {
    match answer(&request, stranger, handle).await {
        Ok(body) => json(StatusCode::OK, body),
        Err(refusal) => refuse(&refusal),
    }
}

async fn answer<B: Body>(
    request: &Request<B>,
    stranger: Option<u32>,
    handle: &Handle,
) -> Result<Vec<u8>, Refusal> {
    if let Some(uid) = stranger {
        return Err(Refusal::Forbidden { uid });
    }
    let path = request.uri().path();
    if path != "/v1/status" {
        return Err(Refusal::NotFound { path: path.to_owned() });
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let (method, path) = (request.method().to_string(), path.to_owned());
        return Err(Refusal::MethodNotAllowed { method, path, allow: "GET, HEAD" });
    }
    if !request.body().is_end_stream() {
        return Err(Refusal::UnexpectedBody);
    }
    encode(&*handle.status().await)
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, Refusal> {
    let mut body = serde_json::to_vec_pretty(value)
        .map_err(|error| Refusal::Internal(format!("the answer cannot be written as JSON: {error}")))?;
    body.push(b'\n');
    Ok(body)
}

fn refuse(refusal: &Refusal) -> Response<Full<Bytes>> {
    let mut response = json(refusal.status(), encode(&refusal.body()).unwrap_or_default());
    if let Refusal::MethodNotAllowed { allow, .. } = refusal {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    response
}

fn json(status: StatusCode, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
