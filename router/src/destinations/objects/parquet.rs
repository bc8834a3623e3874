//! Parquet, by the low level of the crate `parquet`: rows are gathered until they are a row group, and
//! written column by column, compressed with zstd.

use std::io;
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use thinglog_schemas::{Event, json};

/// Microseconds, because not every reader knows nanoseconds.
const SCHEMA: &str = "message event {
    optional binary id (STRING);
    required int64 time (TIMESTAMP(MICROS,true));
    required int64 received (TIMESTAMP(MICROS,true));
    required binary device (STRING);
    required binary source (STRING);
    required int32 severity;
    required binary level (STRING);
    required binary message (STRING);
    optional binary attributes (STRING);
    required boolean time_estimated;
    required boolean truncated;
}";

/// Bytes of memory that make a row group: lines, and what a row takes beside them.
pub(super) const GROUP: usize = 12 << 20;
/// A row beside its texts: six of them as values of their own, each in a piece of memory, and the numbers.
const ROW: usize = 6 * (size_of::<ByteArray>() + 16 + 2) + 40;
/// Rows that do.
const ROWS: usize = 65_536;
const NS: u64 = 1000;

/// A file that is being written.
pub(super) struct Rows {
    writer: SerializedFileWriter<Vec<u8>>,
    group: Group,
}

/// Rows that are no row group yet, by column.
#[derive(Default)]
struct Group {
    bytes: usize,
    ids: Texts,
    times: Vec<i64>,
    received: Vec<i64>,
    devices: Texts,
    sources: Texts,
    severities: Vec<i32>,
    levels: Texts,
    messages: Texts,
    attributes: Texts,
    estimated: Vec<bool>,
    truncated: Vec<bool>,
}

/// Texts, some of which may be missing.
#[derive(Default)]
struct Texts {
    values: Vec<ByteArray>,
    /// 1 where there is one.
    there: Vec<i16>,
}

impl Texts {
    fn push(&mut self, text: Option<String>) {
        self.there.push(i16::from(text.is_some()));
        self.values
            .extend(text.map(|text| ByteArray::from(text.into_bytes())));
    }
}

impl Rows {
    pub(super) fn begin() -> io::Result<Rows> {
        let schema = parse_message_type(SCHEMA).map_err(io::Error::other)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_created_by(concat!("thinglog ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let writer = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::new(properties));
        Ok(Rows {
            writer: writer.map_err(io::Error::other)?,
            group: Group::default(),
        })
    }

    /// Adds an event, as its JSON object.
    pub(super) fn push(&mut self, line: &[u8]) -> io::Result<()> {
        self.group.push(line);
        match self.group.bytes >= GROUP || self.group.times.len() >= ROWS {
            true => self.close_group(),
            false => Ok(()),
        }
    }

    fn close_group(&mut self) -> io::Result<()> {
        let group = std::mem::take(&mut self.group);
        let mut rows = self.writer.next_row_group().map_err(io::Error::other)?;
        group.write(&mut rows).map_err(io::Error::other)?;
        rows.close().map_err(io::Error::other)?;
        self.writer.flush()
    }

    /// What is written already; what is taken from it is not needed any more.
    pub(super) fn ready(&mut self) -> &mut Vec<u8> {
        self.writer.inner_mut()
    }

    /// Ends the file; gives what has not been taken.
    pub(super) fn end(mut self) -> io::Result<Vec<u8>> {
        if !self.group.times.is_empty() {
            self.close_group()?;
        }
        self.writer.into_inner().map_err(io::Error::other)
    }
}

impl Group {
    fn push(&mut self, line: &[u8]) {
        self.bytes += line.len() + ROW;
        match json::read(line) {
            Ok(event) => self.push_event(event),
            Err(error) => {
                // Somebody else has written into the stage: what it is stays readable.
                tracing::error!(%error, "a staged line is not an event; it becomes a row of its text");
                self.push_text(String::from_utf8_lossy(line).into_owned());
            }
        }
    }

    fn push_event(&mut self, event: Event) {
        let micros = |ns: u64| i64::try_from(ns / NS).unwrap_or(i64::MAX);
        let attributes = (!event.attributes.is_empty()).then(|| {
            let mut text = Vec::new();
            json::write_attributes(&event.attributes, &mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        self.ids.push(event.id.text(&event.device));
        self.times.push(micros(event.time));
        self.received.push(micros(event.received));
        self.devices.push(Some(event.device.to_string()));
        self.sources.push(Some(event.source.to_string()));
        self.severities.push(i32::from(event.severity.number()));
        self.levels
            .push(Some(event.severity.level().name().to_owned()));
        self.messages.push(Some(event.message));
        self.attributes.push(attributes);
        self.estimated.push(event.time_estimated);
        self.truncated.push(event.truncated);
    }

    fn push_text(&mut self, text: String) {
        self.ids.push(None);
        self.times.push(0);
        self.received.push(0);
        self.devices.push(Some(String::new()));
        self.sources.push(Some("thinglog".to_owned()));
        self.severities.push(17);
        self.levels.push(Some("ERROR".to_owned()));
        self.messages.push(Some(text));
        self.attributes.push(None);
        self.estimated.push(true);
        self.truncated.push(false);
    }

    fn write(&self, rows: &mut Columns<'_>) -> Result<(), ParquetError> {
        texts(rows, &self.ids, true)?;
        column::<Int64Type>(rows, &self.times, None)?;
        column::<Int64Type>(rows, &self.received, None)?;
        texts(rows, &self.devices, false)?;
        texts(rows, &self.sources, false)?;
        column::<Int32Type>(rows, &self.severities, None)?;
        texts(rows, &self.levels, false)?;
        texts(rows, &self.messages, false)?;
        texts(rows, &self.attributes, true)?;
        column::<BoolType>(rows, &self.estimated, None)?;
        column::<BoolType>(rows, &self.truncated, None)
    }
}

type Columns<'a> = SerializedRowGroupWriter<'a, Vec<u8>>;

fn texts(rows: &mut Columns<'_>, texts: &Texts, optional: bool) -> Result<(), ParquetError> {
    column::<ByteArrayType>(rows, &texts.values, optional.then_some(&texts.there))
}

/// Writes the next column.
fn column<T: DataType>(
    rows: &mut Columns<'_>,
    values: &[T::T],
    there: Option<&Vec<i16>>,
) -> Result<(), ParquetError> {
    let next = rows.next_column()?;
    let mut next = next.ok_or_else(|| ParquetError::General("no such column".into()))?;
    next.typed::<T>()
        .write_batch(values, there.map(Vec::as_slice), None)?;
    next.close()
}
