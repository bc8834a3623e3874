//! What a person sees who starts thinglog in a terminal: where everything is and what to try.

use std::{
    fmt::Write as _,
    io::{IsTerminal, stdout},
    net::SocketAddr,
    path::Path,
};

use thinglog_broker::Transport;

/// What runs where.
pub(crate) struct Banner<'a> {
    pub(crate) mqtt: SocketAddr,
    /// Further listeners of the broker.
    pub(crate) others: &'a [(Transport, SocketAddr)],
    pub(crate) http: Option<SocketAddr>,
    /// HTTP serves the dashboard.
    pub(crate) dashboard: bool,
    pub(crate) data: &'a Path,
    pub(crate) root: &'a str,
    /// Clients have to log in.
    pub(crate) logins: bool,
    pub(crate) demo: bool,
}

impl Banner<'_> {
    /// Prints it if standard output is a terminal.
    pub(crate) fn print(&self) {
        if stdout().is_terminal() {
            crate::mention(&self.text());
        }
    }

    fn text(&self) -> String {
        let mut out = format!("\nthinglog {}\n\n", env!("CARGO_PKG_VERSION"));
        let mut say = |what: &str, is: &dyn std::fmt::Display| {
            let _ = writeln!(out, "  {what:<11}{is}");
        };
        say("MQTT", &self.mqtt);
        for (transport, address) in self.others {
            say("", &url(*transport, *address));
        }
        if let Some(http) = self.http {
            if self.dashboard {
                say("dashboard", &format_args!("http://{http}/"));
            }
            say(
                "HTTP",
                &format_args!("http://{http}/api/v1, /metrics, /healthz, /readyz"),
            );
        }
        say("data", &self.data.display());
        out.push('\n');
        out.push_str(&self.hints());
        if self.demo {
            out.push_str("\nThree demo devices now carry this machine's own logs. Ctrl-C ends.\n");
        } else {
            out.push_str("\nCtrl-C ends.\n");
        }
        out
    }

    /// What to try next.
    pub(crate) fn hints(&self) -> String {
        let (root, port) = (self.root, self.mqtt.port());
        let with_port = if port == 1883 {
            String::new()
        } else {
            format!(" -p {port}")
        };
        let at = if port == 1883 {
            String::new()
        } else {
            format!(" --broker {}", self.mqtt)
        };
        if self.logins {
            return format!(
                "In another terminal:\n\n\
                 \x20 thinglog passwd alice --role operator    a user, and\n\
                 \x20 thinglog device add lamp-7               a device with its token; then, for both to count:\n\
                 \x20 pkill -HUP -x thinglog\n\
                 \x20 thinglog tail{at} --level warn --username alice --password-file FILE\n"
            );
        }
        let device = if self.demo { "demo-1" } else { "lamp-7" };
        format!(
            "In another terminal:\n\n\
             \x20 thinglog tail{at} --level warn\n\
             \x20 mosquitto_pub{with_port} -t {root}/logs/lamp-7/app -q 1 -m 'hello'\n\
             \x20 mosquitto_pub{with_port} -r -q 1 -t {root}/config/device/{device} -m '{{\"level\":\"ERROR\"}}'\n"
        )
    }
}

/// What a client is told to connect to.
pub(crate) fn url(transport: Transport, address: SocketAddr) -> String {
    let path = match transport {
        Transport::Tcp | Transport::Tls => "",
        Transport::WebSocket | Transport::SecureWebSocket => "/mqtt",
    };
    format!("{}://{address}{path}", transport.scheme())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn banner(mqtt: &str, demo: bool) -> String {
        let banner = Banner {
            mqtt: mqtt.parse().unwrap(),
            others: &[
                (Transport::Tls, "127.0.0.1:8883".parse().unwrap()),
                (Transport::WebSocket, "127.0.0.1:8083".parse().unwrap()),
            ],
            http: Some("127.0.0.1:8080".parse().unwrap()),
            dashboard: true,
            data: Path::new("thinglog-data"),
            root: "thinglog",
            logins: false,
            demo,
        };
        banner.text()
    }

    #[test]
    fn where_clients_log_in_it_says_how_they_come_to_that() {
        let banner = Banner {
            mqtt: "127.0.0.1:1883".parse().unwrap(),
            others: &[],
            http: None,
            dashboard: true,
            data: Path::new("thinglog-data"),
            root: "thinglog",
            logins: true,
            demo: false,
        };
        let text = banner.text();
        for command in ["passwd alice", "device add", "tail --level warn --username"] {
            assert!(text.contains(&format!("thinglog {command}")), "{text}");
        }
    }

    #[test]
    fn it_says_where_everything_is_and_what_to_try() {
        let text = banner("127.0.0.1:1883", false);
        for part in [
            "127.0.0.1:1883",
            "mqtts://127.0.0.1:8883\n",
            "ws://127.0.0.1:8083/mqtt\n",
            "http://127.0.0.1:8080/\n",
            "http://127.0.0.1:8080/api/v1",
            "thinglog-data",
            "-t thinglog/logs/lamp-7/app",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("demo"), "{text}");
    }

    #[test]
    fn commands_name_the_port_when_it_is_not_the_usual_one() {
        let text = banner("127.0.0.1:2883", true);
        assert!(text.contains("mosquitto_pub -p 2883 "), "{text}");
        assert!(
            text.contains("thinglog tail --broker 127.0.0.1:2883"),
            "{text}"
        );
        assert!(text.contains("config/device/demo-1"), "{text}");
    }
}
