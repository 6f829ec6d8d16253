//! Requests and their answers.

use std::{error::Error, time::Duration};

use http_body_util::{BodyExt as _, Collected, Either, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Bytes},
    header::{self, HeaderValue},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Audit, Handle, How, ServerRequest, VipRequest, Wish,
    audit::{Record, Who},
    error::Refusal,
    eyes, flows,
    maps::Maps,
    query::Query,
};
use crate::{
    metrics,
    reload::unix_time,
    trace::{Eyes, Lines},
};

/// The body of an answer: there at once, or line by line.
pub type Answer = Either<Full<Bytes>, Lines>;

/// Largest body that is taken, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// Answers one request, and has it written down if it may change something. `stranger` is the user id of a client that has
/// no right to be here.
pub async fn respond<B: Body>(
    request: Request<B>,
    who: Who,
    stranger: Option<u32>,
    handle: &Handle,
) -> Response<Answer>
where
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let is_metrics = request.uri().path() == "/metrics";
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    let audit = handle.audit.as_ref().filter(|_| changes && stranger.is_none());
    let outcome = match audit {
        Some(audit) => audited(request, who, handle, audit).await,
        None => answer(request, stranger, handle).await,
    };
    match outcome {
        Ok(body) => {
            let mut response = response(StatusCode::OK, body);
            if is_metrics {
                let kind = HeaderValue::from_static(metrics::CONTENT_TYPE);
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
            }
            response
        }
        Err(refusal) => refuse(&refusal),
    }
}

/// [`answer`], written down.
async fn audited<B: Body>(
    request: Request<B>,
    who: Who,
    handle: &Handle,
    audit: &Audit,
) -> Result<Answer, Refusal>
where
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let what = request.uri().path_and_query().map_or("", |what| what.as_str()).to_owned();
    let (head, body) = request.into_parts();
    let body = whole(body).await;
    let bytes = body.as_ref().map_or(&[][..], |bytes| bytes);
    let record = Record::of(unix_time(), who, &head.method, &what, bytes);
    let outcome = match body {
        Ok(body) => answer(Request::from_parts(head, Full::new(body)), None, handle).await,
        Err(refusal) => Err(refusal),
    };
    if let Some(record) = record {
        audit.write(&match &outcome {
            Ok(_) => record.answered(StatusCode::OK, None),
            Err(refusal) => record.answered(refusal.status(), Some(refusal.body().error.message)),
        });
    }
    outcome
}

async fn answer<B: Body>(
    request: Request<B>,
    stranger: Option<u32>,
    handle: &Handle,
) -> Result<Answer, Refusal>
where
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    if let Some(uid) = stranger {
        return Err(Refusal::Forbidden { uid });
    }
    let path = request.uri().path().to_owned();
    let (allow, methods): (_, &[Method]) = match path.as_str() {
        "/v1/status" | "/v1/why" | "/v1/history" | "/v1/connections" | "/v1/maps" | "/metrics" => {
            ("GET, HEAD", &[Method::GET, Method::HEAD])
        }
        "/v1/trace" => ("GET", &[Method::GET]),
        "/v1/server"
        | "/v1/vip"
        | "/v1/edit"
        | "/v1/reload"
        | "/v1/confirm"
        | "/v1/rollback"
        | "/v1/discard"
        | "/v1/connections/end" => ("POST", &[Method::POST]),
        _ => return Err(Refusal::NotFound { path }),
    };
    if !methods.contains(request.method()) {
        return Err(Refusal::MethodNotAllowed { method: request.method().to_string(), path, allow });
    }
    if path == "/v1/server" {
        let wish: ServerRequest = read(request.into_body()).await?;
        return encode(&handle.set_server(wish).await.map_err(Refusal::Refused)?);
    }
    if path == "/v1/vip" {
        let wish: VipRequest = read(request.into_body()).await?;
        return encode(&handle.set_vip(wish).await.map_err(Refusal::Refused)?);
    }
    if path == "/v1/edit" {
        let mut query = Query::parse(request.uri().query())?;
        let stage = query.take_as("stage", "true or false")?.unwrap_or(false);
        let how = match (how(&mut query)?, stage) {
            (How::Apply, true) => How::Stage,
            (how, false) => how,
            _ => return Err(Refusal::BadRequest("stage excludes dry_run and confirm".into())),
        };
        query.finish()?;
        let edit = read(request.into_body()).await?;
        return encode(&handle.reload(Wish::Edit(edit, how)).await.map_err(Refusal::Refused)?);
    }
    if !request.body().is_end_stream() {
        return Err(Refusal::UnexpectedBody);
    }
    let query = request.uri().query();
    match path.as_str() {
        "/v1/trace" => Ok(Either::Right(eyes::trace(query, eyes_of(handle)?).await?)),
        "/v1/why" => encode(&eyes::why(query, eyes_of(handle)?).await?),
        "/v1/reload" | "/v1/confirm" | "/v1/rollback" | "/v1/discard" => {
            encode(&handle.reload(wish(&path, query)?).await.map_err(Refusal::Refused)?)
        }
        "/v1/connections" => encode(&flows::list(query, handle).await?),
        "/v1/connections/end" => encode(&flows::end(query, handle).await?),
        "/v1/maps" => encode(&Maps::of(&*eyes_of(handle)?.insight().await?)),
        "/v1/history" => encode(&handle.history()),
        "/metrics" => {
            let text = metrics::render(&*handle.status().await, &metrics::Process::this());
            Ok(Either::Left(Full::from(text)))
        }
        _ => encode(&*handle.status().await),
    }
}

/// What a request wants done about the configuration file.
fn wish(path: &str, query: Option<&str>) -> Result<Wish, Refusal> {
    let mut query = Query::parse(query)?;
    let wish = match path {
        "/v1/confirm" => Wish::Confirm,
        "/v1/discard" => Wish::Discard,
        "/v1/rollback" => match query.take_as("number", "the number of a configuration that is kept")? {
            Some(number) => Wish::GoBack(number),
            None => return Err(Refusal::BadRequest("number is missing: which configuration?".into())),
        },
        _ => match how(&mut query)? {
            How::Try => Wish::Try,
            How::Apply | How::Stage => Wish::Apply,
            How::Commit(patience) => Wish::Commit(patience),
        },
    };
    query.finish()?;
    Ok(wish)
}

/// Whether something is to be tried, done, or done until further notice.
fn how(query: &mut Query) -> Result<How, Refusal> {
    let dry_run = query.take_as("dry_run", "true or false")?.unwrap_or(false);
    let confirm: Option<u64> = query.take_as("confirm", "a number of seconds")?;
    match (dry_run, confirm) {
        (true, None) => Ok(How::Try),
        (false, None) => Ok(How::Apply),
        (false, Some(seconds @ 1..=86_400)) => Ok(How::Commit(Duration::from_secs(seconds))),
        (false, Some(_)) => Err(Refusal::BadRequest("confirm must be 1 to 86400".into())),
        (true, Some(_)) => Err(Refusal::BadRequest("what is only tried needs no confirmation".into())),
    }
}

/// The body of a request, which must be JSON of this form.
async fn read<T: DeserializeOwned, B: Body>(body: B) -> Result<T, Refusal>
where
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    serde_json::from_slice(&whole(body).await?).map_err(wrong)
}

/// All of a body that is not too large.
async fn whole<B: Body>(body: B) -> Result<Bytes, Refusal>
where
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    Limited::new(body, MAX_BODY).collect().await.map(Collected::to_bytes).map_err(wrong)
}

fn wrong(error: impl std::fmt::Display) -> Refusal {
    Refusal::BadRequest(format!("the body is not what it should be: {error}"))
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
