//! A frame may only be left alone, or dropped, where that is right.

use lb_common::{
    abi::{Half, Mode, server_flags, vip_flags},
    verdict::{DropReason, PassReason},
};

use super::{Laws, Passage, direct};
use crate::{inspect::What, world::Service};

impl Laws {
    pub(super) fn passed(
        &mut self,
        passage: &Passage<'_>,
        what: &What,
        service: Option<Service>,
        reason: PassReason,
        ours: bool,
    ) {
        match what {
            What::Whole(seen) | What::First(_, seen) => {
                let untouched = match service.filter(|s| s.mss != 0 && seen.flags & 2 != 0 && ours) {
                    // Its MSS is lowered before anybody knows that it is the host's.
                    Some(service) => {
                        direct::lowered_as_right(passage.before, passage.after, seen, service.mss)
                    }
                    None => passage.before.to_vec(),
                };
                assert_eq!(passage.after, untouched, "{reason:?}");
                let Some(service) = service else {
                    let answers = passage.known.is_some_and(|known| known.half == Half::Server);
                    assert_eq!(reason, PassReason::NotVip);
                    assert!(!(ours && answers), "an answer was not sent on");
                    return;
                };
                if service.mode == Mode::Local {
                    return assert_eq!(reason, PassReason::LocalVip);
                }
                match reason {
                    PassReason::OtherHost => assert!(!ours, "it was for us"),
                    PassReason::NoFlow => {
                        assert!(ours && matches!(service.mode, Mode::Nat | Mode::Snat) && !seen.opens());
                        assert!(!passage.lives(seen), "a living flow's packet was not sent on");
                        self.is_kept(passage, seen.tuple());
                    }
                    PassReason::EmptyPool => {
                        self.has_failed(seen.tuple());
                        passage.is_empty(&service, vip_flags::EMPTY_PASS);
                    }
                    _ => panic!("{reason:?} for a VIP's packet"),
                }
            }
            What::Later(net) => {
                assert_eq!(passage.before, passage.after);
                let followed = self.fate(passage, net).is_some();
                match reason {
                    PassReason::Fragment => assert!(!followed, "a piece did not follow the first"),
                    PassReason::OtherHost => assert!(!ours),
                    _ => panic!("{reason:?} for a piece"),
                }
            }
            What::Message(message) => {
                assert_eq!(passage.before, passage.after);
                let Some(client) = message.about.map(|about| about.tuple.reversed()) else {
                    let asks = message.is_echo();
                    let vips = passage.world.services.iter();
                    let vip = vips.filter(|s| s.at.ip() == message.net.dst).count() > 0;
                    assert!(!(asks && vip && ours), "an echo request to a VIP was not answered");
                    return;
                };
                match reason {
                    PassReason::NotVip => assert!(service.is_none() && !(ours && passage.known.is_some())),
                    PassReason::OtherHost => assert!(!ours),
                    PassReason::LocalVip => assert_eq!(service.map(|s| s.mode), Some(Mode::Local)),
                    PassReason::NoFlow => {
                        assert!(passage.known.is_none_or(|known| known.half == Half::Server), "{client:?}");
                    }
                    PassReason::EmptyPool => {
                        passage.is_empty(&service.expect("a VIP"), vip_flags::EMPTY_PASS);
                    }
                    _ => panic!("{reason:?} for an error"),
                }
            }
        }
    }

    pub(super) fn dropped(
        &mut self,
        passage: &Passage<'_>,
        what: &What,
        service: Option<Service>,
        reason: DropReason,
    ) {
        let (world, net) = (passage.world, super::network(passage.before, what));
        if let What::Later(net) = what {
            assert!(self.fate(passage, net).is_some(), "a stranger's piece was dropped");
            return;
        }
        let known = passage.known;
        if let What::Whole(seen) | What::First(_, seen) = what
            && seen.opens()
        {
            self.is_kept(passage, seen.tuple());
            self.has_failed(seen.tuple());
        }
        assert!(service.is_some() || known.is_some(), "{reason:?} for what is no VIP's");
        let translates = service.is_none_or(|s| matches!(s.mode, Mode::Nat | Mode::Snat));
        let is_message = matches!(what, What::Message(_));
        match reason {
            DropReason::TtlExceeded => assert!(net.ttl <= 1 && translates),
            DropReason::NoServer => {
                let service = service.expect("a VIP");
                // An error about a flow has nobody to go to when its server is gone.
                let lost = is_message
                    && known.is_some_and(|known| {
                        let owner = world.tables.servers[&known.server.index()].generation;
                        owner != known.server.generation()
                    });
                assert!(lost || !world.is_whole(&service), "there are servers");
                assert!(service.flags & vip_flags::EMPTY_PASS == 0 || known.is_some());
                if let What::Whole(seen) = what {
                    assert!(
                        service.flags & vip_flags::EMPTY_REJECT == 0
                            || seen.flags & 4 != 0
                            || net.l4 - net.l3 > 120
                            || passage.before.len() < seen.end,
                        "it was to be refused"
                    );
                }
            }
            DropReason::NewFlowLimit => {
                let service = service.expect("a VIP");
                assert!(service.flags & vip_flags::LIMITED != 0);
                let begun = self.new.get(&(service.id, world.clock())).copied().unwrap_or(0);
                // A flow that was let in may have found no port.
                assert!(
                    begun == service.limit || world.tables.limits[&service.id].get().count > service.limit
                );
            }
            DropReason::TooBig => {
                let service = service.expect("a VIP");
                assert!(
                    service.mtu != 0 && is_message
                        || net.end - net.l3 > 65_000
                        || passage.before.len() < net.end
                        || net.l4 - net.l3 > 120,
                    "its sender could be told"
                );
            }
            DropReason::Halted => {
                let known = known.expect("a flow");
                let server = world.tables.servers[&known.server.index()];
                assert!(server.flags & server_flags::HALTED != 0);
            }
            DropReason::PortsExhausted | DropReason::FlowTableFull => {
                let (What::Whole(seen) | What::First(_, seen)) = what else {
                    panic!("{reason:?} of {what:?}")
                };
                assert!(translates && seen.opens() && !passage.lives(seen));
            }
            DropReason::Held => assert!(world.tables.settings.hold_until > world.clock() && translates),
            DropReason::NoNextHop => {}
            DropReason::RewriteFailed => panic!("must never be"),
        }
    }
}

impl Passage<'_> {
    /// The VIP wants this to be done when it has no server, and that may be so.
    fn is_empty(&self, service: &Service, flag: u16) {
        assert!(service.flags & flag != 0);
        assert!(!self.world.is_whole(service), "there are servers");
    }
}
