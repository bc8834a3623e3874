//! An answer, and what its status means unless a service knows better. Pure.

use std::time::{Duration, SystemTime};

use super::HeaderMap;
use crate::deliver::remote::verdict::Verdict;

/// A whole answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// Most characters of an answer that a reason quotes.
const QUOTED: usize = 300;
/// The longest that a service is believed to want nothing.
const LONGEST: Duration = Duration::from_secs(3600);

impl Answer {
    /// By RFC 9110 section 15:
    ///
    /// - 2xx: accepted.
    /// - 408, 425, 429, 5xx: try again, not before `Retry-After`.
    /// - 401, 403, 404, 405, 407, 410, 421 and 3xx: nothing is wrong with the events but with the
    ///   configuration; tried again until somebody has mended it.
    /// - Other 4xx (400, 413, 422 ...): refused because of what the request holds.
    pub(crate) fn verdict(&self) -> Verdict {
        let reason = self.reason();
        match self.status {
            200..=299 => Verdict::Accepted,
            401 | 403 | 404 | 405 | 407 | 410 | 421 => Verdict::retry(reason),
            300..=399 => Verdict::retry(format!("{reason}; redirects are not followed")),
            408 | 425 | 429 | 500.. => Verdict::Retry {
                after: self.retry_after(SystemTime::now()),
                reason,
            },
            _ => Verdict::Refused { reason },
        }
    }

    /// Status and the beginning of the body, without control characters.
    pub(crate) fn reason(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let quoted: String = text.trim().chars().take(QUOTED).collect();
        let quoted = quoted.replace(|c: char| c.is_control(), " ");
        match quoted.is_empty() {
            true => format!("answered {}", self.status),
            false => format!("answered {}: {quoted}", self.status),
        }
    }

    /// `Retry-After` (RFC 9110 section 10.2.3): seconds or a date.
    pub(crate) fn retry_after(&self, now: SystemTime) -> Option<Duration> {
        let text = self.headers.get("retry-after")?.to_str().ok()?.trim();
        let wait = match text.parse::<u64>() {
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_) => {
                let date = httpdate::parse_http_date(text).ok()?;
                date.duration_since(now).unwrap_or_default()
            }
        };
        Some(wait.min(LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, retry_after: Option<&str>, body: &str) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(text) = retry_after {
            headers.insert("retry-after", text.parse().unwrap());
        }
        Answer {
            status,
            headers,
            body: body.into(),
        }
    }

    #[test]
    fn what_is_the_configurations_fault_costs_no_event() {
        for status in [301, 401, 403, 404, 407] {
            let verdict = answer(status, None, "").verdict();
            assert!(matches!(verdict, Verdict::Retry { .. }), "{status}");
        }
        for status in [400, 413, 422] {
            let verdict = answer(status, None, "").verdict();
            assert!(matches!(verdict, Verdict::Refused { .. }), "{status}");
        }
        assert_eq!(answer(202, None, "").verdict(), Verdict::Accepted);
    }

    #[test]
    fn a_wait_is_given_in_seconds_or_as_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 60);
        for (text, seconds) in [
            ("120", Some(120)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("99999999", Some(3600)),
            ("soon", None),
        ] {
            let wait = answer(503, Some(text), "").retry_after(now);
            assert_eq!(wait, seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn a_reason_quotes_without_control_characters() {
        let reason = answer(400, None, "bad\x1b[2J\nline").reason();
        assert_eq!(reason, "answered 400: bad [2J line");
    }
}
