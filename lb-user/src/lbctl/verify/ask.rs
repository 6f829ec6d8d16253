//! What a client asks a VIP, to see whether it answers.

use l7_spec::ClientCertificates;

use crate::{
    model::{Check, HttpCheck, Mode, StatusRanges, Trust, Vip},
    snapshot::VipStatus,
};

/// Of layer 4 the VIP's own health check where it is about this port; else as little as shows that somebody is there.
pub(super) fn ask(vip: &VipStatus, configured: Option<&Vip>, port: u16) -> Check {
    if let Some(vip) = configured.filter(|vip| !vip.mode.is_layer4()) {
        return of_proxied(vip);
    }
    let of_port = configured.filter(|_| vip.check_port == Some(port)).map(|vip| &vip.health);
    let check = of_port.filter(|health| health.address.is_none()).map(|health| &health.check);
    match (vip.protocol.as_str(), check) {
        ("udp", Some(check @ Check::Udp { .. })) => check.clone(),
        ("udp", _) => Check::Udp { send: Vec::new(), reply: None },
        (_, None | Some(Check::Udp { .. } | Check::Icmp | Check::None)) => Check::Tcp,
        (_, Some(check)) => check.clone(),
    }
}

/// The proxy speaks with clients otherwise than with servers. Whatever is not its own word that no server is there will do.
fn of_proxied(vip: &Vip) -> Check {
    let (path, host) = match &vip.health.check {
        Check::Http(HttpCheck { path, host, .. }) => (path.as_str(), host.clone()),
        Check::Tls { host, .. } => ("/", host.clone()),
        _ => ("/", None),
    };
    let refused = vip.tls.as_ref().is_some_and(|tls| {
        let certificate = |wanted: &ClientCertificates| wanted.required;
        tls.client_certificates.as_ref().is_some_and(certificate)
            || tls.strict == Some(true) && host.is_none()
    });
    // Who has no certificate, knows no name or would have to say first for whom it speaks is not let in.
    if refused || vip.proxied.proxy_protocol.is_some() {
        return Check::Tcp;
    }
    let trust = vip.tls.as_ref().map(|_| Trust::Anyone);
    match (vip.mode, trust) {
        (Mode::Http, tls) => {
            let expect = StatusRanges(vec![(200, 499)]);
            Check::Http(HttpCheck { tls, path: path.to_owned(), host, expect, ..HttpCheck::default() })
        }
        (_, Some(trust)) => Check::Tls { host, trust },
        (_, None) => Check::Tcp,
    }
}

/// Why an opened connection to the proxy says nothing of the servers behind it.
pub(super) fn nobody_behind(vip: &VipStatus, check: &Check) -> Option<String> {
    let is_proxied = ["http", "tcp"].contains(&vip.mode.as_str());
    let says_little = matches!(check, Check::Tcp | Check::Tls { .. });
    let nobody = !vip.servers.is_empty() && vip.servers.iter().all(|server| !server.active);
    (is_proxied && says_little && nobody)
        .then(|| "the proxy answers, but no server takes connections; see lbctl status".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config, lbctl::status::tests::snapshot};

    fn asked(of_vip: &str) -> Check {
        let text = format!(
            r#"
            [pool.web]
            servers = [{{ name = "s", address = "10.0.0.1" }}]
            [vip.v]
            address = "192.0.2.1"
            port = 443
            server_port = 80
            pool = "web"
            {of_vip}
            "#
        );
        let config = config::check("lb.toml", &text).unwrap_or_else(|wrong| panic!("{wrong}")).config;
        ask(&snapshot().vips[0], Some(&config.vips[0]), 443)
    }

    #[test]
    fn a_proxied_vip_is_asked_as_its_clients_do_and_not_as_its_servers_are() {
        let http = |tls, path: &str, host: Option<&str>| {
            let (path, host) = (path.to_owned(), host.map(str::to_owned));
            let expect = StatusRanges(vec![(200, 499)]);
            Check::Http(HttpCheck { tls, path, host, expect, ..HttpCheck::default() })
        };
        let tls = "tls = { certificates = [\"c.pem\"] }";
        let strict = "tls = { certificates = [\"c.pem\"], strict = true }";
        let named = "health = { check = \"https\", path = \"/up\", host = \"www.example\" }";
        let anyone = Some(Trust::Anyone);
        for (of_vip, expected) in [
            ("mode = \"http\"".to_owned(), http(None, "/", None)),
            (format!("mode = \"http\"\n{named}"), http(None, "/up", Some("www.example"))),
            (format!("mode = \"http\"\n{tls}"), http(anyone.clone(), "/", None)),
            (format!("mode = \"http\"\n{strict}"), Check::Tcp),
            (format!("mode = \"http\"\n{strict}\n{named}"), http(anyone.clone(), "/up", Some("www.example"))),
            (format!("mode = \"tcp\"\n{tls}"), Check::Tls { host: None, trust: Trust::Anyone }),
            ("mode = \"tcp\"\nhealth = { check = \"http\" }".to_owned(), Check::Tcp),
            ("mode = \"snat\"".to_owned(), Check::Tcp),
        ] {
            assert_eq!(asked(&of_vip), expected, "{of_vip}");
        }
    }

    #[test]
    fn a_connection_to_the_proxy_alone_is_not_enough() {
        let mut vip = snapshot().vips[0].clone();
        vip.mode = "tcp".into();
        vip.servers.iter_mut().for_each(|server| server.active = false);
        assert!(!vip.servers.is_empty() && nobody_behind(&vip, &Check::Tcp).is_some());
        assert_eq!(nobody_behind(&vip, &asked("mode = \"http\"")), None, "its answer tells");
        vip.servers[0].active = true;
        assert_eq!(nobody_behind(&vip, &Check::Tcp), None);
        vip.servers[0].active = false;
        vip.mode = "snat".into();
        assert_eq!(nobody_behind(&vip, &Check::Tcp), None, "what opens there is a server");
    }
}
