//! Everything that can be asked of the admin interface, in one table: the router goes by it, and so do the document that
//! describes the interface ([`super::openapi`]), its refusals, and who may do what.

use hyper::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::{
    Reloaded, ServerChange, ServerRequest, VipChange, VipRequest, api::Config, error::Refusal, maps::Maps,
    role::Role,
};
use crate::{
    connections::{Ended, Listed},
    reload::{edit::Edit, history::Entry},
    snapshot::{PoolStatus, ServerStatus, Snapshot, VipStatus},
    trace::{Line, Why},
};

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is described by its row of the table")]
pub enum Op {
    Status,
    Config,
    Vip,
    Pool,
    Server,
    History,
    Connections,
    Maps,
    Why,
    Trace,
    Metrics,
    OpenApi,
    SetServer,
    SetVip,
    EndConnections,
    Reload,
    Edit,
    Confirm,
    Discard,
    Rollback,
}

/// Makes the description of a type.
pub type Describe = fn(&mut SchemaGenerator) -> Schema;

/// What is answered.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    /// JSON of this form.
    Json(Describe),
    /// Such JSON line by line, as it comes.
    Lines(Describe),
    /// Text of another kind.
    Text(&'static str),
}

/// A value in the query.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// `string`, `integer` or `boolean`.
    pub kind: &'static str,
    /// Whether it has to be there.
    pub required: bool,
    /// What it says.
    pub about: &'static str,
}

/// One row.
#[derive(Debug)]
pub struct Route {
    /// What is to be done.
    pub op: Op,
    /// Whether it changes something; then it is asked for by POST, else by GET.
    pub writes: bool,
    /// The path.
    pub path: &'static str,
    /// Who may.
    pub role: Role,
    /// What it does.
    pub about: &'static str,
    /// What the query may say, beside `dry_run` of those that write.
    pub query: &'static [Parameter],
    /// The body, if one is taken.
    pub body: Option<Describe>,
    /// What is answered.
    pub answer: Answer,
    /// Whether the answer carries an `ETag`.
    pub tagged: bool,
}

const fn may(name: &'static str, kind: &'static str, about: &'static str) -> Parameter {
    Parameter { name, kind, required: false, about }
}

const fn must(name: &'static str, kind: &'static str, about: &'static str) -> Parameter {
    Parameter { name, kind, required: true, about }
}

/// Taken by all that write.
pub const DRY_RUN: Parameter =
    may("dry_run", "boolean", "Change nothing, and answer what would be different.");

const VIP: Parameter = must("vip", "string", "Name of a VIP.");
const SECONDS: Parameter = may(
    "confirm",
    "integer",
    "Go back to what was in use before, unless it is confirmed within so many seconds.",
);
const WHICH: [Parameter; 3] = [
    may("vip", "string", "Of this VIP."),
    may("server", "string", "With this server."),
    may("client", "string", "From this address, or this network (ADDRESS/LENGTH)."),
];

fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// A row of what is looked at.
const fn get(op: Op, path: &'static str, about: &'static str, answer: Answer) -> Route {
    Route {
        op,
        writes: false,
        path,
        role: Role::Viewer,
        about,
        query: &[],
        body: None,
        answer,
        tagged: false,
    }
}

/// A row of what is done.
const fn post(op: Op, path: &'static str, role: Role, about: &'static str, answer: Describe) -> Route {
    let answer = Answer::Json(answer);
    Route { op, writes: true, path, role, about, query: &[], body: None, answer, tagged: true }
}

/// All rows.
pub static ROUTES: [Route; 20] = [
    Route {
        tagged: true,
        ..get(Op::Status, "/v1/status", "The state of the balancer.", Answer::Json(of::<Snapshot>))
    },
    Route {
        tagged: true,
        ..get(
            Op::Config,
            "/v1/config",
            "The configuration in use, without secrets.",
            Answer::Json(of::<Config>),
        )
    },
    Route {
        query: &[VIP],
        tagged: true,
        ..get(Op::Vip, "/v1/vip", "One VIP, as in the state of the balancer.", Answer::Json(of::<VipStatus>))
    },
    Route {
        query: &[must("pool", "string", "Name of a pool.")],
        tagged: true,
        ..get(Op::Pool, "/v1/pool", "One pool, as it is configured.", Answer::Json(of::<PoolStatus>))
    },
    Route {
        query: &[VIP, must("server", "string", "Name of the server in its pool.")],
        tagged: true,
        ..get(Op::Server, "/v1/server", "One server, as a VIP finds it.", Answer::Json(of::<ServerStatus>))
    },
    get(Op::History, "/v1/history", "The configurations that are kept.", Answer::Json(of::<Vec<Entry>>)),
    Route {
        query: &[WHICH[0], WHICH[1], WHICH[2], may("limit", "integer", "At most so many (100).")],
        ..get(Op::Connections, "/v1/connections", "Connections that are open.", Answer::Json(of::<Listed>))
    },
    get(
        Op::Maps,
        "/v1/maps",
        "What the kernel program's maps contain, for people.",
        Answer::Json(of::<Maps>),
    ),
    Route {
        query: &[
            must("source", "string", "ADDRESS:PORT, with [] around IPv6 addresses."),
            must("destination", "string", "Likewise."),
            may("protocol", "string", "tcp, which it is if nothing is said, or udp."),
            may("established", "boolean", "A packet of an open connection, not its first."),
        ],
        ..get(Op::Why, "/v1/why", "What would become of a packet, and why.", Answer::Json(of::<Why>))
    },
    Route {
        role: Role::Operator,
        query: &[
            may("filter", "string", "Which packets, in the words of lbctl trace."),
            may("sample", "integer", "One flow in so many."),
            may("bytes", "boolean", "With the frame's first bytes."),
            may("count", "integer", "End after so many packets."),
            may("seconds", "integer", "End after so long."),
        ],
        ..get(Op::Trace, "/v1/trace", "What becomes of packets, as they come.", Answer::Lines(of::<Line>))
    },
    get(Op::Metrics, "/metrics", "Metrics (OpenMetrics).", Answer::Text(crate::metrics::CONTENT_TYPE)),
    get(Op::OpenApi, "/openapi.json", "This document.", Answer::Text("application/json")),
    Route {
        body: Some(of::<ServerRequest>),
        ..post(
            Op::SetServer,
            "/v1/server",
            Role::Operator,
            "Gives servers another state or weight for the time being; answers which, once the kernel knows.",
            of::<Vec<ServerChange>>,
        )
    },
    Route {
        body: Some(of::<VipRequest>),
        ..post(
            Op::SetVip,
            "/v1/vip",
            Role::Operator,
            "Has VIPs refuse new flows for the time being, or take them again; answers which.",
            of::<Vec<VipChange>>,
        )
    },
    Route {
        query: &[WHICH[0], WHICH[1], WHICH[2], may("all", "boolean", "All of them.")],
        ..post(
            Op::EndConnections,
            "/v1/connections/end",
            Role::Operator,
            "Ends connections: some by vip, server, client, or all.",
            of::<Ended>,
        )
    },
    Route {
        query: &[SECONDS],
        ..post(
            Op::Reload,
            "/v1/reload",
            Role::Admin,
            "Reads the configuration file again and uses it; answers what changed.",
            of::<Reloaded>,
        )
    },
    Route {
        query: &[SECONDS, may("stage", "boolean", "Write it into the file, and leave it at that.")],
        body: Some(of::<Edit>),
        ..post(
            Op::Edit,
            "/v1/edit",
            Role::Admin,
            "Changes the configuration file and uses it; answers what changed.",
            of::<Reloaded>,
        )
    },
    post(Op::Confirm, "/v1/confirm", Role::Admin, "Keeps what waits to be confirmed.", of::<Reloaded>),
    post(
        Op::Discard,
        "/v1/discard",
        Role::Admin,
        "Puts the configuration file back as it is in use.",
        of::<Reloaded>,
    ),
    Route {
        query: &[must("number", "integer", "Its number in the history.")],
        ..post(
            Op::Rollback,
            "/v1/rollback",
            Role::Admin,
            "Writes a configuration of the history into the file, and uses it.",
            of::<Reloaded>,
        )
    },
];

impl Route {
    /// The methods by which it is asked for.
    #[must_use]
    pub fn methods(&self) -> &'static [Method] {
        match (self.writes, self.answer) {
            (true, _) => &[Method::POST],
            (false, Answer::Lines(_)) => &[Method::GET],
            (false, _) => &[Method::GET, Method::HEAD],
        }
    }

    /// Everything that the query may say.
    pub fn parameters(&self) -> impl Iterator<Item = &'static Parameter> {
        self.query.iter().chain(self.writes.then_some(&DRY_RUN))
    }
}

/// The row for a request.
///
/// # Errors
/// When there is none for its path, or for its method there.
pub fn find(method: &Method, path: &str) -> Result<&'static Route, Refusal> {
    let rows = || ROUTES.iter().filter(|route| route.path == path);
    if let Some(route) = rows().find(|route| route.methods().contains(method)) {
        return Ok(route);
    }
    let allow: Vec<_> = rows().flat_map(Route::methods).map(Method::as_str).collect();
    if allow.is_empty() {
        return Err(Refusal::NotFound { path: path.to_owned() });
    }
    let allow = allow.join(", ");
    Err(Refusal::MethodNotAllowed { method: method.to_string(), path: path.to_owned(), allow })
}

/// All paths, each once.
#[must_use]
pub fn paths() -> Vec<&'static str> {
    let mut paths: Vec<_> = ROUTES.iter().map(|route| route.path).collect();
    paths.sort_unstable();
    paths.dedup();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_by_its_path_and_method_and_no_other() {
        for route in &ROUTES {
            for method in route.methods() {
                assert_eq!(find(method, route.path).unwrap().op, route.op);
            }
        }
        assert!(matches!(find(&Method::GET, "/v1/status/"), Err(Refusal::NotFound { .. })));
        let Err(Refusal::MethodNotAllowed { allow, .. }) = find(&Method::DELETE, "/v1/server") else {
            panic!()
        };
        assert_eq!(allow, "GET, HEAD, POST");
        assert!(matches!(find(&Method::HEAD, "/v1/trace"), Err(Refusal::MethodNotAllowed { .. })));
    }

    #[test]
    fn what_is_looked_at_needs_no_right_to_change_and_what_changes_does() {
        for route in &ROUTES {
            let least = if route.writes || route.op == Op::Trace { Role::Operator } else { Role::Viewer };
            let file = matches!(route.op, Op::Reload | Op::Edit | Op::Confirm | Op::Discard | Op::Rollback);
            assert_eq!(route.role, if file { Role::Admin } else { least }, "{}", route.path);
        }
    }
}
