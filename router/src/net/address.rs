//! Addresses of servers, `scheme://host[:port]`. Pure.

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// One of those that were offered.
    pub(crate) scheme: &'static str,
    /// A name or an address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Address {
    /// Parses an address of one of these schemes, each with its usual port.
    pub(crate) fn parse(text: &str, schemes: &[(&'static str, u16)]) -> Result<Address, String> {
        let found = schemes.iter().find_map(|(scheme, port)| {
            let rest = text.strip_prefix(scheme)?.strip_prefix("://")?;
            Some((*scheme, *port, rest))
        });
        let Some((scheme, usual, rest)) = found else {
            let known: Vec<String> = schemes
                .iter()
                .map(|(scheme, _)| format!("{scheme}://"))
                .collect();
            return Err(format!("{text:?} opens with none of {}", known.join(", ")));
        };
        let wrong = || format!("{text:?} is not {scheme}://HOST[:PORT]");
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, behind) = rest.split_once(']').ok_or_else(wrong)?;
                (host, behind)
            }
            None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port > 0),
            None if port.is_empty() => Some(usual),
            None => None,
        };
        let odd = |c: char| c.is_whitespace() || c.is_control() || "/@?#".contains(c);
        if host.is_empty() || host.contains(odd) {
            return Err(wrong());
        }
        Ok(Address {
            scheme,
            host: host.to_owned(),
            port: port.ok_or_else(wrong)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMES: [(&str, u16); 2] = [("mqtt", 1883), ("mqtts", 8883)];

    #[test]
    fn host_and_port_are_told_apart() {
        for (text, scheme, host, port) in [
            ("mqtt://example.org", "mqtt", "example.org", 1883),
            ("mqtts://example.org", "mqtts", "example.org", 8883),
            ("mqtt://10.0.0.1:18830", "mqtt", "10.0.0.1", 18830),
            ("mqtt://[::1]", "mqtt", "::1", 1883),
            ("mqtts://[2001:db8::7]:1", "mqtts", "2001:db8::7", 1),
        ] {
            let expected = Address {
                scheme,
                host: host.into(),
                port,
            };
            assert_eq!(Address::parse(text, &SCHEMES), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_by_name() {
        for text in [
            "example.org",
            "http://example.org",
            "mqtt://",
            "mqtt://:1883",
            "mqtt://h:0",
            "mqtt://h:x",
            "mqtt://::1",
            "mqtt://[::1",
            "mqtt://[::1]1883",
            "mqtt://user@h",
            "mqtt://h/path",
        ] {
            let error = Address::parse(text, &SCHEMES).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }
}
