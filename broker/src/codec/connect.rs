//! CONNECT, either version. Read by our own code: rumqttd's reader takes passwords that are UTF-8
//! only, flags without the fields they stand for, properties twice and bytes beyond the end, and to
//! check all that before is to read it. (MQTT 3.1.1 section 3.1, MQTT 5.0 section 3.1.)

use bytes::Bytes;

use super::{
    CodecError, Frame, Reason, Version,
    properties::{self, id, text},
    publish::{is_wildcard, put_forwarded},
    read_bytes,
};

/// CONNECT, either version.
#[derive(Debug)]
pub(crate) struct Connect {
    pub(crate) version: Version,
    pub(crate) client_id: String,
    pub(crate) clean_start: bool,
    /// Seconds; 0 is none.
    pub(crate) keep_alive: u16,
    /// Seconds the session outlives its connection; `u32::MAX` is for ever.
    pub(crate) expiry: u32,
    pub(crate) receive_maximum: u16,
    /// Largest packet the client takes, bytes.
    pub(crate) max_packet: usize,
    /// Topic aliases the broker may use towards the client.
    pub(crate) topic_alias_maximum: u16,
    /// Reasons may be told in words, not in CONNACK and DISCONNECT alone.
    pub(crate) request_problem_information: bool,
    /// The client asks where to have responses sent.
    pub(crate) request_response_information: bool,
    pub(crate) will: Option<Will>,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Bytes>,
    pub(crate) enhanced_auth: bool,
}

impl Connect {
    /// A CONNECT that asks for nothing.
    pub(crate) fn plain(version: Version, client_id: &str) -> Connect {
        Connect {
            version,
            client_id: client_id.to_owned(),
            clean_start: true,
            keep_alive: 0,
            expiry: 0,
            receive_maximum: u16::MAX,
            max_packet: usize::MAX,
            topic_alias_maximum: 0,
            request_problem_information: true,
            request_response_information: false,
            will: None,
            username: None,
            password: None,
            enhanced_auth: false,
        }
    }
}

/// A last will as CONNECT carries it.
#[derive(Clone, Debug)]
pub(crate) struct Will {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    /// Seconds after the connection ended.
    pub(crate) delay: u32,
    pub(crate) expiry: Option<u32>,
    /// Forwarded properties, encoded.
    pub(crate) properties: Vec<u8>,
}

impl Will {
    /// What it weighs in memory, bytes.
    pub(crate) fn weight(&self) -> usize {
        self.topic.len() + self.payload.len() + self.properties.len() + 128
    }
}

/// Connect flags (section 3.1.2.3).
struct Flags(u8);

impl Flags {
    fn clean_start(&self) -> bool {
        self.0 & 0x02 != 0
    }
    fn will(&self) -> bool {
        self.0 & 0x04 != 0
    }
    fn will_qos(&self) -> u8 {
        (self.0 >> 3) & 3
    }
    fn will_retain(&self) -> bool {
        self.0 & 0x20 != 0
    }
    fn password(&self) -> bool {
        self.0 & 0x40 != 0
    }
    fn username(&self) -> bool {
        self.0 & 0x80 != 0
    }

    fn check(&self, version: Version) -> Result<(), CodecError> {
        let error = if self.0 & 1 != 0 {
            "reserved flag of CONNECT is set"
        } else if !self.will() && self.0 & 0x38 != 0 {
            "CONNECT with will QoS or will retain but without a will"
        } else if self.will_qos() == 3 {
            "CONNECT with will QoS 3"
        } else if version == Version::V311 && self.password() && !self.username() {
            "CONNECT with a password but without a user name"
        } else {
            return Ok(());
        };
        Err(CodecError::malformed(error))
    }
}

/// Which version a CONNECT speaks, from the protocol name and level in its body. An error comes with
/// the version in which to answer it.
pub(crate) fn connect_version(body: &[u8]) -> Result<Version, (Version, CodecError)> {
    let unsupported = CodecError::new(
        Reason::UnsupportedVersion,
        "protocol level is neither 4 nor 5",
    );
    match read_bytes(body) {
        Some((b"MQTT", [4, ..])) => Ok(Version::V311),
        Some((b"MQTT", [5, ..])) => Ok(Version::V5),
        Some((b"MQTT", [level, ..])) if *level > 5 => Err((Version::V5, unsupported)),
        Some((b"MQTT" | b"MQIsdp", [_, ..])) => Err((Version::V311, unsupported)),
        _ => Err((Version::V311, CodecError::malformed("not an MQTT CONNECT"))),
    }
}

/// Reads a whole CONNECT packet of a `version` that `connect_version` gave.
pub(crate) fn read_connect(
    version: Version,
    frame: &Frame,
    packet: &[u8],
) -> Result<Connect, CodecError> {
    let short = CodecError::malformed("CONNECT is cut short");
    let body = &packet[frame.header..frame.total];
    let [flags, high, low, rest @ ..] = body.get(7..).ok_or(short)? else {
        return Err(short);
    };
    let flags = Flags(*flags);
    flags.check(version)?;
    if version == Version::V5 && !frame.is_minimal() {
        return Err(CodecError::malformed(
            "a length takes more bytes than it needs",
        ));
    }
    let mut connect = Connect {
        clean_start: flags.clean_start(),
        keep_alive: u16::from_be_bytes([*high, *low]),
        expiry: match version {
            Version::V311 if !flags.clean_start() => u32::MAX,
            _ => 0,
        },
        ..Connect::plain(version, "")
    };
    let mut fields = Fields(rest);
    if version == Version::V5 {
        read_properties(fields.properties()?, &mut connect)?;
    }
    connect.client_id = text(fields.bytes()?)?.to_owned();
    if flags.will() {
        connect.will = Some(read_will(version, &flags, &mut fields)?);
    }
    if flags.username() {
        connect.username = Some(text(fields.bytes()?)?.to_owned());
    }
    if flags.password() {
        connect.password = Some(Bytes::copy_from_slice(fields.bytes()?));
    }
    if !fields.0.is_empty() {
        return Err(CodecError::malformed("CONNECT is longer than its fields"));
    }
    Ok(connect)
}

/// What is still to be read of a CONNECT.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self) -> Result<&'a [u8], CodecError> {
        let (field, rest) =
            read_bytes(self.0).ok_or(CodecError::malformed("CONNECT is cut short"))?;
        self.0 = rest;
        Ok(field)
    }

    fn properties(&mut self) -> Result<&'a [u8], CodecError> {
        let (block, rest) = properties::split(self.0)?;
        self.0 = rest;
        Ok(block)
    }
}

fn read_properties(block: &[u8], connect: &mut Connect) -> Result<(), CodecError> {
    const ALLOWED: &[u8] = &[
        id::SESSION_EXPIRY,
        id::RECEIVE_MAXIMUM,
        id::MAX_PACKET,
        id::ALIAS_MAXIMUM,
        id::REQUEST_RESPONSE,
        id::REQUEST_PROBLEM,
        id::USER,
        id::AUTH_METHOD,
        id::AUTH_DATA,
    ];
    let mut has_auth_data = false;
    properties::read(block, ALLOWED, |property| {
        match property.id {
            id::SESSION_EXPIRY => connect.expiry = property.number,
            id::RECEIVE_MAXIMUM => connect.receive_maximum = property.number as u16,
            id::MAX_PACKET => connect.max_packet = property.number as usize,
            id::ALIAS_MAXIMUM => connect.topic_alias_maximum = property.number as u16,
            id::REQUEST_RESPONSE => connect.request_response_information = property.number == 1,
            id::REQUEST_PROBLEM => connect.request_problem_information = property.number == 1,
            id::AUTH_METHOD => connect.enhanced_auth = true,
            id::AUTH_DATA => has_auth_data = true,
            _ => {}
        }
        Ok(())
    })?;
    if has_auth_data && !connect.enhanced_auth {
        return Err(CodecError::protocol(
            "CONNECT with authentication data but without a method",
        ));
    }
    Ok(())
}

fn read_will(version: Version, flags: &Flags, fields: &mut Fields<'_>) -> Result<Will, CodecError> {
    const ALLOWED: &[u8] = &[
        id::WILL_DELAY,
        id::FORMAT,
        id::EXPIRY,
        id::CONTENT_TYPE,
        id::RESPONSE_TOPIC,
        id::CORRELATION,
        id::USER,
    ];
    let (mut delay, mut expiry, mut forward) = (0, None, Vec::new());
    if version == Version::V5 {
        properties::read(fields.properties()?, ALLOWED, |property| {
            match property.id {
                id::WILL_DELAY => delay = property.number,
                id::EXPIRY => expiry = Some(property.number),
                _ => put_forwarded(&property, &mut forward)?,
            }
            Ok(())
        })?;
    }
    let topic = text(fields.bytes()?)?;
    if topic.is_empty() || topic.bytes().any(is_wildcard) {
        return Err(CodecError::new(
            Reason::TopicNameInvalid,
            "will topic is empty or holds a wildcard",
        ));
    }
    Ok(Will {
        topic: topic.to_owned(),
        payload: Bytes::copy_from_slice(fields.bytes()?),
        qos: flags.will_qos(),
        retain: flags.will_retain(),
        delay,
        expiry,
        properties: forward,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(level: u8, flags: u8, properties: &[u8], fields: &[&[u8]]) -> Vec<u8> {
        let mut body = b"\0\x04MQTT".to_vec();
        body.extend_from_slice(&[level, flags, 0, 60]);
        if level == 5 {
            body.push(properties.len() as u8);
            body.extend_from_slice(properties);
        }
        for field in fields {
            body.extend_from_slice(&(field.len() as u16).to_be_bytes());
            body.extend_from_slice(field);
        }
        let mut packet = vec![0x10, body.len() as u8];
        packet.extend_from_slice(&body);
        packet
    }

    fn read(packet: &[u8]) -> Result<Connect, CodecError> {
        let frame = super::super::frame(packet, 1024)?.unwrap();
        let version = connect_version(&packet[2..]).map_err(|(_, error)| error)?;
        read_connect(version, &frame, packet)
    }

    #[test]
    fn a_password_is_bytes_and_a_user_name_text() {
        for level in [4, 5] {
            let connect = read(&packet(level, 0xC2, &[], &[b"c", b"user", &[0, 0xFF]])).unwrap();
            assert_eq!(connect.username.as_deref(), Some("user"));
            assert_eq!(connect.password.as_deref(), Some(&[0, 0xFF][..]));
            assert!(read(&packet(level, 0xC2, &[], &[b"c", &[0xFF], b"p"])).is_err());
        }
    }

    #[test]
    fn a_password_without_a_user_name_is_of_version_5_only() {
        assert!(read(&packet(5, 0x42, &[], &[b"c", b"p"])).is_ok());
        assert!(read(&packet(4, 0x42, &[], &[b"c", b"p"])).is_err());
    }

    #[test]
    fn flags_and_fields_have_to_agree() {
        for level in [4, 5] {
            for flags in [0x03, 0x0A, 0x22, 0x1E] {
                let whole = packet(level, flags, &[], &[b"c", b"topic", b"will"]);
                assert!(read(&whole).is_err(), "{flags:#x}");
            }
            assert!(read(&packet(level, 0x02, &[], &[b"c", b"more"])).is_err());
            assert!(read(&packet(level, 0x82, &[], &[b"c"])).is_err());
        }
    }

    #[test]
    fn every_property_is_read() {
        let properties = [
            17, 0, 0, 0, 9, 33, 0, 8, 39, 0, 0, 1, 0, 34, 0, 7, 25, 1, 23, 0,
        ];
        let connect = read(&packet(5, 0, &properties, &[b"c"])).unwrap();
        assert_eq!((connect.expiry, connect.receive_maximum), (9, 8));
        assert_eq!((connect.max_packet, connect.topic_alias_maximum), (256, 7));
        assert!(connect.request_response_information && !connect.request_problem_information);
        let data_alone = [22, 0, 1, 9];
        assert!(read(&packet(5, 0, &data_alone, &[b"c"])).is_err());
    }

    #[test]
    fn another_version_is_answered_in_the_nearest() {
        let version = |level| connect_version(&packet(level, 2, &[], &[b"c"])[2..]);
        assert!(matches!(version(3), Err((Version::V311, _))));
        assert!(matches!(version(6), Err((Version::V5, _))));
    }
}
