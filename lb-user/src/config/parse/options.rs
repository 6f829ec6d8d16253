//! What a VIP may say about its flows: whether the key fits to mode and protocol, and what holds then.
//!
//! A key in `[vip_defaults]` is for the VIPs that it fits; the others do without.

use super::vips::{Inherited, LAYER4, needs_mode, place};
use crate::{
    config::{
        raw::RawVip,
        reader::{Field, Located},
        report::Place,
    },
    model::{Algorithm, Check, Empty, GUE_PORT, HealthCheck, Mode, Protocol},
};

/// Modes in which the balancer sees only the packets of clients.
const ONE_WAY: [Mode; 3] = [Mode::Dr, Mode::Ipip, Mode::Gue];

/// Reports what the VIP itself says and cannot have.
pub(super) fn check(vip: &Inherited<'_>, error: &impl Fn(Place, String)) {
    let own = &vip.raw.own;
    if let Some(&mode) = vip.mode.value() {
        let needs = |place, what, modes: &[Mode]| needs_mode(mode, place, what, modes, error);
        needs(place(&own.empty), "empty", &LAYER4);
        needs(place(&own.max_new_flows), "max_new_flows", &LAYER4);
        needs(place(&own.mss), "mss", &LAYER4);
        needs(place(&own.gue_port), "gue_port", &[Mode::Gue]);
        let stateless = own.flow_state.get().filter(|state| !state.value);
        needs(stateless.map(|state| state.at), "flow_state = false", &ONE_WAY);
    }
    check_protocol(vip, error);
    check_stateless_algorithm(vip, error);
}

fn check_protocol(vip: &Inherited<'_>, error: &impl Fn(Place, String)) {
    if vip.protocol.is_broken() {
        return;
    }
    let own = &vip.raw.own;
    if let (Some(mss), Protocol::Udp) = (own.mss.get(), vip.protocol()) {
        error(mss.key, "mss is a matter of TCP, but the protocol is \"udp\"; remove mss".into());
    }
    let one_way = vip.mode.value().is_some_and(|mode| ONE_WAY.contains(mode));
    if let (Some(Located { value: false, at, .. }), Protocol::Tcp, true) =
        (own.flow_state.get(), vip.protocol(), one_way)
    {
        error(
            *at,
            "flow_state = false needs protocol \"udp\", but the protocol is \"tcp\"; connections break without it"
                .into(),
        );
    }
}

/// Whoever takes turns must remember whose turn it was.
fn check_stateless_algorithm(vip: &Inherited<'_>, error: &impl Fn(Place, String)) {
    let (Some(algorithm), false) = (vip.key(|keys| &keys.algorithm).get(), flow_state(vip)) else { return };
    if matches!(algorithm.value, Algorithm::RoundRobin | Algorithm::LeastConnections) {
        error(
            algorithm.at,
            format!(
                "algorithm \"{}\" has to remember flows, but flow_state is false; remove flow_state, or choose \
                 \"maglev\", \"source\" or \"first\"",
                algorithm.value
            ),
        );
    }
}

/// With all ports there is none that a check could take by itself.
pub(super) fn check_probed_port(vip: &Inherited<'_>, health: &HealthCheck, error: &impl Fn(Place, String)) {
    let Some(port) = vip.port.get().filter(|port| port.value.is_all()) else { return };
    let known = health.port.is_some() || !vip.key(|keys| &keys.server_port).is_absent();
    if !known && !matches!(health.check, Check::Icmp | Check::None) {
        error(
            port.at,
            "with all ports the health check needs one; add health = { port = 80 } or health = { check = \"none\" }"
                .into(),
        );
    }
}

fn holds<'v, T>(
    vip: &Inherited<'v>,
    of: impl Fn(&'v RawVip) -> &'v Field<T>,
    fits: impl Fn(Mode) -> bool,
) -> Option<&'v T> {
    vip.key(of).value().filter(|_| vip.mode.value().is_some_and(|&mode| fits(mode)))
}

pub(super) fn empty(vip: &Inherited<'_>) -> Empty {
    holds(vip, |keys| &keys.empty, Mode::is_layer4).copied().unwrap_or(Empty::Drop)
}

pub(super) fn max_new_flows(vip: &Inherited<'_>) -> Option<u32> {
    holds(vip, |keys| &keys.max_new_flows, Mode::is_layer4).copied()
}

pub(super) fn mss(vip: &Inherited<'_>) -> Option<u16> {
    let tcp = vip.protocol() == Protocol::Tcp;
    holds(vip, |keys| &keys.mss, |mode| mode.is_layer4() && tcp).copied()
}

pub(super) fn flow_state(vip: &Inherited<'_>) -> bool {
    let udp = vip.protocol() == Protocol::Udp;
    holds(vip, |keys| &keys.flow_state, |mode| ONE_WAY.contains(&mode) && udp).copied().unwrap_or(true)
}

pub(super) fn gue_port(vip: &Inherited<'_>) -> u16 {
    vip.key(|keys| &keys.gue_port).value().copied().unwrap_or(GUE_PORT)
}
