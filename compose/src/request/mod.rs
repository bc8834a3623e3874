//! `thinglog logs request`: asks a device over the broker for what it logged earlier, and prints it.

pub(crate) mod cli;
mod talk;

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use rumqttc::v5::{
    AsyncClient, Event, EventLoop, Incoming,
    mqttbytes::{
        QoS,
        v5::{Filter, PubAckReason, Publish, PublishProperties, SubscribeReasonCode},
    },
};
use serde_json::Value;
use thinglog_router::config::Endpoint;
use thinglog_schemas::{
    Topic, Topics,
    config::Reported,
    name,
    request::{DEFAULT_DEADLINE_S, Deliver, Kind, Request, Response},
};
use tokio::time::{Instant, sleep_until, timeout};

use crate::{
    client::{self, Broker},
    line,
    tail::Printer,
};
use cli::{Ask, Format, Type, Way};
use talk::{Heard, Talk};

/// A device that is there answers within this.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// What a request may take beyond its deadline, on its way and behind others.
const GRACE: Duration = Duration::from_secs(60);
/// How long the last words to the broker may take.
const FAREWELL: Duration = Duration::from_secs(1);
/// The user gave it up.
const INTERRUPTED: u8 = 130;

/// Whom to ask what.
#[derive(Debug)]
pub(crate) struct Options {
    broker: Broker,
    topics: Topics,
    device: String,
    request: Request,
    wait: Option<Duration>,
    json: bool,
}

/// The options of a command line; `configured` are address and login of the configured broker.
pub(crate) fn options(
    args: &Ask,
    topics: Topics,
    configured: &Endpoint,
) -> anyhow::Result<Options> {
    let request = Request {
        id: client::unique(),
        kind: match args.kind {
            Type::Logs => Kind::Logs,
            Type::Ring => Kind::Ring,
            Type::Status => Kind::Status,
            Type::Flush => Kind::Flush,
        },
        sources: args
            .source
            .iter()
            .map(|s| name::encode(s).into_owned())
            .collect(),
        from: args.from.clone(),
        to: args.to.clone(),
        text: args.text.clone(),
        lines: args.lines,
        level: args.level,
        deadline_s: args.deadline,
        deliver: match args.deliver {
            Way::Response => Deliver::Response,
            Way::Logs => Deliver::Logs,
        },
    };
    // What the device would refuse is refused here.
    let payload = serde_json::to_vec(&request)?;
    Request::parse(&payload).map_err(|refusal| anyhow!(refusal.reason))?;
    Ok(Options {
        broker: client::broker(&args.connect, configured)?,
        topics,
        device: name::encode(&args.device).into_owned(),
        request,
        wait: args.wait,
        json: match args.format {
            Some(format) => format == Format::Json,
            None => !io::stdout().is_terminal(),
        },
    })
}

/// Asks, prints, and says how it went.
pub(crate) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let (client, connection) = client::connect(&options.broker, "logs");
    let mut asking = Asking {
        printer: Printer::new(options.json, client::colour()),
        talk: Talk::default(),
        online: None,
        client,
        connection,
        options,
    };
    let ended = tokio::select! {
        ended = asking.converse() => Some(ended),
        _ = tokio::signal::ctrl_c() => None,
    };
    asking.leave(ended.is_none()).await;
    match ended {
        Some(ended) => ended,
        None => {
            tell("given up");
            Ok(ExitCode::from(INTERRUPTED))
        }
    }
}

struct Asking {
    options: Options,
    client: AsyncClient,
    connection: EventLoop,
    printer: Printer,
    talk: Talk,
    /// What the device last said of itself.
    online: Option<bool>,
}

impl Asking {
    async fn converse(&mut self) -> anyhow::Result<ExitCode> {
        let mut patience = Instant::now() + self.options.wait.unwrap_or(ANSWER_WITHIN);
        loop {
            let event = tokio::select! {
                event = self.connection.poll() => event,
                () = sleep_until(patience) => bail!(self.silence()),
            };
            let event = event.map_err(|error| {
                let broker = &self.options.broker;
                let user = broker.credentials.as_ref().map(|(user, _)| &**user);
                match client::turned_away(&error, user) {
                    Some(reason) => anyhow!("{broker}: {reason}"),
                    None => anyhow!(error).context(format!("no connection to {broker}")),
                }
            })?;
            let Event::Incoming(packet) = event else {
                continue;
            };
            if let Some(code) = self.packet(packet)? {
                return Ok(code);
            }
            if self.talk.begun {
                let request = &self.options.request;
                let seconds = request.deadline_s.unwrap_or(DEFAULT_DEADLINE_S);
                patience = Instant::now() + Duration::from_secs(seconds) + GRACE;
            }
        }
    }

    /// A packet of the broker; a code when all is over.
    fn packet(&mut self, packet: Incoming) -> anyhow::Result<Option<ExitCode>> {
        match packet {
            Incoming::ConnAck(_) => {
                let filters = [self.response_topic(), self.reported_topic()];
                let filters = filters.map(|filter| Filter::new(filter, QoS::AtLeastOnce));
                self.client
                    .try_subscribe_many(filters)
                    .context("cannot subscribe")?;
            }
            Incoming::SubAck(answer) => {
                // Only the answers matter; what the device says of itself is for a better message.
                match answer.return_codes.first() {
                    Some(SubscribeReasonCode::Success(_)) => self.ask()?,
                    refused => bail!("the broker does not let this user read answers: {refused:?}"),
                }
            }
            Incoming::PubAck(ack)
                if !matches!(
                    ack.reason,
                    PubAckReason::Success | PubAckReason::NoMatchingSubscribers
                ) =>
            {
                bail!(
                    "the broker does not let this user ask devices: {:?}",
                    ack.reason
                );
            }
            Incoming::Publish(publish) if publish.topic == self.reported_topic() => {
                let reported = serde_json::from_slice::<Reported>(&publish.payload);
                self.online = reported.ok().map(|reported| reported.online);
            }
            Incoming::Publish(publish) => return self.answer(&publish),
            _ => {}
        }
        Ok(None)
    }

    fn ask(&mut self) -> anyhow::Result<()> {
        let payload = serde_json::to_vec(&self.options.request)?;
        let properties = PublishProperties {
            message_expiry_interval: self.options.wait.map(|wait| wait.as_secs() as u32),
            ..PublishProperties::default()
        };
        let retain = self.options.wait.is_some();
        self.client
            .try_publish_with_properties(
                self.request_topic(),
                QoS::AtLeastOnce,
                retain,
                payload,
                properties,
            )
            .context("cannot ask")
    }

    fn answer(&mut self, publish: &Publish) -> anyhow::Result<Option<ExitCode>> {
        let response: Response = match serde_json::from_slice(&publish.payload) {
            Ok(response) => response,
            Err(error) => {
                tell(&format!("an answer cannot be read: {error}; skipped"));
                return Ok(None);
            }
        };
        let first = !self.talk.begun;
        let heard = self.talk.hear(response);
        if first && self.options.wait.is_some() {
            self.take_back()?;
        }
        match heard {
            Heard::Nothing => {}
            Heard::Told(text) => tell(&text),
            Heard::Events(events) => {
                for event in &events {
                    // Whoever reads may be gone, as with `| head`: the rest is for nobody.
                    if self.printer.print(event.to_string().as_bytes()).is_err() {
                        return Ok(Some(ExitCode::SUCCESS));
                    }
                }
            }
            Heard::Successful { told, status } => {
                if let Some(status) = status {
                    print_status(&status);
                }
                tell(&told);
                return Ok(Some(ExitCode::SUCCESS));
            }
            Heard::Failed(reason) => {
                tell(&format!("failed: {reason}"));
                return Ok(Some(ExitCode::FAILURE));
            }
        }
        Ok(None)
    }

    /// The request need not wait with the broker any more.
    fn take_back(&self) -> anyhow::Result<()> {
        let topic = self.request_topic();
        let sent = self.client.try_publish(topic, QoS::AtLeastOnce, true, "");
        sent.context("cannot take the request back")
    }

    /// Says goodbye; `give_up` tells the device that nobody waits any more.
    async fn leave(&mut self, give_up: bool) {
        if give_up {
            let cancel = Request {
                id: self.options.request.id.clone(),
                kind: Kind::Cancel,
                ..Request::default()
            };
            let payload = serde_json::to_vec(&cancel).unwrap_or_default();
            let (topic, qos) = (self.request_topic(), QoS::AtLeastOnce);
            // The connection may be gone: then there is nobody to tell.
            let _ = self.client.try_publish(topic, qos, false, payload);
        }
        if self.options.wait.is_some() && !self.talk.begun {
            let _ = self.take_back();
        }
        let _ = self.client.try_disconnect();
        let _ = timeout(FAREWELL, async {
            while self.connection.poll().await.is_ok() {}
        })
        .await;
    }

    /// Why nothing comes.
    fn silence(&self) -> String {
        let device = &self.options.device;
        if self.talk.begun {
            return format!("{device} began to answer and fell silent; ask again");
        }
        match self.online {
            Some(false) => format!("{device} is not connected; --wait leaves the request for it"),
            Some(true) => format!("{device} is connected, but does not answer requests"),
            None => format!("no answer, and no device {device} has ever reported here"),
        }
    }

    fn request_topic(&self) -> String {
        let device = &self.options.device;
        self.options.topics.format(Topic::Request { device })
    }

    fn reported_topic(&self) -> String {
        let device = &self.options.device;
        self.options.topics.format(Topic::Reported { device })
    }

    fn response_topic(&self) -> String {
        self.options.topics.format(Topic::Response {
            device: &self.options.device,
            id: &self.options.request.id,
        })
    }
}

/// For people, whatever the device put into it.
fn tell(text: &str) {
    let mut line = String::from("thinglog: ");
    line::escape(text, &mut line);
    eprintln!("{line}");
}

fn print_status(status: &Value) {
    let text = serde_json::to_string_pretty(status).unwrap_or_default();
    for line in text.lines() {
        let mut safe = String::new();
        line::escape_json(line, &mut safe);
        crate::say(&format!("{safe}\n"));
    }
}
