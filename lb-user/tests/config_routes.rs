//! Routes, fallback pools and the process that serves them: what is written, and what l7-proxy is told.

use l7_spec::{
    Algorithm, CookiePersistence, HeaderMatch, Mode, Persistence, Redirect, SameSite, Scheme, ServerState,
    Span, Spec, Timeouts,
};
use lb_user::{
    config::check,
    health::{Pair, TargetId},
    model::{Check, Config},
    plan::{
        Admin, Steering,
        proxied::{Inputs, Open, of_config, spec},
        select::Settled,
    },
    snapshot::Health,
};

const POOLS: &str = r#"
    [pool.web]
    servers = [{ name = "s1", address = "10.0.0.1" }, { name = "s2", address = "10.0.0.2" }]
    [pool.api]
    servers = [{ name = "s1", address = "10.0.0.3", port = 9000 }]
    health = { check = "http", path = "/api/health" }
    [pool.sorry]
    servers = [{ name = "s1", address = "10.0.0.4" }]
"#;

fn config(text: &str) -> Config {
    let checked = check("test.toml", &format!("{POOLS}\n{text}")).unwrap_or_else(|wrong| panic!("{wrong}"));
    checked.config
}

fn routed() -> Config {
    config(
        r#"
        [vip.shop]
        address = "192.0.2.1"
        port = 80
        mode = "http"
        pool = "web"
        fallback_pool = "sorry"
        routes = [
          { hosts = ["*.api.example"], paths = ["/v2"], methods = ["GET"], headers = [{ name = "X-Beta", value = "1" }], pool = "api" },
          { paths = ["/old"], redirect = { host = "new.example", path = "/", status = 308 } },
          { paths = ["/gone"], answer = { status = 410, body = "gone" } },
          { paths = ["/here"], pool = "web" },
        ]
        [vip.plain]
        address = "192.0.2.1"
        port = 81
        mode = "http"
        pool = "api"
        "#,
    )
}

fn planned(
    config: &Config,
    steering: &Steering,
    health: &dyn Fn(&TargetId) -> Health,
    open: &mut Open,
) -> Spec {
    let health = |id: &dyn Pair| {
        let (vip, server) = id.names();
        health(&TargetId::new(vip, server))
    };
    spec(&Inputs { config, steering, health: &health }, &mut Settled::new(), open)
}

fn states(spec: &Spec, pool: &str) -> Vec<ServerState> {
    let pool = spec.pools.iter().find(|one| one.name == pool).unwrap_or_else(|| panic!("no pool {pool}"));
    pool.servers.iter().map(|server| server.state).collect()
}

#[test]
fn each_vip_has_pools_of_its_own_and_routes_lead_there() {
    let spec = of_config(&routed());
    let names: Vec<_> = spec.pools.iter().map(|pool| pool.name.as_str()).collect();
    assert_eq!(names, ["shop", "shop/api", "shop/sorry", "plain"]);
    let shop = &spec.services[0];
    assert_eq!((shop.pool.as_deref(), shop.fallback_pool.as_deref()), (Some("shop"), Some("shop/sorry")));
    let [api, old, gone, here] = &shop.routes[..] else { panic!("four routes") };
    assert_eq!((api.pool.as_deref(), here.pool.as_deref()), (Some("shop/api"), Some("shop")));
    assert_eq!(
        (&api.hosts[..], &api.paths[..], &api.methods[..]),
        (&["*.api.example".into()][..], &["/v2".into()][..], &["GET".into()][..])
    );
    assert_eq!(api.headers, [HeaderMatch { name: "X-Beta".into(), value: Some("1".into()) }]);
    let redirect = old.redirect.as_ref().unwrap();
    assert_eq!((redirect.host.as_deref(), redirect.status), (Some("new.example"), 308));
    assert_eq!(gone.answer.as_ref().map(|answer| answer.status), Some(410));
    assert_eq!(spec.pools[1].servers[0].port, Some(9000), "the server's own port");
}

#[test]
fn further_pools_are_checked_for_the_vip_and_by_the_check_that_is_nearest() {
    let config = routed();
    let targets = lb_user::reload::targets(&config);
    let names: Vec<_> =
        targets.iter().map(|target| format!("{}/{}", target.id.vip, target.id.server)).collect();
    assert_eq!(names, ["shop/s1", "shop/s2", "shop/api:s1", "shop/sorry:s1", "plain/s1"]);
    let probed: Vec<_> = targets.iter().map(|target| format!("{:?}", target.place)).collect();
    assert!(probed[2].contains("10.0.0.3:9000") && probed[3].contains("10.0.0.4:80"), "{probed:?}");
    assert!(matches!(&targets[2].check.check, Check::Http(http) if http.path == "/api/health"));
    assert_eq!(targets[3].check.check, Check::Tcp);
    let own = config_with_own_health();
    let checks: Vec<_> =
        lb_user::reload::targets(&own).into_iter().map(|target| target.check.check).collect();
    assert_eq!(checks, [Check::Icmp, Check::Icmp, Check::Icmp], "the VIP's own holds in all its pools");
}

fn config_with_own_health() -> Config {
    config(
        r#"
        [vip.shop]
        address = "192.0.2.1"
        port = 80
        mode = "http"
        pool = "web"
        routes = [{ paths = ["/api"], pool = "api" }]
        health = { check = "icmp" }
        "#,
    )
}

#[test]
fn health_and_the_operators_word_are_of_one_pool() {
    let config = routed();
    let mut steering = Steering::default();
    let mut open = Open::new();
    let down = |id: &TargetId| if id.server == "api:s1" { Health::Down } else { Health::Up };
    let spec = planned(&config, &steering, &down, &mut open);
    assert_eq!(states(&spec, "shop"), [ServerState::Up, ServerState::Up]);
    assert_eq!(
        (states(&spec, "shop/api"), states(&spec, "plain")),
        (vec![ServerState::Down], vec![ServerState::Up])
    );
    steering.set_state(TargetId::new("shop", "api:s1"), Admin::Drain);
    steering.set_weight(TargetId::new("shop", "sorry:s1"), Some(7));
    let spec = planned(&config, &steering, &|_| Health::Up, &mut open);
    assert_eq!(
        (states(&spec, "shop/api"), states(&spec, "plain")),
        (vec![ServerState::Drain], vec![ServerState::Up])
    );
    assert_eq!((spec.pools[2].servers[0].weight, spec.pools[0].servers[0].weight), (7, 100));
}

#[test]
fn nobody_is_let_in_before_the_vips_own_pool_was_looked_at_and_nobody_is_kept_waiting_again() {
    let config = routed();
    let steering = Steering::default();
    let mut open = Open::new();
    let partly = |id: &TargetId| if id.server.starts_with("api") { Health::Unknown } else { Health::Up };
    let own = |id: &TargetId| if id.server.contains(':') { Health::Up } else { Health::Unknown };
    assert!(planned(&config, &steering, &own, &mut open).services[0].closed);
    let mut others = Open::new();
    assert!(
        !planned(&config, &steering, &partly, &mut others).services[0].closed,
        "a further pool may be silent"
    );
    let one_down = |id: &TargetId| if id.server == "s2" { Health::Unknown } else { Health::Down };
    assert!(!planned(&config, &steering, &one_down, &mut open).services[0].closed, "one of a pool will do");
    let spec = planned(&config, &steering, &partly, &mut open);
    assert!(!spec.services[0].closed);
    assert_eq!(states(&spec, "shop/api"), [ServerState::Up], "a pool that is new is tried");
    let half = |id: &TargetId| if id.server == "s2" { Health::Unknown } else { Health::Up };
    let spec = planned(&config, &steering, &half, &mut open);
    assert_eq!(states(&spec, "shop"), [ServerState::Up, ServerState::Down], "one that joins others is not");
}

#[test]
fn a_vip_may_lead_to_further_pools_only() {
    let config = config(
        r#"
        [vip.answers]
        address = "192.0.2.1"
        port = 80
        mode = "http"
        routes = [{ paths = ["/api"], pool = "api" }, { answer = { status = 404 } }]
        [vip.away]
        address = "192.0.2.1"
        port = 81
        mode = "http"
        redirect = { scheme = "https", port = 8443, path = "/new", status = 301 }
        routes = [{ paths = ["/.well-known"], pool = "web" }]
        [vip.names]
        address = "192.0.2.1"
        port = 443
        mode = "tcp"
        sni_routes = [{ names = ["a.example", "*.b.example"], pool = "web" }]
        [vip.beside]
        address = "192.0.2.1"
        port = 444
        mode = "tcp"
        pool = "sorry"
        sni_routes = [{ names = ["a.example"], pool = "web" }, { names = ["b.example"], pool = "sorry" }]
        "#,
    );
    let spec = of_config(&config);
    let [answers, away, names, beside] = &spec.services[..] else { panic!("four services") };
    assert_eq!((&answers.pool, answers.routes[0].pool.as_deref()), (&None, Some("answers/api")));
    let usual = Redirect::to_scheme(Scheme::Https);
    assert_eq!(
        away.redirect,
        Some(Redirect { port: Some(8443), path: Some("/new".into()), status: 301, ..usual })
    );
    assert_eq!(away.routes[0].pool.as_deref(), Some("away/web"));
    assert_eq!((&names.pool, names.sni_routes[0].pool.as_str()), (&None, "names/web"));
    assert_eq!(names.sni_routes[0].names, ["a.example", "*.b.example"]);
    let pools: Vec<_> = beside.sni_routes.iter().map(|route| route.pool.as_str()).collect();
    assert_eq!(pools, ["beside/web", "beside"]);
    let servers: Vec<_> = config.members_of(&config.vips[0]).map(|member| member.name.into_owned()).collect();
    assert_eq!(servers, ["api:s1"]);
}

#[test]
fn tcp_in_front_of_http_is_balanced_per_request() {
    // R46; the reverse is refused: tests/broken/sni_routes.toml.
    let config = config(
        r#"
        [pool.routers]
        servers = [{ name = "r1", address = "10.0.0.9" }]
        mode = "http"
        algorithm = "power-of-two"
        [vip.secure]
        address = "192.0.2.1"
        port = 443
        mode = "tcp"
        pool = "routers"
        tls = { certificates = ["a.pem"], handshake_timeout = "3s" }
        headers = { refuse_trace = true }
        persistence = { type = "cookie", name = "ID", same_site = "lax", secure = true, domain = "example", path = "/x", http_only = false }
        routes = [{ paths = ["/api"], answer = { status = 404 } }]
        "#,
    );
    let spec = of_config(&config);
    let (service, pool) = (&spec.services[0], &spec.pools[0]);
    assert_eq!(
        (service.mode, pool.mode, pool.algorithm),
        (Mode::Tcp, Some(Mode::Http), Some(Algorithm::PowerOfTwo))
    );
    assert!(service.headers.refuse_trace);
    assert_eq!(service.tls.as_ref().unwrap().handshake_timeout, Span::from_secs(3));
    let cookie = CookiePersistence {
        http_only: false,
        same_site: Some(SameSite::Lax),
        secure: Some(true),
        domain: Some("example".into()),
        path: "/x".into(),
        ..CookiePersistence::named("ID")
    };
    assert_eq!(service.persistence, Some(Persistence::Cookie(cookie)));
}

#[test]
fn all_times_and_the_process_itself_have_keys() {
    let config = config(
        r#"
        [proxy]
        workers = 3
        limits = { connections = 1000, handshakes = 10 }
        admin = "127.0.0.1:9101"
        cookie_key = "long enough for this"
        drain = { grace = "20s", timeout = "1m" }
        [vip_defaults]
        address = "192.0.2.1"
        mode = "http"
        pool = "web"
        timeouts = { connect = "1s", lifetime = "1h" }
        [vip.own]
        port = 80
        algorithm = "power-of-two"
        persistence = { type = "source-ip", timeout = "2m", entries = 9 }
        [vip.own.timeouts]
        client_idle = "1m"
        request_header = "2s"
        request_body = "3s"
        client_write = "4s"
        response = "5s"
        response_body = "6s"
        server_idle = "7s"
        tunnel = "8s"
        queue = "9s"
        "#,
    );
    let spec = of_config(&config);
    assert_eq!(
        (spec.workers, spec.limits.connections, spec.limits.handshakes),
        (Some(3), Some(1000), Some(10))
    );
    assert_eq!(spec.admin.map(|admin| admin.to_string()).as_deref(), Some("127.0.0.1:9101"));
    assert_eq!(spec.cookie_key.as_deref(), Some("long enough for this"));
    assert_eq!((spec.drain.grace, spec.drain.timeout), (Span::from_secs(20), Span::from_secs(60)));
    let seconds = Span::from_secs;
    let own = &spec.services[0];
    let expected = Timeouts {
        client_idle: seconds(60),
        request_header: seconds(2),
        request_body: seconds(3),
        client_write: seconds(4),
        connect: seconds(1),
        response: seconds(5),
        response_body: seconds(6),
        server_idle: seconds(7),
        tunnel: seconds(8),
        queue: seconds(9),
        lifetime: Some(seconds(3_600)),
    };
    assert_eq!((&own.timeouts, own.algorithm), (&expected, Algorithm::PowerOfTwo));
    assert_eq!(own.persistence, Some(Persistence::SourceIp { timeout: seconds(120), entries: 9 }));
    let usual = of_config(&Config::default());
    assert_eq!((usual.drain.grace, usual.drain.timeout), (Span::ZERO, seconds(10)));
}
