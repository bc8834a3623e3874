//! On-demand upload: what an operator asks on `request/<device>`, and what the device answers on
//! `response/<device>/<id>`. JSON both ways. Requests are strict, as configuration documents are;
//! of answers unknown fields are ignored, so that an older operator understands a newer device.
//!
//! ```text
//! {"id":"r1","sources":["nginx"],"from":"-15m","text":"timeout","level":"WARN","lines":1000}
//! {"id":"r1","time":"2026-01-02T03:04:05.000000000Z","state":"init","ahead":0}
//! {"id":"r1","time":"…","state":"executing","lines":52000,"matched":17,"sent":0}
//! {"id":"r1","time":"…","state":"chunk","chunk":0,"events":[{"time":"…","message":"…"}]}
//! {"id":"r1","time":"…","state":"successful","lines":98113,"matched":17,"sent":17,"chunks":1}
//! ```

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Level, json, name, time::SECOND};

/// Largest request, bytes.
pub const MAX_REQUEST: usize = 16 << 10;
/// Most entries of `sources`.
pub const MAX_SOURCES: usize = 64;
/// Longest `text`, bytes.
pub const MAX_TEXT: usize = 1024;
/// Lines that are sent when a request does not say how many.
pub const DEFAULT_LINES: u64 = 1000;
/// Seconds that a request may take when it does not say.
pub const DEFAULT_DEADLINE_S: u64 = 60;
/// The id that an answer goes by when the request has none that could stand in a topic.
pub const REFUSED_ID: &str = "refused";

/// What is asked of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Names the request and the topic of its answers; a valid name (see [`name`]). The same id
    /// again is the same request and is not done twice.
    pub id: String,
    /// What to do.
    #[serde(default, rename = "type")]
    pub kind: Kind,
    /// Which configured sources to read back; none: all that can be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    /// No events before this: RFC 3339, or before now (`-90s`, `-15m`, `-2h`, `-7d`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// No events after this; written as `from` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Only events that contain this; capital letters count if it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Of each source the newest so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<u64>,
    /// Only events as grave as this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// Seconds after which it is given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_s: Option<u64>,
    /// Which way the events go.
    #[serde(default, skip_serializing_if = "Deliver::is_response")]
    pub deliver: Deliver,
}

/// What to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Read back what sources logged.
    #[default]
    Logs,
    /// Send what the device keeps in memory for the case of an error.
    Ring,
    /// Say how the device and its sources are.
    Status,
    /// Send what is queued without waiting for its time.
    Flush,
    /// Give up the request of this id.
    Cancel,
}

/// Which way the events go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Deliver {
    /// To who asked, on the response topic: levels do not apply.
    #[default]
    Response,
    /// As ordinary events with the attribute `request`: levels apply to them as to all.
    Logs,
}

impl Deliver {
    fn is_response(&self) -> bool {
        *self == Deliver::Response
    }
}

/// A moment as a request gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Nanoseconds since the Unix epoch.
    At(u64),
    /// Nanoseconds before now.
    Ago(u64),
}

impl Moment {
    /// Reads RFC 3339, or `-15m` and the like.
    pub fn parse(text: &str) -> Option<Moment> {
        let Some(ago) = text.strip_prefix('-') else {
            return json::parse_time(text).map(Moment::At);
        };
        let units = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)];
        let (number, seconds) = units
            .iter()
            .find_map(|(unit, seconds)| Some((ago.strip_suffix(*unit)?, *seconds)))?;
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let seconds = number.parse::<u64>().ok()?.checked_mul(seconds)?;
        seconds.checked_mul(SECOND).map(Moment::Ago)
    }

    /// Nanoseconds since the Unix epoch, when it is `now`.
    pub fn at(self, now: u64) -> u64 {
        match self {
            Moment::At(at) => at,
            Moment::Ago(ago) => now.saturating_sub(ago),
        }
    }
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its id, or [`REFUSED_ID`] when it has no usable one.
    pub id: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl Request {
    /// Reads a request; everything that can be wrong with it by itself is checked here.
    pub fn parse(payload: &[u8]) -> Result<Request, Refusal> {
        let refuse = |reason: String| Refusal {
            id: usable_id(payload),
            reason,
        };
        if payload.len() > MAX_REQUEST {
            return Err(refuse(format!(
                "a request has at most {MAX_REQUEST} bytes, this one has {}",
                payload.len()
            )));
        }
        if !payload.trim_ascii_start().starts_with(b"{") {
            return Err(refuse(
                "a request is a JSON object, like {\"id\": \"r1\", \"sources\": [\"nginx\"]}"
                    .into(),
            ));
        }
        let request: Request =
            serde_json::from_slice(payload).map_err(|error| refuse(error.to_string()))?;
        request.check().map_err(refuse)?;
        Ok(request)
    }

    fn check(&self) -> Result<(), String> {
        if !name::is_valid(&self.id) {
            return Err("`id` must be 1-128 characters of A-Z a-z 0-9 . _ : -".into());
        }
        if !matches!(self.kind, Kind::Logs | Kind::Ring) && self.selects() {
            return Err(
                "`sources`, `from`, `to`, `text`, `lines`, `level` and `deliver` \
                 are for the types logs and ring only"
                    .into(),
            );
        }
        if self.sources.len() > MAX_SOURCES {
            return Err(format!("`sources` has more than {MAX_SOURCES} entries"));
        }
        if let Some(bad) = self.sources.iter().find(|source| !name::is_valid(source)) {
            let shown: String = bad.chars().take(40).collect();
            return Err(format!(
                "`sources`: {shown:?} is no source name; sources are asked for by name, never by path"
            ));
        }
        let (from, to) = (
            moment("from", self.from.as_deref())?,
            moment("to", self.to.as_deref())?,
        );
        if let (Some(Moment::At(from)), Some(Moment::At(to))) = (from, to)
            && from > to
        {
            return Err("`from` is after `to`".into());
        }
        match &self.text {
            Some(text) if text.is_empty() || text.len() > MAX_TEXT => {
                return Err(format!("`text` has 1 to {MAX_TEXT} bytes"));
            }
            _ => {}
        }
        if self.level == Some(Level::Disabled) {
            return Err("`level` is ERROR, WARN, INFO or DEBUG".into());
        }
        if self.lines == Some(0) || self.deadline_s == Some(0) {
            return Err("`lines` and `deadline_s` must be at least 1".into());
        }
        Ok(())
    }

    fn selects(&self) -> bool {
        !self.sources.is_empty()
            || self.from.is_some()
            || self.to.is_some()
            || self.text.is_some()
            || self.lines.is_some()
            || self.level.is_some()
            || self.deliver != Deliver::Response
    }
}

fn moment(field: &str, text: Option<&str>) -> Result<Option<Moment>, String> {
    let Some(text) = text else { return Ok(None) };
    Moment::parse(text).map(Some).ok_or_else(|| {
        let shown: String = text.chars().take(40).collect();
        format!(
            "`{field}` {shown:?} is neither RFC 3339 such as 2026-01-02T15:04:05Z nor before now such as -15m (s, m, h, d)"
        )
    })
}

/// The id of whatever this is, so that its sender hears why it was refused.
fn usable_id(payload: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Id {
        id: String,
    }
    let head = payload.get(..MAX_REQUEST).unwrap_or(payload);
    // An array would do for the struct as well.
    let is_object = head.trim_ascii_start().starts_with(b"{");
    let read = is_object.then(|| serde_json::from_slice::<Id>(head));
    let id = read.and_then(Result::ok).map(|id| id.id);
    id.filter(|id| name::is_valid(id))
        .unwrap_or_else(|| REFUSED_ID.to_owned())
}

/// One message on `response/<device>/<id>`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// Of the request.
    pub id: String,
    /// When, RFC 3339.
    pub time: String,
    /// How it stands.
    #[serde(flatten)]
    pub state: State,
}

/// How a request stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum State {
    /// Taken; so many others are done before it.
    Init {
        /// Requests before this one.
        ahead: u64,
    },
    /// Under way.
    Executing(Progress),
    /// Some of the events, in order: chunk 0 is the first.
    Chunk {
        /// The number of this one.
        chunk: u64,
        /// In the JSON form of events, without ids (see [`json`]).
        events: Vec<Value>,
    },
    /// Done; the last message.
    Successful(Done),
    /// Given up; the last message.
    Failed {
        /// Why.
        reason: String,
        /// What was done until then.
        #[serde(flatten)]
        progress: Progress,
    },
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// Lines and entries read.
    pub lines: u64,
    /// Events that are what was asked for.
    pub matched: u64,
    /// Events sent.
    pub sent: u64,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Done {
    /// The figures at the end.
    #[serde(flatten)]
    pub progress: Progress,
    /// Chunks sent.
    pub chunks: u64,
    /// Which limit held events back: `lines` (older ones) or `bytes` (newer ones).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limited: Option<String>,
    /// What the asker should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The answer to `status`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Value>,
    /// The request came again and this is the answer of the first time.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub repeated: bool,
}

impl State {
    /// Whether no further message follows.
    pub fn is_last(&self) -> bool {
        matches!(self, State::Successful(_) | State::Failed { .. })
    }
}

/// One message, ready to be published; `now` in ns since the Unix epoch.
pub fn write(id: &str, now: u64, state: &State) -> Vec<u8> {
    let mut time = Vec::with_capacity(32);
    json::write_time(now, &mut time);
    let response = Response {
        id: id.to_owned(),
        time: String::from_utf8(time).unwrap_or_default(),
        state: state.clone(),
    };
    // Strings, numbers and maps with string keys always serialise.
    serde_json::to_vec(&response).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_needs_an_id_and_nothing_else() {
        let request = Request::parse(br#"{"id":"r1"}"#).unwrap();
        assert_eq!(request.kind, Kind::Logs);
        assert_eq!(request.deliver, Deliver::Response);
        assert!(request.sources.is_empty());
    }

    #[test]
    fn what_is_written_is_read_back() {
        let request = Request {
            id: "r1".into(),
            kind: Kind::Logs,
            sources: vec!["nginx".into()],
            from: Some("-15m".into()),
            to: Some("2026-01-02T15:04:05Z".into()),
            text: Some("timeout".into()),
            lines: Some(10),
            level: Some(Level::Warn),
            deadline_s: Some(5),
            deliver: Deliver::Logs,
        };
        let json = serde_json::to_vec(&request).unwrap();
        assert_eq!(Request::parse(&json), Ok(request));
    }

    #[test]
    fn what_is_wrong_is_named_and_answered_under_the_requests_own_id() {
        for (payload, id, hint) in [
            (&br#"{"id":"r1","path":"/etc/passwd"}"#[..], "r1", "`path`"),
            (
                br#"{"id":"r1","sources":["/etc/passwd"]}"#,
                "r1",
                "never by path",
            ),
            (br#"{"id":"r1","sources":["../x"]}"#, "r1", "never by path"),
            (br#"{"id":"r1","from":"yesterday"}"#, "r1", "-15m"),
            (br#"{"id":"r1","to":"-5w"}"#, "r1", "`to`"),
            (
                br#"{"id":"r1","from":"2026-01-02T00:00:00Z","to":"2026-01-01T00:00:00Z"}"#,
                "r1",
                "after",
            ),
            (br#"{"id":"r1","level":"loud"}"#, "r1", "loud"),
            (br#"{"id":"r1","level":"DISABLED"}"#, "r1", "`level`"),
            (br#"{"id":"r1","lines":0}"#, "r1", "at least 1"),
            (br#"{"id":"r1","lines":-1}"#, "r1", "-1"),
            (br#"{"id":"r1","text":""}"#, "r1", "`text`"),
            (br#"{"id":"r1","type":"reboot"}"#, "r1", "reboot"),
            (
                br#"{"id":"r1","type":"status","text":"x"}"#,
                "r1",
                "types logs and ring only",
            ),
            (br#"{"id":"a/b"}"#, REFUSED_ID, "`id`"),
            (br#"{"sources":[]}"#, REFUSED_ID, "`id`"),
            (br#"["r1"]"#, REFUSED_ID, "JSON object"),
            (b"", REFUSED_ID, "JSON object"),
            (b"{", REFUSED_ID, "EOF"),
        ] {
            let refusal = Request::parse(payload).unwrap_err();
            let shown = String::from_utf8_lossy(payload);
            assert_eq!(refusal.id, id, "{shown}");
            assert!(refusal.reason.contains(hint), "{shown}: {}", refusal.reason);
        }
        let mut long = br#"{"id":"r1","text":""#.to_vec();
        long.resize(MAX_REQUEST + 1, b' ');
        assert!(Request::parse(&long).unwrap_err().reason.contains("bytes"));
    }

    #[test]
    fn moments_are_given_or_before_now() {
        let minute = 60 * SECOND;
        assert_eq!(Moment::parse("-15m"), Some(Moment::Ago(15 * minute)));
        assert_eq!(Moment::parse("-90s").unwrap().at(2 * minute), 30 * SECOND);
        assert_eq!(Moment::parse("-1d").unwrap().at(5), 0);
        let at = Moment::parse("1970-01-01T00:01:00Z").unwrap();
        assert_eq!(at.at(7), minute);
        for bad in [
            "",
            "-",
            "-m",
            "15m",
            "-15",
            "-1.5h",
            "-+5m",
            "-99999999999999999d",
        ] {
            assert_eq!(Moment::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_state_is_read_back() {
        let progress = Progress {
            lines: 9,
            matched: 2,
            sent: 1,
        };
        for state in [
            State::Init { ahead: 1 },
            State::Executing(progress),
            State::Chunk {
                chunk: 3,
                events: vec![serde_json::json!({"message": "m"})],
            },
            State::Successful(Done {
                progress,
                chunks: 4,
                limited: Some("lines".into()),
                notes: vec!["n".into()],
                status: Some(serde_json::json!({"connected": true})),
                repeated: true,
            }),
            State::Failed {
                reason: "cancelled".into(),
                progress,
            },
        ] {
            let bytes = write("r1", 0, &state);
            let response: Response = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(response.id, "r1");
            assert_eq!(response.time, "1970-01-01T00:00:00.000000000Z");
            assert_eq!(response.state, state);
        }
    }

    #[test]
    fn an_answer_of_a_newer_device_is_understood() {
        let text = br#"{"id":"r1","time":"t","state":"successful","sent":3,"mood":"good"}"#;
        let response: Response = serde_json::from_slice(text).unwrap();
        assert!(matches!(response.state, State::Successful(done) if done.progress.sent == 3));
    }

    proptest! {
        #[test]
        fn no_payload_makes_the_reader_panic(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Request::parse(&payload);
        }

        #[test]
        fn no_text_makes_a_moment_panic(text in "-?[0-9.]{0,25}[smhd]?.{0,3}") {
            if let Some(moment) = Moment::parse(&text) {
                moment.at(5);
            }
        }
    }
}
