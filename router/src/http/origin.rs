//! Which requests are meant for us: the host they name, and the page they come from.
//!
//! Requests must name a host that is meant: an IP address, `localhost`, or one of the allow-list. A
//! web page elsewhere whose name is made to point here (DNS rebinding) therefore reads nothing. And a
//! request that changes something must come from no page, or from one of this very host: browsers say
//! which in `Origin` and `Sec-Fetch-Site`, also when they add a password by themselves.

use std::net::IpAddr;

use axum::http::{HeaderMap, Method, header};

/// Whether the request names a host that is served.
pub(super) fn is_meant(headers: &HeaderMap, hosts: &[String]) -> bool {
    let Some(host) = host(headers) else {
        return false;
    };
    let name = without_port(host);
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok()
        || hosts
            .iter()
            .any(|allowed| allowed.eq_ignore_ascii_case(name))
}

/// Whether the request would change something for a page of another origin.
pub(super) fn is_foreign(method: &Method, headers: &HeaderMap) -> bool {
    if [Method::GET, Method::HEAD, Method::OPTIONS].contains(method) {
        return false;
    }
    let mut origins = headers.get_all(header::ORIGIN).iter().peekable();
    if origins.peek().is_some() {
        return !origins.all(|origin| origin.to_str().is_ok_and(|origin| is_of(origin, headers)));
    }
    let site = headers.get("sec-fetch-site");
    site.is_some_and(|site| site != "same-origin" && site != "none")
}

/// Whether an origin, `scheme://host[:port]`, is the host that the request names.
fn is_of(origin: &str, headers: &HeaderMap) -> bool {
    let (Some((scheme, authority)), Some(host)) = (origin.split_once("://"), host(headers)) else {
        return false;
    };
    let usual = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let plain = |authority: &str| {
        let authority = authority.to_ascii_lowercase();
        let stripped = authority.strip_suffix(usual).map(str::to_owned);
        stripped.unwrap_or(authority)
    };
    plain(authority) == plain(host)
}

fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::HOST)?.to_str().ok()
}

/// `example.org:80` and `[::1]:80` without port and brackets.
fn without_port(host: &str) -> &str {
    if let Some((address, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_meant_hosts_are_served() {
        let meant = |host| is_meant(&headers(&[("host", host)]), &["logs.example".into()]);
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1:8080",
            "[::1]:8080",
            "logs.example",
            "Logs.Example:80",
        ] {
            assert!(meant(host), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:8080", "", ":80"] {
            assert!(!meant(host), "{host}");
        }
        assert!(!is_meant(&HeaderMap::new(), &[]));
    }

    #[test]
    fn a_change_comes_from_no_page_or_from_one_of_this_host() {
        let host = ("host", "logs.example:8080");
        let foreign = |more: &[(&'static str, &str)]| {
            let mut all = vec![host];
            all.extend(more);
            is_foreign(&Method::POST, &headers(&all))
        };
        assert!(!foreign(&[]));
        for origin in ["http://logs.example:8080", "https://Logs.Example:8080"] {
            assert!(!foreign(&[("origin", origin)]), "{origin}");
        }
        for origin in [
            "http://evil.example:8080",
            "http://logs.example",
            "http://logs.example:8081",
            "http://logs.example:8080.evil.example",
            "null",
            "",
            "file://logs.example:8080",
        ] {
            assert!(foreign(&[("origin", origin)]), "{origin}");
        }
        let twice = [
            ("origin", "http://logs.example:8080"),
            ("origin", "http://evil.example"),
        ];
        assert!(foreign(&twice));
        for (site, expected) in [
            ("cross-site", true),
            ("same-site", true),
            ("same-origin", false),
            ("none", false),
        ] {
            assert_eq!(foreign(&[("sec-fetch-site", site)]), expected, "{site}");
        }
    }

    #[test]
    fn usual_ports_may_be_left_out() {
        for (origin, host) in [
            ("http://logs.example", "logs.example:80"),
            ("http://logs.example:80", "logs.example"),
            ("https://logs.example", "logs.example:443"),
            ("http://[::1]:8080", "[::1]:8080"),
        ] {
            assert!(
                !is_foreign(
                    &Method::PUT,
                    &headers(&[("origin", origin), ("host", host)])
                ),
                "{origin}"
            );
        }
        let other = [
            ("origin", "http://logs.example"),
            ("host", "logs.example:443"),
        ];
        assert!(is_foreign(&Method::DELETE, &headers(&other)));
    }

    #[test]
    fn reading_is_for_everybody_whom_the_browser_shows_nothing() {
        let foreign = headers(&[("origin", "http://evil.example"), ("host", "localhost")]);
        assert!(!is_foreign(&Method::GET, &foreign));
        assert!(is_foreign(&Method::PATCH, &foreign));
    }
}
