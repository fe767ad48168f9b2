//! Who is at the other end of a proxy: what the header fields of proxies that are trusted say of a client.
//!
//! A client can send such fields too, and a proxy adds to them. So they are read from the right, where the nearest proxy
//! has written, and no further than to the first address that is not trusted to tell of another.

use crate::{
    error::{Error, Result},
    http::request::{authority, is_token, list},
    stream::Source,
};
use ::http::{HeaderMap, HeaderName, header::ORIGIN, uri::Authority};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The proxies that are believed.
#[derive(Debug)]
pub(crate) struct Proxies {
    trusted: Vec<Network>,
    trusts_unix: bool,
    field: HeaderName,
}

/// Addresses that begin with the same bits.
#[derive(Clone, Copy, Debug)]
struct Network {
    address: IpAddr,
    bits: u8,
}

/// A client, as its connection and the proxies have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) source: Source,
    /// The host and the scheme that it named, where a proxy says so.
    pub(crate) host: Option<Authority>,
    pub(crate) scheme: Option<&'static str>,
}

/// What one proxy says of whom it was asked by.
#[derive(Clone, Debug, Default)]
struct Hop {
    /// `None` where it says nothing that can be understood.
    from: Option<Source>,
    host: Option<Authority>,
    scheme: Option<&'static str>,
}

impl Proxies {
    pub(crate) fn new(trusted: &[String], field: Option<&str>) -> Result<Self> {
        let bad = |name: &str, expected| Error::Proxy { name: name.to_owned(), expected };
        let expected = "an address, a network such as 10.0.0.0/8, or unix for whoever connects to a Unix socket";
        let (unix, networks): (Vec<_>, Vec<_>) = trusted.iter().partition(|name| *name == "unix");
        let network = |name: &String| Network::read(name).ok_or_else(|| bad(name, expected));
        let field = field.map_or(Ok(FORWARDED_FOR), |name| {
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad(name, "the name of a header field"))
        })?;
        let trusted = networks.into_iter().map(network).collect::<Result<_>>()?;
        Ok(Self { trusted, trusts_unix: !unix.is_empty(), field })
    }

    /// Whether what comes from there is believed.
    pub(crate) fn trusts(&self, source: Source) -> bool {
        source.0.map_or(self.trusts_unix, |address| self.trusted.iter().any(|network| network.holds(address)))
    }

    /// Who sent a request with these fields over a connection from `peer`.
    pub(crate) fn client(&self, peer: Source, fields: &HeaderMap) -> Client {
        let mut client = Client { source: peer, host: None, scheme: None };
        if !self.trusts(peer) {
            return client;
        }
        let mut passed = 0;
        let mut hops = self.hops(fields).into_iter().rev().peekable();
        while let Some(hop) = hops.next() {
            // The host and the scheme are those that the last proxy tells which is believed and names any.
            client.host = hop.host.or(client.host);
            client.scheme = hop.scheme.or(client.scheme);
            let Some(from) = hop.from else {
                client.source = peer;
                break;
            };
            client.source = from;
            if !self.trusts(from) {
                break;
            }
            passed += usize::from(hops.peek().is_some());
        }
        // Only an origin is held against them.
        if self.field != "forwarded" && fields.contains_key(ORIGIN) {
            // Lists of their own, to which each proxy adds as well, or a value that the last has set.
            let of_the_hop = |name| {
                let members: Vec<_> = list(fields, name).filter(|member| !member.is_empty()).collect();
                members.get(members.len().saturating_sub(1 + passed)).copied()
            };
            client.host = of_the_hop(FORWARDED_HOST).and_then(authority);
            client.scheme = of_the_hop(FORWARDED_PROTO).and_then(scheme);
        }
        client
    }

    /// What the proxies say, the nearest last.
    fn hops(&self, fields: &HeaderMap) -> Vec<Hop> {
        if self.field == "forwarded" {
            let lines = fields.get_all(&self.field).into_iter();
            return lines.flat_map(|line| forwarded(line.as_bytes()).unwrap_or_else(|| vec![Hop::default()])).collect();
        }
        let members = list(fields, self.field.clone()).filter(|member| !member.is_empty());
        members.map(|member| Hop { from: source(member), ..Hop::default() }).collect()
    }
}

impl Network {
    fn read(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) if bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                (address.parse::<IpAddr>().ok()?, Some(bits.parse::<u8>().ok()?))
            }
            Some(_) => return None,
            None => (text.parse().ok()?, None),
        };
        let whole = |address: IpAddr| if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(whole(address));
        (bits <= whole(address)).then_some(())?;
        match address.to_canonical() {
            // One of IPv4 in the notation of IPv6.
            IpAddr::V4(mapped) if address.is_ipv6() => {
                (bits >= 96).then(|| Self { address: mapped.into(), bits: bits - 96 })
            }
            address => Some(Self { address, bits }),
        }
    }

    fn holds(&self, address: IpAddr) -> bool {
        let differ = |own: u128, other: u128, width: u8| {
            (own ^ other).checked_shr(u32::from(width - self.bits)).unwrap_or(0) != 0
        };
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => !differ(own.to_bits().into(), other.to_bits().into(), 32),
            (IpAddr::V6(own), IpAddr::V6(other)) => !differ(own.to_bits(), other.to_bits(), 128),
            _ => false,
        }
    }
}

/// An address with a port or without, or `unix:`, as nginx calls whoever comes by a Unix socket.
fn source(text: &[u8]) -> Option<Source> {
    let text = std::str::from_utf8(text).ok()?;
    if text == "unix:" {
        return Some(Source(None));
    }
    let bare = || text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|addr| addr.ip());
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    bare().or_else(with_port).or_else(bracketed).map(|address| Source(Some(address.to_canonical())))
}

/// `http` or `https`. Some proxies call those of a WebSocket otherwise.
fn scheme(text: &[u8]) -> Option<&'static str> {
    let is = |names: [&str; 2]| names.iter().any(|name| text.eq_ignore_ascii_case(name.as_bytes()));
    is(["https", "wss"]).then_some("https").or_else(|| is(["http", "ws"]).then_some("http"))
}

/// Reads a line of `Forwarded` (RFC 7239 section 4). Of a line that is malformed, nothing is believed: a client may have
/// opened a quote that a proxy's own words then close.
fn forwarded(mut rest: &[u8]) -> Option<Vec<Hop>> {
    let (mut hops, mut hop) = (Vec::new(), Hop::default());
    loop {
        rest = rest.trim_ascii_start();
        let name;
        (name, rest) = rest.split_at(rest.iter().take_while(|byte| is_token(**byte)).count());
        if !name.is_empty() {
            let value;
            (value, rest) = forwarded_value(rest.strip_prefix(b"=")?)?;
            match name.to_ascii_lowercase().as_slice() {
                b"for" => hop.from = source(&value),
                b"host" => hop.host = authority(&value),
                b"proto" => hop.scheme = scheme(&value),
                _ => {}
            }
        }
        rest = rest.trim_ascii_start();
        match rest.split_first() {
            None => {
                hops.push(hop);
                return Some(hops);
            }
            Some((b',', after)) => {
                hops.push(std::mem::take(&mut hop));
                rest = after;
            }
            Some((b';', after)) => rest = after,
            Some(_) => return None,
        }
    }
}

/// A token, also with what addresses need and should be quoted for, or a quoted string; and what follows.
fn forwarded_value(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let is_part = |byte: u8| is_token(byte) || matches!(byte, b':' | b'[' | b']');
        let (value, rest) = text.split_at(text.iter().take_while(|byte| is_part(**byte)).count());
        return (!value.is_empty()).then(|| (value.to_vec(), rest));
    };
    let (mut value, mut bytes) = (Vec::new(), quoted.iter());
    loop {
        match bytes.next()? {
            b'"' => return Some((value, bytes.as_slice())),
            b'\\' => value.push(*bytes.next()?),
            byte => value.push(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(trusted: &[&str], field: &str) -> Proxies {
        Proxies::new(&trusted.iter().map(|&name| name.to_owned()).collect::<Vec<_>>(), Some(field)).unwrap()
    }

    fn fields(lines: &[(&'static str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &str)| (HeaderName::from_static(name), value.parse().unwrap());
        lines.iter().map(field).collect()
    }

    /// The address that is found behind a peer.
    fn found(proxies: &Proxies, peer: &str, lines: &[(&'static str, &str)]) -> String {
        proxies.client(source(peer.as_bytes()).unwrap(), &fields(lines)).source.to_string()
    }

    #[test]
    fn an_address_is_read_from_the_right_up_to_the_first_that_is_not_trusted() {
        let proxies = proxies(&["10.0.0.0/8", "192.0.2.7", "fd00::/8", "unix"], "X-Forwarded-For");
        for (peer, lines, address) in [
            ("10.1.2.3", &["198.51.100.1"][..], "198.51.100.1"),
            ("10.1.2.3", &["203.0.113.9, 198.51.100.1"], "198.51.100.1"), // the first is forged
            ("10.1.2.3", &["203.0.113.9", "198.51.100.1"], "198.51.100.1"),
            ("10.1.2.3", &["203.0.113.9", "198.51.100.1, 192.0.2.7 ,10.9.9.9"], "198.51.100.1"),
            ("10.1.2.3", &["198.51.100.1,, "], "198.51.100.1"),
            ("10.1.2.3", &["10.5.5.5, 10.6.6.6"], "10.5.5.5"),
            ("192.0.2.7", &["198.51.100.1:4711"], "198.51.100.1"),
            ("::ffff:10.1.2.3", &["::ffff:198.51.100.1"], "198.51.100.1"),
            ("fd12::1", &["2001:db8::1"], "2001:db8::1"),
            ("fd12::1", &["[2001:db8::1]"], "2001:db8::1"),
            ("fd12::1", &["[2001:DB8:0::1]:443"], "2001:db8::1"),
            ("unix:", &["198.51.100.1, unix:"], "198.51.100.1"),
            ("unix:", &["unix:"], "unix:"),
            // Not trusted, or nothing to understand: the peer's own.
            ("192.0.2.8", &["198.51.100.1"], "192.0.2.8"),
            ("fe80::1", &["198.51.100.1"], "fe80::1"),
            ("10.1.2.3", &[], "10.1.2.3"),
            ("10.1.2.3", &[""], "10.1.2.3"),
            ("10.1.2.3", &["unknown"], "10.1.2.3"),
            ("10.1.2.3", &["198.51.100.1, nonsense"], "10.1.2.3"),
            ("10.1.2.3", &["nonsense, 10.4.4.4"], "10.1.2.3"),
            ("10.1.2.3", &["198.51.100.256"], "10.1.2.3"),
            ("10.1.2.3", &["198.51.100.1:99999"], "10.1.2.3"),
            ("10.1.2.3", &["198.51.100.1 203.0.113.9"], "10.1.2.3"),
            ("10.1.2.3", &["nonsense, 198.51.100.1"], "198.51.100.1"),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
            assert_eq!(found(&proxies, peer, &lines), address, "{lines:?} from {peer}");
        }
        let others = [("forwarded", "for=203.0.113.9"), ("x-real-ip", "203.0.113.9")];
        assert_eq!(found(&proxies, "10.1.2.3", &others), "10.1.2.3", "another field is not believed");
    }

    #[test]
    fn the_field_may_be_another() {
        let real = proxies(&["127.0.0.1"], "X-Real-IP");
        let lines = [("x-real-ip", "198.51.100.1"), ("x-forwarded-for", "203.0.113.9")];
        assert_eq!(found(&real, "127.0.0.1", &lines), "198.51.100.1");

        let standard = proxies(&["127.0.0.1", "10.0.0.0/8"], "Forwarded");
        for (lines, address) in [
            (&["for=198.51.100.1"][..], "198.51.100.1"),
            (&["For=\"198.51.100.1:80\"; proto=https;by=10.0.0.1"], "198.51.100.1"),
            (&["for=203.0.113.9, for=\"[2001:db8::1]:4711\""], "2001:db8::1"),
            (&["for=203.0.113.9", "for=198.51.100.1;host=a, for=10.0.0.2"], "198.51.100.1"),
            (&["for=\"198.51.100\\.1\""], "198.51.100.1"),
            (&["for=203.0.113.9;x=\"", "for=198.51.100.1"], "198.51.100.1"),
            (&["for=203.0.113.9;x=\", for=198.51.100.1"], "127.0.0.1"),
            (&["for=203.0.113.9;x=\", for=\"[2001:db8::1]\""], "127.0.0.1"),
            (&["for=_hidden"], "127.0.0.1"),
            (&["for=unknown, for=10.0.0.2"], "127.0.0.1"),
            (&["proto=https"], "127.0.0.1"),
            (&["198.51.100.1"], "127.0.0.1"),
            (&["for"], "127.0.0.1"),
            (&["for="], "127.0.0.1"),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| ("forwarded", *line)).collect();
            assert_eq!(found(&standard, "127.0.0.1", &lines), address, "{lines:?}");
        }
    }

    #[test]
    fn the_host_and_the_scheme_are_those_that_the_first_proxy_was_called_by() {
        let usual = proxies(&["10.0.0.0/8"], "X-Forwarded-For");
        let standard = proxies(&["10.0.0.0/8"], "Forwarded");
        let host = |host: &str| Some(host.parse().unwrap());
        for (proxies, peer, lines, wanted) in [
            (
                &usual,
                "10.0.0.1",
                &[("x-forwarded-host", "Likes.Example"), ("x-forwarded-proto", "HTTPS")][..],
                (host("likes.example"), Some("https")),
            ),
            (
                &usual,
                "10.0.0.1",
                &[
                    ("x-forwarded-for", "198.51.100.1, 10.0.0.2"),
                    ("x-forwarded-host", "evil.example, likes.example, inner"),
                    ("x-forwarded-proto", "wss, http"),
                ],
                (host("likes.example"), Some("https")),
            ),
            (
                &usual,
                "10.0.0.1",
                &[("x-forwarded-for", "198.51.100.1"), ("x-forwarded-host", "evil.example, likes.example:8443")],
                (host("likes.example:8443"), None),
            ),
            (&usual, "10.0.0.1", &[("x-forwarded-host", "no host"), ("x-forwarded-proto", "gopher")], (None, None)),
            (
                &usual,
                "192.0.2.1",
                &[("x-forwarded-host", "evil.example"), ("x-forwarded-proto", "https")],
                (None, None),
            ),
            (&usual, "10.0.0.1", &[("forwarded", "for=198.51.100.1;host=evil.example")], (None, None)),
            (
                &standard,
                "10.0.0.1",
                &[("forwarded", "host=evil.example, for=198.51.100.1;host=likes.example;proto=https, for=10.0.0.2")],
                (host("likes.example"), Some("https")),
            ),
            (&standard, "10.0.0.1", &[("x-forwarded-host", "evil.example")], (None, None)),
        ] {
            let lines = [lines, &[("origin", "https://likes.example")]].concat();
            let client = proxies.client(source(peer.as_bytes()).unwrap(), &fields(&lines));
            assert_eq!((client.host, client.scheme), wanted, "{lines:?} from {peer}");
        }
    }

    #[test]
    fn a_network_is_an_address_with_a_number_of_bits_or_without() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.1.2.3/8", "10.255.0.1", "11.0.0.1"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("192.0.2.0/31", "::ffff:192.0.2.1", "192.0.2.2"),
            ("::ffff:10.0.0.0/104", "10.255.0.1", "11.0.0.1"),
            ("2001:db8::/32", "2001:db8:1::", "2001:db9::"),
            ("::1", "::1", "::2"),
            ("0.0.0.0/0", "203.0.113.9", "::1"),
            ("::/0", "2001:db8::1", "203.0.113.9"),
        ] {
            let network_read = Network::read(network).unwrap();
            assert!(network_read.holds(inside.parse().unwrap()), "{inside} in {network}");
            assert!(!network_read.holds(outside.parse().unwrap()), "{outside} in {network}");
        }
        for text in ["", "*", "localhost", "10.0.0.0/33", "10.0.0/8", "::1/129", "10.0.0.0/", "10.0.0.0/+8", "/8"]
            .into_iter()
            .chain(["::ffff:10.0.0.0/8", "Unix", "10.0.0.0/8/8", "10.0.0.0/256"])
        {
            let refused = Proxies::new(&[text.to_owned()], None).unwrap_err().to_string();
            assert!(refused.contains(&format!("`{text}`")) && refused.contains("10.0.0.0/8"), "{refused}");
        }
        assert!(Proxies::new(&[], Some("not a name")).unwrap_err().to_string().contains("`not a name`"));
    }
}
