//! Requests and their answers.

use std::{error::Error, pin::pin, time::Duration};

use http_body_util::{BodyExt as _, Either, Full};
use hyper::{
    Request, Response, StatusCode,
    body::{Body, Buf as _, Bytes},
    header::{self, HeaderMap, HeaderName, HeaderValue},
    http::request::Parts,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::error::Category;
use tokio::time::timeout;

use super::{
    Done, Handle, How, Terms, Wish,
    audit::{Record, Who},
    error::Refusal,
    eyes, flows,
    maps::Maps,
    openapi,
    query::Query,
    role::Role,
    routes::{self, Op, Route},
};
use crate::{
    config::secrets,
    metrics,
    reload::unix_time,
    snapshot::{PoolStatus, Snapshot, VipStatus},
    trace::{Eyes, Lines},
};

/// The body of an answer: there at once, or line by line.
pub type Answer = Either<Full<Bytes>, Lines>;

/// Largest body that is taken, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// Of a larger one, so much is read before it is refused.
const MOST_READ: usize = 1024 * 1024;

/// A body has this long to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Who asks, and what that means here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Who.
    pub who: Who,
    /// From where: `socket`, or address and port.
    pub from: String,
    /// What it may do, or why nothing.
    pub standing: Result<Role, Refusal>,
}

/// The configuration that is in use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Config {
    /// The file that it came from; none if there was none.
    pub file: Option<String>,
    /// Its number in the history, if it is kept.
    pub number: Option<u32>,
    /// Its text, in TOML: without comments, and with `(hidden)` for passwords and keys.
    pub text: String,
}

/// An answer in the making.
struct Reply {
    body: Answer,
    kind: &'static str,
    etag: Option<String>,
}

/// What is known of a request by the time it has been answered.
#[derive(Default)]
struct Asked {
    body: Bytes,
    dry_run: bool,
}

/// Answers one request. What may have changed something is written down, and so is who was not let in.
pub async fn respond<B: Body>(request: Request<B>, caller: &Caller, handle: &Handle) -> Response<Answer>
where
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (head, body) = request.into_parts();
    let mut asked = Asked::default();
    let outcome = answer(&head, body, caller, handle, &mut asked).await;
    if let Some(audit) = &handle.audit {
        let record = Record::of(unix_time(), caller, &head.method, &head.uri, &asked.body);
        let refused = outcome.as_ref().err();
        let status = refused.map_or(StatusCode::OK, Refusal::status);
        let stranger = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        if stranger || (record.changes && !asked.dry_run && status != StatusCode::TOO_MANY_REQUESTS) {
            audit.write(&record.answered(status, refused.map(|refusal| refusal.body().error.message)));
        }
    }
    match outcome {
        Ok(reply) => {
            let mut response = response(StatusCode::OK, reply.kind, reply.body);
            if let Some(etag) = reply.etag {
                set(response.headers_mut(), header::ETAG, &format!("\"{etag}\""));
            }
            response
        }
        Err(refusal) => refuse(&refusal),
    }
}

async fn answer<B: Body>(
    head: &Parts,
    body: B,
    caller: &Caller,
    handle: &Handle,
    asked: &mut Asked,
) -> Result<Reply, Refusal>
where
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let is = caller.standing.clone()?;
    let route = routes::find(&head.method, head.uri.path())?;
    if is < route.role {
        return Err(Refusal::Role { needed: route.role, is });
    }
    let mut query = Query::of(route, head.uri.query())?;
    let mut terms = Terms::default();
    if route.writes {
        asked.dry_run = query.take_as("dry_run", "true or false")?.unwrap_or(false);
        terms = if_match(&head.headers)?.with_dry_run(asked.dry_run);
    }
    if route.body.is_some() {
        asked.body = whole(&head.headers, body).await?;
        perform(route, query, terms, &asked.body, handle).await
    } else if body.is_end_stream() {
        perform(route, query, terms, &[], handle).await
    } else {
        Err(Refusal::UnexpectedBody)
    }
}

/// What the header `If-Match` asks for.
fn if_match(headers: &HeaderMap) -> Result<Terms, Refusal> {
    let values: Vec<_> = headers.get_all(header::IF_MATCH).iter().map(|value| value.to_str()).collect();
    if values.is_empty() {
        return Ok(Terms::default());
    }
    let wrong = || Refusal::BadRequest("If-Match is no text".into());
    let value = values.into_iter().collect::<Result<Vec<_>, _>>().map_err(|_| wrong())?.join(",");
    Terms::default().with_if_match(&value).map_err(Refusal::BadRequest)
}

/// Does what a row of the table stands for.
async fn perform(
    route: &Route,
    mut query: Query,
    terms: Terms,
    body: &[u8],
    handle: &Handle,
) -> Result<Reply, Refusal> {
    match route.op {
        Op::Trace => {
            let lines = eyes::trace(query, eyes_of(handle)?).await?;
            Ok(Reply { body: Either::Right(lines), kind: "application/jsonl", etag: None })
        }
        Op::Why => encode(&eyes::why(query, eyes_of(handle)?).await?),
        Op::Connections => encode(&flows::list(query, handle).await?),
        Op::EndConnections => done(flows::end(query, terms, handle).await?),
        Op::Vip => one(query, handle, |query, snapshot| encode(vip(&query.need("vip")?, snapshot)?)).await,
        Op::Pool => one(query, handle, |query, snapshot| encode(pool(&query.need("pool")?, snapshot)?)).await,
        Op::Server => {
            let find = |query: &mut Query, snapshot: &Snapshot| {
                let (vip_name, name) = (query.need("vip")?, query.need("server")?);
                let server = vip(&vip_name, snapshot)?.servers.iter().find(|server| server.name == name);
                let nothing = || Refusal::Nothing(format!("VIP {vip_name:?} has no server {name:?}"));
                encode(server.ok_or_else(nothing)?)
            };
            one(query, handle, find).await
        }
        Op::Reload | Op::Edit | Op::Confirm | Op::Discard | Op::Rollback => {
            let wish = wish(route.op, &mut query, &terms, body)?;
            query.finish()?;
            let told = handle.reload(wish, terms).await?;
            Ok(encode(&told)?.tagged(told.etag))
        }
        Op::SetServer => done(handle.set_server(read(body)?, terms).await?),
        Op::SetVip => done(handle.set_vip(read(body)?, terms).await?),
        Op::Maps => encode(&Maps::of(&*eyes_of(handle)?.insight().await?)),
        Op::History => encode(&handle.history()),
        Op::Config => config(handle).await,
        Op::Metrics => {
            let text = handle.metrics().await;
            Ok(Reply { body: Either::Left(Full::from(text)), kind: metrics::CONTENT_TYPE, etag: None })
        }
        Op::OpenApi => encode(&openapi::document()),
        Op::Status => one(query, handle, |_, snapshot| encode(snapshot)).await,
    }
}

/// All or one of what the balancer has at the same moment as the `ETag` says.
async fn one(
    mut query: Query,
    handle: &Handle,
    find: impl FnOnce(&mut Query, &Snapshot) -> Result<Reply, Refusal>,
) -> Result<Reply, Refusal> {
    let snapshot = handle.status().await;
    let reply = find(&mut query, &snapshot)?;
    query.finish()?;
    Ok(reply.tagged(snapshot.etag.clone()))
}

fn vip<'a>(name: &str, snapshot: &'a Snapshot) -> Result<&'a VipStatus, Refusal> {
    let nothing = || Refusal::Nothing(format!("there is no VIP {name:?}; /v1/status has all"));
    snapshot.vips.iter().find(|vip| vip.name == name).ok_or_else(nothing)
}

fn pool<'a>(name: &str, snapshot: &'a Snapshot) -> Result<&'a PoolStatus, Refusal> {
    let nothing = || Refusal::Nothing(format!("there is no pool {name:?}; /v1/status has all"));
    snapshot.pools.iter().find(|pool| pool.name == name).ok_or_else(nothing)
}

/// The configuration in use.
async fn config(handle: &Handle) -> Result<Reply, Refusal> {
    let Done { what, version } = handle.in_use(Terms::default()).await?;
    let file = handle.status().await.config_file.clone();
    let number = handle.history.as_ref().and_then(|history| history.number_of(&what.text));
    let config = Config { file, number, text: secrets::text_without(&what.text) };
    Ok(encode(&config)?.tagged(version.to_string()))
}

/// What a request wants done about the configuration file.
fn wish(op: Op, query: &mut Query, terms: &Terms, body: &[u8]) -> Result<Wish, Refusal> {
    Ok(match op {
        Op::Confirm => Wish::Confirm,
        Op::Discard => Wish::Discard,
        Op::Rollback => match query.take_as("number", "the number of a configuration that is kept")? {
            Some(number) => Wish::GoBack(number),
            None => return Err(Refusal::BadRequest("number is missing: which configuration?".into())),
        },
        Op::Edit => {
            let stage = query.take_as("stage", "true or false")?.unwrap_or(false);
            let how = match (patience(query, terms)?, stage) {
                (None, false) => How::Apply,
                (None, true) => How::Stage,
                (Some(patience), false) => How::Commit(patience),
                _ => return Err(Refusal::BadRequest("stage excludes confirm".into())),
            };
            Wish::Edit(read(body)?, how)
        }
        _ => patience(query, terms)?.map_or(Wish::Apply, Wish::Commit),
    })
}

/// How long a confirmation is to be waited for, if at all.
fn patience(query: &mut Query, terms: &Terms) -> Result<Option<Duration>, Refusal> {
    let confirm: Option<u64> = query.take_as("confirm", "a number of seconds")?;
    match (terms.dry_run, confirm) {
        (_, None) => Ok(None),
        (false, Some(seconds @ 1..=86_400)) => Ok(Some(Duration::from_secs(seconds))),
        (false, Some(_)) => Err(Refusal::BadRequest("confirm must be 1 to 86400".into())),
        (true, Some(_)) => Err(Refusal::BadRequest("what is only tried needs no confirmation".into())),
    }
}

/// A body as JSON of this form.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| match error.classify() {
        Category::Data => Refusal::Refused(format!("the body is not of the form that is wanted: {error}")),
        _ => Refusal::BadRequest(format!("the body is not JSON: {error}")),
    })
}

/// All of a body that is not too large, in time, and JSON if it says what it is.
async fn whole<B: Body>(headers: &HeaderMap, body: B) -> Result<Bytes, Refusal>
where
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let whole = timeout(BODY_TIMEOUT, collect(body)).await;
    let whole = whole.map_err(|_| Refusal::Slow { within: BODY_TIMEOUT.as_secs() })??;
    if let Some(kind) = headers.get(header::CONTENT_TYPE) {
        let kind = kind.to_str().unwrap_or("?");
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            return Err(Refusal::Kind { is: kind.to_owned() });
        }
    }
    Ok(whole)
}

/// What is too large is read for a while and dropped: to close over bytes that are still to be read would reset the
/// connection, and with it goes the answer.
async fn collect<B: Body>(body: B) -> Result<Bytes, Refusal>
where
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut body = pin!(body);
    let (mut bytes, mut length) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let unreadable =
            |error: B::Error| Refusal::BadRequest(format!("the body cannot be read: {}", error.into()));
        let Ok(mut data) = frame.map_err(unreadable)?.into_data() else { continue };
        let size = data.remaining();
        length += size;
        if length > MOST_READ {
            break;
        }
        if length <= MAX_BODY {
            bytes.extend_from_slice(&data.copy_to_bytes(size));
        }
    }
    if length > MAX_BODY { Err(Refusal::TooLarge { most: MAX_BODY }) } else { Ok(bytes.into()) }
}

fn eyes_of(handle: &Handle) -> Result<&Eyes, Refusal> {
    handle.eyes.as_ref().ok_or_else(|| Refusal::Internal("there is no kernel program to look into".into()))
}

impl Reply {
    fn tagged(self, etag: String) -> Self {
        Self { etag: Some(etag), ..self }
    }
}

fn done<T: Serialize>(done: Done<T>) -> Result<Reply, Refusal> {
    Ok(encode(&done.what)?.tagged(done.version.to_string()))
}

fn encode(value: &impl Serialize) -> Result<Reply, Refusal> {
    let mut body = serde_json::to_vec_pretty(value)
        .map_err(|error| Refusal::Internal(format!("the answer cannot be written as JSON: {error}")))?;
    body.push(b'\n');
    Ok(Reply { body: Either::Left(Full::from(body)), kind: "application/json", etag: None })
}

fn refuse(refusal: &Refusal) -> Response<Answer> {
    let body = encode(&refusal.body()).map_or_else(|_| Either::Left(Full::default()), |reply| reply.body);
    let mut response = response(refusal.status(), "application/json", body);
    let headers = response.headers_mut();
    match refusal {
        Refusal::MethodNotAllowed { allow, .. } => set(headers, header::ALLOW, allow),
        Refusal::Unauthorized { .. } => set(headers, header::WWW_AUTHENTICATE, "Bearer realm=\"lb-user\""),
        Refusal::TooMany { wait } => set(headers, header::RETRY_AFTER, &wait.to_string()),
        Refusal::Changed(super::Denial::Changed { now, .. }) => {
            set(headers, header::ETAG, &format!("\"{now}\""))
        }
        _ => {}
    }
    response
}

/// Sets a header whose value we have made.
fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn response(status: StatusCode, kind: &'static str, body: Answer) -> Response<Answer> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
