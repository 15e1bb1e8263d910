//! TensorBoard event files: scalars by step, written without protobuf or TensorFlow.
//!
//! A file is a sequence of TFRecords (length, masked CRC-32C, payload, masked CRC-32C), each
//! payload one `Event` message (tensorflow/core/util/event.proto). A resumed run opens a further
//! file whose session log tells readers to forget the steps that will be written again. The first value of a metric in a
//! file says what it means, too.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::Result;
use crate::error::io_error;
use crate::metrics;

/// Appends events to one new file in a TensorBoard folder.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: File,
    /// Tags that have been described.
    described: BTreeSet<String>,
}

impl EventWriter {
    /// Opens a new event file in `dir` (made when missing) behind those already there.
    ///
    /// Readers drop what earlier files say about steps from `purge_from` on: 0 for a run that
    /// starts, the checkpoint's step + 1 for one that goes on.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    pub fn create(dir: &Path, purge_from: u64) -> Result<Self> {
        fs::create_dir_all(dir).map_err(io_error(dir))?;
        let mut index = 0;
        // Readers take the files of a folder in the order of their names.
        let (path, file) = loop {
            let path = dir.join(format!("events.out.tfevents.{index:010}.rlt"));
            match OpenOptions::new().append(true).create_new(true).open(&path) {
                Ok(file) => break (path, file),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => index += 1,
                Err(e) => return Err(io_error(&path)(e)),
            }
        };
        let mut writer = Self { path, file, described: BTreeSet::new() };
        writer.append(&Event::version(unix_seconds()))?;
        writer.append(&Event::session_start(unix_seconds(), purge_from))?;
        Ok(writer)
    }

    /// Adds one event that holds a value for each tag. Values that are not finite are kept: readers show them.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    pub fn scalars(&mut self, step: u64, values: &[(&str, f32)]) -> Result<()> {
        let mut described = Vec::with_capacity(values.len());
        for &(tag, value) in values {
            let is_new = self.described.insert(tag.to_owned());
            let description = if is_new { description(tag) } else { String::new() };
            described.push(Scalar { tag, value, description });
        }
        self.append(&Event::scalars(unix_seconds(), step, &described))
    }

    fn append(&mut self, event: &Event) -> Result<()> {
        self.file.write_all(&record(&event.0)).map_err(io_error(&self.path))
    }
}

/// What TensorBoard shows beside a chart; empty for what is in no table.
fn description(tag: &str) -> String {
    metrics::find(tag)
        .map_or_else(String::new, |metric| format!("{} ({})", metric.meaning, metric.unit.text()))
}

/// One value of an event.
struct Scalar<'a> {
    tag: &'a str,
    value: f32,
    /// Empty where it was given before.
    description: String,
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// A TFRecord around `payload`.
fn record(payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u64).to_le_bytes();
    let mut bytes = Vec::with_capacity(payload.len() + 16);
    bytes.extend(length);
    bytes.extend(masked_crc(&length).to_le_bytes());
    bytes.extend(payload);
    bytes.extend(masked_crc(payload).to_le_bytes());
    bytes
}

/// CRC-32C, rotated and shifted as tensorflow/core/lib/hash/crc32c.h does, since sums of sums collide.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// An encoded `Event` message. Field numbers are those of event.proto and summary.proto.
struct Event(Vec<u8>);

impl Event {
    fn version(wall_time: f64) -> Self {
        let mut event = Self::at(wall_time);
        put_bytes(&mut event.0, 3, b"brain.Event:2");
        event
    }

    /// `SessionLog { status: START }`: from this step on, earlier files no longer count.
    fn session_start(wall_time: f64, step: u64) -> Self {
        let mut event = Self::at(wall_time);
        put_varint(&mut event.0, 2, step);
        let mut session = Vec::new();
        put_varint(&mut session, 1, 1);
        put_bytes(&mut event.0, 7, &session);
        event
    }

    fn scalars(wall_time: f64, step: u64, values: &[Scalar]) -> Self {
        let mut event = Self::at(wall_time);
        put_varint(&mut event.0, 2, step);
        let mut summary = Vec::new();
        for Scalar { tag, value, description } in values {
            let mut entry = Vec::new();
            put_bytes(&mut entry, 1, tag.as_bytes());
            put_key(&mut entry, 2, WIRE_32_BIT);
            entry.extend(value.to_le_bytes());
            if !description.is_empty() {
                let mut metadata = Vec::new();
                put_bytes(&mut metadata, 3, description.as_bytes());
                put_bytes(&mut entry, 9, &metadata);
            }
            put_bytes(&mut summary, 1, &entry);
        }
        put_bytes(&mut event.0, 5, &summary);
        event
    }

    fn at(wall_time: f64) -> Self {
        let mut bytes = Vec::new();
        put_key(&mut bytes, 1, WIRE_64_BIT);
        bytes.extend(wall_time.to_le_bytes());
        Self(bytes)
    }
}

const WIRE_VARINT: u64 = 0;
const WIRE_64_BIT: u64 = 1;
const WIRE_BYTES: u64 = 2;
const WIRE_32_BIT: u64 = 5;

fn put_key(out: &mut Vec<u8>, field: u64, wire_type: u64) {
    push_varint(out, field << 3 | wire_type);
}

/// A varint field; a zero is left out, as proto3 does.
fn put_varint(out: &mut Vec<u8>, field: u64, value: u64) {
    if value != 0 {
        put_key(out, field, WIRE_VARINT);
        push_varint(out, value);
    }
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_key(out, field, WIRE_BYTES);
    push_varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that TensorBoard's own writer makes of the same event:
    ///
    /// ```python
    /// from tensorboard.compat.proto.event_pb2 import Event        # tensorboard 2.21
    /// from tensorboard.compat.proto.summary_pb2 import Summary
    /// from tensorboard.summary.writer.record_writer import RecordWriter
    /// import io
    /// value = lambda tag, x: Summary.Value(tag=tag, simple_value=x)
    /// event = Event(wall_time=1750000000.25, step=300,
    ///               summary=Summary(value=[value("reward_mean", -0.5), value("loss", 1.25)]))
    /// out = io.BytesIO(); RecordWriter(out).write(event.SerializeToString()); print(out.getvalue().hex())
    /// ```
    const GOLDEN: &str = "2f000000000000006d5d1d500900001060b813da4110ac022a210a120a0b7265776172645f6d65616e15000000bf0a0b0a046c6f7373150000a03f73aa8289";

    /// The same writer's bytes of an event at 2.0 s of step 1 whose value has
    /// `metadata=SummaryMetadata(summary_description="Mean, nats")`.
    const GOLDEN_DESCRIBED: &str = "2800000000000000ff70164a09000000000000004010012a1b0a190a046c6f7373150000a03f4a0c1a0a4d65616e2c206e617473b2cdb8cc";

    #[test]
    fn a_record_is_byte_for_byte_tensorboards_own() {
        let scalar = |tag, value| Scalar { tag, value, description: String::new() };
        let event =
            Event::scalars(1_750_000_000.25, 300, &[scalar("reward_mean", -0.5), scalar("loss", 1.25)]);
        assert_eq!(record(&event.0), bytes(GOLDEN));
        let description = "Mean, nats".to_owned();
        let event = Event::scalars(2.0, 1, &[Scalar { tag: "loss", value: 1.25, description }]);
        assert_eq!(record(&event.0), bytes(GOLDEN_DESCRIBED));
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(byte).collect()
    }

    #[test]
    fn a_metric_is_described_once_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(dir.path(), 0).unwrap();
        for step in 1..=3 {
            writer.scalars(step, &[("loss", 1.0), ("of_nobody", 2.0)]).unwrap();
        }
        let file = fs::read(&writer.path).unwrap();
        let count = |text: &str| file.windows(text.len()).filter(|part| *part == text.as_bytes()).count();
        assert_eq!([count(metrics::LOSS.meaning), count("of_nobody")], [1, 3]);
    }

    #[test]
    fn varints_take_seven_bits_a_byte() {
        for (value, expected) in [(0, vec![0]), (127, vec![127]), (128, vec![0x80, 1]), (300, vec![0xac, 2])]
        {
            let mut bytes = Vec::new();
            push_varint(&mut bytes, value);
            assert_eq!(bytes, expected);
        }
    }

    #[test]
    fn every_start_opens_a_later_file() {
        let dir = tempfile::tempdir().unwrap();
        let first = EventWriter::create(dir.path(), 0).unwrap();
        let second = EventWriter::create(dir.path(), 26).unwrap();
        assert!(first.path.file_name() < second.path.file_name());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
