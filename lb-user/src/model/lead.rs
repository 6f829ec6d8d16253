//! Which pools a VIP leads to, and by which names it knows their servers.

use std::borrow::Cow;

use super::{HealthCheck, Pool, Server};

/// Stands between a pool and a server in the name of a server of a further pool; no name of either has it.
pub const OF: char = ':';

/// A pool that a VIP leads to.
#[derive(Clone, Copy, Debug)]
pub struct Lead<'a> {
    /// The pool.
    pub pool: &'a Pool,
    /// The check for this VIP's servers in it.
    pub check: &'a HealthCheck,
    /// Whether it is the VIP's own pool, and not one that only routes lead to.
    pub own: bool,
}

/// A server in the eyes of a VIP.
#[derive(Clone, Debug)]
pub struct Member<'a> {
    /// By which pool the VIP has it.
    pub lead: Lead<'a>,
    /// The name by which the VIP knows it, unique in the VIP.
    pub name: Cow<'a, str>,
    /// The server.
    pub server: &'a Server,
}

impl<'a> Lead<'a> {
    /// The name by which the VIP knows a server of this pool: `web1` in the VIP's own pool, `api:web1` in a further one.
    #[must_use]
    pub fn name_of<'s>(&self, server: &'s str) -> Cow<'s, str> {
        if self.own { Cow::Borrowed(server) } else { Cow::Owned(format!("{}{OF}{server}", self.pool.name)) }
    }

    /// Its servers, in file order.
    pub fn members(self) -> impl Iterator<Item = Member<'a>> + 'a {
        self.pool.servers.iter().map(move |server| Member {
            lead: self,
            name: self.name_of(&server.name),
            server,
        })
    }
}

impl Member<'_> {
    /// Whether an operator means it by `name`: the name by which the VIP knows it, or its pool's and its own. `anywhere` is
    /// whether all pools of all VIPs are meant, where its own name alone will do.
    #[must_use]
    pub fn is_called(&self, name: &str, anywhere: bool) -> bool {
        is_called(&self.name, &self.lead.pool.name, &self.server.name, name, anywhere)
    }
}

/// Whether an operator means a server by `name` that a VIP knows as `known`, and that is called `plain` in `pool`: see
/// [`Member::is_called`].
#[must_use]
pub fn is_called(known: &str, pool: &str, plain: &str, name: &str, anywhere: bool) -> bool {
    known == name || (anywhere && plain == name) || name.split_once(OF) == Some((pool, plain))
}

#[cfg(test)]
mod tests {
    use crate::config::check;

    const CONFIG: &str = r#"
        [pool.web]
        servers = [{ name = "s1", address = "10.0.0.1" }]
        [pool.api]
        servers = [{ name = "s1", address = "10.0.0.2" }]
        [vip.v]
        address = "192.0.2.1"
        port = 80
        mode = "http"
        pool = "web"
        routes = [{ paths = ["/api"], pool = "api" }, { paths = ["/x"], pool = "web" }]
        fallback_pool = "api"
    "#;

    #[test]
    fn servers_of_further_pools_are_named_with_their_pool() {
        let config = check("lb.toml", CONFIG).unwrap().config;
        let members: Vec<_> = config.members_of(&config.vips[0]).collect();
        let names: Vec<_> = members.iter().map(|member| member.name.as_ref()).collect();
        assert_eq!(names, ["s1", "api:s1"], "each pool once");
        let called = |name: &str, anywhere| -> Vec<bool> {
            members.iter().map(|member| member.is_called(name, anywhere)).collect()
        };
        assert_eq!(called("s1", false), [true, false]);
        assert_eq!(called("s1", true), [true, true]);
        assert_eq!(called("api:s1", false), [false, true]);
        assert_eq!(called("web:s1", true), [true, false]);
    }
}
