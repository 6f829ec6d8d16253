//! R1: bytes and TLS pass through untouched.

use lb_tests::{address::Family, client, needs_balancer, tls, tls::TlsServer};

use crate::bed::{Bed, MODES};

const TEN_MEGABYTES: usize = 10 << 20;

#[test]
fn ten_megabytes_arrive_unchanged_both_ways_in_every_mode() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let _balancer = bed.balance(&bed.config(&MODES, 80, ""));
    for family in Family::BOTH {
        for mode in MODES {
            let what = format!("{mode} over {family}");
            let transfer =
                client::transfer(&bed.net.client().ns, bed.target(mode, family, 80), TEN_MEGABYTES, 11);
            transfer.unwrap_or_else(|error| panic!("{what}: {error}")).intact(&what);
        }
    }
}

#[test]
fn a_tls_handshake_ends_on_the_server_with_the_servers_own_certificate() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[]);
    let servers: Vec<_> =
        bed.net.servers.iter().map(|host| TlsServer::start(&host.ns, &host.name, 443)).collect();
    let own: Vec<_> = servers.iter().map(TlsServer::certificate).collect();
    let _balancer = bed.balance(&bed.config(&MODES, 443, ""));
    for family in Family::BOTH {
        for mode in MODES {
            let what = format!("{mode} over {family}");
            let seen = tls::handshake(&bed.net.client().ns, bed.target(mode, family, 443), &own)
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            let index = bed.net.servers.iter().position(|host| host.name == seen.name);
            let index = index.unwrap_or_else(|| panic!("{what}: a certificate for {:?}", seen.name));
            let kept = std::fs::read_to_string(&own[index]).expect("the server's certificate");
            assert_eq!(seen.certificate, kept, "{what}");
            assert_eq!(seen.answer, "olleh", "{what}");
        }
    }
}
