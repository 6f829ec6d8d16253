//! Every key of a configuration file, explained: the one table behind `lbctl explain`. A test holds it against the
//! readers, so that no key can do without.

use super::words::nearest;

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Where it stands, without names: `vip.port`, `pool.servers.weight`. What stands in `[health]` may stand in the
    /// `health` of a pool or VIP as well, and what a VIP has in `[vip_defaults]`.
    pub path: &'static str,
    /// What it may be.
    pub values: &'static str,
    /// What holds without it.
    pub default: &'static str,
    /// What it does.
    pub meaning: &'static str,
    /// A line that has it.
    pub example: &'static str,
}

const fn key(
    path: &'static str,
    values: &'static str,
    default: &'static str,
    meaning: &'static str,
    example: &'static str,
) -> Key {
    Key { path, values, default, meaning, example }
}

const TIME: &str = "a time such as \"500ms\", \"2s\", \"5m\", \"1h\"";
const FILE: &str = "a file; a relative path starts at the configuration file's folder";
const BYTES: &str = "a text in which \\r, \\n, \\t, \\0 and \\xHH stand for bytes";
const REQUIRED: &str = "none: it must be there";
const NONE: &str = "none";

/// All of them, section by section.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key("manage_addresses", "true or false", "true", "Whether the addresses of VIPs are put on an interface at the start and taken off at the end.", "manage_addresses = false"),
    key("snat_ports", "a range of ports, from 1024 on", "a range outside this host's ephemeral ports", "Source ports of snat traffic. Takes effect at the next start.", "snat_ports = \"20000-29999\""),
    key("resolve_interval", TIME, "\"10s\"", "How often the names of servers are looked up.", "resolve_interval = \"30s\""),
    key("access_log", "a table", "no log", "A line for each request and connection of http and tcp VIPs. to: \"stdout\" or { syslog = \"ADDRESS:PORT\" }; format: \"json\" or \"haproxy\"; queue: lines that may wait, 8192.", "access_log = { to = \"stdout\", format = \"haproxy\" }"),
    key("proxy", "a table", "the defaults of its keys", "The process that serves http and tcp VIPs.", "proxy = { drain = { grace = \"20s\" } }"),
    key("flows", "a table", "the defaults of its keys", "What is remembered of flows, for all VIPs together.", "flows = { learn = \"5s\" }"),
    key("health", "a table", "the defaults of its keys", "How servers are checked: at the top for all, in a pool or VIP for that one. The nearest that says something holds, key by key.", "health = { check = \"tcp\", interval = \"2s\" }"),
    key("vip_defaults", "a table with keys of a VIP", NONE, "What holds for every VIP that does not say otherwise.", "vip_defaults = { mode = \"snat\" }"),
    key("pool", "tables by name: [pool.NAME]", NONE, "Groups of servers that VIPs share.", "pool = {}"),
    key("vip", "tables by name: [vip.NAME]", NONE, "Virtual services: an address and ports that clients go to.", "vip = {}"),

    key("proxy.workers", "a number of threads, 1 to 1024", "as many as there are processors", "Threads that serve. Another number has another process take over, as another version does.", "workers = 4"),
    key("proxy.limits", "a table", "as many as there may be open files", "What the process may use. connections of clients at once, over all VIPs; handshakes of TLS at once on a thread, 1024.", "limits = { connections = 20000 }"),
    key("proxy.admin", "an address and port", "nowhere", "Where a tier above asks for /health (200 while a server of an http or tcp VIP is up and the end is not near; /health/NAME of a VIP); /metrics and /status too. Anybody who gets there may ask.", "admin = \"10.0.0.4:9101\""),
    key("proxy.cookie_key", "a secret text of 16 characters or more", "none: values follow from names", "Makes the values of cookies that name servers. Balancers that stand in for each other need the same.", "cookie_key = \"a long text that nobody can guess\""),
    key("proxy.drain", "a table", "the defaults of its keys", "How the process ends when lb-user does.", "drain = { grace = \"20s\", timeout = \"60s\" }"),
    key("proxy.drain.grace", TIME, "no time", "For so long /health says 503 while everything is still served.", "grace = \"20s\""),
    key("proxy.drain.timeout", TIME, "\"10s\"", "Then nobody new is let in, and open connections may last this long.", "timeout = \"60s\""),

    key("flows.translated", "a number of flows, 1024 to 134217728", "524288", "How many flows of snat and nat are remembered, for each address family. Takes effect at the next start.", "translated = 1048576"),
    key("flows.tags", "a number of flows, 1024 to 134217728", "1048576", "How many flows of dr, ipip and gue, and clients that persist, are remembered. Takes effect at the next start.", "tags = 4194304"),
    key("flows.syn_limit", "a number of SYNs in a second", "200000", "Beyond it, on a processor, connections are noted only once they are established.", "syn_limit = 100000"),
    key("flows.learn", TIME, "\"3s\"", "How long flows are noted before a planned change of a pool moves ring slots.", "learn = \"5s\""),

    key("health.check", "\"tcp\", \"http\", \"https\", \"tls\", \"redis\", \"mysql\", \"script\", \"udp\", \"icmp\" or \"none\"", "\"tcp\"", "What a probe does, and so when a server is up.", "check = \"http\""),
    key("health.interval", TIME, "\"2s\"", "From one probe to the next.", "interval = \"1s\""),
    key("health.fast_interval", TIME, "interval", "Instead of interval while results speak for a change, but not enough of them.", "fast_interval = \"500ms\""),
    key("health.down_interval", TIME, "interval", "Instead of interval while the server is down.", "down_interval = \"10s\""),
    key("health.timeout", TIME, "\"2s\", or interval if that is shorter", "How long a probe may take.", "timeout = \"1s\""),
    key("health.rise", "a number of probes, 1 to 1000", "2", "Good results in a row that bring a server up. The first result of all decides at once.", "rise = 2"),
    key("health.fall", "a number of probes, 1 to 1000", "3", "Bad results in a row that take a server down.", "fall = 3"),
    key("health.port", "a port", "the port that is served; of several the first", "Where to probe.", "port = 9200"),
    key("health.address", "an address", "the server's own", "Where to probe instead.", "address = \"10.0.0.9\""),
    key("health.path", "a path, with a query if need be", "\"/\"", "http, https: what is asked for.", "path = \"/health\""),
    key("health.expect", "a status, or ranges of them", "\"200-399\"", "http, https: statuses that mean well.", "expect = \"200-299,401\""),
    key("health.method", "a method such as GET, HEAD, OPTIONS", "\"GET\"", "http, https: how it is asked for.", "method = \"HEAD\""),
    key("health.host", "a name, perhaps with a port", "the server's address", "http, https: the Host header. https, tls: the name to ask for, and to find in a certificate that is verified.", "host = \"www.example\""),
    key("health.headers", "a table of names and texts", NONE, "http, https: further headers.", "headers = { X-Probe = \"yes\" }"),
    key("health.body", "a text", NONE, "http, https: must stand in the first 64 KiB of the answer.", "body = \"ready\""),
    key("health.verify", "true or false", "false", "https, tls: whether the certificate must be one that this host trusts.", "verify = true"),
    key("health.ca", FILE, "what this host trusts", "https, tls: certificates that may have signed the server's. Verifies.", "ca = \"ca.pem\""),
    key("health.password", "a text", NONE, "redis: for AUTH.", "password = \"secret\""),
    key("health.password_file", FILE, NONE, "redis: the same, as the first line of a file that is read for each probe.", "password_file = \"redis.pass\""),
    key("health.role", "\"master\" or \"any\"", "\"master\"", "redis: whether replicas will do.", "role = \"any\""),
    key("health.user", "a name", NONE, "mysql: who logs in, without a password. Without a user servers count broken connections, and may block this host.", "user = \"lbcheck\""),
    key("health.script", "a list of tables with send, expect or begins", REQUIRED, "script: a conversation over TCP that must go as written.", "script = [{ begins = \"220 \" }, { send = \"NOOP\\r\\n\" }, { expect = \"250\" }]"),
    key("health.script.send", BYTES, NONE, "Say this.", "send = \"PING\\r\\n\""),
    key("health.script.expect", BYTES, NONE, "Wait until this comes.", "expect = \"PONG\""),
    key("health.script.begins", BYTES, NONE, "What comes next must be this.", "begins = \"220 \""),
    key("health.send", BYTES, "an empty datagram", "udp: what is sent.", "send = 'ping\\n'"),
    key("health.reply", BYTES, "none: the port must not be reported closed", "udp: must stand in the answer.", "reply = \"pong\""),

    key("pool.servers", "a list of tables", "an empty list", "The servers, in the order that algorithm = \"first\" goes by.", "servers = [{ name = \"web1\", address = \"10.0.0.11\" }]"),
    key("pool.health", "a table", "[health]", "How they are checked; see health.", "health = { check = \"http\" }"),
    key("pool.on_down", "\"keep\" or \"reset\"", "flows of snat and nat go on, others end with their next packet", "What becomes of the flows of a server that goes down.", "on_down = \"reset\""),
    key("pool.min_healthy", "a number of servers", "1", "With fewer that take new flows, not counting backups, the pool is as good as down.", "min_healthy = 2"),
    key("pool.drain_wait", TIME, NONE, "How long servers go on serving once their checks begin to fail. Only for a warning where checks notice too late.", "drain_wait = \"20s\""),
    key("pool.mode", "\"http\" or \"tcp\"", "the mode of the VIP", "http, tcp: what the servers speak. With \"http\" a VIP of mode tcp is balanced per request; the other way round is refused.", "mode = \"http\""),
    key("pool.algorithm", "as of a VIP", "that of the VIP", "http, tcp: how a server is chosen.", "algorithm = \"least-conn\""),
    key("pool.protocol", "\"http1\" or \"http2\"", "\"http1\"", "http: which HTTP the servers speak.", "protocol = \"http2\""),
    key("pool.tls", "a table", "plain", "http, tcp: TLS towards servers. verify: \"system\", \"none\" or { authorities = \"ca.pem\" }; server_name; certificate; minimum_version.", "tls = { verify = \"none\" }"),
    key("pool.proxy_protocol", "\"v1\" or \"v2\"", NONE, "http, tcp: tells servers by the PROXY protocol who the client is.", "proxy_protocol = \"v2\""),
    key("pool.retries", "a table", "{ connect = 3, idempotent = true }", "http, tcp: what is tried again, and how often.", "retries = { connect = 1 }"),
    key("pool.queue", "a table", "{ length = 1024 }", "http, tcp: how many may wait for a server that has reached its max_connections.", "queue = { length = 100 }"),
    key("pool.slow_start", TIME, "at once", "http, tcp: how long a server that comes up takes until it gets its whole share.", "slow_start = \"30s\""),
    key("pool.outliers", "a table", NONE, "http, tcp: when a server that fails requests gets none for a while. failures in a row: 5; pause: \"10s\"; statuses, whether 5xx count: false.", "outliers = { failures = 3 }"),
    key("pool.servers.port", "a port", "server_port of the VIP", "http, tcp: where it serves.", "port = 8080"),
    key("pool.servers.max_connections", "a number", "any number", "http, tcp: requests (tcp: connections) at once in each VIP; further ones wait.", "max_connections = 200"),
    key("pool.servers.name", "a name, once in the pool", REQUIRED, "By which commands and metrics know it.", "name = \"web1\""),
    key("pool.servers.address", "an address, or a name to look up", REQUIRED, "Where it is. Another address is another server.", "address = \"10.0.0.11\""),
    key("pool.servers.weight", "a number, 0 to 65535", "100", "Its share of new flows; 0 for none. For the time being: lbctl server weight.", "weight = 50"),
    key("pool.servers.backup", "true or false", "false", "Whether it serves only while no other server of the pool does.", "backup = true"),
    key("pool.servers.quic_id", "a number", NONE, "By which QUIC connection ids name it; see vip.quic.", "quic_id = 17"),

    key("vip.address", "an address", REQUIRED, "Where clients go to.", "address = \"192.0.2.1\""),
    key("vip.port", "a port; a text with several and ranges; \"all\"", REQUIRED, "On which ports. \"all\": every one that no other VIP of the address has.", "port = \"80,443,8000-8010\""),
    key("vip.protocol", "\"tcp\" or \"udp\"", "\"tcp\"", "Over what.", "protocol = \"udp\""),
    key("vip.mode", "\"snat\", \"nat\", \"dr\", \"ipip\", \"gue\"; \"http\", \"tcp\"", REQUIRED, "How packets reach the servers: with source and destination changed, with the destination changed, by MAC, in a tunnel (IP in IP or UDP), through the proxy.", "mode = \"snat\""),
    key("vip.pool", "the name of a pool", "none: required unless there is a redirect, or routes", "Who serves.", "pool = \"web\""),
    key("vip.server_port", "a port", "the port that the client went to", "The port on the servers; snat, nat and proxied modes.", "server_port = 8080"),
    key("vip.algorithm", "\"maglev\", \"round-robin\", \"least-conn\", \"source\" or \"first\"; http, tcp: \"power-of-two\" too", "\"maglev\"; http, tcp: \"round-robin\"", "Who gets a new flow: by a hash of addresses and ports; in turn; the one of two with fewer connections for its weight; by the client's address; the first that is up; of two at random the one that answers sooner.", "algorithm = \"least-conn\""),
    key("vip.persistence", "a table", "{ type = \"none\" }", "Which clients stay with which server.", "persistence = { type = \"source-ip\" }"),
    key("vip.persistence.type", "\"none\", \"source-ip\", \"last-successful\" or \"cookie\"", REQUIRED, "A client stays; all stay on one server until it fails; a cookie of the proxy names the server.", "type = \"last-successful\""),
    key("vip.persistence.timeout", TIME, "as long as there is room", "source-ip: a client without new flows for this long is chosen for anew.", "timeout = \"30m\""),
    key("vip.persistence.entries", "a number of clients", "100000", "source-ip, of http and tcp: how many are remembered for a pool; who was not seen for longest gives way.", "entries = 1000000"),
    key("vip.persistence.http_only", "true or false", "true", "cookie: whether scripts of a page are kept from it.", "http_only = false"),
    key("vip.persistence.same_site", "\"strict\", \"lax\" or \"none\"", "as browsers see fit", "cookie: whether browsers send it on requests that other sites caused.", "same_site = \"lax\""),
    key("vip.persistence.secure", "true or false", "whether the client came over TLS", "cookie: whether it is only sent over TLS.", "secure = true"),
    key("vip.persistence.domain", "a domain", "the host that was asked", "cookie: for which hosts it is.", "domain = \"example\""),
    key("vip.persistence.path", "a path", "\"/\"", "cookie: below which it is sent.", "path = \"/shop\""),
    key("vip.persistence.name", "a name", REQUIRED, "cookie: the cookie's name.", "name = \"SERVERID\""),
    key("vip.empty", "\"drop\", \"reject\" or \"pass\"", "\"drop\"", "What becomes of new flows while no server takes them; \"pass\" leaves them to this host.", "empty = \"reject\""),
    key("vip.max_new_flows", "a number in a second", "no limit", "New flows beyond it are dropped.", "max_new_flows = 10000"),
    key("vip.mss", "a number of bytes, 536 to 9000", "what either end announces", "TCP: the largest segment that either end may announce.", "mss = 1400"),
    key("vip.flow_state", "true or false", "true", "UDP in modes dr, ipip and gue: with false nothing is remembered, every datagram is for itself.", "flow_state = false"),
    key("vip.gue_port", "a port", "6080", "gue: where servers take packets out of the tunnel.", "gue_port = 6081"),
    key("vip.health", "a table", "that of its pool", "How its servers are checked; see health.", "health = { check = \"http\", path = \"/health\" }"),
    key("vip.quic", "a table, or a list of tables", NONE, "UDP: how servers make QUIC connection ids that name them (QUIC-LB).", "quic = { server_id_length = 3, nonce_length = 4 }"),
    key("vip.quic.config_id", "a number, 0 to 6", "0", "The configuration's number in the first bits of a connection id.", "config_id = 1"),
    key("vip.quic.server_id_length", "a number of octets", REQUIRED, "How long the server's number is.", "server_id_length = 3"),
    key("vip.quic.nonce_length", "a number of octets", REQUIRED, "How long the rest is.", "nonce_length = 4"),
    key("vip.quic.key", "32 hexadecimal digits", "none: connection ids are plain", "With which they are encrypted.", "key = \"8f95f09245765f80256934e50c66207f\""),
    key("vip.tls", "a table", NONE, "http: certificates towards clients.", "tls = { certificates = [\"certs/server.pem\"] }"),
    key("vip.tls.certificates", "a list of PEM files, each with a chain and its key", REQUIRED, "What clients are shown.", "certificates = [\"certs/server.pem\"]"),
    key("vip.tls.strict", "true or false", "false", "Whether who asks for a name that no certificate has is refused, instead of shown the first.", "strict = true"),
    key("vip.tls.minimum_version", "\"1.2\" or \"1.3\"", "\"1.2\"", "The oldest TLS that is spoken.", "minimum_version = \"1.3\""),
    key("vip.tls.alpn", "a list of protocols", "http: [\"h2\", \"http/1.1\"]; tcp: none", "What may be agreed upon, the preferred one first.", "alpn = [\"http/1.1\"]"),
    key("vip.tls.client_certificates", "a table", NONE, "Certificates of clients. authorities: a PEM file with who is believed; required: whether a client must have one, false.", "client_certificates = { authorities = \"clients.pem\" }"),
    key("vip.tls.handshake_timeout", TIME, "\"10s\"", "How long a handshake may take.", "handshake_timeout = \"5s\""),
    key("vip.tls.refuse_domain_fronting", "true or false", "false", "http: whether a request for a host of another certificate is refused with 421.", "refuse_domain_fronting = true"),
    key("vip.headers", "a table", "X-Forwarded-For and X-Forwarded-Proto are set", "http: header lines. forwarding (x_forwarded_for, x_forwarded_proto, x_forwarded_host, x_forwarded_port, forwarded, via, request_id), remove_request, set_request, remove_response, set_response, rewrite (location, secure_cookies), forwarded_client_certificate, refuse_trace, allow_connect.", "headers = { rewrite = { location = true } }"),
    key("vip.limits", "a table", "those of the proxy", "http, tcp: connections, connections_per_client, requests_per_second, client_bits_v4, client_bits_v6, header_bytes, header_count, uri_bytes, body_bytes, requests_per_connection, http2.", "limits = { body_bytes = 10485760 }"),
    key("vip.hash_by", "\"client\", \"uri\", { header = \"NAME\" } or { cookie = \"NAME\" }", "\"client\"", "http: what requests have in common that go to one server, with algorithm = \"maglev\".", "hash_by = \"uri\""),
    key("vip.h2c", "true or false", "false", "http: whether clients without TLS may begin in HTTP/2.", "h2c = true"),
    key("vip.proxy_protocol", "a table", NONE, "http, tcp: the PROXY protocol, from proxies before this one. from: a list of networks; required: true.", "proxy_protocol = { from = [\"10.0.0.0/8\"] }"),
    key("vip.source", "\"auto\", \"vip\", \"client\" or { address = \"ADDRESS\" }", "\"auto\"", "http, tcp: the address that servers see. \"client\": each client's own; the servers' routes to clients must lead through this host.", "source = \"vip\""),
    key("vip.trusted_proxies", "a list of networks", "an empty list", "http: whose X-Forwarded-For is believed.", "trusted_proxies = [\"10.0.0.0/24\"]"),
    key("vip.timeouts", "a table", "the defaults of its keys", "http, tcp: how long things may take.", "timeouts = { client_idle = \"900s\" }"),
    key("vip.timeouts.client_idle", TIME, "\"75s\"", "A client's connection without a request.", "client_idle = \"900s\""),
    key("vip.timeouts.request_header", TIME, "\"10s\"", "From the first byte of a request to the end of its head; then 408.", "request_header = \"5s\""),
    key("vip.timeouts.request_body", TIME, "\"60s\"", "Between two pieces of a request's body; then 408.", "request_body = \"30s\""),
    key("vip.timeouts.client_write", TIME, "\"60s\"", "A client that takes nothing of what is sent to it.", "client_write = \"30s\""),
    key("vip.timeouts.connect", TIME, "\"5s\"", "Until a connection to a server stands; then another server is tried.", "connect = \"2s\""),
    key("vip.timeouts.response", TIME, "\"60s\"", "From the end of a request to the head of its answer; then 504.", "response = \"300s\""),
    key("vip.timeouts.response_body", TIME, "\"60s\"", "Between two pieces of an answer's body.", "response_body = \"300s\""),
    key("vip.timeouts.server_idle", TIME, "\"60s\"", "A connection to a server that waits for a next request.", "server_idle = \"60s\""),
    key("vip.timeouts.tunnel", TIME, "\"1h\"", "WebSockets, other upgraded connections and those of mode tcp, while nothing is sent.", "tunnel = \"1h\""),
    key("vip.timeouts.queue", TIME, "\"5s\"", "Waiting for a server that has reached its max_connections; then 503.", "queue = \"1s\""),
    key("vip.timeouts.lifetime", TIME, "any time", "A connection altogether: with HTTP it gets no further request then, with tcp it ends.", "lifetime = \"8h\""),
    key("vip.routes", "a list of tables", "an empty list", "http: requests that go elsewhere; the first that matches decides. hosts (\"*.example\" for all below), paths (beginnings, of whole segments; \";\" and \"\\\" end none), methods, headers ([{ name, value }]), of which all that are there must match; and one of pool, redirect (as vip.redirect), answer ({ status, body, content_type }).", "routes = [{ hosts = [\"*.api.example\"], paths = [\"/v2\"], pool = \"api\" }, { paths = [\"/old\"], answer = { status = 410 } }]"),
    key("vip.sni_routes", "a list of tables with names and pool", "an empty list", "tcp: connections that go elsewhere, by the name in the TLS greeting. TLS is not ended for it.", "sni_routes = [{ names = [\"mail.example\"], pool = \"mail\" }]"),
    key("vip.fallback_pool", "the name of a pool", "none: 503, or the error page for it", "http, tcp: who serves while the pool that should has no server.", "fallback_pool = \"sorry\""),
    key("vip.redirect", "a table", NONE, "http: answers by sending clients elsewhere; takes the place of a pool. What it does not say is kept, the query always is.", "redirect = { scheme = \"https\" }"),
    key("vip.redirect.scheme", "\"https\" or \"http\"", "as it came", "By which scheme.", "scheme = \"https\""),
    key("vip.redirect.host", "a host", "as it came", "To which host.", "host = \"www.example\""),
    key("vip.redirect.port", "a port", "as it came, unless it is usual for the scheme or host says another", "To which port.", "port = 8443"),
    key("vip.redirect.path", "a path", "as it came", "To which path.", "path = \"/new\""),
    key("vip.redirect.status", "301, 302, 303, 307 or 308", "302", "With which status.", "status = 308"),
    key("vip.error_pages", "a table of statuses and files", "those of the proxy", "http: what clients see instead of an answer.", "error_pages = { 503 = \"errors/503.http\" }"),
];

/// The keys that are meant by a path, written with or without names: `vip.shop.port`, `pool.web.health.check`, `weight`.
/// A section comes with the keys in it.
///
/// # Errors
/// When there is none; with the likeliest right one.
pub fn explained(path: &str) -> Result<Vec<&'static Key>, String> {
    let wanted = canonical(path);
    let inside = format!("{wanted}.");
    let exact: Vec<_> =
        KEYS.iter().filter(|key| key.path == wanted || key.path.starts_with(&inside)).collect();
    if !exact.is_empty() {
        return Ok(exact);
    }
    let named: Vec<_> = KEYS.iter().filter(|key| last(key.path) == wanted).collect();
    if !named.is_empty() {
        return Ok(named);
    }
    let alike = KEYS.iter().map(|key| key.path).filter(|path| path.contains('.') == wanted.contains('.'));
    let near = nearest(&wanted, alike);
    if let (None, Some((group @ ("vip" | "pool"), _))) = (near, wanted.split_once('.')) {
        // A VIP or pool by its name.
        return explained(group);
    }
    let near = near.or_else(|| nearest(last(&wanted), KEYS.iter().map(|key| last(key.path))));
    let hint =
        near.map_or_else(|| "see them all without a name".to_owned(), |near| format!("did you mean {near}?"));
    Err(format!("there is no key {path:?}; {hint}"))
}

fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// A path without the names that people have chosen, and where the key is explained.
fn canonical(path: &str) -> String {
    let path = path.trim().trim_matches(['[', ']']);
    let mut words: Vec<&str> = path.split('.').collect();
    if words[0] == "vip_defaults" && words.len() > 1 {
        words[0] = "vip";
    }
    if ["vip", "pool"].contains(&words[0]) && words.len() > 2 {
        let known = |word: &str| KEYS.iter().any(|key| key.path == format!("{}.{word}", words[0]));
        if !known(words[1]) || words.get(2).is_some_and(|word| known(word)) {
            words.remove(1);
        }
    }
    // The health of a pool or VIP has the keys of [health].
    if words.len() > 2 && words[1] == "health" {
        words.remove(0);
    }
    words.join(".")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::check;

    /// A table of the file with a line in it, and by which paths its keys are explained.
    const SECTIONS: &[(&str, &str)] = &[
        ("", "@"),
        ("flows.", "[flows]\n@"),
        ("proxy.", "[proxy]\n@"),
        ("proxy.drain.", "[proxy.drain]\n@"),
        ("health.", "[health]\n@"),
        ("health.", "[pool.p.health]\n@"),
        ("health.", "[vip.v.health]\n@"),
        ("health.script.", "health = { check = \"script\", script = [{ @ }] }"),
        ("pool.", "[pool.p]\n@"),
        ("pool.servers.", "[[pool.p.servers]]\n@"),
        ("vip.", "[vip.v]\n@"),
        ("vip.", "[vip_defaults]\n@"),
        ("vip.persistence.", "[vip.v.persistence]\n@"),
        ("vip.quic.", "[vip.v.quic]\n@"),
        ("vip.tls.", "[vip.v.tls]\n@"),
        ("vip.timeouts.", "[vip.v.timeouts]\n@"),
        ("vip.redirect.", "[vip.v.redirect]\n@"),
    ];

    /// The keys that a reader knows: it lists them when asked for one that is none.
    fn known(section: &str) -> Vec<String> {
        let text = section.replace('@', "qqqqqqqqqqqqqqqq = 1");
        let findings = check("lb.toml", &text).unwrap_err().to_string();
        let (_, rest) = findings.split_once("the keys are ").unwrap_or_else(|| panic!("{text}: {findings}"));
        rest.lines().next().unwrap().split(", ").map(str::to_owned).collect()
    }

    #[test]
    fn every_key_that_is_read_is_explained_and_no_other() {
        let mut read = BTreeSet::new();
        for (prefix, section) in SECTIONS {
            read.extend(known(section).iter().map(|key| format!("{prefix}{key}")));
        }
        let explained: BTreeSet<_> = KEYS.iter().map(|key| key.path.to_owned()).collect();
        assert_eq!(explained.len(), KEYS.len(), "each once");
        let without: Vec<_> = read.difference(&explained).collect();
        assert!(without.is_empty(), "not explained: {without:?}");
        let unread: Vec<_> = explained.difference(&read).collect();
        assert!(unread.is_empty(), "explained, but not read: {unread:?}");
    }

    #[test]
    fn examples_are_ones() {
        for Key { path, example, .. } in KEYS {
            let prefix = path.strip_suffix(last(path)).unwrap();
            let section = SECTIONS.iter().find(|(of, _)| *of == prefix).unwrap().1;
            let text = section.replace('@', example);
            let findings = check("lb.toml", &text).map_or_else(|wrong| wrong.to_string(), |_| String::new());
            let name = last(path);
            assert!(example.starts_with(&format!("{name} = ")), "{example}");
            for wrong in ["unknown", "expected", "there is no mode", &format!("{name}:"), "syntax"] {
                assert!(!findings.contains(wrong), "{path}: {text}: {findings}");
            }
        }
    }

    #[test]
    fn keys_are_found_however_they_are_written() {
        let paths =
            |wanted: &str| -> Vec<&str> { explained(wanted).unwrap().iter().map(|key| key.path).collect() };
        for (wanted, path) in [
            ("vip.port", "vip.port"),
            ("vip.shop.port", "vip.port"),
            ("vip.port.port", "vip.port"),
            ("vip_defaults.mode", "vip.mode"),
            ("vip.shop.health.path", "health.path"),
            ("pool.web.health.rise", "health.rise"),
            ("pool.web.servers.weight", "pool.servers.weight"),
            ("weight", "pool.servers.weight"),
            ("health.check", "health.check"),
            ("vip.shop.mode", "vip.mode"),
        ] {
            assert_eq!(paths(wanted), [path], "{wanted}");
        }
        assert_eq!(paths("port"), ["health.port", "pool.servers.port", "vip.port", "vip.redirect.port"]);
        assert_eq!((paths("flows").len(), paths("vip.shop")[0]), (5, "vip"));
        assert_eq!(paths("vip.persistence")[0], "vip.persistence");
        assert_eq!(
            explained("vip.prot").unwrap_err(),
            "there is no key \"vip.prot\"; did you mean vip.port?"
        );
        assert!(explained("nonsense-of-mine").unwrap_err().contains("see them all"));
    }
}
