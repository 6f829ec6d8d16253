//! What is told about a request when it is over, whichever HTTP it came with.

use super::Door;
use crate::{
    http::{Client, Report},
    log::{Asked, Record, Served},
    model::Service,
    server::Pool,
};

/// What is told about a request.
pub(super) struct Over<'a> {
    pub(super) door: &'a Door,
    pub(super) service: &'a Service,
    pub(super) client: &'a Client,
    /// What was asked for, as far as that is known.
    pub(super) request: Option<Asked<'a>>,
    /// The name of the field for which it was no request.
    pub(super) malformed: Option<&'a str>,
    pub(super) pool: Option<&'a Pool>,
    pub(super) report: &'a Report,
    pub(super) status: u16,
    /// Bytes that went to the client.
    pub(super) sent: u64,
}

impl Over<'_> {
    /// Counts the bytes and writes the line of the log.
    pub(super) fn tell(&self) {
        let counters = self.service.state.counters(self.door.worker);
        counters.bytes(self.report.told.received, self.sent);
        self.log();
    }

    /// Writes the line of the log.
    pub(super) fn log(&self) {
        self.door.log.write(
            self.door.worker,
            &Record {
                service: self.service,
                client: self.client,
                request: self.request,
                malformed: self.malformed,
                served: self.pool.map(|pool| Served {
                    pool: &pool.title,
                    server: self.report.server.map(|index| pool.servers[index].name.as_str()),
                }),
                status: self.status,
                received: self.report.told.received,
                sent: self.sent,
                retries: self.report.retries,
                times: self.report.times,
                took: self.report.times.start.elapsed(),
                ended: self.report.ended,
            },
        );
    }
}
